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
    run: Run,
}

type Run = fn(&[String]) -> Result<i32>;

const fn chore(name: &'static str, usage: &'static str, help: &'static str, run: Run) -> Chore {
    Chore { name, usage, help, run }
}

const CHORES: &[Chore] = &[
    chore("setup", "[--vm]", "install what building (and virtual machines) need", setup::command),
    chore("build", "[--release]", "build the kernel programs and the agent", build::command),
    chore("run", "[--release] [-- ARGS]", "build, then `haechi run ARGS` on this host", run::command),
    chore("test", "[FILTER]", "all that a change must pass, with one closing line", suite::command),
    chore("e2e", "[FILTER]", "the end-to-end suite on this host alone", tests_package::e2e),
    chore("vm", "KERNEL [OPTIONS] -- CMD", "run a command under kernel 5.10, 6.1, 6.12 or 7.2", vm::command),
    chore("law", "", "check the laws that no compiler checks", law::command),
    chore("docs", "[--check]", "write the generated pages of docs/, or say which are stale", docs::command),
    chore("golden", "[--bless]", "compare with the recorded answers, or record them anew", tests_package::golden),
    chore("fuzz", "[SECONDS]", "feed broken input to every reader", tests_package::fuzz),
    chore("bench", "[ARGS]", "measure the released agent against its goals", tests_package::bench),
];

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let Some((name, rest)) = args.split_first().filter(|(name, _)| !matches!(name.as_str(), "help" | "--help" | "-h"))
    else {
        print!("{}", help());
        return ExitCode::SUCCESS;
    };
    if name == vm::warden::NAME {
        return code(name, vm::warden::watch(rest));
    }
    let Some(chore) = CHORES.iter().find(|c| c.name == name) else {
        eprint!("no chore `{name}`\n{}", help());
        return ExitCode::from(2);
    };
    code(name, (chore.run)(rest))
}

fn code(name: &str, result: Result<i32>) -> ExitCode {
    match result {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_lists_every_chore() {
        let readme = std::fs::read_to_string(place::root().join("README.md")).expect("the README is there");
        for chore in CHORES {
            let row =
                format!("| `{}` | {} |", format!("cargo xtask {} {}", chore.name, chore.usage).trim_end(), chore.help);
            assert!(readme.contains(&row), "README.md lacks:\n{row}");
        }
    }
}
