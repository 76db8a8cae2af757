//! Detections and the engines that run them, testable without a kernel or an agent.
//!
//! [`engine::Config`] builds an [`engine::Engine`]; it shows each [`model::Event`] to the rules that want it and makes
//! [`model::Finding`]s. A rule is a [`rule::Signature`] in Rust, a file in [`rego`], or one that came with Haechi
//! ([`rules`]).

pub mod demand;
pub mod engine;
pub mod exceptions;
pub mod flat;
pub mod model;
pub mod name;
pub mod path;
pub mod record;
pub mod rego;
pub mod rule;
pub mod rules;
pub mod sockaddr;
pub mod sources;
