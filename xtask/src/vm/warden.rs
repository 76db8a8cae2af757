//! Ends a guest whose starter is gone, whatever took it: a signal that nobody handles leaves no time to clean up. A
//! process of its own (this program again, in a process group of its own) holds the other end of a pipe.

use std::io::{self, Read};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result};

use crate::sh;

/// What the program is called with when it is a warden; no chore of the user's.
pub(crate) const NAME: &str = "_warden";

/// Watches over a process as long as this lives; afterwards that one is left alone.
pub(super) struct Warden(Child);

impl Warden {
    /// From now on `root` and all below it end with this process.
    pub(super) fn over(root: u32) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args([NAME, &root.to_string()]).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().map(Self).context("cannot watch over the guest")
    }
}

impl Drop for Warden {
    fn drop(&mut self) {
        // Before its pipe closes: the number may be another process's by then. One that is gone already is as good.
        let _gone = self.0.kill();
        let _gone = self.0.wait();
    }
}

/// The warden itself: waits until its starter is gone, then ends what it was told to.
pub(crate) fn watch(args: &[String]) -> Result<i32> {
    let root = args.first().and_then(|a| a.parse().ok()).context("which process?")?;
    // However the pipe ends, its other end is gone.
    let _ended = io::stdin().read_to_end(&mut Vec::new());
    sh::end_tree(root);
    Ok(0)
}
