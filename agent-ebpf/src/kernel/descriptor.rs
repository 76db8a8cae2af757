//! From a descriptor of the current task to its open file.

use core::arch::asm;

use haechi_ebpf::fact;

use crate::mem::{Btf, Mem, Probe, Ptr, current_btf, field, get, has, pointer, with_current};

/// The open file behind a descriptor of the current task; null when there is none (any more).
#[inline(always)]
pub fn by_descriptor(descriptor: u64) -> Ptr {
    with_current!(|task: M| {
        let fdt = pointer::<M>(pointer::<M>(task, fact::TASK_FILES), fact::FILES_FDT);
        if descriptor >= u64::from(field::<M, u32>(fdt, fact::FDT_MAX)) {
            return core::ptr::null();
        }
        let table = pointer::<M>(fdt, fact::FDT_FD);
        // SAFETY: a probe read of one entry of the table.
        unsafe { Probe::load(table.wrapping_add(8 * descriptor as usize)) }
    })
}

/// The socket behind an open file; null where the file is none.
#[inline(always)]
pub fn socket(file: Ptr) -> Ptr {
    let socket = pointer::<Probe>(file, fact::FILE_PRIVATE);
    // `sock->file` points back: it is a socket.
    if !file.is_null() && pointer::<Probe>(socket, fact::SOCKET_FILE) == file { socket } else { core::ptr::null() }
}

/// Descriptors whose files lie in the table that a task begins with (`NR_OPEN_DEFAULT` of include/linux/fdtable.h).
const FIRST: u32 = 64;

/// The same as a typed pointer, which spares a read by helper for each thing that is asked of the file. Null also where
/// there is no telling: the kernel gives no typed task, or the task has outgrown its first table.
#[inline(always)]
pub fn typed(descriptor: u64) -> Ptr {
    if !has(fact::HELPER_TASK_BTF) || !has(fact::FILES_FIRST) {
        return core::ptr::null();
    }
    let files = pointer::<Btf>(current_btf(), fact::TASK_FILES);
    // A table of another size is another table.
    let fdt = pointer::<Btf>(files, fact::FILES_FDT);
    if descriptor >= FIRST.into() || field::<Btf, u32>(fdt, fact::FDT_MAX) != FIRST {
        return core::ptr::null();
    }
    let offset = get(fact::FILES_FIRST) as usize + 8 * one_by_one(descriptor) as usize;
    // SAFETY: the verifier knows the type of the entry.
    unsafe { Btf::load(files.wrapping_add(offset)) }
}

/// The same number, below [`FIRST`], in a way that the verifier goes on with each value on its own.
///
/// VERIFIER: "variable ptr_ access var_off=(0x0; 0x1f8) disallowed": an array behind a typed pointer is only read at
/// offsets that are known. What is equal to a constant is known; the optimiser would make one comparison of these.
#[inline(always)]
fn one_by_one(number: u64) -> u64 {
    let mut number = number;
    // SAFETY: arithmetic on one register, and jumps inside the block.
    unsafe {
        asm!(
            "if {0} == 0 goto +63",
            "if {0} == 1 goto +62",
            "if {0} == 2 goto +61",
            "if {0} == 3 goto +60",
            "if {0} == 4 goto +59",
            "if {0} == 5 goto +58",
            "if {0} == 6 goto +57",
            "if {0} == 7 goto +56",
            "if {0} == 8 goto +55",
            "if {0} == 9 goto +54",
            "if {0} == 10 goto +53",
            "if {0} == 11 goto +52",
            "if {0} == 12 goto +51",
            "if {0} == 13 goto +50",
            "if {0} == 14 goto +49",
            "if {0} == 15 goto +48",
            "if {0} == 16 goto +47",
            "if {0} == 17 goto +46",
            "if {0} == 18 goto +45",
            "if {0} == 19 goto +44",
            "if {0} == 20 goto +43",
            "if {0} == 21 goto +42",
            "if {0} == 22 goto +41",
            "if {0} == 23 goto +40",
            "if {0} == 24 goto +39",
            "if {0} == 25 goto +38",
            "if {0} == 26 goto +37",
            "if {0} == 27 goto +36",
            "if {0} == 28 goto +35",
            "if {0} == 29 goto +34",
            "if {0} == 30 goto +33",
            "if {0} == 31 goto +32",
            "if {0} == 32 goto +31",
            "if {0} == 33 goto +30",
            "if {0} == 34 goto +29",
            "if {0} == 35 goto +28",
            "if {0} == 36 goto +27",
            "if {0} == 37 goto +26",
            "if {0} == 38 goto +25",
            "if {0} == 39 goto +24",
            "if {0} == 40 goto +23",
            "if {0} == 41 goto +22",
            "if {0} == 42 goto +21",
            "if {0} == 43 goto +20",
            "if {0} == 44 goto +19",
            "if {0} == 45 goto +18",
            "if {0} == 46 goto +17",
            "if {0} == 47 goto +16",
            "if {0} == 48 goto +15",
            "if {0} == 49 goto +14",
            "if {0} == 50 goto +13",
            "if {0} == 51 goto +12",
            "if {0} == 52 goto +11",
            "if {0} == 53 goto +10",
            "if {0} == 54 goto +9",
            "if {0} == 55 goto +8",
            "if {0} == 56 goto +7",
            "if {0} == 57 goto +6",
            "if {0} == 58 goto +5",
            "if {0} == 59 goto +4",
            "if {0} == 60 goto +3",
            "if {0} == 61 goto +2",
            "if {0} == 62 goto +1",
            "{0} = 63",
            inout(reg) number, options(pure, nomem, nostack));
    }
    number
}
