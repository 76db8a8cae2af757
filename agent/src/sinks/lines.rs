//! The writing of lines, which sinks of text share. Lines are gathered and written whole; where a write failed in the
//! middle of one, the next begins on a line of its own.

use std::io::{self, ErrorKind, Write};
use std::thread;
use std::time::Duration;

use super::{Format, Sink};
use crate::render::{Context, Item};

pub(super) struct Lines<W> {
    out: W,
    format: Format,
    context: Context,
    pending: Vec<u8>,
    torn: bool,
}

impl<W: Write> Lines<W> {
    pub(super) fn new(out: W, format: Format, context: Context) -> Self {
        Self { out, format, context, pending: Vec::new(), torn: false }
    }
}

impl<W: Write + Send> Sink for Lines<W> {
    fn gather(&mut self, item: &Item) {
        (self.format.render())(item, &self.context, &mut self.pending);
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        if self.torn {
            self.pending.insert(0, b'\n');
        }
        let mut left = &self.pending[..];
        let result = loop {
            match self.out.write(left) {
                Ok(0) => break Err(ErrorKind::WriteZero.into()),
                Ok(n) => left = &left[n..],
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                // Somebody else made the descriptor non-blocking; this thread has nothing better to do than wait.
                Err(e) if e.kind() == ErrorKind::WouldBlock => thread::sleep(Duration::from_millis(1)),
                Err(e) => break Err(e),
            }
            if left.is_empty() {
                break Ok(());
            }
        };
        // Where nothing was written, the end of what was before is as it was.
        if let Some(last) = self.pending[..self.pending.len() - left.len()].last() {
            self.torn = *last != b'\n';
        }
        self.pending.clear();
        result
    }
}
