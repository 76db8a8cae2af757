//! Runs the tests one after another, with a deadline each, and says what passed, what failed and what was skipped and
//! why. A skipped test never counts as passed.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::{Bpf, Context, Test, sweep};
use crate::machines::{self, Machine};
use crate::sys::close_inherited;

/// The reason why a test could not be run here.
#[derive(Debug)]
pub struct Skip(String);

impl Skip {
    /// As an error that ends the test.
    #[must_use]
    pub fn because(why: impl Into<String>) -> anyhow::Error {
        anyhow::Error::new(Self(why.into()))
    }
}

impl std::fmt::Display for Skip {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Skip {}

/// The command line.
#[derive(Debug)]
pub struct Options {
    haechi: PathBuf,
    machine: &'static Machine,
    filters: Vec<String>,
    list: bool,
}

const USAGE: &str = "e2e [--haechi PATH] [--machine auto|NAME] [--list] [--kernel] [PART OF A TEST'S NAME ..]";

/// What depends on the kernel; the rest is the same on every one, and takes long under emulation.
const KERNEL: &[&str] = &[
    "check::steps",
    "check::foretells_what",
    "open::",
    "path::",
    "evade::",
    "change::",
    "mount::",
    "reach::",
    "endpoint::",
    "deed::",
    "connect::",
    "flow::",
    "ptrace::",
    "memfd::",
    "exec::",
    "fork::",
    "exit::",
    "cgroup::",
    "syscall::",
    "account::processes",
    "fault::kill",
];

impl Options {
    /// Reads the command line.
    ///
    /// # Errors
    /// When it is not understood.
    pub fn parse(mut args: impl Iterator<Item = String>) -> Result<Self> {
        let beside = std::env::current_exe()?;
        let mut options = Self {
            haechi: beside.with_file_name("haechi"),
            machine: machines::detect()?,
            filters: Vec::new(),
            list: false,
        };
        while let Some(arg) = args.next() {
            let mut value = || args.next().with_context(|| format!("{arg} needs a value; {USAGE}"));
            match arg.as_str() {
                "--haechi" => options.haechi = value()?.into(),
                "--machine" => match value()?.as_str() {
                    "auto" => {}
                    name => options.machine = machines::by_name(name)?,
                },
                "--list" => options.list = true,
                "--kernel" => options.filters.extend(KERNEL.iter().map(|k| (*k).to_owned())),
                flag if flag.starts_with('-') => bail!("{flag} is not known; {USAGE}"),
                part => options.filters.push(part.to_owned()),
            }
        }
        Ok(options)
    }
}

/// Longest time for one test on a fast machine.
const DEADLINE: Duration = Duration::from_secs(120);

/// Runs `tests`.
pub fn main(tests: impl Iterator<Item = Test>, args: impl Iterator<Item = String>) -> ExitCode {
    match run(tests, args) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("e2e: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(tests: impl Iterator<Item = Test>, args: impl Iterator<Item = String>) -> Result<ExitCode> {
    close_inherited()?;
    let options = Options::parse(args)?;
    let chosen: Vec<Test> = tests
        .filter(|t| options.filters.is_empty() || options.filters.iter().any(|f| t.0.contains(f.as_str())))
        .collect();
    if options.list {
        chosen.iter().for_each(|t| println!("{}", t.0));
        return Ok(ExitCode::SUCCESS);
    }
    ensure!(!chosen.is_empty(), "no test is called like that");
    ensure!(options.haechi.exists(), "{} is not there: build it first", options.haechi.display());
    println!("e2e: {} tests of {} on {}", chosen.len(), options.haechi.display(), options.machine.name);
    let context = Context::new(options.haechi, options.machine)?;
    let context: &'static Context = Box::leak(Box::new(context));
    let (mut count, mut shared) = (Count::default(), Ok(()));
    for test in chosen {
        // From here on there are loads: an agent that tells all events would tell all of those, and we would keep it.
        if test.0.starts_with("flow") && shared.is_ok() {
            shared = context.end_shared();
        }
        if !one(context, test, &mut count) {
            break;
        }
    }
    count.note("the shared agent ends well", &shared.and_then(|()| context.end_shared()), Duration::ZERO);
    sweep();
    // Programs go a moment after their last descriptor: after a grace period.
    let mut left = Bpf::default();
    let clean = wait_until(context.patience(), || {
        left = Bpf::ever_left()?;
        Ok(left.is_empty())
    });
    let clean = clean.and_then(|gone| if gone { Ok(()) } else { bail!("left in the kernel: {left:?}") });
    count.note("nothing is left in the kernel", &clean, Duration::ZERO);
    println!("e2e: {} passed, {} failed, {} skipped", count.passed, count.failed, count.skipped);
    Ok(if count.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[derive(Default)]
struct Count {
    passed: u32,
    failed: u32,
    skipped: u32,
}

impl Count {
    fn note(&mut self, name: &str, result: &Result<()>, took: Duration) {
        let took = took.as_secs_f64();
        match result {
            Ok(()) => {
                self.passed += 1;
                println!("passed   {name} ({took:.1} s)");
            }
            Err(e) => match e.downcast_ref::<Skip>() {
                Some(why) => {
                    self.skipped += 1;
                    println!("skipped: {name}: {why}");
                }
                None => {
                    self.failed += 1;
                    println!("FAILED   {name} ({took:.1} s): {e:#}");
                }
            },
        }
    }
}

/// Runs one test. `false`: it hangs, and with it the run ends.
fn one(context: &'static Context, (name, test): Test, count: &mut Count) -> bool {
    let began = Instant::now();
    let (send, receive) = mpsc::sync_channel(1);
    let runner = thread::spawn(move || {
        let result = test(context);
        // Nobody listens any more when the deadline has passed.
        let _deadline_passed = send.send(result);
    });
    let deadline = DEADLINE * context.machine.slow;
    let (result, go_on) = match receive.recv_timeout(deadline) {
        Ok(result) => (result, true),
        Err(mpsc::RecvTimeoutError::Timeout) => (Err(anyhow::anyhow!("not done after {deadline:?}")), false),
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            let panic = runner.join().err().and_then(|p| p.downcast::<String>().ok()).unwrap_or_default();
            (Err(anyhow::anyhow!("panicked: {panic}")), true)
        }
    };
    count.note(name, &result, began.elapsed());
    go_on
}

/// Asks again and again until the answer is yes; `false` when the time is up.
///
/// # Errors
/// When asking fails.
pub fn wait_until(patience: Duration, mut ask: impl FnMut() -> Result<bool>) -> Result<bool> {
    let deadline = Instant::now() + patience;
    loop {
        if ask()? {
            return Ok(true);
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        thread::park_timeout(Duration::from_millis(20));
    }
}
