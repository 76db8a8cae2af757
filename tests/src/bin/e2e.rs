//! Tests the real agent on the running kernel. Must be root. See `--list`.

use std::process::ExitCode;

fn main() -> ExitCode {
    haechi_tests::harness::main(haechi_tests::suite::all(), std::env::args().skip(1))
}
