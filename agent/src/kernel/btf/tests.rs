//! Type information made by hand, that of the running kernel, and rubbish.

use std::collections::HashMap;
use std::process::Command;

use haechi_ebpf::fact;

use super::*;

/// Writes type information, as a compiler would.
#[derive(Default)]
struct Writer {
    types: Vec<u8>,
    strings: Vec<u8>,
    count: u32,
}

impl Writer {
    fn name(&mut self, name: &str) -> u32 {
        if self.strings.is_empty() {
            self.strings.push(0);
        }
        if name.is_empty() {
            return 0;
        }
        let at = self.strings.len() as u32;
        self.strings.extend(name.bytes().chain([0]));
        at
    }

    /// A type: kind, entries, flag, size or type; its id.
    fn ty(&mut self, name: &str, kind: u8, vlen: usize, flagged: bool, size: u32, extra: &[u32]) -> u32 {
        let name = self.name(name);
        let info = u32::from(flagged) << 31 | u32::from(kind) << 24 | vlen as u32;
        for word in [name, info, size].iter().chain(extra) {
            self.types.extend(word.to_ne_bytes());
        }
        self.count += 1;
        self.count
    }

    fn int(&mut self) -> u32 {
        self.ty("int", 1, 0, false, 4, &[32])
    }

    /// A struct or union; of each member its name, type and offset in bits (with a width above, where flagged).
    fn composite(&mut self, name: &str, kind: u8, size: u32, flagged: bool, members: &[(&str, u32, u32)]) -> u32 {
        let extra: Vec<u32> = members.iter().flat_map(|(n, ty, bits)| [self.name(n), *ty, *bits]).collect();
        self.ty(name, kind, members.len(), flagged, size, &extra)
    }

    fn finish(self) -> Btf {
        let mut bytes = 0xeb9f_u16.to_ne_bytes().to_vec();
        bytes.extend([1, 0]);
        let (types, strings) = (self.types.len() as u32, self.strings.len() as u32);
        for word in [24, 0, types, types, strings] {
            bytes.extend(u32::to_ne_bytes(word));
        }
        bytes.extend(self.types);
        bytes.extend(self.strings);
        Btf::parse(&bytes).expect("well formed")
    }
}

fn offset(btf: &Btf, path: &'static str) -> u32 {
    btf.fact(Source::Offset(path))
}

#[test]
fn members_are_found_through_typedefs_and_what_has_no_name() {
    let mut w = Writer::default();
    let int = w.int();
    let inner = w.composite("", kind::STRUCT, 8, false, &[("dentry", int, 0), ("mnt", int, 32)]);
    let alias = w.ty("path_t", kind::TYPEDEF, 0, false, inner, &[]);
    let constant = w.ty("", kind::CONST, 0, false, alias, &[]);
    let either = w.composite("", kind::UNION, 8, false, &[("__f_path", constant, 0), ("f_other", int, 0)]);
    w.composite("file", kind::STRUCT, 24, false, &[("f_flags", int, 0), ("", either, 64), ("f_mode", int, 128)]);
    let btf = w.finish();
    assert_eq!(offset(&btf, "file.f_flags"), 0);
    assert_eq!(offset(&btf, "file.__f_path.mnt"), 8 + 4);
    assert_eq!(offset(&btf, "file.f_path.mnt|file.__f_path.mnt"), 12, "another spelling stands in");
    assert_eq!(offset(&btf, "file.f_mode"), 16);
    for absent in ["file.f_inode", "file.f_mode.x", "file.__f_path.x", "inode.i_ino"] {
        assert_eq!(offset(&btf, absent), ABSENT, "{absent}: never 0");
    }
}

#[test]
fn a_bit_field_has_no_address_and_its_neighbours_have() {
    let mut w = Writer::default();
    let int = w.int();
    let members = [("pid", int, 32), ("flags", int, 64 | 3 << 24), ("tgid", int, 96)];
    w.composite("task_struct", kind::STRUCT, 16, true, &members);
    let btf = w.finish();
    assert_eq!((offset(&btf, "task_struct.pid"), offset(&btf, "task_struct.tgid")), (4, 12));
    assert_eq!(offset(&btf, "task_struct.flags"), ABSENT);
}

#[test]
fn structs_of_one_name_must_agree() {
    let mut w = Writer::default();
    let int = w.int();
    w.composite("pid", kind::STRUCT, 8, false, &[("level", int, 32), ("numbers", int, 64)]);
    w.composite("pid", kind::STRUCT, 8, false, &[("level", int, 32), ("numbers", int, 96)]);
    w.composite("upid", kind::STRUCT, 16, false, &[("nr", int, 0)]);
    w.composite("upid", kind::STRUCT, 24, false, &[("nr", int, 0)]);
    let btf = w.finish();
    assert_eq!((offset(&btf, "pid.level"), offset(&btf, "pid.numbers")), (4, ABSENT));
    assert_eq!((offset(&btf, "upid.nr"), btf.fact(Source::Size("upid"))), (0, ABSENT));
}

#[test]
fn arguments_of_a_tracepoint_are_counted_without_the_hidden_one() {
    let mut w = Writer::default();
    let int = w.int();
    let request = w.composite("io_kiocb", kind::STRUCT, 8, false, &[("opcode", int, 0)]);
    let constant = w.ty("", kind::CONST, 0, false, request, &[]);
    let pointer = w.ty("", kind::PTR, 0, false, constant, &[]);
    let proto = w.ty("", kind::FUNC_PROTO, 4, false, 0, &[0, pointer, 0, int, 0, pointer, 0, int]);
    let function = w.ty("", kind::PTR, 0, false, proto, &[]);
    let typedef = w.ty("btf_trace_io_uring_submit_req", kind::TYPEDEF, 0, false, function, &[]);
    let bare = w.ty("", kind::FUNC_PROTO, 0, false, 0, &[]);
    let odd = w.ty("", kind::PTR, 0, false, bare, &[]);
    w.ty("btf_trace_sched_process_exit", kind::TYPEDEF, 0, false, odd, &[]);
    let btf = w.finish();
    assert!(btf.has_tracepoint("io_uring_submit_req") && !btf.has_tracepoint("io_uring_complete"));
    assert_eq!(btf.tracepoint_id("io_uring_submit_req"), Some(typedef));
    assert_eq!(btf.fact(Source::Argument("io_uring_submit_req.io_kiocb")), 1, "the first is the hidden one");
    assert_eq!(btf.fact(Source::Argument("io_uring_submit_req.task_struct")), ABSENT);
    assert_eq!(btf.fact(Source::Arguments("io_uring_submit_req")), 3);
    assert_eq!(btf.fact(Source::Arguments("sched_process_exit")), ABSENT, "no hidden argument: no tracepoint");
}

#[test]
fn constants_are_found_in_enums_of_either_width() {
    let mut w = Writer::default();
    let (a, b) = (w.name("IORING_OP_OPENAT"), w.name("IORING_OP_CONNECT"));
    w.ty("io_uring_op", kind::ENUM, 2, false, 4, &[a, 18, b, 16]);
    let c = w.name("BPF_FUNC_find_vma");
    w.ty("bpf_func_id", kind::ENUM64, 1, false, 8, &[c, 180, 0]);
    // What comes after an enum is still found: its length was right.
    let int = w.int();
    w.composite("path", kind::STRUCT, 16, false, &[("dentry", int, 64)]);
    let btf = w.finish();
    let value = |name| btf.fact(Source::EnumValue(name));
    assert_eq!([value("IORING_OP_OPENAT"), value("IORING_OP_CONNECT"), value("BPF_FUNC_find_vma")], [18, 16, 180]);
    assert_eq!((value("IORING_OP_OPENAT2"), offset(&btf, "path.dentry")), (ABSENT, 8));
}

/// The running kernel's type information; `None` where it cannot be had.
fn running() -> Option<Btf> {
    let Ok(bytes) = std::fs::read("/sys/kernel/btf/vmlinux") else {
        println!("skipped: no /sys/kernel/btf/vmlinux");
        return None;
    };
    Some(Btf::parse(&bytes).expect("the kernel's own"))
}

/// What every kernel must keep: numbers that programs are compiled with, and members that lie side by side.
#[test]
fn the_running_kernel_has_what_all_kernels_have() {
    let Some(btf) = running() else { return };
    let of = |fact: fact::Fact| btf.fact(FACTS[fact.0 as usize].source);
    assert_eq!([of(fact::UPID_NR), of(fact::UPID_NS), of(fact::UPID_SIZE)], [0, 8, 16]);
    assert_eq!([of(fact::IO_OP_OPENAT), of(fact::IO_OP_OPENAT2), of(fact::IO_OP_CONNECT)], [18, 28, 16]);
    for (helper, number) in
        [(fact::HELPER_TASK_BTF, 158), (fact::HELPER_TASK_PT_REGS, 175), (fact::HELPER_FIND_VMA, 180)]
    {
        assert!([number, ABSENT].contains(&of(helper)), "{}", FACTS[helper.0 as usize].name);
    }
    for (first, second, apart) in [
        (fact::TASK_PID, fact::TASK_TGID, 4),
        (fact::CRED_UID, fact::CRED_GID, 4),
        (fact::CRED_UID, fact::CRED_EUID, 16),
        (fact::CRED_CAP_INHERITABLE, fact::CRED_CAP_EFFECTIVE, 16),
        (fact::MM_ARG_START, fact::MM_ENV_END, 24),
        (fact::PATH_MNT, fact::PATH_DENTRY, 8),
        (fact::DENTRY_NAME_LEN, fact::DENTRY_NAME, 4),
    ] {
        assert_eq!(of(first).checked_add(apart), Some(of(second)), "{}", FACTS[second.0 as usize].name);
    }
    if cfg!(target_arch = "x86_64") {
        let regs = [fact::REGS_ORIG_AX, fact::REGS_DI, fact::REGS_SI, fact::REGS_DX, fact::REGS_R10, fact::REGS_SIZE];
        assert_eq!(regs.map(of), [120, 112, 104, 96, 56, 168], "struct pt_regs of asm/ptrace.h");
    }
}

/// Another reader of the same bytes: bpftool's list of structs and their members.
#[test]
fn bpftool_reads_the_same_offsets() {
    let Some(btf) = running() else { return };
    let output = Command::new("bpftool").args(["btf", "dump", "file", "/sys/kernel/btf/vmlinux"]).output();
    let Some(dump) = output.ok().filter(|o| o.status.success()) else {
        println!("skipped: no bpftool");
        return;
    };
    let dump = String::from_utf8(dump.stdout).expect("text");
    let quoted = |line: &str| line.split('\'').nth(1).map(str::to_owned);
    let (mut members, mut inside) = (HashMap::<String, Vec<u32>>::new(), None);
    for line in dump.lines() {
        if line.starts_with('[') {
            inside = if line.contains("] STRUCT '") { quoted(line) } else { None };
        } else if let (Some(name), Some(member)) = (&inside, quoted(line))
            && let Some(bits) = line.split("bits_offset=").nth(1).and_then(|b| b.split(' ').next()?.parse::<u32>().ok())
            && !line.contains("bitfield_size")
        {
            members.entry(format!("{name}.{member}")).or_default().push(bits / 8);
        }
    }
    let mut compared = 0;
    for fact in FACTS {
        let Source::Offset(paths) = fact.source else { continue };
        // What lies in members without a name, or deeper, it lists elsewhere.
        for path in paths.split('|').filter(|p| p.split('.').count() == 2) {
            if let Some([first, rest @ ..]) = members.get(path).map(Vec::as_slice)
                && rest.iter().all(|o| o == first)
            {
                assert_eq!(btf.offset(path), Some(*first), "{path}");
                compared += 1;
            }
        }
    }
    assert!(compared > 50, "only {compared} offsets were compared");
}

#[test]
fn rubbish_is_an_error_not_a_panic() {
    assert!(matches!(Btf::parse(b""), Err(Error::Magic)));
    let Ok(real) = std::fs::read("/sys/kernel/btf/vmlinux") else { return };
    for cut in [3, 10, 23, 40, 1000, real.len() / 2, real.len() - 1] {
        assert!(Btf::parse(&real[..cut]).is_err(), "cut at {cut}");
    }
    let mut bad = real[..4096].to_vec();
    for i in (24..4096).step_by(7) {
        bad[i] ^= 0xa5;
        let _ = Btf::parse(&bad);
    }
}
