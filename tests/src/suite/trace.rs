//! ptrace and memfd_create, in both ABIs; and what the programs log of what they did.

use anyhow::{Result, ensure};
use haechi_ebpf::event::{memfd_create, ptrace};
use serde::Deserialize;

use crate::facts::Task;
use crate::harness::{Context, Spec, Test, Want, fields, who};

pub(super) const TESTS: &[Test] = &[
    ("ptrace::traceme", |c| traced(c, "traceme", false)),
    ("ptrace::attach", |c| traced(c, "attach", false)),
    ("ptrace::poketext", |c| traced(c, "poketext", false)),
    ("ptrace::pokedata", |c| traced(c, "pokedata", false)),
    ("ptrace::compat_traceme", |c| traced(c, "traceme", true)),
    ("ptrace::compat_attach", |c| traced(c, "attach", true)),
    ("ptrace::compat_poketext", |c| traced(c, "poketext", true)),
    ("ptrace::compat_pokedata", |c| traced(c, "pokedata", true)),
    ("memfd::create", |c| memfd(c, "secret", 1, false)),
    ("memfd::sealable", |c| memfd(c, "with space, \"quotes\" and \\", 3, false)),
    ("memfd::longest_name", |c| memfd(c, &"n".repeat(249), 0, false)),
    ("memfd::compat", |c| memfd(c, "secret32", 1, true)),
    ("memfd::logged", logged),
];

#[derive(Deserialize)]
struct Call {
    request: i64,
    pid: i32,
    addr: u64,
    data: u64,
    ret: i64,
}

/// All calls that the actor made, each with its arguments and its result, and no others.
fn traced(context: &Context, what: &str, compat: bool) -> Result<()> {
    let (what_arg, compat_arg) = (format!("what={what}"), format!("compat={}", u8::from(compat)));
    let (stopped, did) =
        context.watch(&["--events", "ptrace"], || context.actor(&["ptrace", &what_arg, &compat_arg]))?;
    let calls: Vec<Call> = did.part("/calls")?;
    let child: Task = did.part("/child")?;
    let doer = if what == "traceme" { child.pid } else { did.me.pid };
    let lines = stopped.by("ptrace", doer);
    ensure!(lines.len() == calls.len(), "{} of {} calls: {:?}", lines.len(), calls.len(), stopped.words);
    for (line, call) in lines.iter().zip(&calls) {
        fields(
            line,
            &ptrace::DEF,
            &[
                ("request", call.request.into()),
                ("pid", call.pid.into()),
                ("addr", call.addr.into()),
                ("data", call.data.into()),
            ],
        )?;
        ensure!(line.ret() == Some(call.ret), "returned {:?}, not {}: {}", line.ret(), call.ret, line.0);
        ensure!(line.compat() == compat, "compat is {}: {}", line.compat(), line.0);
        if what != "traceme" {
            who(line, &did.me)?;
        }
    }
    Ok(())
}

fn memfd(context: &Context, name: &str, flags: u32, compat: bool) -> Result<()> {
    let args = [format!("name={name}"), format!("flags={flags}"), format!("compat={}", u8::from(compat))];
    let args = ["memfd", &args[0], &args[1], &args[2]];
    let (stopped, did) = context.watch(&["--events", "memfd_create"], || context.actor(&args))?;
    let line = stopped.one("memfd_create", did.me.pid, |_| true)?;
    who(line, &did.me)?;
    fields(line, &memfd_create::DEF, &[("uname", Want::Is(name.into())), ("flags", flags.into())])?;
    ensure!(line.ret() == Some(did.number("/fds/0")?), "returned {:?}: {}", line.ret(), line.0);
    ensure!(line.compat() == compat, "compat is {}: {}", line.compat(), line.0);
    Ok(())
}

/// The programs say what they sent, where that was asked for, whatever else the agent shows of itself.
fn logged(context: &Context) -> Result<()> {
    let said = format!("event {}: ", memfd_create::ID);
    let spec = |config| Spec::run(&["--events", "memfd_create"]).config(config);
    for (config, wanted) in [("kernel:\n  debug_log: true\n", true), ("log: debug\n", false)] {
        let (stopped, did) = context.watch_with(&spec(config), || context.actor(&["memfd", "name=x"]))?;
        stopped.one("memfd_create", did.me.pid, |_| true)?;
        let line = stopped.words.iter().find(|w| w.contains(&said) && w.ends_with("result 0"));
        ensure!(line.is_some() == wanted, "with {config:?} the programs logged {line:?}: {:?}", stopped.words);
    }
    Ok(())
}
