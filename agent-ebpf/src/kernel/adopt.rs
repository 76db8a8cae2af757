//! Sockets that were open before the agent, taken in through the files of all tasks.

use core::ffi::c_void;

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated::bpf_sock_from_file;
use aya_ebpf::programs::BtfTracePointContext;
use haechi_ebpf::fact;
use haechi_ebpf::flow::{mark, tcp};

use crate::apart::apart;
use crate::descriptor::socket;
use crate::flow::{Beside, ByAddress, Store, now, own, role};
use crate::mem::{Btf, Probe, Ptr, field, pointer};
use crate::sock::{below, connected_from_here, tcp_sock};
use crate::task::Who;

/// `struct bpf_iter__task_file { meta, task, fd, file }`, kernel/bpf/task_iter.c.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
fn flow_adopt(ctx: *mut c_void) -> i32 {
    apart(BtfTracePointContext::new(ctx), |ctx| {
        if let Some((task, sk)) = opened(&ctx)
            && let Some(tp) = tcp_sock(sk)
        {
            adopt::<Beside>(tp, task);
        }
    })
}

/// The task and the open file that the iterator is at.
#[inline(always)]
fn at_file(ctx: &BtfTracePointContext) -> Option<(Ptr, Ptr)> {
    let words = ctx.as_ptr().cast::<Ptr>();
    // SAFETY: the context is two pointers, a number and a pointer.
    let (task, file) = unsafe { (*words.add(1), *words.add(3)) };
    (!task.is_null() && !file.is_null()).then_some((task, file))
}

/// The task and the socket that the iterator is at.
#[inline(always)]
fn opened(ctx: &BtfTracePointContext) -> Option<(Ptr, Ptr)> {
    let (task, file) = at_file(ctx)?;
    // SAFETY: the verifier knows the type; the helper looks at what the file is.
    let socket = unsafe { bpf_sock_from_file(file.cast_mut().cast()) } as Ptr;
    if socket.is_null() {
        return None;
    }
    let sk = pointer::<Btf>(socket, fact::SOCKET_SK);
    (!sk.is_null()).then_some((task, sk))
}

/// The same for kernels without the helper (before 5.11): the file says what it is, and the socket must agree.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
fn flow_adopt_by_address(ctx: *mut c_void) -> i32 {
    apart(BtfTracePointContext::new(ctx), |ctx| {
        if let Some((task, file)) = at_file(&ctx)
            && let Some(sk) = below(pointer::<Probe>(socket(file), fact::SOCKET_SK))
        {
            adopt::<ByAddress>(sk, task);
        }
    })
}

#[inline(always)]
fn adopt<S: Store>(tp: Ptr, task: Ptr) {
    let state = u32::from(field::<S::Mem, u8>(tp, fact::SK_STATE));
    if state == tcp::CLOSE {
        return;
    }
    let Some(known) = S::known(tp, true) else { return };
    let mut role = known.role;
    if role == role::LISTENER && state != tcp::LISTEN {
        // A copy of who listened, taken while nobody looked: it says nothing of when this began or whose it is.
        role = role::NONE;
    } else if known.tgid != 0 {
        return;
    }
    if role == role::NONE {
        role = match state {
            tcp::LISTEN => role::LISTENER,
            _ if state == tcp::SYN_SENT || connected_from_here::<S::Mem>(tp, state) => role::OUTGOING,
            _ => role::INCOMING,
        };
        known.began = now();
        known.latency = u32::from(state != tcp::SYN_SENT);
        known.told = 0;
    }
    known.marks = known.marks & !mark::FORGOTTEN | mark::ADOPTED;
    own::<Btf>(known, task, &Who::of::<Btf>(task));
    S::number(tp, known);
    // Last: whoever looks meanwhile shall not tell of it without its owner.
    known.role = role;
    if role == role::LISTENER {
        S::listens(tp, known);
    }
}
