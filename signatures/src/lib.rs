//! Detections and the engines that run them, testable without a kernel or an agent.

pub mod demand;
pub mod model;
pub mod name;
