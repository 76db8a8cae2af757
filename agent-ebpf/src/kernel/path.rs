//! The path of a file, walked from its dentry up to the root of its mount namespace.
//!
//! `d_path()` in fs/d_path.c does the same under locks; a rename during the walk can give a path that was never whole,
//! as it can there before the retry. A deleted file keeps its path. A pseudo file (memfd, pipe) is its own parent.

use core::ffi::c_void;
use core::mem::MaybeUninit;

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use haechi_ebpf::fact;

use crate::maps::SCRATCH;
use crate::mem::{Mem, Probe, Ptr, field, get, has, inside, mask, pointer, pointers};
use crate::record::{CELLS, KEYS, Scratch, WALK, WALK_END};

/// Components walked by typed loads.
const COMPONENTS: u32 = 64;
/// Components and mount points walked by probe reads: alone more than the 64 components that are promised.
const STEPS: u32 = 96;
/// Components and mount points that are only counted.
const REST: u32 = 256;

/// Cells of the walk: where its text begins, how long it is.
const POS: usize = CELLS;
const TOTAL: usize = CELLS + 8;
/// Where [`climb`] reads dentries to.
const DENTRY_COPY: usize = KEYS + 0x200;
/// Set in the cell of the position once a name found no room: a shorter one above it must not be told either.
const FULL: u64 = 1 << 32;
/// Cells of the place from which [`climb`] goes on.
const MOUNT: usize = CELLS + 24;
const DENTRY: usize = CELLS + 32;
const ROOT: usize = CELLS + 40;

/// A path in the walk area of a scratch buffer.
#[derive(Clone, Copy)]
pub struct Walked {
    /// Where it begins, in the scratch buffer.
    pub start: usize,
    /// Bytes stored: the end of the path.
    pub len: u64,
    /// Bytes it has.
    pub true_len: u64,
}

/// A walk under way. How far it is lies in the scratch buffer, not in registers.
///
/// VERIFIER: "BPF program is too large": a position whose bounds differ from step to step makes every step a state of
/// its own, and all that follows is verified again for each. What is read back from a map has no bounds to differ.
struct Walk {
    base: *mut u8,
}

impl Walk {
    #[inline(always)]
    fn get(&self, cell: usize) -> u64 {
        // SAFETY: the cells are inside the scratch buffer.
        unsafe { core::ptr::read_volatile(self.base.add(cell).cast()) }
    }

    #[inline(always)]
    fn set(&self, cell: usize, value: u64) {
        // SAFETY: as above.
        unsafe { core::ptr::write_volatile(self.base.add(cell).cast(), value) }
    }

    #[inline(always)]
    fn count(&self, len: u64, slash: u64) {
        self.set(TOTAL, self.get(TOTAL) + (len & 0xff) + slash);
    }

    /// Puts a name, and `slash` slashes (0 or 1), before what is there. When there is no room it only counts.
    #[inline(always)]
    fn push(&self, link: Link, slash: u64) {
        let len = mask::<0xff>(link.len.into()) as u64;
        let size = len + slash;
        let pos = self.get(POS);
        self.count(len, slash);
        if pos & FULL != 0 {
            return;
        }
        if pos < size {
            self.set(POS, pos | FULL);
            return;
        }
        let at = mask::<0x1fff>(pos - size);
        self.set(POS, at as u64);
        // SAFETY: the walk area has 0x2000 bytes, before it lies a margin, and the key area behind it takes the rest of
        // a name.
        unsafe {
            let to = self.base.add(WALK + at);
            if link.copied && len < INLINE as u64 {
                self.copy_name(at + slash as usize, len);
                if slash != 0 {
                    *to = b'/';
                }
            } else {
                *to = b'/';
                let to = to.add(slash as usize).cast();
                bpf_probe_read_kernel(to, mask::<0xff>(len) as u32, link.name.cast::<c_void>());
            }
        }
    }

    /// Reads a dentry, and its name with it where that can be.
    #[inline(always)]
    fn link(&self, dentry: Ptr) -> Link {
        if adjacent() {
            // SAFETY: the key area has room for it.
            unsafe { Adjacent::<INLINE>::read(dentry, self.base.add(DENTRY_COPY).cast()) }
        } else {
            link::<Probe>(dentry)
        }
    }

    /// Copies the name that was read with its dentry to `at` of the walk area, in as many bytes as it may have: what they
    /// are too many is overwritten by what comes before the name.
    #[inline(always)]
    unsafe fn copy_name(&self, at: usize, len: u64) {
        let len = mask::<0x1f>(len);
        // SAFETY: the caller's `at` is inside the walk area, before which lies a margin.
        unsafe {
            let from = self.base.add(DENTRY_COPY + len).cast::<u64>();
            let to = self.base.add(WALK - INLINE + at + len).cast::<u64>();
            for i in 0..INLINE / 8 {
                core::ptr::write_volatile(to.add(i), core::ptr::read_volatile(from.add(i)));
            }
        }
    }
}

/// Walks the path of (`dentry`, `mnt`) in the record buffer `scratch`.
#[inline(always)]
pub fn walk<M: Mem>(scratch: &Scratch, dentry: Ptr, mnt: Ptr) -> Walked {
    let walk = Walk { base: scratch.memory };
    walk.set(POS, WALK_END as u64);
    walk.set(TOTAL, 0);
    let root = pointer::<M>(mnt, fact::VFSMOUNT_ROOT);
    let mount = (mnt as u64).wrapping_sub(u64::from(get(fact::MOUNT_MNT)));
    let reached = if M::TYPED { within::<M>(&walk, dentry, root) } else { Some(dentry) };
    if let Some(reached) = reached {
        walk.set(MOUNT, mount);
        walk.set(DENTRY, reached as u64);
        walk.set(ROOT, root as u64);
        climb(scratch.index);
    }
    if walk.get(TOTAL) == 0 {
        walk.push(NAMELESS, 1);
    }
    let start = mask::<0x1fff>(walk.get(POS));
    let len = (WALK_END as u64).wrapping_sub(start as u64);
    Walked { start: WALK + start, len, true_len: walk.get(TOTAL) }
}

/// What a dentry says of itself.
#[derive(Clone, Copy)]
pub struct Link {
    /// The directory it lies in.
    pub parent: Ptr,
    /// Its name, a C string.
    pub name: Ptr,
    /// Bytes of the name.
    pub len: u32,
    /// The name's first byte, or [`UNREAD`].
    pub first: u32,
    /// The name's first [`INLINE`] bytes were read, behind the other members.
    copied: bool,
}

/// No byte.
pub const UNREAD: u32 = 0x100;

/// No name.
const NAMELESS: Link = Link { parent: core::ptr::null(), name: b"\0".as_ptr(), len: 0, first: UNREAD, copied: false };

/// Bytes of a name that a dentry holds itself on every kernel so far (`DNAME_INLINE_LEN` of include/linux/dcache.h).
const INLINE: usize = 32;

/// `struct dentry` from `d_parent` on, as it lies in memory on every kernel so far; `d_name` is
/// `struct qstr { u32 hash; u32 len; name }`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Adjacent<const NAME: usize> {
    parent: Ptr,
    hash: u32,
    len: u32,
    name: Ptr,
    inode: Ptr,
    text: [u8; NAME],
}

/// Bytes of [`Adjacent`] before the text.
const TEXT: u32 = 32;

/// Whether the running kernel's dentry is one.
#[inline(always)]
fn adjacent() -> bool {
    let parent = get(fact::DENTRY_PARENT);
    get(fact::DENTRY_NAME_LEN) == parent.wrapping_add(12)
        && get(fact::DENTRY_NAME) == parent.wrapping_add(16)
        && get(fact::DENTRY_INLINE_NAME) == parent.wrapping_add(TEXT)
}

impl<const NAME: usize> Adjacent<NAME> {
    /// Reads the dentry to `room`.
    ///
    /// # Safety
    /// `room` has the bytes.
    #[inline(always)]
    unsafe fn read(dentry: Ptr, room: *mut Self) -> Link {
        let from = dentry.wrapping_add(get(fact::DENTRY_PARENT) as usize);
        // SAFETY: the helper writes all of it, with zeroes where the read fails.
        unsafe {
            bpf_probe_read_kernel(room.cast(), size_of::<Self>() as u32, from.cast::<c_void>());
            let (parent, name, len) = ((*room).parent, (*room).name, (*room).len);
            let within = name == from.wrapping_add(TEXT as usize);
            let first = if within { (*room).text[0].into() } else { UNREAD };
            Link { parent, name, len, first, copied: within && NAME == INLINE }
        }
    }
}

/// Reads a dentry. Where reads are dear, and the members lie side by side, in one piece.
#[inline(always)]
pub fn link<M: Mem>(dentry: Ptr) -> Link {
    if !M::TYPED && adjacent() {
        let mut room = MaybeUninit::<Adjacent<8>>::uninit();
        // SAFETY: there is room for it.
        return unsafe { Adjacent::read(dentry, room.as_mut_ptr()) };
    }
    Link {
        parent: pointer::<M>(dentry, fact::DENTRY_PARENT),
        name: pointer::<M>(dentry, fact::DENTRY_NAME),
        len: field::<M, u32>(dentry, fact::DENTRY_NAME_LEN),
        first: UNREAD,
        copied: false,
    }
}

/// The first byte of a name that lies in its dentry, by a typed load.
#[inline(always)]
fn first_of<M: Mem>(dentry: Ptr, link: Link) -> Link {
    if M::TYPED && has(fact::DENTRY_INLINE_NAME) && link.name == inside(dentry, fact::DENTRY_INLINE_NAME) {
        return Link { first: field::<M, u8>(dentry, fact::DENTRY_INLINE_NAME).into(), ..link };
    }
    link
}

/// Mount points on top of each other that are looked through for a name.
const STACKED: u32 = 8;

/// The last component of the path: the dentry's name, or that of the mount point where the file is itself mounted.
/// `None` when there is no telling: the file was opened by handle and is in no directory that the mount shows.
#[inline(always)]
pub fn last<M: Mem>(dentry: Ptr, mnt: Ptr) -> Option<Link> {
    if dentry != pointer::<M>(mnt, fact::VFSMOUNT_ROOT) {
        let link = first_of::<M>(dentry, link::<M>(dentry));
        return if link.parent == dentry && link.len == 1 { None } else { Some(link) };
    }
    let mount = (mnt as u64).wrapping_sub(u64::from(get(fact::MOUNT_MNT))) as Ptr;
    let mut place = Place { mount, dentry: core::ptr::null(), root: core::ptr::null() };
    for _ in 0..STACKED {
        match place.step(None) {
            Step::Mount => (),
            Step::Name(link) | Step::Pseudo(link) => return Some(link),
            Step::End => break,
        }
    }
    Some(NAMELESS)
}

/// Goes up to the root of the first mount by typed loads, which are three times cheaper. Returns how far it got; `None`
/// when the file is in no directory.
#[inline(always)]
fn within<M: Mem>(walk: &Walk, first: Ptr, root: Ptr) -> Option<Ptr> {
    let mut dentry = first;
    for _ in 0..COMPONENTS {
        if dentry == root {
            break;
        }
        let link = link::<M>(dentry);
        if link.parent == dentry {
            top(walk, link);
            return None;
        }
        walk.push(link, 1);
        dentry = link.parent;
    }
    Some(dentry)
}

/// Where a walk is: a dentry of a mount whose root is `root`.
struct Place {
    mount: Ptr,
    dentry: Ptr,
    root: Ptr,
}

/// A step of a walk.
enum Step {
    /// Over a mount point; nothing to tell.
    Mount,
    /// Past this name.
    Name(Link),
    /// To a file that is in no directory.
    Pseudo(Link),
    /// At the root of the mount namespace.
    End,
}

impl Place {
    /// Goes up one step by probe reads; for a walk, names are read with their dentries.
    ///
    /// VERIFIER: `struct mount` lies around its vfsmount; a direct load before a typed pointer is refused on all
    /// kernels ("ptr_vfsmount invalid negative access").
    #[inline(always)]
    fn step(&mut self, walk: Option<&Walk>) -> Step {
        if self.dentry == self.root {
            let [parent, point] = pointers::<Probe, 2>(self.mount, [fact::MOUNT_PARENT, fact::MOUNT_POINT]);
            if parent == self.mount || parent.is_null() {
                return Step::End;
            }
            self.dentry = point;
            self.mount = parent;
            self.root = pointer::<Probe>(parent, fact::MOUNT_ROOT);
            return Step::Mount;
        }
        let link = match walk {
            Some(walk) => walk.link(self.dentry),
            None => link::<Probe>(self.dentry),
        };
        if link.parent == self.dentry {
            return Step::Pseudo(link);
        }
        self.dentry = link.parent;
        Step::Name(link)
    }
}

/// Goes on from the place in the cells to the root of the mount namespace by probe reads. What is too deep to be told is
/// only counted, so that the true length is known; beyond [`REST`] more it is a lower bound.
///
/// VERIFIER: a global function, which is verified once for whatever it is given, and whose callers know nothing of what
/// it did. In line, each way out of these loops was a state of its own for all that followed: an exec record with three
/// paths took 800 k instructions. Such a function takes plain numbers only, hence the cells and the index.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn climb(scratch: u32) -> u32 {
    let Some(memory) = SCRATCH.get_ptr_mut(scratch) else { return 1 };
    let walk = Walk { base: memory.cast() };
    let mut place =
        Place { mount: walk.get(MOUNT) as Ptr, dentry: walk.get(DENTRY) as Ptr, root: walk.get(ROOT) as Ptr };
    for _ in 0..STEPS {
        match place.step(Some(&walk)) {
            Step::Mount => (),
            Step::Name(link) => walk.push(link, 1),
            Step::Pseudo(link) => return top(&walk, link),
            Step::End => return 0,
        }
    }
    for _ in 0..REST {
        match place.step(Some(&walk)) {
            Step::Mount => (),
            Step::Name(link) => walk.count(link.len.into(), 1),
            Step::Pseudo(_) | Step::End => return 0,
        }
    }
    walk.count(1, 0);
    0
}

/// A dentry that is its own parent, and not the root of its mount: a file that is in no directory (memfd), told by its
/// name; or one that the mount does not show (opened by handle), whose path is marked as cut.
#[inline(always)]
fn top(walk: &Walk, link: Link) -> u32 {
    if walk.get(TOTAL) == 0 {
        walk.push(link, 0);
    }
    if link.len == 1 {
        walk.count(1, 0);
    }
    0
}
