//! io_uring on kernels where no hook sees what it opens and connects: requests are read when they are submitted.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use haechi_ebpf::event::security_file_open;
use haechi_ebpf::fact;
use haechi_ebpf::wire::flag;

use crate::mem::{Probe, Ptr, field, get, inside, pointer};
use crate::{file, gate, socket};

/// `TP_PROTO(struct io_kiocb *req)` since 6.4, include/trace/events/io_uring.h.
#[btf_tracepoint(function = "io_uring_submit_req")]
fn io_uring_submit(ctx: BtfTracePointContext) -> i32 {
    if get(fact::IO_SUBMIT_REQ_ARG) != 0 {
        return 0;
    }
    let request: Ptr = ctx.arg(0);
    let opcode = u32::from(field::<Probe, u8>(request, fact::IO_OPCODE));
    let command = inside(request, fact::IO_CMD);
    if opcode == get(fact::IO_OP_CONNECT) {
        let address = field::<Probe, u64>(command, fact::IO_CONNECT_ADDR);
        socket::through_uring(address, field::<Probe, u32>(command, fact::IO_CONNECT_LEN));
    } else if (opcode == get(fact::IO_OP_OPENAT) || opcode == get(fact::IO_OP_OPENAT2))
        && gate::open(security_file_open::ID).is_some()
    {
        let name = pointer::<Probe>(command, fact::IO_OPEN_FILENAME);
        let path = pointer::<Probe>(name, fact::FILENAME_NAME);
        let dir = field::<Probe, u32>(command, fact::IO_OPEN_DFD) as i32;
        let flags = field::<Probe, u64>(command, fact::IO_OPEN_HOW);
        file::asked::<false>(path as u64, dir, flag::IO_URING, Some(flags), None);
    }
    0
}
