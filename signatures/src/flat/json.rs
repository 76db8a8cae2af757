//! The flat form as JSON, for findings and for people.

use haechi_ebpf::event::Field;
use serde_json::{Map, Value};

use super::keys::Key;
use super::{Host, Need, Tree, decoded, walk};
use crate::model::Event;

/// The whole flat form of `event`.
#[must_use]
pub fn event_json(event: &Event<'_>, host: &Host) -> Value {
    walk(event, host, Need::ALL, &mut Json)
}

/// One field of `event`, decoded.
#[must_use]
pub fn value_json(event: &Event<'_>, field: Field) -> Option<Value> {
    let index = field.0 as usize;
    Some(decoded(event.def().fields.get(index)?, event.view.value(index)?, &mut Json))
}

struct Json;

impl Tree for Json {
    type Value = Value;

    fn text(&mut self, text: &str) -> Value {
        text.into()
    }

    fn uint(&mut self, number: u64) -> Value {
        number.into()
    }

    fn int(&mut self, number: i64) -> Value {
        number.into()
    }

    fn truth(&mut self, truth: bool) -> Value {
        truth.into()
    }

    fn list(&mut self, items: Vec<Value>) -> Value {
        items.into()
    }

    fn object(&mut self, members: Vec<(Key, Value)>) -> Value {
        Value::Object(members.into_iter().map(|(k, v)| (k.name().to_owned(), v)).collect::<Map<_, _>>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flat::keys;
    use crate::record::Builder;
    use haechi_ebpf::event::{ptrace, sched_process_exec as exec, security_socket_connect as connect};
    use haechi_ebpf::program::Step;
    use haechi_ebpf::wire::{View, at, flag, var};
    use serde_json::json;

    fn flat(bytes: &[u8]) -> Value {
        let view = View::parse(bytes).expect("a record");
        event_json(&Event::join(view, &()), &Host { name: "node".into(), boot: 1000 })
    }

    #[test]
    fn the_old_form_is_kept() {
        let bytes = Builder::new(&ptrace::DEF)
            .time(7)
            .process(41, 5, 1)
            .header_u32(at::PPID, 40)
            .header_u32(at::UID, 1000)
            .header_u64(at::CGROUP, 77)
            .comm("gdb")
            .flags(flag::COMPAT)
            .ret(-1)
            .number(ptrace::field::request, 4)
            .number(ptrace::field::pid, 42)
            .number(ptrace::field::addr, 0xdead)
            .finish();
        let want = json!({
            "timestamp": 1007, "threadStartTime": 1005, "processorId": 0, "processId": 41, "cgroupId": 77,
            "threadId": 41, "hostProcessId": 41, "hostThreadId": 41, "hostParentProcessId": 40, "userId": 1000,
            "mountNamespace": 0, "pidNamespace": 0, "processName": "gdb", "hostName": "node", "containerId": "",
            "eventId": "18", "eventName": "ptrace", "returnValue": -1, "syscall": "ptrace",
            "contextFlags": {"containerStarted": false, "isCompat": true}, "argsNum": 3,
            "args": [
                {"name": "request", "type": "long", "value": "PTRACE_POKETEXT"},
                {"name": "pid", "type": "int", "value": 42},
                {"name": "addr", "type": "void*", "value": "0xdead"},
            ],
        });
        assert_eq!(flat(&bytes), want);
        let bytes = Builder::new(&ptrace::DEF).flags((Step::FexitSyscall as u16) << flag::STEP_SHIFT).finish();
        assert_eq!(flat(&bytes)["hook"], "fexit-syscall");
    }

    #[test]
    fn arguments_say_what_is_wrong_with_them() {
        let bytes = Builder::new(&exec::DEF)
            .marked(exec::field::cmdpath, b"/tmp/\xff", 900, var::USER)
            .strings(exec::field::argv, ["a", "", "c"])
            .strings(exec::field::env, [""; 0])
            .number(exec::field::inode_mode, 0o100_755)
            .finish();
        let want = json!([
            {"name": "cmdpath", "type": "const char*", "value": "/tmp/\u{fffd}", "truncated": true,
             "trueLength": 900, "fromUser": true},
            {"name": "inode_mode", "type": "unsigned int", "value": "S_IFREG"},
            {"name": "argv", "type": "const char**", "value": ["a", "", "c"]},
            {"name": "env", "type": "const char**", "value": []},
        ]);
        assert_eq!(flat(&bytes)[keys::ARGS.name()], want);
    }

    #[test]
    fn an_address_is_its_members() {
        let build = |a: &str| Builder::new(&connect::DEF).named("remote_addr", &json!(a)).expect("fits").finish();
        let addr = |a: &str| flat(&build(a))["args"][0]["value"].clone();
        assert_eq!(addr("1.2.3.4:80"), json!({"sa_family": "AF_INET", "sin_addr": "1.2.3.4", "sin_port": "80"}));
        assert_eq!(addr("/x"), json!({"sa_family": "AF_UNIX", "sun_path": "/x"}));
        assert_eq!(addr("[::1]:8")["sin6_port"], json!("8"));
    }
}
