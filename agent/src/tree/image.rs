//! What the kernel's records say of a program. Knows only records.

use std::sync::Arc;

use haechi_ebpf::event::{Field, existing_process, sched_process_exec};
use haechi_ebpf::wire::{View, at};
use haechi_signatures::model::Image;

/// The program that an exec loaded.
pub(super) fn from_exec(view: &View<'_>) -> Image {
    use sched_process_exec::field;
    let number = |f| view.number(f);
    Image {
        exec_id: view.header_u32(at::EXEC_ID),
        exe: text(view, field::pathname),
        argv: strings(view, field::argv),
        cwd: text(view, field::pwd),
        comm: lossy(view.comm()),
        dev: number(field::dev).unwrap_or_default() as u32,
        inode: number(field::inode).unwrap_or_default(),
        ctime: number(field::ctime).unwrap_or_default(),
        login_uid: number(field::login_uid).map_or(u32::MAX, |n| n as u32),
        session: number(field::sessionid).map_or(u32::MAX, |n| n as u32),
        tty: text(view, field::tty),
        euid: number(field::euid).map_or_else(|| view.header_u32(at::UID), |n| n as u32),
        cap_effective: number(field::cap_effective).unwrap_or_default(),
        since: view.time(),
    }
}

/// The program that a process ran when the agent came.
pub(super) fn from_existing(view: &View<'_>) -> Image {
    use existing_process::field;
    let number = |f| view.number(f);
    Image {
        exec_id: view.header_u32(at::EXEC_ID),
        exe: text(view, field::pathname),
        argv: strings(view, field::argv),
        cwd: text(view, field::pwd),
        comm: lossy(view.comm()),
        dev: number(field::dev).unwrap_or_default() as u32,
        inode: number(field::inode).unwrap_or_default(),
        ctime: 0,
        login_uid: number(field::login_uid).map_or(u32::MAX, |n| n as u32),
        session: number(field::sessionid).map_or(u32::MAX, |n| n as u32),
        tty: text(view, field::tty),
        euid: number(field::euid).map_or_else(|| view.header_u32(at::UID), |n| n as u32),
        cap_effective: number(field::cap_effective).unwrap_or_default(),
        since: view.process().1,
    }
}

/// A program of which only a record's header is known.
pub(super) fn from_header(view: &View<'_>) -> Image {
    Image {
        exec_id: view.header_u32(at::EXEC_ID),
        comm: lossy(view.comm()),
        login_uid: u32::MAX,
        session: u32::MAX,
        euid: view.header_u32(at::UID),
        since: view.process().1,
        ..Image::default()
    }
}

fn text(view: &View<'_>, field: Field) -> Arc<str> {
    view.text(field).map_or_else(Arc::default, |t| lossy(t.bytes))
}

fn strings(view: &View<'_>, field: Field) -> Arc<[String]> {
    view.text(field)
        .map_or_else(Arc::default, |t| t.strings().map(|s| String::from_utf8_lossy(s).into_owned()).collect())
}

fn lossy(bytes: &[u8]) -> Arc<str> {
    String::from_utf8_lossy(bytes).into()
}
