//! Processes of this host: who they are, and which declared process tree they belong to.
//!
//! A process is named by its id and its start ([`ProcessKey`]), for ids are used again. [`Trees`] keeps the members of
//! each declared root from pass to pass over `/proc`, and says which roots still have a living one.
//! It promises to rather leave a process out than to count it to the wrong root, and to say why when nothing can be
//! told at all ([`can_attribute`]). The root of `/proc` is a value, so that tests describe hosts that do not exist.
//! It signals nobody, and knows nothing of leases and devices.

#![forbid(unsafe_code)]

mod attribution;
mod cgroup;
mod describe;
mod proc;
mod stat;
mod trees;

pub use attribution::{Blind, can_attribute};
pub use describe::{COMMAND_BYTES_MAX, Description};
pub use proc::{PROCESSES_MAX, Proc, ProcessKey};
pub use trees::{PassError, ROOTS_MAX, TooManyRoots, Trees};
