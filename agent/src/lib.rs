//! The Haechi agent as a library: the stages from the kernel to the sinks, wired together in [`pipeline`].
//!
//! ```text
//! kernel -> batch -> core { tree, cgroups, container, rules, filter } -> render -> sinks, servers
//!                     ^ record, replay                 ^ hash (answers its questions)
//! ```
//!
//! Values move to the right, imports point to the left. [`core`] is pure: whatever it knows came in as an input, which is
//! why [`record`] and [`replay`] can be exact.

pub mod batch;
pub mod cgroups;
pub mod cli;
pub mod clock;
pub mod collector;
pub mod config;
pub mod container;
pub mod core;
pub mod docs;
pub mod escape;
pub mod filter;
pub mod flows;
pub mod hash;
pub mod inbox;
pub mod kernel;
pub mod loss;
pub mod metrics;
pub mod pipeline;
pub mod poller;
pub mod record;
pub mod render;
pub mod replay;
pub mod servers;
pub mod sinks;
pub mod suggest;
#[cfg(test)]
mod testing;
pub mod time;
pub mod tree;
pub mod watch;
pub mod worker;
