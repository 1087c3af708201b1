//! The journal on a real disk: processes that are killed, disks that are full or fail, and power that is cut.
//!
//! Each module states what it shows. Parts that need strace say "skipped: no strace" where it is missing, and fail
//! instead when `CI=true`, so that they are never left out unnoticed.

#![allow(clippy::print_stderr, reason = "what is skipped is said")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, and its helpers with it")]

mod disk_model;
mod failing_disk;
mod kill;
mod power_cut;
mod refusals;
mod strace;
mod writer;
