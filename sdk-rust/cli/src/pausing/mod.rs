//! Giving way to a notice on behalf of work that runs beside this program: the command of `run`, the process of
//! `adopt`.
//!
//! Promises: a notice is acknowledged only after the work was told to give its devices back and reported that it did
//! (a hook that exits 0, or a process that handled a signal and stopped itself); whatever fails leaves the notice
//! unanswered. Work that would go on with other devices than it knows of is never let go on.
//! Leaves to others: stopping the work for good (`verb::run`), and the proof that memory is free (the coordinator's
//! own look at the device).

mod driver;
mod hook;
mod way;
mod worker;

pub(crate) use driver::{Outcome, Pauser};
pub(crate) use way::{PauseOptions, Way};
pub(crate) use worker::Worker;
