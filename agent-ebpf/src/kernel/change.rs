//! Names being changed: deleted, renamed, linked, made; and what is permitted to whom.
//!
//! At the `path_*` hooks, not at the `inode_*` ones that Tracee names its events by: only they are given the mount, without
//! which a path begins at its file system; an overlay asks the latter once more for the file below; and they come first,
//! so that an attempt is seen which permissions refuse.

use haechi_ebpf::event::{
    chmod_common as chmod, security_inode_mknod as mknod, security_inode_rename as rename,
    security_inode_symlink as symlink, security_inode_unlink as unlink,
};
use haechi_ebpf::fact;
use haechi_ebpf::filter::Action;
use haechi_ebpf::program::Step;

use crate::descriptor::by_descriptor;
use crate::file::{GIVEN, Identity, marks_of_call, put_asked, put_identity};
use crate::gate;
use crate::hooks::hooks;
use crate::mem::{Mem, Probe, Ptr, pointer, pointers};
use crate::record::Record;
use crate::syscall::{Returned, at_exit};
use crate::task::{begun, head};

hooks! {
    /// `int security_path_unlink(const struct path *dir, struct dentry *dentry)`, security/security.c.
    (path_unlink_fexit, path_unlink_lsm, path_unlink_kprobe) at ("security_path_unlink", "path_unlink")
        (dir: Ptr, dentry: Ptr) => unlinking;
    /// `int security_path_rename(const struct path *old_dir, struct dentry *old_dentry, const struct path *new_dir,
    /// struct dentry *new_dentry, unsigned int flags)`; the hook has no flags before 5.19.
    (path_rename_fexit, path_rename_lsm, path_rename_kprobe) at ("security_path_rename", "path_rename")
        (old_dir: Ptr, old: Ptr, new_dir: Ptr, new: Ptr, _flags: u32) => renaming;
    /// `int security_path_symlink(const struct path *dir, struct dentry *dentry, const char *old_name)`.
    (path_symlink_fexit, path_symlink_lsm, path_symlink_kprobe) at ("security_path_symlink", "path_symlink")
        (dir: Ptr, dentry: Ptr, target: Ptr) => linking;
    /// `int security_path_mknod(const struct path *dir, struct dentry *dentry, umode_t mode, unsigned int dev)`.
    (path_mknod_fexit, path_mknod_lsm, path_mknod_kprobe) at ("security_path_mknod", "path_mknod")
        (dir: Ptr, dentry: Ptr, mode: u32, dev: u32) => making;
    /// `int security_path_chmod(const struct path *path, umode_t mode)`.
    (path_chmod_fexit, path_chmod_lsm, path_chmod_kprobe) at ("security_path_chmod", "path_chmod")
        (path: Ptr, mode: u32) => permitting;
}

at_exit! {
    unlink_exit: unlinked;
    rename_exit: renamed;
    symlink_exit: linked;
    mknod_exit: made;
    chmod_exit: permitted;
}

/// `AT_REMOVEDIR` of include/uapi/linux/fcntl.h.
const AT_REMOVEDIR: u64 = 0x200;

#[inline(always)]
fn unlinking<M: Mem>(dir: Ptr, dentry: Ptr, step: Step, ret: Option<i64>) {
    use unlink::field as f;

    const FILE: Identity = Identity { dev: f::dev, inode: f::inode, ctime: Some(f::ctime), mode: None };

    let Some(gate) = gate::open(unlink::ID) else { return };
    let mnt = pointer::<M>(dir, fact::PATH_MNT);
    let Some((scratch, walked)) = gate::path::<M>(gate, &unlink::DEF, dentry, mnt) else { return };
    let mut record = Record::begin_in(scratch, &unlink::DEF);
    head(&record, step, marks_of_call(), ret);
    record.put_walked(f::pathname, walked);
    put_identity::<M>(&mut record, pointer::<M>(dentry, fact::DENTRY_INODE), &FILE);
    record.send();
}

#[inline(always)]
fn renaming<M: Mem>(old_dir: Ptr, old: Ptr, new_dir: Ptr, new: Ptr, _flags: u32, step: Step, ret: Option<i64>) {
    use rename::field as f;

    const FILE: Identity = Identity { dev: f::dev, inode: f::inode, ctime: None, mode: None };

    let Some(mut record) = begun(&rename::DEF, step, marks_of_call, ret) else { return };
    record.put_path::<M>(f::old_path, old, pointer::<M>(old_dir, fact::PATH_MNT));
    record.put_path::<M>(f::new_path, new, pointer::<M>(new_dir, fact::PATH_MNT));
    put_identity::<M>(&mut record, pointer::<M>(old, fact::DENTRY_INODE), &FILE);
    record.send();
}

#[inline(always)]
fn linking<M: Mem>(dir: Ptr, dentry: Ptr, target: Ptr, step: Step, ret: Option<i64>) {
    use symlink::field as f;

    let Some(mut record) = begun(&symlink::DEF, step, marks_of_call, ret) else { return };
    record.put_path::<M>(f::linkpath, dentry, pointer::<M>(dir, fact::PATH_MNT));
    record.put_kernel_str::<GIVEN>(f::target, target);
    record.send();
}

/// Whether mknod(2) makes a file like any other.
#[inline(always)]
fn is_regular(mode: u64) -> bool {
    matches!(mode & 0o170_000, 0 | 0o100_000)
}

/// A device as system calls take it, in the kernel's own packing: `new_decode_dev()` of include/linux/kdev_t.h.
#[inline(always)]
fn device(dev: u64) -> u64 {
    (dev & 0xf_ff00) << 12 | dev & 0xff | (dev >> 12) & 0xf_ff00
}

/// The hook is asked for every file that is made; Tracee's event is for those that are not regular.
#[inline(always)]
fn making<M: Mem>(dir: Ptr, dentry: Ptr, mode: u32, dev: u32, step: Step, ret: Option<i64>) {
    use mknod::field as f;

    if is_regular(mode.into()) {
        return;
    }
    let Some(mut record) = begun(&mknod::DEF, step, marks_of_call, ret) else { return };
    record.put_path::<M>(f::file_name, dentry, pointer::<M>(dir, fact::PATH_MNT));
    record.put(f::mode, u64::from(mode) & 0xffff);
    record.put(f::dev, device(dev.into()));
    record.send();
}

/// Bits that chmod(2) can set.
const PERMISSIONS: u64 = 0o7777;

const CHANGED: Identity = Identity { dev: chmod::field::dev, inode: chmod::field::inode, ctime: None, mode: None };

#[inline(always)]
fn permitting<M: Mem>(path: Ptr, mode: u32, step: Step, ret: Option<i64>) {
    let Some(gate) = gate::open(chmod::ID) else { return };
    let [mnt, dentry] = pointers::<M, 2>(path, [fact::PATH_MNT, fact::PATH_DENTRY]);
    let Some((scratch, walked)) = gate::path::<M>(gate, &chmod::DEF, dentry, mnt) else { return };
    let mut record = Record::begin_in(scratch, &chmod::DEF);
    head(&record, step, marks_of_call(), ret);
    record.put_walked(chmod::field::pathname, walked);
    record.put(chmod::field::mode, u64::from(mode) & PERMISSIONS);
    put_identity::<M>(&mut record, pointer::<M>(dentry, fact::DENTRY_INODE), &CHANGED);
    record.send();
}

/// The raw plan: unlink(2) or unlinkat(2) returned.
#[inline(always)]
fn unlinked(of: Returned) {
    let directory = of.action.flags_arg != Action::NONE && of.argument_at(of.action.flags_arg) & AT_REMOVEDIR != 0;
    if of.ret != 0 || directory {
        return;
    }
    let Some(mut record) = of.begin(&unlink::DEF) else { return };
    let (path, dir) = of.path();
    put_asked(&mut record, unlink::field::pathname, path, dir);
    record.send();
}

/// The raw plan: rename(2) or one of its younger brothers, which take a directory before each path, returned.
#[inline(always)]
fn renamed(of: Returned) {
    use rename::field as f;

    if of.ret != 0 {
        return;
    }
    let Some(mut record) = of.begin(&rename::DEF) else { return };
    let (old, old_dir) = of.path();
    let (new, new_dir) = if of.action.dir_arg == Action::NONE {
        (of.argument::<1>(), old_dir)
    } else {
        (of.argument::<3>(), of.argument::<2>() as i32)
    };
    put_asked(&mut record, f::old_path, old, old_dir);
    put_asked(&mut record, f::new_path, new, new_dir);
    record.send();
}

/// The raw plan: symlink(2) or symlinkat(2) returned.
#[inline(always)]
fn linked(of: Returned) {
    use symlink::field as f;

    if of.ret != 0 {
        return;
    }
    let Some(mut record) = of.begin(&symlink::DEF) else { return };
    let (path, dir) = of.path();
    put_asked(&mut record, f::linkpath, path, dir);
    record.put_given::<GIVEN, true>(f::target, of.argument::<0>());
    record.send();
}

/// The raw plan: mknod(2) or mknodat(2) returned.
#[inline(always)]
fn made(of: Returned) {
    use mknod::field as f;

    let mode = of.argument_at(of.action.path_arg + 1);
    if of.ret != 0 || is_regular(mode) {
        return;
    }
    let Some(mut record) = of.begin(&mknod::DEF) else { return };
    let (path, dir) = of.path();
    put_asked(&mut record, f::file_name, path, dir);
    record.put(f::mode, mode & 0xffff);
    record.put(f::dev, device(of.argument_at(of.action.path_arg + 2) & 0xffff_ffff));
    record.send();
}

/// The raw plan: chmod(2) or one of its brothers returned; of a descriptor the file is there.
#[inline(always)]
fn permitted(of: Returned) {
    use chmod::field as f;

    if of.ret != 0 {
        return;
    }
    let Some(mut record) = of.begin(&chmod::DEF) else { return };
    let mode = if of.action.path_arg == Action::NONE {
        let file = by_descriptor(of.argument::<0>() & 0xffff_ffff);
        let [mnt, dentry] = pointers::<Probe, 2>(file, [fact::FILE_MNT, fact::FILE_DENTRY]);
        record.put_path::<Probe>(f::pathname, dentry, mnt);
        put_identity::<Probe>(&mut record, pointer::<Probe>(file, fact::FILE_INODE), &CHANGED);
        of.argument::<1>()
    } else {
        let (path, dir) = of.path();
        put_asked(&mut record, f::pathname, path, dir);
        of.argument_at(of.action.path_arg + 1)
    };
    record.put(f::mode, mode & PERMISSIONS);
    record.send();
}
