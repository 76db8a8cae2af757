//! Every chore of the project: `cargo xtask <name>`. This file is the table of them; each lives in a file of its own.

mod build;
mod docs;
mod law;
mod place;
mod run;
mod setup;
mod sh;
mod suite;
mod tally;
mod tests_package;
mod toolchain;
mod vm;

use std::env;
use std::process::ExitCode;

use anyhow::Result;

/// A chore: what the user types, one line on what it does, and what does it. The number is the exit code.
struct Chore {
    name: &'static str,
    usage: &'static str,
    help: &'static str,
    run: fn(&[String]) -> Result<i32>,
}

const CHORES: &[Chore] = &[
    Chore {
        name: "setup",
        usage: "[--vm]",
        help: "install what building (and virtual machines) need",
        run: setup::command,
    },
    Chore { name: "build", usage: "[--release]", help: "build the kernel programs and the agent", run: build::command },
    Chore {
        name: "run",
        usage: "[--release] [-- ARGS]",
        help: "build, then `haechi run ARGS` on this host",
        run: run::command,
    },
    Chore {
        name: "test",
        usage: "[FILTER]",
        help: "all that a change must pass, with one closing line",
        run: suite::command,
    },
    Chore { name: "e2e", usage: "[FILTER]", help: "the end-to-end suite on this host alone", run: tests_package::e2e },
    Chore {
        name: "vm",
        usage: "KERNEL [OPTIONS] -- CMD",
        help: "run a command under kernel 5.10, 6.1, 6.12 or 7.2",
        run: vm::command,
    },
    Chore { name: "law", usage: "", help: "check the laws that no compiler checks", run: law::command },
    Chore {
        name: "docs",
        usage: "[--check]",
        help: "write the generated pages of docs/, or say which are stale",
        run: docs::command,
    },
    Chore {
        name: "golden",
        usage: "[--bless]",
        help: "compare with the recorded answers, or record them anew",
        run: tests_package::golden,
    },
    Chore { name: "fuzz", usage: "[SECONDS]", help: "feed broken input to every reader", run: tests_package::fuzz },
    Chore {
        name: "bench",
        usage: "[ARGS]",
        help: "measure the released agent against its goals",
        run: tests_package::bench,
    },
];

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let Some((name, rest)) = args.split_first().filter(|(name, _)| !matches!(name.as_str(), "help" | "--help" | "-h"))
    else {
        print!("{}", help());
        return ExitCode::SUCCESS;
    };
    let Some(chore) = CHORES.iter().find(|c| c.name == name) else {
        eprint!("no chore `{name}`\n{}", help());
        return ExitCode::from(2);
    };
    match (chore.run)(rest) {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Err(error) => {
            eprintln!("cargo xtask {name}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn help() -> String {
    let mut text = String::from("cargo xtask <name>\n\n");
    for chore in CHORES {
        text.push_str(&format!("  {:<32} {}\n", format!("{} {}", chore.name, chore.usage), chore.help));
    }
    text
}
