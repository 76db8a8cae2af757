//! The rules that come with Haechi: one file each, and one line here.

mod agent_tampering;
mod aslr_inspection;
mod authorized_keys_modification;
mod bpf_program_load;
mod core_pattern_modification;
mod default_loader_mod;
mod docker_abuse;
mod fileless_execution;
mod illegitimate_shell;
mod kernel_module_loading;
mod known;
mod ld_preload;
mod log_wiping;
mod plain;
mod proc_mem_access;
mod proc_mem_code_injection;
mod process_vm_write_inject;
mod rcd_modification;
mod reverse_shell;
mod scheduled_task_mod;
mod sensitive_credential_read;
mod stdio_over_socket;
mod sudoers_modification;
mod written;

use crate::rule::Signature;

/// Rules written in Rust.
pub const RUST: &[fn() -> Box<dyn Signature>] = &[
    || Box::new(fileless_execution::new()),
    || Box::new(stdio_over_socket::new()),
    || Box::new(sensitive_credential_read::new()),
    || Box::new(aslr_inspection::new()),
    || Box::new(bpf_program_load::new()),
    || Box::new(docker_abuse::new()),
    || Box::new(illegitimate_shell::new()),
    || Box::new(kernel_module_loading::new()),
    || Box::new(ld_preload::new()),
    || Box::new(proc_mem_access::new()),
    || Box::new(proc_mem_code_injection::new()),
    || Box::new(process_vm_write_inject::new()),
    || Box::new(reverse_shell::Rule::new()),
    || Box::new(agent_tampering::new()),
    || Box::new(authorized_keys_modification::new()),
    || Box::new(core_pattern_modification::new()),
    || Box::new(default_loader_mod::new()),
    || Box::new(log_wiping::new()),
    || Box::new(rcd_modification::new()),
    || Box::new(scheduled_task_mod::new()),
    || Box::new(sudoers_modification::new()),
];

/// Rules written in Rego: file name and text.
pub const REGO: &[(&str, &str)] = &[
    ("builtin/anti_debugging.rego", include_str!("anti_debugging.rego")),
    ("builtin/ptrace_code_injection.rego", include_str!("ptrace_code_injection.rego")),
];
