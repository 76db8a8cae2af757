//! System calls by name, in the machine's own ABI or in the 32-bit one. That the numbers are right shows in what the call
//! did: whoever makes one looks.

use std::ffi::CStr;
use std::io;

use haechi_ebpf::syscall::{Abi, by_name};

use crate::sys::{Arg, Low, call, call32};

/// An argument that is the same in both ABIs.
#[derive(Clone, Copy)]
pub(super) enum Word<'a> {
    /// A number.
    Num(i64),
    /// A string the kernel reads.
    Str(&'a CStr),
    /// Bytes the kernel reads.
    In(&'a [u8]),
}

/// Makes the call `name`; in the 32-bit ABI where `low` is there.
pub(super) fn make<const N: usize>(low: Option<&mut Low>, name: &str, words: [Word<'_>; N]) -> io::Result<i64> {
    let unsupported = || io::Error::from(io::ErrorKind::Unsupported);
    let native = if cfg!(target_arch = "aarch64") { Abi::Arm64 } else { Abi::X86_64 };
    let abi = if low.is_some() { Abi::I386 } else { native };
    let number = by_name(name).and_then(|c| c.number(abi)).ok_or_else(unsupported)?;
    match low {
        Some(low) => {
            low.clear();
            let mut args = [0; 5];
            for (arg, word) in args.iter_mut().zip(words) {
                *arg = match word {
                    Word::Num(n) => n as u32,
                    Word::Str(s) => low.put(s.to_bytes_with_nul()),
                    Word::In(b) => low.put(b),
                };
            }
            call32(number.into(), args).map(i64::from)
        }
        None => call(
            number.into(),
            words.map(|word| match word {
                Word::Num(n) => Arg::Num(n),
                Word::Str(s) => Arg::Str(s),
                Word::In(b) => Arg::In(b),
            }),
        ),
    }
}
