//! The harness of the cross-component tests and of the benchmarks: real processes, port 0, simulated devices.
//!
//! It promises that a test which fails shows what the coordinator said, and that nothing outlives the test.
//! What is tested stands in `tests/`, one file for each subject.
#![forbid(unsafe_code)]

pub mod binary;
pub mod checker;
pub mod coordinator;
pub mod deadline;
pub mod events;
pub mod holder;
pub mod nvidia;
pub mod proxy;
pub mod session;
pub mod shell;
pub mod skip;
pub mod started;
pub mod wire;
