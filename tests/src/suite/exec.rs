//! sched_process_exec: the file, its loader, arguments, environment, directory, standard input, and who it was before.

use anyhow::{Context as _, Result, ensure};
use haechi_ebpf::event::sched_process_exec::DEF;
use serde_json::{Value, json};

use crate::facts::{File, on_overlay};
use crate::harness::{Context, Did, Line, Spec, Stopped, Test, Want, fields, who};

pub(super) const TESTS: &[Test] = &[
    ("exec::plain", |c| ran(c, &["arg=report", "arg=two words", "arg="])),
    ("exec::stdin_null", |c| ran(c, &["arg=report", "stdin=null"])),
    ("exec::stdin_pipe", |c| ran(c, &["arg=report", "stdin=pipe"])),
    ("exec::stdin_socket", |c| ran(c, &["arg=report", "stdin=socket"])),
    ("exec::stdin_file", |c| ran(c, &["arg=report", "stdin=/etc/passwd"])),
    ("exec::other_name", |c| ran(c, &["argv0=sshd: root@pts/0", "arg=report"])),
    ("exec::directory", |c| ran(c, &["arg=report", "cwd=/usr/lib"])),
    ("exec::argv_of_8_kib", |c| ran(c, &["arg=report", "pad=8192"])),
    ("exec::argv_over_8_kib", long_argv),
    ("exec::environment", environment),
    ("exec::script", script),
    ("exec::from_a_thread", |c| ran(c, &["arg=report", "thread=1"])),
    ("exec::from_memory", from_memory),
    ("exec::of_32_bits", of_32_bits),
    ("exec::failed_is_none", failed),
];

const NAME: &str = "sched_process_exec";
const EVENTS: &[&str] = &["--events", NAME];

/// Runs the actor that becomes another program: what was said before and after, and the second of the two execs.
fn become_other(context: &Context, config: &str, args: &[&str]) -> Result<(Stopped, Did, Did)> {
    let mut words = vec!["exec"];
    words.extend(args);
    let (stopped, mut said) = match config {
        "" => context.watch(EVENTS, || context.actor_lines(&words))?,
        _ => context.watch_with(&Spec::run(EVENTS).config(config), || context.actor_lines(&words))?,
    };
    let after = said.pop().context("nothing after the exec")?;
    let before = said.pop().context("nothing before the exec")?;
    Ok((stopped, before, after))
}

fn second<'a>(stopped: &'a Stopped, after: &Did) -> Result<&'a Line> {
    let lines = stopped.by(NAME, after.me.pid);
    ensure!(lines.len() == 2, "{} execs instead of two: {:?}", lines.len(), stopped.words);
    Ok(lines[1])
}

/// What every field must be: from what the actor knew before, and what the new program found itself to be.
fn wanted(context: &Context, before: &Did, after: &Did) -> Result<Vec<(&'static str, Want)>> {
    let file: File = after.part("/file")?;
    let loader: Option<File> = after.part("/loader")?;
    let path: String = before.part("/path")?;
    let me = &after.me;
    let loader_seen = loader.filter(|_| !context.machine.blind_to_loader);
    let of_loader = |part: fn(&File) -> Value| loader_seen.as_ref().map_or(Want::Absent, |l| Want::Is(part(l)));
    // Guests see much of the host through overlays.
    let exact = |path: &str, want: Want| match want {
        Want::Is(_) if on_overlay(path) => Want::Fits(|n| n.as_u64().is_some_and(|n| n > 0)),
        exact => exact,
    };
    let loader_dev = exact(loader_seen.as_ref().map_or("", |l| &l.path), of_loader(|l| json!(l.dev)));
    Ok(vec![
        ("cmdpath", (&path).into()),
        ("pathname", (&me.exe).into()),
        ("dev", exact(&me.exe, file.dev.into())),
        ("inode", file.inode.into()),
        ("ctime", file.ctime.into()),
        ("inode_mode", Want::Mode(file.mode)),
        ("interpreter_pathname", of_loader(|l| json!(l.path))),
        ("interpreter_dev", loader_dev),
        ("interpreter_inode", of_loader(|l| json!(l.inode))),
        ("interpreter_ctime", of_loader(|l| json!(l.ctime))),
        ("argv", after.part::<Vec<String>>("/argv")?.into()),
        ("interp", (&path).into()),
        ("stdin_type", (after.number("/stdin_mode")? as u32 & libc::S_IFMT).into()),
        ("prev_comm", (&before.me.comm).into()),
        ("env", Want::IsOrAbsent(json!([]))),
        ("pwd", (&me.cwd).into()),
        ("login_uid", me.login_uid.into()),
        ("sessionid", me.session.into()),
        ("tty", Want::IsOrAbsent(json!(""))),
        ("euid", me.uid[1].into()),
        ("gid", me.gid[0].into()),
        ("egid", me.gid[1].into()),
        ("cap_effective", me.caps[2].into()),
        ("cap_permitted", me.caps[1].into()),
        ("cap_inheritable", me.caps[0].into()),
        ("nlink", exact(&me.exe, file.nlink.into())),
    ])
}

fn replace(want: &mut [(&'static str, Want)], name: &str, by: &Want) {
    want.iter_mut().filter(|w| w.0 == name).for_each(|w| w.1 = by.clone());
}

fn ran(context: &Context, args: &[&str]) -> Result<()> {
    let (stopped, before, after) = become_other(context, "", args)?;
    let line = second(&stopped, &after)?;
    fields(line, &DEF, &wanted(context, &before, &after)?)?;
    ensure!(!line.truncated("argv"), "marked as cut: {}", line.0);
    who(line, &after.me)
}

/// What is beyond 8 KiB is cut, and said to be.
fn long_argv(context: &Context) -> Result<()> {
    let (stopped, before, after) = become_other(context, "", &["arg=report", "pad=9000"])?;
    let line = second(&stopped, &after)?;
    ensure!(line.truncated("argv"), "cut, and not marked: {}", line.0);
    let argv: Vec<String> = after.part("/argv")?;
    let shown: Vec<String> = serde_json::from_value(line.data("argv"))?;
    ensure!(shown.len() == argv.len() && shown[..2] == argv[..2], "the beginning differs: {}", line.0);
    ensure!(argv[2].starts_with(&shown[2]) && shown[2].len() > 8000, "{} bytes are left", shown[2].len());
    let mut want = wanted(context, &before, &after)?;
    replace(&mut want, "argv", &Want::Fits(Value::is_array));
    fields(line, &DEF, &want)
}

/// Only the variables that the configuration chooses are kept.
fn environment(context: &Context) -> Result<()> {
    let config = "kernel:\n  env: [LD_PRELOAD, CHOSEN]\n";
    let args = ["arg=report", "env=CHOSEN:yes=no", "env=SECRET:hidden", "env=PATH:/bin"];
    let (stopped, before, after) = become_other(context, config, &args)?;
    let line = second(&stopped, &after)?;
    let mut want = wanted(context, &before, &after)?;
    replace(&mut want, "env", &Want::Is(json!(["CHOSEN=yes=no"])));
    fields(line, &DEF, &want)
}

/// A script: the kernel loads the interpreter that its first line names.
fn script(context: &Context) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let script = context.file("script", format!("#!{} report\n", context.actor.display()))?;
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755))?;
    let (stopped, before, after) = become_other(context, "", &[&format!("path={script}")])?;
    let line = second(&stopped, &after)?;
    let mut want = wanted(context, &before, &after)?;
    replace(&mut want, "interp", &context.actor.display().to_string().into());
    ensure!(line.data("argv") == json!([context.actor, "report", script]), "arguments: {}", line.0);
    fields(line, &DEF, &want)
}

fn from_memory(context: &Context) -> Result<()> {
    let (stopped, said) = context.watch(EVENTS, || context.actor_lines(&["fileless", "from=memfd"]))?;
    let [report, maker] = &said[..] else { anyhow::bail!("{} lines", said.len()) };
    let line = stopped.one(NAME, maker.part("/child")?, |_| true)?;
    let file: File = report.part("/file")?;
    ensure!(line.data("pathname") == "memfd:haechi-e2e", "path: {}", line.0);
    ensure!(line.data("inode") == file.inode && line.data("dev") == file.dev, "inode: {}", line.0);
    ensure!(line.data("nlink") == 0, "links: {}", line.0);
    ensure!(line.data("argv") == json!(["from-memory", "report"]), "arguments: {}", line.0);
    Ok(())
}

fn of_32_bits(context: &Context) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let program = context.file("exec32", crate::actor::elf32_program("/dev/null"))?;
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))?;
    let (stopped, pid) = context.watch(EVENTS, || {
        let mut child = std::process::Command::new(&program).arg("one").spawn()?;
        child.wait()?;
        Ok(child.id())
    })?;
    let line = stopped.one(NAME, pid, |_| true)?;
    ensure!(line.data("pathname") == program.as_str(), "path: {}", line.0);
    ensure!(line.data("argv") == json!([program, "one"]), "arguments: {}", line.0);
    ensure!(line.data("interpreter_pathname").is_null(), "it has no loader: {}", line.0);
    Ok(())
}

/// An exec that fails is no exec.
fn failed(context: &Context) -> Result<()> {
    let plain = context.file("no-program", "x")?;
    let (stopped, pid) = context.watch(EVENTS, || {
        let spawned = std::process::Command::new("/bin/sh").args(["-c", &format!("exec {plain}")]).status();
        ensure!(spawned?.code() == Some(126), "{plain} could be run");
        Ok(plain.clone())
    })?;
    let of_it: Vec<_> = stopped.lines.iter().filter(|l| l.data("cmdpath") == pid.as_str()).collect();
    ensure!(of_it.is_empty(), "{of_it:?}");
    Ok(())
}
