//! The rules that come with Haechi: one file each, and one line here.

mod fileless_execution;
mod sensitive_credential_read;
mod stdio_over_socket;

use crate::rule::Signature;

/// Rules written in Rust.
pub const RUST: &[fn() -> Box<dyn Signature>] = &[
    || Box::new(fileless_execution::Rule::new()),
    || Box::new(stdio_over_socket::Rule::new()),
    || Box::new(sensitive_credential_read::Rule::new()),
];

/// Rules written in Rego: file name and text.
pub const REGO: &[(&str, &str)] = &[
    ("builtin/anti_debugging.rego", include_str!("anti_debugging.rego")),
    ("builtin/ptrace_code_injection.rego", include_str!("ptrace_code_injection.rego")),
];
