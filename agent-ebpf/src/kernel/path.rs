//! The path of a file, walked from its dentry up to the root of its mount namespace.
//!
//! `d_path()` in fs/d_path.c does the same under locks; a rename during the walk can give a path that was never whole,
//! as it can there before the retry. A deleted file keeps its path. A pseudo file (memfd, pipe) is its own parent.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use haechi_ebpf::fact;

use crate::maps::SCRATCH;
use crate::mem::{Mem, Probe, Ptr, field, get, mask, pointer};
use crate::record::{CELLS, Scratch, WALK, WALK_END};

/// Components walked by typed loads.
const COMPONENTS: u32 = 64;
/// Components and mount points walked by probe reads: alone more than the 64 components that are promised.
const STEPS: u32 = 96;
/// Components and mount points that are only counted.
const REST: u32 = 256;

/// Cells of the walk: where its text begins, how long it is.
const POS: usize = CELLS;
const TOTAL: usize = CELLS + 8;
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
    fn push(&self, name: Ptr, len: u64, slash: u64) {
        let len = mask::<0xff>(len) as u64;
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
        // SAFETY: the walk area has 0x2000 bytes and the key area behind it takes the rest of a name.
        unsafe {
            let to = self.base.add(WALK + at);
            *to = b'/';
            bpf_probe_read_kernel(to.add(slash as usize).cast(), mask::<0xff>(len) as u32, name.cast::<c_void>());
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
    let reached = if M::TYPED { inside::<M>(&walk, dentry, root) } else { Some(dentry) };
    if let Some(reached) = reached {
        walk.set(MOUNT, mount);
        walk.set(DENTRY, reached as u64);
        walk.set(ROOT, root as u64);
        climb(scratch.index);
    }
    if walk.get(TOTAL) == 0 {
        walk.push(b"/".as_ptr(), 0, 1);
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
}

/// `d_parent` and `d_name` as they lie in memory on every kernel so far: `struct qstr { u32 hash; u32 len; name }`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Adjacent {
    parent: Ptr,
    hash: u32,
    len: u32,
    name: Ptr,
}

/// Reads a dentry. Where reads are dear, and the members lie side by side, in one piece.
#[inline(always)]
pub fn link<M: Mem>(dentry: Ptr) -> Link {
    let (parent, len, name) = (get(fact::DENTRY_PARENT), get(fact::DENTRY_NAME_LEN), get(fact::DENTRY_NAME));
    if !M::TYPED && len == parent.wrapping_add(12) && name == parent.wrapping_add(16) {
        // SAFETY: a probe read.
        let read: Adjacent = unsafe { M::load(dentry.wrapping_add(parent as usize)) };
        return Link { parent: read.parent, name: read.name, len: read.len };
    }
    Link {
        parent: pointer::<M>(dentry, fact::DENTRY_PARENT),
        name: pointer::<M>(dentry, fact::DENTRY_NAME),
        len: field::<M, u32>(dentry, fact::DENTRY_NAME_LEN),
    }
}

/// Mount points on top of each other that are looked through for a name.
const STACKED: u32 = 8;

/// The last component of the path: the dentry's name, or that of the mount point where the file is itself mounted.
/// `None` when there is no telling: the file was opened by handle and is in no directory that the mount shows.
#[inline(always)]
pub fn last<M: Mem>(dentry: Ptr, mnt: Ptr) -> Option<Link> {
    if dentry != pointer::<M>(mnt, fact::VFSMOUNT_ROOT) {
        let link = link::<M>(dentry);
        return if link.parent == dentry && link.len == 1 { None } else { Some(link) };
    }
    let mount = (mnt as u64).wrapping_sub(u64::from(get(fact::MOUNT_MNT))) as Ptr;
    let mut place = Place { mount, dentry: core::ptr::null(), root: core::ptr::null() };
    for _ in 0..STACKED {
        match place.step() {
            Step::Mount => (),
            Step::Name(link) | Step::Pseudo(link) => return Some(link),
            Step::End => break,
        }
    }
    Some(Link { parent: core::ptr::null(), name: b"\0".as_ptr(), len: 0 })
}

/// Goes up to the root of the first mount by typed loads, which are three times cheaper. Returns how far it got; `None`
/// when the file is in no directory.
#[inline(always)]
fn inside<M: Mem>(walk: &Walk, first: Ptr, root: Ptr) -> Option<Ptr> {
    let mut dentry = first;
    for _ in 0..COMPONENTS {
        if dentry == root {
            break;
        }
        let Link { parent, name, len } = link::<M>(dentry);
        if parent == dentry {
            top(walk, Link { parent, name, len });
            return None;
        }
        walk.push(name, len.into(), 1);
        dentry = parent;
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
    /// Goes up one step by probe reads.
    ///
    /// VERIFIER: `struct mount` lies around its vfsmount; a direct load before a typed pointer is refused on all
    /// kernels ("ptr_vfsmount invalid negative access").
    #[inline(always)]
    fn step(&mut self) -> Step {
        if self.dentry == self.root {
            let parent = pointer::<Probe>(self.mount, fact::MOUNT_PARENT);
            if parent == self.mount || parent.is_null() {
                return Step::End;
            }
            self.dentry = pointer::<Probe>(self.mount, fact::MOUNT_POINT);
            self.mount = parent;
            self.root = pointer::<Probe>(parent.wrapping_add(get(fact::MOUNT_MNT) as usize), fact::VFSMOUNT_ROOT);
            return Step::Mount;
        }
        let link = link::<Probe>(self.dentry);
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
        match place.step() {
            Step::Mount => (),
            Step::Name(link) => walk.push(link.name, link.len.into(), 1),
            Step::Pseudo(link) => return top(&walk, link),
            Step::End => return 0,
        }
    }
    for _ in 0..REST {
        match place.step() {
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
        walk.push(link.name, link.len.into(), 0);
    }
    if link.len == 1 {
        walk.count(1, 0);
    }
    0
}
