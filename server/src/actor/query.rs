//! Questions about the state, answered by the actor between two batches: so they see committed state only (P3).

use gpulease_core::{scheduler::Scheduler, time::Time};

/// What a question may look at.
#[derive(Clone, Copy)]
pub struct Reading<'a> {
    /// The rules and the state, nothing in it uncommitted.
    pub scheduler: &'a Scheduler,
    /// Coordinator time, as in the views.
    pub now: Time,
}

/// A question on its way; it carries its own way back, and is dropped unasked where the actor ends first.
pub(super) type BoxedQuery = Box<dyn FnOnce(&Reading<'_>) + Send>;
