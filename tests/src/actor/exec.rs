//! Loads programs in every way that an exec record tells apart.

use std::fs::{self, File as Handle};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::Args;
use crate::facts::File;

/// `[path=] [argv0=] [arg=..] [env=K:V..] [cwd=] [stdin=null|pipe|socket|PATH] [pad=N] [thread=1]`: says who we are,
/// then becomes `path` (this program, which reports), with the environment cleared. `pad` appends an argument that
/// makes all arguments together, NULs counted, exactly N bytes.
pub(super) fn exec(args: &Args) -> Result<Value> {
    let own = fs::read_link("/proc/self/exe")?.display().to_string();
    let path = args.get("path").unwrap_or(&own).to_owned();
    let mut argv = vec![args.get("argv0").unwrap_or(&path).to_owned()];
    argv.extend(args.all("arg").map(str::to_owned));
    let pad = args.number("pad", 0)? as usize;
    if pad > 0 {
        let so_far: usize = argv.iter().map(|a| a.len() + 1).sum();
        argv.push(format!("pad={}", "x".repeat(pad.saturating_sub(so_far + 5))));
    }
    let mut command = Command::new(&path);
    command.arg0(&argv[0]).args(&argv[1..]).env_clear();
    for (key, value) in args.all("env").filter_map(|e| e.split_once(':')) {
        command.env(key, value);
    }
    if let Some(cwd) = args.get("cwd") {
        command.current_dir(cwd);
    }
    let (reader, _writer) = std::io::pipe()?;
    let (socket, _peer) = UnixStream::pair()?;
    match args.get("stdin") {
        None => {}
        Some("null") => drop(command.stdin(Stdio::null())),
        Some("pipe") => drop(command.stdin(reader)),
        Some("socket") => drop(command.stdin(Stdio::from(std::os::fd::OwnedFd::from(socket)))),
        Some(path) => drop(command.stdin(Handle::open(path)?)),
    }
    super::say(&json!({ "path": path, "argv": argv, "file": File::at(&path)? }))?;
    let error = if args.flag("thread") {
        thread::spawn(move || command.exec()).join().map_err(|e| anyhow::anyhow!("the thread died: {e:?}"))?
    } else {
        command.exec()
    };
    bail!("{path}: {error}")
}

/// Says what this program became: its file, its loader, its standard input.
pub(super) fn report(_: &Args) -> Result<Value> {
    let maps = fs::read_to_string("/proc/self/maps")?;
    let loader =
        maps.lines().find_map(|l| l.split_once('/').filter(|p| p.1.contains("/ld-")).map(|p| format!("/{}", p.1)));
    let loader = loader.and_then(|l| File::at(l).ok());
    let argv: Vec<String> =
        fs::read("/proc/self/cmdline")?.split(|b| *b == 0).map(|a| String::from_utf8_lossy(a).into_owned()).collect();
    let (argv, _end) = argv.split_at(argv.len() - 1);
    let env: Vec<String> = std::env::vars().map(|(k, v)| format!("{k}={v}")).collect();
    Ok(json!({
        "file": File::at("/proc/self/exe")?,
        "loader": loader,
        "stdin_mode": File::at("/proc/self/fd/0")?.mode,
        "argv": argv,
        "env": env,
    }))
}
