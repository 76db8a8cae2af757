//! Writes records in userspace: for events that the agent itself makes, and for tests of everything right of the ring.
//! The kernel has its own writer; both are read by the one decoder in [`haechi_ebpf::wire`].

use haechi_ebpf::event::{EventDef, Field, FieldType};
use haechi_ebpf::wire::{HEADER, RECORD_MAX, VERSION, at, flag, var, var_slot};
use serde_json::Value;

use crate::sockaddr::SockAddr;

/// Why a field could not be set by its name.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The event has no such field.
    #[error("event {event} has no field {field}")]
    NoField {
        /// The event.
        event: &'static str,
        /// What was asked for.
        field: String,
    },
    /// The value does not fit the field.
    #[error("field {field} of event {event} is a {ty:?} and takes no {value}")]
    Type {
        /// The event.
        event: &'static str,
        /// The field.
        field: &'static str,
        /// Its type.
        ty: FieldType,
        /// What was given.
        value: Value,
    },
}

/// A record in the making.
#[derive(Clone, Debug)]
pub struct Builder {
    def: &'static EventDef,
    bytes: Vec<u8>,
    present: u64,
    flags: u16,
}

impl Builder {
    /// A record of `def` with nothing in it.
    #[must_use]
    pub fn new(def: &'static EventDef) -> Self {
        let mut bytes = vec![0; HEADER + 8 * def.fields.len()];
        put(&mut bytes, at::EVENT, &def.id.to_le_bytes());
        put(&mut bytes, at::SLOTS, &[def.fields.len() as u8, VERSION]);
        Self { def, bytes, present: 0, flags: 0 }
    }

    /// Sets a `u32` of the header, by its offset in [`at`].
    #[must_use]
    pub fn header_u32(mut self, offset: usize, value: u32) -> Self {
        put(&mut self.bytes, offset, &value.to_le_bytes());
        self
    }

    /// Sets a `u64` of the header, by its offset in [`at`].
    #[must_use]
    pub fn header_u64(mut self, offset: usize, value: u64) -> Self {
        put(&mut self.bytes, offset, &value.to_le_bytes());
        self
    }

    /// Sets bits of the flags.
    #[must_use]
    pub fn flags(mut self, flags: u16) -> Self {
        self.flags |= flags;
        self
    }

    /// Nanoseconds since boot.
    #[must_use]
    pub fn time(self, ns: u64) -> Self {
        self.header_u64(at::TIME, ns)
    }

    /// The process, its only thread, and which program of it; in its own pid namespace it has the same number.
    #[must_use]
    pub fn process(self, pid: u32, start: u64, exec_id: u32) -> Self {
        [at::TID, at::TGID, at::NS_TID, at::NS_TGID]
            .into_iter()
            .fold(self, |b, offset| b.header_u32(offset, pid))
            .header_u64(at::START, start)
            .header_u32(at::EXEC_ID, exec_id)
    }

    /// Name of the thread, cut to 15 bytes.
    #[must_use]
    pub fn comm(mut self, comm: &str) -> Self {
        let mut name = [0; 16];
        let len = comm.len().min(15);
        name[..len].copy_from_slice(&comm.as_bytes()[..len]);
        put(&mut self.bytes, at::COMM, &name);
        self
    }

    /// What the call returned.
    #[must_use]
    pub fn ret(self, ret: i64) -> Self {
        self.flags(flag::HAS_RET).header_u64(at::RET, ret as u64)
    }

    /// Sets a fixed field; signed numbers are given sign-extended.
    #[must_use]
    pub fn number(mut self, field: Field, value: u64) -> Self {
        debug_assert!(!self.def.fields[field.0 as usize].ty.is_variable(), "{} holds text", self.def.name);
        self.slot(field, value);
        self
    }

    /// Sets a variable field.
    #[must_use]
    pub fn text(self, field: Field, bytes: impl AsRef<[u8]>) -> Self {
        let len = bytes.as_ref().len();
        self.marked(field, bytes, len, 0)
    }

    /// Sets a variable field that was `true_len` long, with marks of [`var`].
    #[must_use]
    pub fn marked(mut self, field: Field, bytes: impl AsRef<[u8]>, true_len: usize, mut marks: u32) -> Self {
        debug_assert!(self.def.fields[field.0 as usize].ty.is_variable(), "{} holds a number", self.def.name);
        let offset = self.bytes.len();
        let bytes = bytes.as_ref();
        let fits = &bytes[..bytes.len().min(RECORD_MAX - offset)];
        if fits.len() < true_len {
            marks |= var::TRUNCATED;
        }
        self.bytes.extend_from_slice(fits);
        self.slot(field, var_slot(offset as u64, fits.len() as u64, true_len as u64, marks));
        self
    }

    /// Sets a field of strings.
    #[must_use]
    pub fn strings<S: AsRef<[u8]>>(self, field: Field, strings: impl IntoIterator<Item = S>) -> Self {
        let mut bytes = Vec::new();
        for s in strings {
            bytes.extend_from_slice(s.as_ref());
            bytes.push(0);
        }
        self.text(field, bytes)
    }

    /// Sets the field called `name` from JSON: numbers, truths, strings, arrays of strings; a socket address is written
    /// `10.0.0.1:80`, `[::1]:80`, `/run/x.sock` or `@abstract`; an IP address as usual.
    ///
    /// # Errors
    /// There is no such field, or the value is not of its type.
    pub fn named(self, name: &str, value: &Value) -> Result<Self, BuildError> {
        let event = self.def.name;
        let index = self.def.field(name).ok_or_else(|| BuildError::NoField { event, field: name.to_owned() })?;
        let def = &self.def.fields[index];
        let field = Field(index as u8);
        let wrong = || BuildError::Type { event, field: def.name, ty: def.ty, value: value.clone() };
        Ok(match def.ty {
            FieldType::StrArray => {
                let items = value.as_array().ok_or_else(wrong)?;
                self.strings(field, items.iter().map(Value::as_str).collect::<Option<Vec<_>>>().ok_or_else(wrong)?)
            }
            FieldType::SockAddr => {
                let text = value.as_str().ok_or_else(wrong)?;
                let addr = match (text.parse(), text.strip_prefix('@')) {
                    (Ok(std::net::SocketAddr::V4(a)), _) => SockAddr::V4(a),
                    (Ok(std::net::SocketAddr::V6(a)), _) => SockAddr::V6(a),
                    (_, Some(name)) => SockAddr::Abstract(name.as_bytes()),
                    _ => SockAddr::Unix(text.as_bytes()),
                };
                self.text(field, addr.to_bytes())
            }
            FieldType::Ip => match value.as_str().and_then(|text| text.parse().ok()).ok_or_else(wrong)? {
                std::net::IpAddr::V4(a) => self.text(field, a.octets()),
                std::net::IpAddr::V6(a) => self.text(field, a.octets()),
            },
            ty if ty.is_variable() => self.text(field, value.as_str().ok_or_else(wrong)?),
            _ => {
                let number = value.as_u64().or_else(|| value.as_i64().map(|n| n as u64));
                self.number(field, number.or_else(|| value.as_bool().map(u64::from)).ok_or_else(wrong)?)
            }
        })
    }

    /// The record.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        let len = self.bytes.len() as u32;
        put(&mut self.bytes, at::LEN, &len.to_le_bytes());
        put(&mut self.bytes, at::FLAGS, &self.flags.to_le_bytes());
        put(&mut self.bytes, at::PRESENT, &self.present.to_le_bytes());
        self.bytes
    }

    fn slot(&mut self, field: Field, value: u64) {
        put(&mut self.bytes, HEADER + 8 * field.0 as usize, &value.to_le_bytes());
        self.present |= 1 << field.0;
    }
}

fn put(bytes: &mut [u8], offset: usize, value: &[u8]) {
    bytes[offset..offset + value.len()].copy_from_slice(value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use haechi_ebpf::event::{security_file_open as open, security_socket_connect as connect};
    use haechi_ebpf::wire::View;
    use serde_json::json;

    #[test]
    fn what_is_written_is_read() {
        let bytes = Builder::new(&open::DEF)
            .time(5)
            .process(7, 9, 2)
            .comm("a name that is too long")
            .ret(-13)
            .marked(open::field::pathname, "/etc/sha", 11, var::USER)
            .number(open::field::flags, 0o101)
            .finish();
        let view = View::parse(&bytes).expect("a record");
        assert_eq!((view.event(), view.time(), view.process(), view.ret()), (open::ID, 5, (7, 9), Some(-13)));
        assert_eq!(view.comm(), b"a name that is ");
        let text = view.text(open::field::pathname).expect("set");
        assert_eq!((text.bytes, text.true_len, text.truncated, text.from_user), (&b"/etc/sha"[..], 11, true, true));
        assert_eq!(view.number(open::field::flags), Some(0o101));
        assert_eq!(view.number(open::field::inode), None);
    }

    #[test]
    fn fields_are_set_by_name_and_type() {
        let builder = Builder::new(&connect::DEF);
        let bytes =
            builder.clone().named("remote_addr", &json!("[::1]:80")).and_then(|b| b.named("sockfd", &json!(-1)));
        let bytes = bytes.expect("both fit").finish();
        let view = View::parse(&bytes).expect("a record");
        let addr = view.text(connect::field::remote_addr).and_then(|t| SockAddr::parse(t.bytes));
        assert_eq!(addr.map(|a| a.to_string()).as_deref(), Some("[::1]:80"));
        assert_eq!(view.number(connect::field::sockfd), Some(u64::MAX));
        let error = builder.clone().named("nope", &json!(1)).expect_err("no such field").to_string();
        assert_eq!(error, "event security_socket_connect has no field nope");
        builder.named("sockfd", &json!("zero")).expect_err("not a number");
    }

    #[test]
    fn a_text_too_long_for_a_record_is_cut_and_says_so() {
        let bytes = Builder::new(&open::DEF).text(open::field::pathname, vec![b'a'; RECORD_MAX]).finish();
        assert_eq!(bytes.len(), RECORD_MAX);
        let text = View::parse(&bytes).expect("a record").text(open::field::pathname).expect("set");
        assert!(text.truncated && text.true_len as usize == RECORD_MAX);
    }
}
