//! The contract between the kernel programs and the agent.
//!
//! Everything that both sides must agree on is declared here once, as data, and interpreted on each side: which
//! events there are and which fields they carry ([`event`]), how a record looks in memory ([`wire`]), which programs
//! can produce an event and what each needs ([`program`]), which facts about the running kernel the programs read
//! ([`fact`]), how filters are laid out ([`filter`]), why a record can be lost ([`loss`]), and the system calls
//! ([`syscall`]). No allocation, no dependencies, no unsafe code: the same source compiles into a BPF object and into
//! the agent.
#![no_std]
#![forbid(unsafe_code)]

pub mod event;
pub mod fact;
pub mod filter;
pub mod flow;
pub mod loss;
pub mod program;
pub mod symbol;
pub mod syscall;
pub mod wire;

#[cfg(test)]
extern crate std;
