//! The path of a file, walked from its dentry up to the root of its mount namespace.
//!
//! `d_path()` in fs/d_path.c does the same under locks; a rename during the walk can give a path that was never whole,
//! as it can there before the retry. A deleted file keeps its path. A pseudo file (memfd, pipe) is its own parent.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use haechi_ebpf::fact;

use crate::mem::{Mem, Probe, Ptr, field, get, mask, pointer};
use crate::record::{CELLS, WALK, WALK_END};

/// Components walked inside the first mount: more than the 64 that are promised.
const COMPONENTS: u32 = 96;
/// Components and mount points walked where there are no typed loads.
const STEPS: u32 = 96;

/// Cells of the walk: where its text begins, how long it is.
const POS: usize = CELLS;
const TOTAL: usize = CELLS + 8;

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
    fn begin(base: *mut u8) -> Self {
        let walk = Self { base };
        walk.set(POS, WALK_END as u64);
        walk.set(TOTAL, 0);
        walk
    }

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

    /// Puts a name, and `slash` slashes (0 or 1), before what is there. When there is no room it only counts.
    #[inline(always)]
    fn push(&self, name: Ptr, len: u64, slash: u64) {
        let len = mask::<0xff>(len) as u64;
        let size = len + slash;
        let pos = self.get(POS);
        self.set(TOTAL, self.get(TOTAL) + size);
        if pos < size {
            self.set(POS, 0);
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

/// Walks the path of (`dentry`, `mnt`). `scratch` is a scratch buffer.
#[inline(always)]
pub fn walk<M: Mem>(scratch: *mut u8, dentry: Ptr, mnt: Ptr) -> Walked {
    let walk = Walk::begin(scratch);
    let root = pointer::<M>(mnt, fact::VFSMOUNT_ROOT);
    let mount = (mnt as u64).wrapping_sub(u64::from(get(fact::MOUNT_MNT))) as Ptr;
    if M::TYPED {
        // Ended inside the mount: going on above it would give a path that does not exist.
        if inside::<M>(&walk, dentry, root) {
            above(&walk, mount, core::ptr::null(), core::ptr::null());
        }
    } else {
        above(&walk, mount, dentry, root);
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

/// Goes up to the root of the first mount by typed loads, which are three times cheaper. Returns whether it got there.
#[inline(always)]
fn inside<M: Mem>(walk: &Walk, first: Ptr, root: Ptr) -> bool {
    let mut dentry = first;
    for _ in 0..COMPONENTS {
        if dentry == root {
            return true;
        }
        let Link { parent, name, len } = link::<M>(dentry);
        if parent == dentry {
            walk.push(name, len.into(), 0);
            return false;
        }
        walk.push(name, len.into(), 1);
        dentry = parent;
    }
    false
}

/// Goes up to the root of the mount namespace, over mount points, from a dentry of a mount whose root is `top`.
///
/// VERIFIER: `struct mount` lies around its vfsmount; a direct load before a typed pointer is refused on all kernels
/// ("ptr_vfsmount invalid negative access"), hence probe reads.
#[inline(always)]
fn above(walk: &Walk, first: Ptr, start: Ptr, top: Ptr) {
    let (mut mount, mut dentry, mut root) = (first, start, top);
    for _ in 0..STEPS {
        if dentry == root {
            let parent = pointer::<Probe>(mount, fact::MOUNT_PARENT);
            if parent == mount || parent.is_null() {
                break;
            }
            dentry = pointer::<Probe>(mount, fact::MOUNT_POINT);
            mount = parent;
            let vfsmount = mount.wrapping_add(get(fact::MOUNT_MNT) as usize);
            root = pointer::<Probe>(vfsmount, fact::VFSMOUNT_ROOT);
            continue;
        }
        let Link { parent, name, len } = link::<Probe>(dentry);
        if parent == dentry {
            walk.push(name, len.into(), 0);
            break;
        }
        walk.push(name, len.into(), 1);
        dentry = parent;
    }
}
