//! `cargo xtask run`: from a fresh clone to a watching agent in one command.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Result, bail};

use crate::build::Profile;
use crate::{build, place, sh};

const TRY: &str = r#"haechi starts now. In another terminal, as root, do what it warns about:

  an odd program reads the password hashes:
    cp /bin/cat /tmp/odd && /tmp/odd /etc/shadow > /dev/null; rm /tmp/odd
  a program runs from memory, without a file:
    python3 -c 'import os; f = os.memfd_create("x"); os.write(f, open("/bin/echo", "rb").read()); os.execv(f"/proc/self/fd/{f}", ["x", "hello"])'

Ctrl-C ends it and prints the totals.
"#;

/// Entry point of the chore.
pub(crate) fn command(args: &[String]) -> Result<i32> {
    let (options, rest) = match args.iter().position(|a| a == "--") {
        Some(at) => (&args[..at], &args[at + 1..]),
        None => (args, &args[args.len()..]),
    };
    let profile = match options {
        [] => Profile::Dev,
        [one] if one == "--release" => Profile::Release,
        _ => bail!("usage: cargo xtask run [--release] [-- arguments of `haechi run`]"),
    };
    let haechi = build::all(profile)?;
    let mut command = if place::is_root() {
        Command::new(&haechi)
    } else if let Some(sudo) = sh::which("sudo") {
        eprintln!("loading programs into the kernel needs root:");
        let mut command = Command::new(sudo);
        command.arg(&haechi);
        command
    } else {
        bail!("loading programs into the kernel needs root: run `{} run` as root", haechi.display());
    };
    command.arg("run").args(rest);
    eprintln!("\n{TRY}\n+ {}", sh::shown(&command));
    // From here on it is the agent that gets the signals and answers with its exit code.
    Err(command.exec().into())
}
