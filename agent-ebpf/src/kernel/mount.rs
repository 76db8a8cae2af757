//! File systems being mounted, moved to where they are seen, and unmounted.

use haechi_ebpf::event::{
    Field, security_move_mount as moved, security_sb_mount as mount, security_sb_umount as umount,
};
use haechi_ebpf::fact;
use haechi_ebpf::program::Step;

use crate::descriptor::by_descriptor;
use crate::file::{GIVEN, marks_of_call, put_asked};
use crate::hooks::hooks;
use crate::mem::{Mem, Probe, Ptr, get, pointer, pointers};
use crate::record::Record;
use crate::syscall::{Returned, at_exit};
use crate::task::begun;

hooks! {
    /// `int security_sb_mount(const char *dev_name, const struct path *path, const char *type, unsigned long flags,
    /// void *data)`, security/security.c.
    (sb_mount_fexit, sb_mount_lsm, sb_mount_kprobe) at ("security_sb_mount", "sb_mount")
        (dev_name: Ptr, path: Ptr, kind: Ptr, flags: u64, _data: Ptr) => mounting;
    /// `int security_sb_umount(struct vfsmount *mnt, int flags)`.
    (sb_umount_fexit, sb_umount_lsm, sb_umount_kprobe) at ("security_sb_umount", "sb_umount")
        (mnt: Ptr, flags: i32) => unmounting;
    /// `int security_move_mount(const struct path *from_path, const struct path *to_path)`.
    (move_mount_fexit, move_mount_lsm, move_mount_kprobe) at ("security_move_mount", "move_mount")
        (from: Ptr, to: Ptr) => moving;
}

at_exit! {
    mount_exit: mounted;
    umount_exit: unmounted;
    move_mount_exit: was_moved;
}

/// `MS_MGC_VAL` and `MS_MGC_MSK` of include/uapi/linux/mount.h: what flags once had to begin with.
const MAGIC: u64 = 0xc0ed_0000;
const MAGIC_MASK: u64 = 0xffff_0000;
/// `MOVE_MOUNT_F_EMPTY_PATH`, the same file: the descriptor is meant, not a path below it.
const FROM_DESCRIPTOR: u64 = 4;

#[inline(always)]
fn mounting<M: Mem>(dev_name: Ptr, path: Ptr, kind: Ptr, flags: u64, _data: Ptr, step: Step, ret: Option<i64>) {
    use mount::field as f;

    let Some(mut record) = begun(&mount::DEF, step, marks_of_call, ret) else { return };
    record.put_kernel_str::<GIVEN>(f::dev_name, dev_name);
    put_place::<M>(&mut record, f::path, path);
    record.put_kernel_str::<NAME>(f::r#type, kind);
    record.put(f::flags, flags);
    record.send();
}

#[inline(always)]
fn unmounting<M: Mem>(mnt: Ptr, flags: i32, step: Step, ret: Option<i64>) {
    use umount::field as f;

    let Some(mut record) = begun(&umount::DEF, step, marks_of_call, ret) else { return };
    record.put_path::<M>(f::mountpoint, pointer::<M>(mnt, fact::VFSMOUNT_ROOT), mnt);
    put_file_system(&mut record, mnt, f::r#type, f::dev_name);
    record.put(f::flags, flags as u32 as u64);
    record.send();
}

#[inline(always)]
fn moving<M: Mem>(from: Ptr, to: Ptr, step: Step, ret: Option<i64>) {
    use moved::field as f;

    let Some(mut record) = begun(&moved::DEF, step, marks_of_call, ret) else { return };
    put_file_system(&mut record, pointer::<Probe>(from, fact::PATH_MNT), f::r#type, f::dev_name);
    put_place::<M>(&mut record, f::from_path, from);
    put_place::<M>(&mut record, f::to_path, to);
    record.send();
}

#[inline(always)]
fn put_place<M: Mem>(record: &mut Record, field: Field, path: Ptr) {
    let [mnt, dentry] = pointers::<M, 2>(path, [fact::PATH_MNT, fact::PATH_DENTRY]);
    record.put_path::<M>(field, dentry, mnt);
}

/// Room for the name of a kind of file system.
const NAME: u32 = 64;

/// Writes what a mount shows: the kind of file system, and what it is on.
#[inline(always)]
fn put_file_system(record: &mut Record, mnt: Ptr, kind: Field, dev_name: Field) {
    let sb = pointer::<Probe>(mnt, fact::VFSMOUNT_SB);
    record.put_kernel_str::<NAME>(kind, pointer::<Probe>(pointer::<Probe>(sb, fact::SB_TYPE), fact::FS_TYPE_NAME));
    let mount = (mnt as u64).wrapping_sub(u64::from(get(fact::MOUNT_MNT))) as Ptr;
    record.put_kernel_str::<GIVEN>(dev_name, pointer::<Probe>(mount, fact::MOUNT_DEVNAME));
}

/// The raw plan: mount(2) returned.
#[inline(always)]
fn mounted(of: Returned) {
    use mount::field as f;

    if of.ret != 0 {
        return;
    }
    let Some(mut record) = of.begin(&mount::DEF) else { return };
    let (path, dir) = of.path();
    let (dev_name, kind, flags) = (of.argument::<0>(), of.argument::<2>(), of.argument::<3>());
    if dev_name != 0 {
        record.put_given::<GIVEN, true>(f::dev_name, dev_name);
    }
    put_asked(&mut record, f::path, path, dir);
    if kind != 0 {
        record.put_given::<NAME, true>(f::r#type, kind);
    }
    record.put(f::flags, if flags & MAGIC_MASK == MAGIC { flags & !MAGIC_MASK } else { flags });
    record.send();
}

/// The raw plan: umount2(2), or the old umount, which takes no flags, returned.
#[inline(always)]
fn unmounted(of: Returned) {
    use haechi_ebpf::filter::Action;
    use umount::field as f;

    if of.ret != 0 {
        return;
    }
    let Some(mut record) = of.begin(&umount::DEF) else { return };
    let (path, dir) = of.path();
    put_asked(&mut record, f::mountpoint, path, dir);
    let flags = if of.action.flags_arg == Action::NONE { 0 } else { of.argument::<1>() };
    record.put(f::flags, flags & 0xffff_ffff);
    record.send();
}

/// The raw plan: move_mount(2) returned. What a descriptor stands for is where it was moved to by now.
#[inline(always)]
fn was_moved(of: Returned) {
    use moved::field as f;

    if of.ret != 0 {
        return;
    }
    let Some(mut record) = of.begin(&moved::DEF) else { return };
    if of.argument::<4>() & FROM_DESCRIPTOR != 0 {
        let file = by_descriptor(of.argument::<0>() & 0xffff_ffff);
        put_file_system(&mut record, pointer::<Probe>(file, fact::FILE_MNT), f::r#type, f::dev_name);
    } else {
        put_asked(&mut record, f::from_path, of.argument::<1>(), of.argument::<0>() as i32);
    }
    put_asked(&mut record, f::to_path, of.argument::<3>(), of.argument::<2>() as i32);
    record.send();
}
