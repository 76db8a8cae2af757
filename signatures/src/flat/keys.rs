//! Names of the members of the flat form. A table of its own so that an engine can keep each name ready-made, and so
//! that what nobody reads can be left out by a bit.

/// A name: its position in [`KEYS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key(pub u8);

impl Key {
    /// The name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        KEYS[self.0 as usize]
    }

    /// Its bit in a set of names.
    #[must_use]
    pub const fn bit(self) -> u64 {
        1 << self.0
    }
}

macro_rules! keys {
    ($( $id:ident = $name:literal; )+) => {
        #[expect(non_camel_case_types, clippy::upper_case_acronyms, reason = "positions of the constants below")]
        enum Position { $($id),+ }
        $( #[doc = concat!("`", $name, "`.")] pub const $id: Key = Key(Position::$id as u8); )+
        /// All names.
        pub const KEYS: &[&str] = &[$($name),+];
    };
}

keys! {
    TIMESTAMP = "timestamp";
    THREAD_START_TIME = "threadStartTime";
    PROCESSOR_ID = "processorId";
    PROCESS_ID = "processId";
    CGROUP_ID = "cgroupId";
    THREAD_ID = "threadId";
    PARENT_PROCESS_ID = "parentProcessId";
    HOST_PROCESS_ID = "hostProcessId";
    HOST_THREAD_ID = "hostThreadId";
    HOST_PARENT_PROCESS_ID = "hostParentProcessId";
    USER_ID = "userId";
    MOUNT_NAMESPACE = "mountNamespace";
    PID_NAMESPACE = "pidNamespace";
    PROCESS_NAME = "processName";
    EXECUTABLE = "executable";
    PATH = "path";
    HOST_NAME = "hostName";
    CONTAINER_ID = "containerId";
    CONTAINER = "container";
    ID = "id";
    KUBERNETES = "kubernetes";
    POD_UID = "podUID";
    EVENT_ID = "eventId";
    EVENT_NAME = "eventName";
    ARGS_NUM = "argsNum";
    RETURN_VALUE = "returnValue";
    SYSCALL = "syscall";
    CONTEXT_FLAGS = "contextFlags";
    CONTAINER_STARTED = "containerStarted";
    IS_COMPAT = "isCompat";
    ARGS = "args";
    NAME = "name";
    TYPE = "type";
    VALUE = "value";
    TRUNCATED = "truncated";
    TRUE_LENGTH = "trueLength";
    FROM_USER = "fromUser";
    HOOK = "hook";
    SA_FAMILY = "sa_family";
    SIN_ADDR = "sin_addr";
    SIN_PORT = "sin_port";
    SIN6_ADDR = "sin6_addr";
    SIN6_PORT = "sin6_port";
    SIN6_FLOWINFO = "sin6_flowinfo";
    SIN6_SCOPEID = "sin6_scopeid";
    SUN_PATH = "sun_path";
}

const _: () = assert!(KEYS.len() <= 64);

/// The name spelled `name`.
#[must_use]
pub fn by_name(name: &str) -> Option<Key> {
    KEYS.iter().position(|k| *k == name).map(|i| Key(i as u8))
}
