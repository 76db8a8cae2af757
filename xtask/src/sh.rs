//! Starting other programs: shown before they run, named when they fail. Knows no chore.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// The command line as a person would type it, without its environment.
pub(crate) fn shown(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        let argument = argument.to_string_lossy();
        line.push(' ');
        if argument.is_empty() || argument.contains([' ', '"', '\'', '$', '*', ';', '&', '|']) {
            line.push('\'');
            line.push_str(&argument.replace('\'', "'\\''"));
            line.push('\'');
        } else {
            line.push_str(&argument);
        }
    }
    line
}

/// Runs a command in view of the user; anything but exit 0 is an error that names it.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = status(command)?;
    if !status.success() {
        bail!("`{}` failed: {status}", shown(command));
    }
    Ok(())
}

/// Runs a command in view of the user and hands back how it ended.
pub(crate) fn status(command: &mut Command) -> Result<ExitStatus> {
    eprintln!("+ {}", shown(command));
    command.status().with_context(|| format!("cannot start `{}`", command.get_program().to_string_lossy()))
}

/// What a command prints, quietly; its error output is part of the error when it fails.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let out = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start `{}`", command.get_program().to_string_lossy()))?;
    if !out.status.success() {
        bail!("`{}` failed: {}\n{}", shown(command), out.status, String::from_utf8_lossy(&out.stderr).trim_end());
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// Runs a command, passing its standard output on line by line while `each` reads along.
pub(crate) fn tee(command: &mut Command, each: impl FnMut(&str)) -> Result<ExitStatus> {
    eprintln!("+ {}", shown(command));
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{}`", command.get_program().to_string_lossy()))?;
    pass_on(&mut child, each)?;
    Ok(child.wait()?)
}

/// Copies a child's standard output to ours until it closes it.
pub(crate) fn pass_on(child: &mut Child, mut each: impl FnMut(&str)) -> Result<()> {
    let pipe = child.stdout.take().context("the child's output was not piped")?;
    let mut pipe = BufReader::new(pipe);
    let mut line = Vec::new();
    while pipe.read_until(b'\n', &mut line)? > 0 {
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end_matches(['\n', '\r']);
        writeln!(io::stdout(), "{text}").context("standard output is closed")?;
        each(text);
        line.clear();
    }
    Ok(())
}

/// Ends a process and everything below it, by id. A child found dead already is no error. Each is stopped before its
/// children are looked for: one that still ran could make another meanwhile, which nobody would find.
pub(crate) fn end_tree(root: u32) {
    // Failure means that it is gone, which is what we want.
    let send = |signal: &str, pid: u32| {
        let _gone = Command::new("kill").args([signal, &pid.to_string()]).stderr(Stdio::null()).status();
    };
    let mut tree = vec![root];
    let mut at = 0;
    while at < tree.len() {
        send("-STOP", tree[at]);
        wait_stopped(tree[at]);
        tree.extend(children(tree[at]));
        at += 1;
    }
    tree.iter().rev().for_each(|pid| send("-KILL", *pid));
}

/// Waits until a process runs no more: a signal is on its way while a fork is being finished.
fn wait_stopped(pid: u32) {
    for _ in 0..100 {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The name may hold anything: the state stands behind its last bracket.
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        if !matches!(state, Some('R' | 'S' | 'D')) {
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

fn children(pid: u32) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let lists = threads.flatten().filter_map(|t| fs::read_to_string(t.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|p| p.parse().ok()).collect::<Vec<_>>()).collect()
}

/// Where a program is on PATH, if it is.
pub(crate) fn which(name: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}
