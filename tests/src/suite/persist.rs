//! The built-in rules about files that nobody should write: each path is written for real, on a file system laid over the
//! real place in a mount namespace of its own; reading the same file makes nothing fire.

use anyhow::{Context as _, Result, ensure};

use super::rules::fired;
use crate::harness::{Context, Did, Spec, Test};

pub(super) const TESTS: &[Test] = &[
    ("persist::sudoers_modification", |c| written(c, "sudoers_modification")),
    ("persist::scheduled_task_mod", |c| written(c, "scheduled_task_mod")),
    ("persist::rcd_modification", |c| written(c, "rcd_modification")),
    ("persist::default_loader_mod", |c| written(c, "default_loader_mod")),
    ("persist::authorized_keys_modification", |c| written(c, "authorized_keys_modification")),
    ("persist::core_pattern_modification", |c| written(c, "core_pattern_modification")),
    ("persist::ld_preload", |c| written(c, "ld_preload")),
    ("persist::agent_tampering", |c| written(c, "agent_tampering")),
    ("persist::log_wiping", |c| written(c, "log_wiping")),
    ("persist::under_the_rules_alone", alone),
];

const CREATE: i32 = libc::O_WRONLY | libc::O_CREAT;
const EMPTY: i32 = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC;

/// Rule, the directory that is laid over, the file below it, how it is opened.
const DEEDS: &[(&str, &str, &str, i32)] = &[
    ("sudoers_modification", "/etc", "/etc/sudoers", CREATE),
    ("sudoers_modification", "/etc", "/etc/sudoers.d/90-e2e", libc::O_RDWR | libc::O_CREAT),
    ("scheduled_task_mod", "/etc", "/etc/cron.d/e2e", CREATE),
    ("scheduled_task_mod", "/var", "/var/spool/cron/crontabs/root", CREATE),
    ("scheduled_task_mod", "/etc", "/etc/systemd/system/e2e.timer", CREATE),
    ("rcd_modification", "/etc", "/etc/init.d/e2e", CREATE),
    ("default_loader_mod", "/usr/lib", "/usr/lib/x86_64-linux-gnu/ld-e2e.so.2", CREATE),
    ("authorized_keys_modification", "/root", "/root/.ssh/authorized_keys", CREATE | libc::O_APPEND),
    ("core_pattern_modification", "/proc/sys", "/proc/sys/kernel/core_pattern", CREATE),
    ("ld_preload", "/etc", "/etc/ld.so.preload", CREATE),
    ("agent_tampering", "/etc", "/etc/haechi/rules/e2e.rego", CREATE),
    ("log_wiping", "/var", "/var/log/auth.log", EMPTY),
];

fn open(context: &Context, over: &str, path: &str, flags: i32, made: bool) -> Result<Did> {
    let args =
        [format!("over={over}"), format!("path={path}"), format!("flags={flags}"), format!("made={}", made as u8)];
    context.actor(&["written", &args[0], &args[1], &args[2], &args[3]])
}

fn written(context: &Context, rule: &str) -> Result<()> {
    for (_, over, path, flags) in DEEDS.iter().filter(|d| d.0 == rule) {
        let (stopped, (did, read)) = context.watch(&[], || {
            Ok((open(context, over, path, *flags, false)?, open(context, over, path, libc::O_RDONLY, true)?))
        })?;
        let line = fired(&stopped, rule, did.me.pid, true)?.context("it fired")?;
        ensure!(line.at("/target") == *path, "target: {}", line.0);
        fired(&stopped, rule, read.me.pid, false)?;
    }
    Ok(())
}

/// With nobody asking for events, the kernel lets through what the rules demand, and that is enough.
fn alone(context: &Context) -> Result<()> {
    let tree = format!("tree={}", std::process::id());
    let (stopped, pids) = context.watch_with(&Spec::run(&["--scope", &tree]), || {
        let deeds = DEEDS.iter().map(|(_, over, path, flags)| Ok(open(context, over, path, *flags, false)?.me.pid));
        deeds.collect::<Result<Vec<u32>>>()
    })?;
    for ((rule, ..), pid) in DEEDS.iter().zip(pids) {
        fired(&stopped, rule, pid, true)?;
    }
    Ok(())
}
