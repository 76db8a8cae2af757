//! Writing a record: the kernel half of `haechi_ebpf::wire`.
//!
//! A record is put together in a scratch buffer of the CPU and copied to its ring in one piece, as long as its content.
//! Programs can be preempted, so a CPU has several buffers; when all are taken the record is lost and counted. What has
//! always the same length needs neither buffer nor copy: [`InRing`].

use core::ffi::c_void;
use core::ops::{Deref, DerefMut};

use aya_ebpf::helpers::generated::{
    bpf_get_smp_processor_id, bpf_probe_read_kernel, bpf_probe_read_kernel_str, bpf_probe_read_user,
    bpf_probe_read_user_str, bpf_ringbuf_output, bpf_ringbuf_reserve, bpf_ringbuf_submit,
};
use aya_ebpf::maps::RingBuf;
use aya_log_ebpf::debug;
use haechi_ebpf::event::{EventDef, EventId, Field, Ring};
use haechi_ebpf::loss::{Loss, column};
use haechi_ebpf::wire::{self, HEADER, RECORD_MAX, SCRATCH_PER_CPU, at, var};

use crate::maps::{BULK, COUNTERS, CRITICAL, FLOWS, PARKED, SCRATCH, SCRATCH_USERS, SEQUENCE};
use crate::mem::{Mem, Ptr, mask};
use crate::path::{self, Walked};

/// The walk area of a scratch buffer, behind the record and its margin (a read may begin at the record's last byte).
pub const WALK: usize = RECORD_MAX + 0x2000;
/// Bytes of path that the walk area holds: PATH_MAX.
pub const WALK_END: usize = 0x1000;
/// Small keys and tables.
pub const KEYS: usize = WALK + 0x2000;
/// A few words that programs keep out of registers.
pub const CELLS: usize = KEYS + 0x3c0;
/// The cell that says where the next variable bytes go.
const POSITION: usize = CELLS + 16;

/// Bytes of `struct sockaddr_storage`, include/uapi/linux/socket.h.
const ADDRESS_MAX: u64 = 128;

/// `include/uapi/linux/bpf.h`. A wake-up costs hundreds of records: there is one only where the reader has gone to sleep
/// because nothing happened, never one a record.
const BPF_RB_NO_WAKEUP: u64 = 1;
const BPF_RB_FORCE_WAKEUP: u64 = 2;

/// How the next record is to be put on its ring.
#[inline(always)]
fn wake_up() -> u64 {
    if let Some(parked) = PARKED.get_ptr_mut(0) {
        // SAFETY: the value is plain numbers. Two that read it at once both wake, which costs no more than that.
        unsafe {
            if core::ptr::read_volatile(parked) != 0 {
                core::ptr::write_volatile(parked, 0);
                return BPF_RB_FORCE_WAKEUP;
            }
        }
    }
    BPF_RB_NO_WAKEUP
}

/// Adds atomically and returns nothing: the one atomic operation that 5.10 has. The compiler offers none on this target.
#[inline(always)]
unsafe fn add(to: *mut u64, value: u64) {
    // SAFETY: the caller gives a live map value.
    unsafe { core::arch::asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) to, in(reg) value, options(nostack)) }
}

/// Counts one `cell` of an event.
#[inline(always)]
pub fn count(event: EventId, cell: usize) {
    if let Some(counter) = COUNTERS.get_ptr_mut((event as usize * column::COUNT + cell) as u32) {
        // SAFETY: the cell is this CPU's; atomic against a program that preempts this one.
        unsafe { add(counter, 1) };
    }
}

/// A scratch buffer held by the running program.
pub struct Scratch {
    /// Its memory.
    pub memory: *mut u8,
    /// Its place in the map.
    pub index: u32,
    user: *mut u64,
}

impl Scratch {
    /// Takes a free buffer of this CPU.
    ///
    /// The count of users is added to and then read, in this order: whoever reads 1 is alone, because whoever comes
    /// later reads at least 2. Two that meet may both go on to the next buffer, which costs nothing but the buffer.
    /// An atomic exchange would do it in one step, but is missing before Linux 5.12.
    #[inline(always)]
    pub fn take() -> Option<Self> {
        // SAFETY: no preconditions.
        let first = unsafe { bpf_get_smp_processor_id() } * SCRATCH_PER_CPU;
        for i in 0..SCRATCH_PER_CPU {
            let user = SCRATCH_USERS.get_ptr_mut(first + i)?;
            // SAFETY: the pointer is to a live map value.
            unsafe {
                add(user, 1);
                if core::ptr::read_volatile(user) == 1 {
                    return Some(Self { memory: SCRATCH.get_ptr_mut(first + i)?.cast(), index: first + i, user });
                }
                add(user, u64::MAX);
            }
        }
        None
    }

    /// Gives it back.
    #[inline(always)]
    pub fn give(self) {
        // SAFETY: as in `take`.
        unsafe { add(self.user, u64::MAX) };
    }
}

/// Text that the process gave, where it lies in the record.
#[derive(Clone, Copy)]
pub struct Given {
    /// Where it starts.
    pub start: u64,
    len: u64,
    marks: u32,
}

/// The parts of a record that lie at fixed places, wherever it is put together.
pub struct Slots {
    memory: *mut u8,
    present: u64,
}

impl Slots {
    #[inline(always)]
    fn begin(&self, def: &'static EventDef) {
        self.header_u16(at::EVENT, def.id);
        self.header_u16(at::SLOTS, def.fields.len() as u16 | u16::from(wire::VERSION) << 8);
    }

    /// The memory it is written in.
    #[inline(always)]
    pub fn memory(&self) -> *mut u8 {
        self.memory
    }

    #[inline(always)]
    fn store(&self, offset: usize, value: u64) {
        // SAFETY: `offset` is a constant inside the record.
        unsafe { core::ptr::write_volatile(self.memory.add(offset).cast(), value) }
    }

    /// Sets a `u16` of the header.
    #[inline(always)]
    pub fn header_u16(&self, offset: usize, value: u16) {
        // SAFETY: as in `store`.
        unsafe { core::ptr::write_volatile(self.memory.add(offset).cast(), value) }
    }

    /// Sets a `u32` of the header.
    #[inline(always)]
    pub fn header_u32(&self, offset: usize, value: u32) {
        // SAFETY: as in `store`.
        unsafe { core::ptr::write_volatile(self.memory.add(offset).cast(), value) }
    }

    /// Sets a `u64` of the header.
    #[inline(always)]
    pub fn header_u64(&self, offset: usize, value: u64) {
        self.store(offset, value);
    }

    /// Sets a fixed field.
    #[inline(always)]
    pub fn put(&mut self, field: Field, value: u64) {
        self.store(HEADER + 8 * field.0 as usize, value);
        self.present |= 1 << field.0;
    }

    /// Sets a signed field.
    #[inline(always)]
    pub fn put_int(&mut self, field: Field, value: i64) {
        self.put(field, value as u64);
    }

    /// Sets a variable field whose `len` bytes the caller puts at a place of its own choice.
    #[inline(always)]
    pub fn place(&mut self, field: Field, start: usize, len: u64) {
        self.put(field, wire::var_slot(start as u64, len, len, 0));
    }
}

/// A record of `LEN` bytes, written where it will be read: no buffer is taken and nothing is copied. Whoever writes it
/// says of each field what it is, or that it is absent: the memory holds what was there before.
pub struct InRing<const LEN: u64> {
    slots: Slots,
    event: EventId,
}

impl<const LEN: u64> InRing<LEN> {
    /// Begins a record of `def`; `None` is a counted loss.
    #[inline(always)]
    pub fn begin(def: &'static EventDef) -> Option<Self> {
        let seq = tried(def.id, def.ring);
        // SAFETY: a `RingBuf` is its map definition. What is reserved is always submitted.
        let memory = unsafe { bpf_ringbuf_reserve(ring(def.ring).cast(), LEN, 0) }.cast::<u8>();
        if memory.is_null() {
            count(def.id, column::LOSS + Loss::RingFull as usize);
            log_sent(def.id.into(), LEN as u32, 1);
            return None;
        }
        let slots = Slots { memory, present: 0 };
        slots.begin(def);
        slots.header_u32(at::LEN, LEN as u32);
        slots.header_u32(at::SEQ, seq);
        // SAFETY: no preconditions.
        slots.header_u16(at::CPU, unsafe { bpf_get_smp_processor_id() } as u16);
        Some(Self { slots, event: def.id })
    }

    /// Says that a field is missing.
    #[inline(always)]
    pub fn absent(&self, field: Field) {
        self.store(HEADER + 8 * field.0 as usize, 0);
    }

    /// Lets the reader have it.
    #[inline(always)]
    pub fn send(self) {
        self.store(at::PRESENT, self.slots.present);
        // SAFETY: it was reserved in `begin`.
        unsafe { bpf_ringbuf_submit(self.slots.memory.cast(), wake_up()) };
        log_sent(self.event.into(), LEN as u32, 0);
    }
}

impl<const LEN: u64> Deref for InRing<LEN> {
    type Target = Slots;

    #[inline(always)]
    fn deref(&self) -> &Slots {
        &self.slots
    }
}

impl<const LEN: u64> DerefMut for InRing<LEN> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut Slots {
        &mut self.slots
    }
}

/// A record being written.
pub struct Record {
    slots: Slots,
    scratch: Scratch,
    event: EventId,
    ring: Ring,
}

impl Deref for Record {
    type Target = Slots;

    #[inline(always)]
    fn deref(&self) -> &Slots {
        &self.slots
    }
}

impl DerefMut for Record {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut Slots {
        &mut self.slots
    }
}

impl Record {
    /// Begins a record of `def`; `None` is a counted loss.
    #[inline(always)]
    pub fn begin(def: &'static EventDef) -> Option<Self> {
        match Scratch::take() {
            Some(scratch) => Some(Self::begin_in(scratch, def)),
            None => {
                lost_for_scratch(def);
                None
            }
        }
    }

    /// Begins a record in a buffer that is already held.
    #[inline(always)]
    pub fn begin_in(scratch: Scratch, def: &'static EventDef) -> Self {
        let slots = Slots { memory: scratch.memory, present: 0 };
        let record = Self { slots, scratch, event: def.id, ring: def.ring };
        record.set_position((HEADER + 8 * def.fields.len()) as u64);
        record.begin(def);
        record.header_u16(at::CPU, 0);
        record.header_u32(at::SEQ, 0);
        for i in 0..def.fields.len() {
            record.store(HEADER + 8 * i, 0);
        }
        record
    }

    /// The buffer it is written in, for a walk.
    #[inline(always)]
    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// Where the next variable bytes go: a pointer with room for 0x2000 bytes.
    #[inline(always)]
    fn tail(&self) -> (*mut c_void, u64) {
        let offset = mask::<0xffff>(self.position());
        // SAFETY: the record area is followed by a margin of 0x2000 bytes.
        (unsafe { self.scratch.memory.add(offset) }.cast(), offset as u64)
    }

    #[inline(always)]
    fn close(&mut self, field: Field, start: u64, len: u64, true_len: u64, marks: u32) {
        self.put(field, wire::var_slot(start, len, true_len, marks));
        self.set_position(start + len);
    }

    /// Sets a text field from a C string in the kernel, up to `MAX` bytes.
    #[inline(always)]
    pub fn put_kernel_str<const MAX: u32>(&mut self, field: Field, from: Ptr) {
        let (to, start) = self.tail();
        // SAFETY: `MAX` is at most 0x2000, see `tail`.
        let read = unsafe { bpf_probe_read_kernel_str(to, MAX, from.cast()) };
        if read > 0 {
            let len = mask::<0x1fff>(read as u64 - 1) as u64;
            let cut = if len == u64::from(MAX) - 1 { var::TRUNCATED } else { 0 };
            self.close(field, start, len, len, cut);
        }
    }

    /// Sets a text field from a C string that the process gave: in its memory (`USER`), or already copied by the kernel.
    /// Marked as the process's word either way. It is read once; other fields are made of what was read.
    #[inline(always)]
    pub fn put_given<const MAX: u32, const USER: bool>(&mut self, field: Field, from: u64) -> Given {
        let given = self.read_given::<MAX, USER>(from);
        self.put_same(field, given);
        given
    }

    /// Reads such a string for fields that are made of it.
    #[inline(always)]
    pub fn read_given<const MAX: u32, const USER: bool>(&mut self, from: u64) -> Given {
        let (to, start) = self.tail();
        let from = from as *const c_void;
        // SAFETY: `MAX` is at most 0x2000, see `tail`.
        let read = unsafe {
            if USER { bpf_probe_read_user_str(to, MAX, from) } else { bpf_probe_read_kernel_str(to, MAX, from) }
        };
        let len = if read > 0 { mask::<0x1fff>(read as u64 - 1) as u64 } else { 0 };
        let cut = if read <= 0 || len == u64::from(MAX) - 1 { var::TRUNCATED } else { 0 };
        self.set_position(start + len);
        Given { start, len, marks: var::USER | cut }
    }

    /// Sets a text field to what was given, without a second copy.
    #[inline(always)]
    pub fn put_same(&mut self, field: Field, given: Given) {
        self.put(field, wire::var_slot(given.start, given.len, given.len, given.marks));
    }

    /// Sets a path field to a directory, walked in this record's buffer, and what was given relative to it.
    #[inline(always)]
    pub fn put_joined(&mut self, field: Field, directory: Walked, given: Given) {
        let (start, dir_len) = self.copy_walked(directory);
        let cut = if directory.true_len > dir_len { var::TRUNCATED } else { 0 };
        let slash = if self.byte(start + dir_len - 1) == b'/' { 0 } else { 1 };
        self.set_position(start + dir_len);
        let (to, _) = self.tail();
        // SAFETY: as in `tail`.
        unsafe { *to.cast::<u8>() = b'/' };
        self.set_position(start + dir_len + slash);
        let (to, _) = self.tail();
        let len = mask::<0x1fff>(given.len);
        let from = mask::<0xffff>(given.start);
        // SAFETY: as above; what was given lies in the record area.
        unsafe { bpf_probe_read_kernel(to, len as u32, self.scratch.memory.add(from).cast()) };
        let stored = dir_len + slash + len as u64;
        let true_len = directory.true_len + slash + given.len;
        self.close(field, start, stored, true_len, given.marks | cut);
    }

    /// A byte of what was written; for looking at the beginning of a text.
    #[inline(always)]
    pub fn byte(&self, offset: u64) -> u8 {
        // SAFETY: masked to the record area.
        unsafe { core::ptr::read_volatile(self.scratch.memory.add(mask::<0xffff>(offset))) }
    }

    /// Sets an address field from the kernel, or from the process (`USER`, marked so).
    #[inline(always)]
    pub fn put_address<const USER: bool>(&mut self, field: Field, from: u64, true_len: u64) {
        let (to, start) = self.tail();
        let len = mask::<0xff>(if true_len > ADDRESS_MAX { ADDRESS_MAX } else { true_len });
        let from = from as *const c_void;
        // SAFETY: as in `tail`.
        let failed = unsafe {
            if USER { bpf_probe_read_user(to, len as u32, from) } else { bpf_probe_read_kernel(to, len as u32, from) }
        };
        if failed == 0 {
            let cut = if true_len > ADDRESS_MAX { var::TRUNCATED } else { 0 };
            self.close(field, start, len as u64, true_len, cut | if USER { var::USER } else { 0 });
        }
    }

    /// Sets a variable field to the first `len` bytes of some words.
    #[inline(always)]
    pub fn put_words(&mut self, field: Field, words: [u64; 4], len: u64) {
        let (to, start) = self.tail();
        for (i, word) in words.into_iter().enumerate() {
            // SAFETY: as in `tail`.
            unsafe { core::ptr::write_volatile(to.cast::<u64>().add(i), word) };
        }
        self.close(field, start, len, len, 0);
    }

    /// Sets a field from the range `from..end` of the process, up to `max` (at most 0x2000) bytes. At exec nobody else
    /// has that memory yet, so it is not marked.
    #[inline(always)]
    pub fn put_user_range(&mut self, field: Field, from: u64, end: u64, max: u64) {
        if end <= from || max == 0 {
            return;
        }
        let (to, start) = self.tail();
        let true_len = end - from;
        let want = if true_len > max { max } else { true_len };
        let want = if want > 0x1fff { 0x2000 } else { mask::<0x1fff>(want) as u64 };
        // SAFETY: `want` is at most 0x2000, see `tail`.
        if unsafe { bpf_probe_read_user(to, want as u32, from as *const c_void) } == 0 {
            let marks = if want < true_len { var::TRUNCATED } else { 0 };
            self.close(field, start, want, true_len, marks);
        } else {
            self.close(field, start, 0, true_len, var::TRUNCATED);
        }
    }

    /// Sets a path field by walking it.
    #[inline(always)]
    pub fn put_path<M: Mem>(&mut self, field: Field, dentry: Ptr, mnt: Ptr) {
        if dentry.is_null() {
            return;
        }
        let walked = path::walk::<M>(&self.scratch, dentry, mnt);
        self.put_walked(field, walked);
    }

    /// Sets a path field from what was walked in this record's buffer.
    #[inline(always)]
    pub fn put_walked(&mut self, field: Field, walked: Walked) {
        let (start, len) = self.copy_walked(walked);
        let cut = if walked.true_len > len { var::TRUNCATED } else { 0 };
        self.close(field, start, len, walked.true_len, cut);
    }

    /// Copies what was walked to the tail; returns where it starts and how long it is.
    #[inline(always)]
    fn copy_walked(&mut self, walked: Walked) -> (u64, u64) {
        let (to, start) = self.tail();
        let len = mask::<0x1fff>(walked.len);
        // SAFETY: as in `tail`; the walk area is inside the buffer.
        unsafe { bpf_probe_read_kernel(to, len as u32, self.scratch.memory.add(walked.start).cast()) };
        (start, len as u64)
    }

    /// Where the next variable bytes will start.
    ///
    /// VERIFIER: kept in the buffer, not in a register, for the reason told in [`crate::path`]: fields that may be
    /// missing would give it many possible bounds, and every walk after them would be verified for each.
    #[inline(always)]
    fn position(&self) -> u64 {
        // SAFETY: the cell is inside the scratch buffer.
        unsafe { core::ptr::read_volatile(self.scratch.memory.add(POSITION).cast()) }
    }

    #[inline(always)]
    fn set_position(&self, position: u64) {
        self.store(POSITION, position);
    }

    /// Finishes the bytes; returns how many there are.
    #[inline(always)]
    pub fn seal(&self) -> usize {
        self.store(at::PRESENT, self.slots.present);
        let len = mask::<0xffff>(self.position());
        self.header_u32(at::LEN, len as u32);
        len
    }

    /// Sends it to its ring. A full ring is a counted loss.
    #[inline(always)]
    pub fn send(self) {
        let len = self.seal();
        let seq = tried(self.event, self.ring);
        self.header_u32(at::SEQ, seq);
        // SAFETY: no preconditions.
        self.header_u16(at::CPU, unsafe { bpf_get_smp_processor_id() } as u16);
        // SAFETY: `len` is masked to the record area; a `RingBuf` is its map definition.
        let failed =
            unsafe { bpf_ringbuf_output(ring(self.ring).cast(), self.scratch.memory.cast(), len as u64, wake_up()) };
        if failed != 0 {
            count(self.event, column::LOSS + Loss::RingFull as usize);
        }
        log_sent(self.event.into(), len as u32, failed as i32);
        self.scratch.give();
    }

    /// Gives the buffer back without sending anything.
    #[inline(always)]
    pub fn drop_silently(self) {
        self.scratch.give();
    }
}

#[inline(always)]
fn ring(ring: Ring) -> *mut RingBuf {
    match ring {
        Ring::Critical => (&raw const CRITICAL).cast_mut(),
        Ring::Flow => (&raw const FLOWS).cast_mut(),
        _ => (&raw const BULK).cast_mut(),
    }
}

/// Says what was sent, for those who work on the programs; gone before the program runs unless it was asked for.
/// A function of its own, so that its many instructions are there once.
#[inline(never)]
fn log_sent(event: u32, len: u32, failed: i32) {
    debug!((), "event {}: {} bytes, result {}", event, len, failed);
}

/// Counts a record that could not even be begun.
#[inline(always)]
pub fn lost_for_scratch(def: &'static EventDef) {
    tried(def.id, def.ring);
    count(def.id, column::LOSS + Loss::ScratchBusy as usize);
}

/// Counts a record that is about to be sent, and numbers it.
#[inline(always)]
fn tried(event: EventId, ring: Ring) -> u32 {
    count(event, column::TRIED);
    match SEQUENCE.get_ptr_mut(ring as u32) {
        // SAFETY: this CPU's cell. A program that preempts this one here may give a number twice; the counters, not
        // the numbers, say what was lost.
        Some(seq) => unsafe {
            let next = (*seq).wrapping_add(1);
            *seq = next;
            next
        },
        None => 0,
    }
}
