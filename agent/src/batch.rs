//! A batch of records: what one drain of the rings took, in order of time. Everything right of the collector borrows
//! from it; whatever is kept copies out.

/// Records copied out of the rings together.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    index: Vec<Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    time: u64,
    offset: u32,
    len: u32,
}

impl Batch {
    /// Appends a record. `time` orders it among the others; equal times keep the order of pushing.
    pub fn push(&mut self, time: u64, record: &[u8]) {
        let (offset, len) = (self.bytes.len() as u32, record.len() as u32);
        self.bytes.extend_from_slice(record);
        self.index.push(Entry { time, offset, len });
    }

    /// Puts the records in order of time.
    pub fn sort(&mut self) {
        if !self.index.is_sorted_by_key(|e| e.time) {
            self.index.sort_by_key(|e| e.time);
        }
    }

    /// The records, in order.
    pub fn records(&self) -> impl Iterator<Item = &[u8]> {
        self.index.iter().map(|e| &self.bytes[e.offset as usize..][..e.len as usize])
    }

    /// How many records there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// How many bytes they take.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Forgets the records, keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.index.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorts_by_time_and_keeps_ties() {
        let mut batch = Batch::default();
        for (time, record) in [(3, b"c".as_slice()), (1, b"aa"), (3, b"d"), (2, b"b")] {
            batch.push(time, record);
        }
        batch.sort();
        assert_eq!(batch.records().collect::<Vec<_>>(), [b"aa".as_slice(), b"b", b"c", b"d"]);
        assert_eq!((batch.len(), batch.size()), (4, 5));
        batch.clear();
        assert!(batch.is_empty());
    }
}
