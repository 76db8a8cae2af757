//! Paths as the kernel sees them: deep, across mounts, over an overlay, in a root of one's own.

use anyhow::{Result, ensure};
use haechi_ebpf::event::security_file_open::DEF;

use super::open::{EVENTS, check, wanted};
use crate::harness::{Context, Line, Skip, Test, Want, fields};

pub(super) const TESTS: &[Test] = &[
    ("path::sixty_four_components", sixty_four),
    ("path::too_deep_is_marked", too_deep),
    ("path::across_a_mount", |c| mounted(c, "tmpfs")),
    ("path::over_an_overlay", |c| mounted(c, "overlay")),
    ("path::relative_to_a_directory", relative),
];

const NAME: &str = "security_file_open";

/// 64 components, nearly 4096 bytes: more than a single system call takes.
fn sixty_four(context: &Context) -> Result<()> {
    let base = context.dir("deep")?;
    let above = base.split('/').count() - 1;
    let (n, len) = (64 - above - 1, (4095 - base.len() - "/leaf".len()) / (64 - above - 1) - 1);
    let (stopped, did) = deep(context, &base, n, len)?;
    ensure!(did.number("/components")? == 64, "{}", did.did);
    let path: String = did.part("/path")?;
    let line = stopped.one(NAME, did.me.pid, |l| l.data("pathname") == path.as_str())?;
    let mut me = did.clone();
    me.me.cwd.clear();
    check(line, &me, &wanted(&path, &did.part("/file")?, did.number("/flags")? as i32), false)
}

fn deep(context: &Context, base: &str, n: usize, len: usize) -> Result<(crate::harness::Stopped, crate::harness::Did)> {
    let (base, n, len) = (format!("base={base}"), format!("n={n}"), format!("len={len}"));
    context.watch(EVENTS, || context.actor(&["deep", &base, &n, &len]))
}

/// Deeper than the agent looks: the end of the path is right, and it says that the beginning is missing.
fn too_deep(context: &Context) -> Result<()> {
    let (stopped, did) = deep(context, &context.dir("too-deep")?, 120, 40)?;
    let path: String = did.part("/path")?;
    let line = stopped.one(NAME, did.me.pid, |l| {
        l.data("pathname").as_str().is_some_and(|p| p.len() > 1000 && path.ends_with(p.trim_start_matches('/')))
    })?;
    ensure!(line.truncated("pathname"), "cut, and not marked: {}", line.0);
    let length = line.mark("pathname", "true_length");
    ensure!(length == path.len(), "its length is {length}, not {}", path.len());
    Ok(())
}

fn mounted(context: &Context, by: &str) -> Result<()> {
    let (target, dir) = (context.file("lower", "x")?, context.dir(&format!("over-{by}"))?);
    let (by_arg, target_arg, dir_arg) = (format!("by={by}"), format!("target={target}"), format!("dir={dir}"));
    let (stopped, did) = context.watch(EVENTS, || {
        context.actor(&["evade", &by_arg, &target_arg, &dir_arg]).map_err(|e| {
            if format!("{e:#}").contains("No such device") { Skip::because("this kernel has no overlay") } else { e }
        })
    })?;
    let used: String = did.part("/used")?;
    let reading =
        |l: &Line| l.data("pathname") == used.as_str() && l.data("flags").as_u64().is_some_and(|f| f & 3 == 0);
    let line = stopped.one(NAME, did.me.pid, reading)?;
    let file: crate::facts::File = did.part("/file")?;
    let mut want = wanted(&used, &file, libc::O_CLOEXEC);
    if by == "overlay" {
        // stat(2) shows the numbers of the file below; the opened inode is the overlay's own.
        want.retain(|w| !["dev", "inode", "ctime"].contains(&w.0));
        let number = |v: &serde_json::Value| v.as_u64().is_some_and(|n| n > 0);
        want.extend(["dev", "inode", "ctime"].map(|name| (name, Want::Fits(number))));
    }
    fields(line, &DEF, &want)
}

fn relative(context: &Context) -> Result<()> {
    let dir = context.dir("relative")?;
    std::fs::write(format!("{dir}/file"), "x")?;
    let (stopped, did) = context.watch(EVENTS, || {
        let words = ["-c", "cd \"$0\" && exec \"$1\" open how=openat path=../relative/./file", &dir];
        context.actor_behind("/bin/sh", &words)
    })?;
    let path = format!("{dir}/file");
    let line = stopped.one(NAME, did.me.pid, |l| l.data("pathname") == path.as_str())?;
    check(line, &did, &wanted(&path, &did.part("/file")?, 0), false)
}
