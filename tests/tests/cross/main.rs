//! The system from outside: the real binary on port 0 with simulated devices, driven by the real SDK, the command line,
//! the bare wire and foreign clients.
//!
//! One file for each subject, one program for all, so that a cold machine links once. Tests wait for events and
//! streams, each with a deadline; what cannot run here says "skipped: …".

mod away;
mod bad_input;
mod cli_adopt;
mod cli_drain;
mod cli_pause;
mod cli_processes;
mod crash;
mod crowd;
mod deciding;
mod disk;
mod fake_nvml;
mod foreign;
mod holders;
mod journal;
mod life;
mod nvml_blind;
mod nvml_ends;
mod nvml_faults;
mod nvml_memory;
mod nvml_starts;
mod order;
mod pauses;
mod run_verb;
mod services;
mod session;
mod starting;
mod stopping;
mod surface;
mod syncs;
