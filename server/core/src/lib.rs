//! The rules of gpulease: who gets which device, when, and for how long.
//!
//! Inputs and `now` go in; events and effects come out. State changes only by applying events, so that replay and
//! live run are one code path; what must be guessed anew after a restart is soft state, kept apart.
//! There is no IO here: no clock, no thread, no socket, no randomness, no float. Same inputs, same bytes.
//!
//! Start with [`lease`] (the states), [`event`] (the facts), then [`scheduler`].
#![forbid(unsafe_code)]
#![warn(
    clippy::float_arithmetic,
    clippy::iter_over_hash_type,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing
)]

mod affinity;
mod attribution;
mod backfill;
mod changes;
mod deadline;
pub mod event;
pub mod fairness;
pub mod id;
pub mod import;
pub mod input;
pub mod invariant;
pub mod inventory;
mod keeping;
pub mod lease;
pub mod notice;
pub mod order;
pub mod output;
pub mod placement;
pub mod plan;
pub mod policy;
mod preemption;
mod queue;
pub mod request;
pub mod scheduler;
mod sizes;
mod soft;
pub mod state;
pub mod time;
mod victims;
pub mod view;
