//! The engine and its rules from outside, as the agent uses them: one binary, for it links regorus.

mod cases;
mod common;
mod engine;
mod rego_contract;
mod rego_faults;
mod rego_machine;
mod reload;
