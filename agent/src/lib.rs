//! The Haechi agent as a library: the stages from the kernel to the sinks.

pub mod batch;
pub mod kernel;
pub mod loss;
