//! Hashes programs for the core, in a thread of its own. Reads `/proc/<pid>/exe`, which reaches into every mount
//! namespace, and makes sure that it is the file that was asked for. Knows no finding and no queue of others.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
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
    pub fn start(answer: impl Fn(Answer) -> bool + Send + 'static) -> io::Result<Self> {
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
///
/// Most processes that do something odd live for milliseconds: when this one is gone, its program is looked for by its
/// path through the root of its parent, and then through ours. Inode and change time must be those that the kernel saw.
#[must_use]
pub fn hash(question: &Question) -> Option<String> {
    let Question { pid, start, parent, path, .. } = question;
    if let Ok(file) = File::open(format!("/proc/{pid}/exe"))
        && started_at(*pid, *start)
    {
        return hash_file(file, question);
    }
    if question.exe.ctime == 0 || !path.starts_with('/') {
        return None;
    }
    let roots = [format!("/proc/{parent}/root"), String::new()];
    roots.iter().find_map(|root| hash_file(open_regular(&format!("{root}{path}")).ok()?, question))
}

/// Opens without waiting: at the path there may be anything by now.
fn open_regular(path: &str) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_NOFOLLOW).open(path)
}

fn hash_file(mut file: File, question: &Question) -> Option<String> {
    let (meta, exe) = (file.metadata().ok()?, &question.exe);
    // btrfs and overlayfs show stat(2) another device than the kernel's own, so a different one proves nothing.
    let same = meta.is_file() && meta.ino() == exe.inode && (exe.ctime == 0 || ctime(&meta) == exe.ctime);
    if !same || meta.len() > MAX_BYTES {
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
        Question {
            exe: Exe { dev: 0, inode: meta.ino(), ctime: ctime(&meta) },
            pid,
            start: ticks * TICK + 123,
            parent: pid,
            path: fs::read_link("/proc/self/exe").expect("we run").display().to_string().into(),
        }
    }

    #[test]
    fn a_program_is_hashed_as_sha256sum_does() {
        let path = fs::read_link("/proc/self/exe").expect("we run");
        let output = std::process::Command::new("sha256sum").arg(path).output().expect("coreutils");
        let want = String::from_utf8_lossy(&output.stdout[..64]).into_owned();
        assert_eq!(hash(&own()), Some(want));
    }

    #[test]
    fn another_file_has_no_answer() {
        let question = own();
        for exe in [
            Exe { ctime: question.exe.ctime + 1, ..question.exe },
            Exe { inode: question.exe.inode + 1, ..question.exe },
        ] {
            assert_eq!(hash(&Question { exe, ..question.clone() }), None);
        }
    }

    #[test]
    fn the_program_of_a_process_that_is_gone_is_found_by_its_path() {
        let alive = own();
        let want = hash(&alive);
        assert!(want.is_some());
        // The number is somebody else's by now, as the start shows.
        let gone = Question { start: alive.start + 100 * TICK, ..alive };
        assert_eq!(hash(&gone), want);
        assert_eq!(hash(&Question { parent: 0, ..gone.clone() }), want);
        assert_eq!(hash(&Question { path: "/bin/sh".into(), ..gone.clone() }), None);
        // Without the change time, a path proves nothing.
        assert_eq!(hash(&Question { exe: Exe { ctime: 0, ..gone.exe }, ..gone }), None);
    }

    #[test]
    fn an_answer_comes_from_the_thread() {
        let (sender, receiver) = sync_channel(1);
        let hasher = Hasher::start(move |answer| sender.send(answer).is_ok()).expect("a thread");
        let question = Question { pid: u32::MAX, path: "".into(), ..own() };
        assert_eq!(hasher.ask(question.clone()), None);
        let answer = receiver.recv_timeout(std::time::Duration::from_secs(30)).expect("an answer");
        assert_eq!(answer, Answer { exe: question.exe, sha256: None });
    }
}
