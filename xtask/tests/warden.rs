//! A guest does not outlive the program that started it.

use std::io::Read as _;
use std::process::{Command, Stdio};

#[test]
fn what_is_watched_over_ends_with_the_starter_and_so_do_its_children() {
    // The child holds the pipe too: it ends when both are gone.
    let mut guest = Command::new("sh");
    guest.args(["-c", "tail -f /dev/null & wait"]).stdout(Stdio::piped());
    let mut guest = guest.spawn().expect("a shell");
    let mut warden = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(["_warden", &guest.id().to_string()])
        .stdin(Stdio::piped())
        .spawn()
        .expect("this program");
    assert!(guest.try_wait().expect("our child").is_none(), "it ended by itself");
    // The starter is gone: so is its end of the pipe.
    drop(warden.stdin.take());
    let mut said = String::new();
    guest.stdout.take().expect("piped").read_to_string(&mut said).expect("the end of it");
    guest.wait().expect("our child");
    assert!(warden.wait().expect("our child").success());
}
