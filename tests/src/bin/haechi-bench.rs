//! Measures the released agent against its goals. Must be root. See `--list` and docs/benchmarks.md.

use std::process::ExitCode;

fn main() -> ExitCode {
    haechi_tests::bench::main(std::env::args().skip(1))
}
