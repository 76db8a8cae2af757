//! Tests of the real `haechi` on the running kernel.
//!
//! [`actor`] is a tiny program that provokes one behaviour and says what it did; [`harness`] starts agents and actors
//! and cleans up after them; [`suite`] holds the tests by theme; [`machines`] says what must work where; [`fuzzing`]
//! feeds broken input to everything that reads bytes. They meet the product through its command line and through the
//! contract crates alone.

pub mod actor;
pub mod bench;
pub mod facts;
pub mod fuzzing;
pub mod golden;
pub mod harness;
pub mod machines;
pub mod suite;
pub mod sys;
