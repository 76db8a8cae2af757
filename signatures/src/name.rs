//! Which name a record goes by: that of its event, or of the system call it stands for.

use haechi_ebpf::event::syscall;
use haechi_ebpf::syscall::{Abi, by_number};
use haechi_ebpf::wire::{View, flag};

/// The ABI of the task that made the record, on the machine this runs on.
#[must_use]
pub fn abi(view: &View<'_>) -> Abi {
    match (cfg!(target_arch = "aarch64"), view.flags() & flag::COMPAT != 0) {
        (true, _) => Abi::Arm64,
        (false, true) => Abi::I386,
        (false, false) => Abi::X86_64,
    }
}

/// The name users know the record by.
#[must_use]
pub fn event_name(view: &View<'_>) -> &'static str {
    if view.event() != syscall::ID {
        return view.def().name;
    }
    view.number(syscall::field::nr)
        .and_then(|nr| by_number(abi(view), u32::try_from(nr).unwrap_or(u32::MAX)))
        .map_or("syscall", |call| call.name)
}
