//! The loads: a process of its own that does one thing very often on one processor, and times itself. It must not know
//! who watches it.

use std::ffi::CString;
use std::io::{self, BufRead as _, Write as _};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::flows;
use super::stats::median;
use crate::actor::Args;
use crate::sys::{Arg, call};

/// Time of one stretch: longer than the clock is coarse, shorter than the scheduler's slice, so that being put aside
/// spoils few of them and the median none.
const STRETCH: Duration = Duration::from_micros(250);

pub(super) type Step = Box<dyn FnMut() -> Result<()>>;

/// What the first word means; those of connections are in a file of their own.
fn step(kind: &str, args: &Args) -> Result<Step> {
    Ok(match kind {
        "getppid" => Box::new(|| {
            call(libc::SYS_getppid, [])?;
            Ok(())
        }),
        "open" => {
            let path: CString = args.path("path")?;
            Box::new(move || {
                let how = (libc::O_RDONLY | libc::O_CLOEXEC).into();
                let fd = call(libc::SYS_openat, [libc::AT_FDCWD.into(), path.as_c_str().into(), how])?;
                call(libc::SYS_close, [fd.into()])?;
                Ok(())
            })
        }
        "spawn" => Box::new(|| {
            ensure!(Command::new("/bin/true").status()?.success(), "/bin/true failed");
            Ok(())
        }),
        _ => return flows::step(kind, args),
    })
}

/// `KIND [cpu=N] [path=P] [root=DIR] [every=MICROSECONDS [burst=N]]`. With `every` it works in bursts until its input
/// ends, once or more each period of irregular length (so that it meets no other period); else it answers orders, line by
/// line: `time MILLISECONDS` or `count N`, with `median mean cpu count`: nanoseconds of one step, and of processor
/// time of itself and its children.
pub(super) fn serve(words: &[String]) -> Result<()> {
    let (kind, rest) = words.split_first().context("which load?")?;
    let args = Args::parse(rest.iter().cloned());
    if args.get("cpu").is_some() {
        let mask = 1_u64 << args.number("cpu", 0)?;
        call(libc::SYS_sched_setaffinity, [0.into(), 8.into(), (&mask.to_ne_bytes()).into()])?;
    }
    if args.get("root").is_some() {
        call(libc::SYS_chroot, [args.path("root")?.as_c_str().into()])?;
        call(libc::SYS_chdir, [c"/".into()])?;
    }
    let mut step = step(kind, &args)?;
    let every = args.number("every", 0)?;
    if every > 0 {
        return paced(&mut step, every as u64 * 1000, args.number("burst", 1)?);
    }
    let mut stretch = 0;
    for order in io::stdin().lock().lines() {
        let order = order?;
        let (word, number) = order.split_once(' ').context("an order is two words")?;
        let number: u64 = number.parse()?;
        if stretch == 0 && word == "time" {
            stretch = calibrate(&mut step)?;
        }
        let before = cpu_time()?;
        let (times, count) = match word {
            "time" => timed(&mut step, stretch, Duration::from_millis(number))?,
            "count" => (vec![run(&mut step, number)?], number),
            _ => bail!("there is no order {word}"),
        };
        let cpu = (cpu_time()? - before) as f64 / count as f64;
        let mean = times.iter().sum::<f64>() / times.len() as f64;
        println!("{} {mean} {cpu} {count}", median(&times));
        io::stdout().flush()?;
    }
    Ok(())
}

/// Nanoseconds a step, over `count` of them.
fn run(step: &mut Step, count: u64) -> Result<f64> {
    let began = Instant::now();
    for _ in 0..count {
        step()?;
    }
    Ok(began.elapsed().as_nanos() as f64 / count as f64)
}

/// Steps in a stretch.
fn calibrate(step: &mut Step) -> Result<u64> {
    let mut count = 1;
    while run(step, count)? * (count as f64) < STRETCH.as_nanos() as f64 {
        count *= 2;
    }
    Ok(count)
}

fn timed(step: &mut Step, stretch: u64, how_long: Duration) -> Result<(Vec<f64>, u64)> {
    let (began, mut times) = (Instant::now(), Vec::new());
    while began.elapsed() < how_long {
        times.push(run(step, stretch)?);
    }
    let count = times.len() as u64 * stretch;
    Ok((times, count))
}

/// Nanoseconds of processor time of this process and of its children that have ended.
fn cpu_time() -> Result<u64> {
    let mut sum = 0;
    for who in [libc::RUSAGE_SELF, libc::RUSAGE_CHILDREN] {
        let mut usage = [0_u8; 144];
        let out: &mut [u8] = &mut usage;
        call(libc::SYS_getrusage, [who.into(), out.into()])?;
        let word = |at: usize| usage[at..].first_chunk().map_or(0, |b| u64::from_ne_bytes(*b));
        sum += (word(0) + word(16)) * 1_000_000_000 + (word(8) + word(24)) * 1000;
    }
    Ok(sum)
}

fn paced(step: &mut Step, every: u64, burst: i64) -> Result<()> {
    // The kernel may otherwise join our alarms with others'.
    call(libc::SYS_prctl, [libc::PR_SET_TIMERSLACK.into(), 1.into()])?;
    let mut next = monotonic()?;
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    while !input_ended()? {
        for _ in 0..burst {
            step()?;
        }
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        next = (next + every / 2 + random % every).max(monotonic()?);
        let mut at = [0; 16];
        at[..8].copy_from_slice(&(next / 1_000_000_000).to_ne_bytes());
        at[8..].copy_from_slice(&(next % 1_000_000_000).to_ne_bytes());
        let words = [libc::CLOCK_MONOTONIC.into(), libc::TIMER_ABSTIME.into(), (&at).into(), 0.into()];
        // Interrupted or not, the loop goes on.
        let _ = call(libc::SYS_clock_nanosleep, words);
    }
    Ok(())
}

fn monotonic() -> Result<u64> {
    let mut time = [0_u8; 16];
    call(libc::SYS_clock_gettime, [libc::CLOCK_MONOTONIC.into(), Arg::Out(&mut time)])?;
    let word = |at: usize| time[at..].first_chunk().map_or(0, |b| u64::from_ne_bytes(*b));
    Ok(word(0) * 1_000_000_000 + word(8))
}

/// Nobody writes to us: input that is ready is input that has ended.
fn input_ended() -> Result<bool> {
    let mut poll = [0_u8; 8];
    poll[4..6].copy_from_slice(&libc::POLLIN.to_ne_bytes());
    let at_once = [0_u8; 16];
    Ok(call(libc::SYS_ppoll, [Arg::Out(&mut poll), 1.into(), (&at_once).into(), 0.into(), 0.into()])? != 0)
}
