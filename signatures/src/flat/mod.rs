//! The flat form of an event: the JSON that Tracee's Rego signatures were written for. One walk over the event table
//! builds it, into whatever kind of tree the reader wants; it knows no engine.
//!
//! Beyond the old form, an argument that was cut or that a process may have changed says so (`truncated`,
//! `trueLength`, `fromUser`), and `hook` is the kind of hook that saw the event. Arguments that could not be had are left
//! out.

mod json;
pub mod keys;

use haechi_ebpf::event::{EventDef, Field, FieldDef, FieldType};
use haechi_ebpf::symbol::Symbol;
use haechi_ebpf::wire::{Text, Value, at, flag};

use crate::model::Event;
use crate::sockaddr::SockAddr;
pub use json::{event_json, value_json};
use keys::Key;

/// What the events of one node have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Host {
    /// Its name; empty leaves it out.
    pub name: String,
    /// Nanoseconds since the epoch at which it booted: added to times since boot.
    pub boot: u64,
}

/// Which parts of the form anybody will read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Need {
    /// Names at the top, by [`Key::bit`].
    pub(crate) top: u64,
    /// Arguments, by position in the event's table.
    pub(crate) args: u64,
}

impl Need {
    pub(crate) const ALL: Self = Self { top: u64::MAX, args: u64::MAX };

    pub(crate) const fn and(self, other: Self) -> Self {
        Self { top: self.top | other.top, args: self.args | other.args }
    }
}

/// What is said of an argument besides its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Marks {
    true_len: Option<u32>,
    from_user: bool,
}

impl Marks {
    fn of(text: &Text<'_>) -> Option<Self> {
        (text.truncated || text.from_user)
            .then(|| Self { true_len: text.truncated.then_some(text.true_len), from_user: text.from_user })
    }

    pub(crate) fn members<T: Tree + ?Sized>(self, tree: &mut T, into: &mut Vec<(Key, T::Value)>) {
        if let Some(len) = self.true_len {
            into.push((keys::TRUNCATED, tree.truth(true)));
            into.push((keys::TRUE_LENGTH, tree.uint(len.into())));
        }
        if self.from_user {
            into.push((keys::FROM_USER, tree.truth(true)));
        }
    }
}

/// A kind of tree that the walk can build.
pub(crate) trait Tree {
    type Value;

    fn text(&mut self, text: &str) -> Self::Value;
    fn uint(&mut self, number: u64) -> Self::Value;
    fn int(&mut self, number: i64) -> Self::Value;
    fn truth(&mut self, truth: bool) -> Self::Value;
    fn list(&mut self, items: Vec<Self::Value>) -> Self::Value;
    fn object(&mut self, members: Vec<(Key, Self::Value)>) -> Self::Value;

    /// A text that comes again and again.
    fn known(&mut self, text: &'static str) -> Self::Value {
        self.text(text)
    }

    /// Argument number `index` of `def`, with its value.
    fn arg(&mut self, def: &'static EventDef, index: usize, value: Self::Value, marks: Option<Marks>) -> Self::Value {
        let field = &def.fields[index];
        let mut members = vec![
            (keys::NAME, self.known(field.name)),
            (keys::TYPE, self.known(field.ty.c_name())),
            (keys::VALUE, value),
        ];
        if let Some(marks) = marks {
            marks.members(self, &mut members);
        }
        self.object(members)
    }
}

/// Builds the parts of `event`'s flat form that are needed.
pub(crate) fn walk<T: Tree>(event: &Event<'_>, host: &Host, need: Need, tree: &mut T) -> T::Value {
    let view = &event.view;
    let mut top = Vec::with_capacity(28);
    macro_rules! put {
        ($key:ident, $value:expr) => {
            if need.top & keys::$key.bit() != 0 {
                top.push((keys::$key, $value));
            }
        };
    }
    macro_rules! number {
        ($key:ident, $offset:ident) => {
            put!($key, tree.uint(view.header_u32(at::$offset).into()))
        };
    }

    put!(TIMESTAMP, tree.uint(host.boot.saturating_add(view.time())));
    if view.header_u32(at::TID) == view.header_u32(at::TGID) {
        put!(THREAD_START_TIME, tree.uint(host.boot.saturating_add(view.header_u64(at::START))));
    }
    put!(PROCESSOR_ID, tree.uint(view.cpu().into()));
    number!(PROCESS_ID, NS_TGID);
    put!(CGROUP_ID, tree.uint(view.header_u64(at::CGROUP)));
    number!(THREAD_ID, NS_TID);
    if let Some(parent) = event.process.and_then(|p| event.processes.get(p.parent)) {
        put!(PARENT_PROCESS_ID, tree.uint(parent.ns_pid.into()));
    }
    number!(HOST_PROCESS_ID, TGID);
    number!(HOST_THREAD_ID, TID);
    number!(HOST_PARENT_PROCESS_ID, PPID);
    number!(USER_ID, UID);
    number!(MOUNT_NAMESPACE, MNT_NS);
    number!(PID_NAMESPACE, PID_NS);
    put!(PROCESS_NAME, tree.text(&String::from_utf8_lossy(view.comm())));
    if !event.exe().is_empty() && need.top & keys::EXECUTABLE.bit() != 0 {
        let path = tree.text(event.exe());
        top.push((keys::EXECUTABLE, tree.object(vec![(keys::PATH, path)])));
    }
    if !host.name.is_empty() {
        put!(HOST_NAME, tree.text(&host.name));
    }
    let container = event.container();
    // Always there, empty on the host: old rules compare it with "".
    put!(CONTAINER_ID, tree.text(container.map_or("", |c| &c.id)));
    if let Some(container) = container {
        if need.top & keys::CONTAINER.bit() != 0 {
            let id = tree.text(&container.id);
            top.push((keys::CONTAINER, tree.object(vec![(keys::ID, id)])));
        }
        if let Some(uid) = container.pod_uid.as_deref().filter(|_| need.top & keys::KUBERNETES.bit() != 0) {
            let uid = tree.text(uid);
            top.push((keys::KUBERNETES, tree.object(vec![(keys::POD_UID, uid)])));
        }
    }
    put!(EVENT_ID, tree.text(&view.event().to_string()));
    let name = event.name();
    put!(EVENT_NAME, tree.known(name));
    // A hook that sees no result counts as 0, as it always did.
    put!(RETURN_VALUE, tree.int(view.ret().unwrap_or(0)));
    if event.def().tags.contains(&"syscalls") {
        put!(SYSCALL, tree.known(name));
    }
    if let Some(step) = view.step() {
        put!(HOOK, tree.known(step.name()));
    }
    if need.top & keys::CONTEXT_FLAGS.bit() != 0 {
        let started = tree.truth(container.is_some());
        let compat = tree.truth(view.flags() & flag::COMPAT != 0);
        let members = vec![(keys::CONTAINER_STARTED, started), (keys::IS_COMPAT, compat)];
        top.push((keys::CONTEXT_FLAGS, tree.object(members)));
    }
    if need.top & (keys::ARGS.bit() | keys::ARGS_NUM.bit()) != 0 {
        let (args, count) = args(event, need.args, tree);
        put!(ARGS_NUM, tree.uint(count));
        put!(ARGS, tree.list(args));
    }
    tree.object(top)
}

/// The arguments that are needed, and how many there are in all.
fn args<T: Tree>(event: &Event<'_>, need: u64, tree: &mut T) -> (Vec<T::Value>, u64) {
    let def = event.def();
    let present = event.view.header_u64(at::PRESENT) & (u64::MAX >> (64 - def.fields.len().clamp(1, 64)));
    let wanted = present & need;
    let mut args = Vec::with_capacity(wanted.count_ones() as usize);
    for (index, field) in def.fields.iter().enumerate().filter(|(i, _)| wanted >> i & 1 == 1) {
        if let Some(value) = event.view.value(index) {
            let marks = event.view.text(Field(index as u8)).as_ref().and_then(Marks::of);
            let value = decoded(field, value, tree);
            args.push(tree.arg(def, index, value, marks));
        }
    }
    (args, present.count_ones().into())
}

/// A value as rules and people read it: what has a spelling is spelled.
pub(crate) fn decoded<T: Tree>(field: &FieldDef, value: Value<'_>, tree: &mut T) -> T::Value {
    match value {
        Value::Int(n) if field.symbol == Symbol::None => tree.int(n),
        Value::Uint(n) if field.symbol == Symbol::None && field.ty != FieldType::Pointer => tree.uint(n),
        Value::Int(n) => spelled(field.symbol, n as u64, tree),
        Value::Uint(n) if field.ty == FieldType::Pointer => tree.text(&format!("{n:#x}")),
        Value::Uint(n) => spelled(field.symbol, n, tree),
        Value::Bool(b) => tree.truth(b),
        Value::Text(text) => match field.ty {
            FieldType::StrArray => {
                let items = text.strings().map(|s| tree.text(&String::from_utf8_lossy(s))).collect();
                tree.list(items)
            }
            FieldType::Bytes => tree.text(&data_encoding::BASE64.encode(text.bytes)),
            FieldType::Ip => tree.text(&crate::sockaddr::ip_text(text.bytes)),
            FieldType::SockAddr => {
                let members = SockAddr::parse(text.bytes).map(|a| a.members()).unwrap_or_default();
                let known = members.iter().filter_map(|(k, v)| Some((keys::by_name(k)?, tree.text(v)))).collect();
                tree.object(known)
            }
            _ => tree.text(&String::from_utf8_lossy(text.bytes)),
        },
    }
}

fn spelled<T: Tree>(symbol: Symbol, value: u64, tree: &mut T) -> T::Value {
    tree.text(&symbol.of(value).to_string())
}
