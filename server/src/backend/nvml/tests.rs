//! The backend on a library that is made up: the play of the conformance suite, and what is NVML's own.

mod bench;
mod checks;
mod faults;
mod processes;
mod with_core;
mod world;

pub(in super::super) use bench::Played;
