//! Finds holes in the records' sequence numbers. Each CPU numbers the records that it tried to put on a ring; a number
//! that never comes was lost. It is only a hint to read the kernel's counters soon: those say what was lost and why.

use std::collections::HashMap;

use haechi_ebpf::event::Ring;
use haechi_ebpf::wire::{View, at};

#[derive(Default)]
pub(super) struct Sequences {
    streams: HashMap<(u16, u8), Stream>,
    opened: bool,
}

struct Stream {
    highest: u32,
    /// Numbers up to `highest` that have not come. Goes down when a late one does.
    missing: u64,
    told: u64,
}

impl Sequences {
    pub(super) fn see(&mut self, view: &View<'_>) {
        let ring = view.def().ring;
        if ring == Ring::None {
            return;
        }
        let seq = view.header_u32(at::SEQ);
        let fresh = Stream { highest: seq.wrapping_sub(1), missing: 0, told: 0 };
        let stream = self.streams.entry((view.cpu(), ring as u8)).or_insert(fresh);
        let step = seq.wrapping_sub(stream.highest);
        if step == 0 || step > u32::MAX / 2 {
            stream.missing = stream.missing.saturating_sub(1);
        } else {
            stream.missing += u64::from(step - 1);
            stream.highest = seq;
        }
    }

    /// Whether more is missing than was when last asked.
    pub(super) fn gap_opened(&mut self) -> bool {
        for stream in self.streams.values_mut() {
            self.opened |= stream.missing > stream.told;
            stream.told = stream.told.max(stream.missing);
        }
        std::mem::take(&mut self.opened)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use haechi_ebpf::event::security_file_open as open;
    use haechi_signatures::record::Builder;

    #[test]
    fn a_late_record_is_no_gap_and_a_missing_one_is_told_once() {
        let mut sequences = Sequences::default();
        let mut see = |numbers: &[u32]| {
            for seq in numbers {
                let record = Builder::new(&open::DEF).header_u32(at::SEQ, *seq).finish();
                sequences.see(&View::parse(&record).expect("a record"));
            }
            sequences.gap_opened()
        };
        assert!(!see(&[u32::MAX - 1, 0, u32::MAX, 1]), "order within a batch does not matter, nor does wrapping");
        assert!(see(&[3]), "2 is missing");
        assert!(!see(&[4, 5]), "and was told");
        assert!(see(&[7]), "6 is missing");
    }
}
