//! Questions about the state, answered by the actor between two batches: so they see committed state only (P3).

use std::marker::PhantomData;

use gpulease_core::time::Time;

/// What a question may look at.
#[derive(Clone, Copy)]
pub struct Reading<'a> {
    pub(super) scheduler: PhantomData<&'a ()>,
    /// Coordinator time.
    pub now: Time,
}

/// A question on its way; it carries its own way back, and is dropped unasked where the actor ends first.
pub(super) type BoxedQuery = Box<dyn FnOnce(&Reading<'_>) + Send>;
