//! Hashes programs for the core, in a thread of its own. Reads `/proc/<pid>/exe`, which reaches into every mount
//! namespace, and makes sure that it is the file that was asked for. Knows no finding and no queue of others.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use crate::core::{Answer, Question};

/// Larger programs are not hashed.
pub const MAX_BYTES: u64 = 512 << 20;
/// Questions that may wait.
const QUEUE: usize = 64;
/// The unit of times in `/proc/<pid>/stat`: the kernel shows user space 100 ticks a second on every architecture.
const TICK: u64 = 10_000_000;

/// Where questions are put.
#[derive(Clone, Debug)]
pub struct Hasher {
    queue: SyncSender<Question>,
}

impl Hasher {
    /// Starts the thread; `answer` is called in it once for each question that was taken. It ends with the last handle,
    /// or when `answer` says that nobody listens.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(answer: impl Fn(Answer) -> bool + Send + 'static) -> std::io::Result<Self> {
        let (queue, questions) = sync_channel(QUEUE);
        thread::Builder::new().name("haechi-hash".into()).spawn(move || work(&questions, answer))?;
        Ok(Self { queue })
    }

    /// Asks. An answer at once means that there will be no other: the queue is full.
    #[must_use]
    pub fn ask(&self, question: Question) -> Option<Answer> {
        match self.queue.try_send(question) {
            Ok(()) => None,
            Err(TrySendError::Full(q) | TrySendError::Disconnected(q)) => Some(Answer { exe: q.exe, sha256: None }),
        }
    }
}

fn work(questions: &Receiver<Question>, answer: impl Fn(Answer) -> bool) {
    for question in questions {
        let sha256 = hash(&question);
        if !answer(Answer { exe: question.exe, sha256 }) {
            return;
        }
    }
}

/// The hash of the program that was asked for; `None` where it is gone, changed, another, or too large.
#[must_use]
pub fn hash(question: &Question) -> Option<String> {
    let Question { exe, pid, start } = *question;
    let mut file = File::open(format!("/proc/{pid}/exe")).ok()?;
    let meta = file.metadata().ok()?;
    // btrfs and overlayfs show stat(2) another device than the kernel's own, so a different one proves nothing.
    let same = meta.ino() == exe.inode && (exe.ctime == 0 || ctime(&meta) == exe.ctime);
    if !same || meta.len() > MAX_BYTES || !started_at(pid, start) {
        return None;
    }
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 128 << 10];
    let mut left = MAX_BYTES;
    loop {
        let read = file.read(&mut buffer).ok()?;
        if read == 0 {
            break;
        }
        left = left.checked_sub(read as u64)?;
        hasher.update(&buffer[..read]);
    }
    // Written to meanwhile: what was read is neither the old nor the new.
    (ctime(&file.metadata().ok()?) == ctime(&meta)).then(|| HEXLOWER.encode(&hasher.finalize()))
}

fn ctime(meta: &fs::Metadata) -> u64 {
    (meta.ctime() as u64).wrapping_mul(1_000_000_000).wrapping_add(meta.ctime_nsec() as u64)
}

/// Whether the process with this number is the one that started then.
fn started_at(pid: u32, start: u64) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    // The name may hold anything, spaces and brackets too; the fields after it count from the last bracket.
    let after = stat.rsplit_once(')').map_or("", |s| s.1);
    let ticks = after.split_ascii_whitespace().nth(19).and_then(|t| t.parse::<u64>().ok());
    ticks.is_some_and(|ticks| ticks.abs_diff(start / TICK) <= 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Exe;

    fn own() -> Question {
        let pid = std::process::id();
        let meta = fs::metadata("/proc/self/exe").expect("we run");
        let stat = fs::read_to_string("/proc/self/stat").expect("we run");
        let ticks: u64 =
            stat.rsplit_once(')').and_then(|s| s.1.split_whitespace().nth(19)?.parse().ok()).expect("a number");
        Question { exe: Exe { dev: 0, inode: meta.ino(), ctime: ctime(&meta) }, pid, start: ticks * TICK + 123 }
    }

    #[test]
    fn a_program_is_hashed_as_sha256sum_does() {
        let path = fs::read_link("/proc/self/exe").expect("we run");
        let output = std::process::Command::new("sha256sum").arg(path).output().expect("coreutils");
        let want = String::from_utf8_lossy(&output.stdout[..64]).into_owned();
        assert_eq!(hash(&own()), Some(want));
    }

    #[test]
    fn another_file_or_another_process_has_no_answer() {
        let question = own();
        let changed = Exe { ctime: question.exe.ctime + 1, ..question.exe };
        assert_eq!(hash(&Question { exe: changed, ..question }), None);
        assert_eq!(hash(&Question { start: question.start + 100 * TICK, ..question }), None);
        let other = Exe { inode: question.exe.inode + 1, ..question.exe };
        assert_eq!(hash(&Question { exe: other, ..question }), None);
    }

    #[test]
    fn an_answer_comes_from_the_thread() {
        let (sender, receiver) = sync_channel(1);
        let hasher = Hasher::start(move |answer| sender.send(answer).is_ok()).expect("a thread");
        let question = Question { pid: u32::MAX, ..own() };
        assert_eq!(hasher.ask(question), None);
        let answer = receiver.recv_timeout(std::time::Duration::from_secs(30)).expect("an answer");
        assert_eq!(answer, Answer { exe: question.exe, sha256: None });
    }
}
