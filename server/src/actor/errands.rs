//! Errands: what the rules want of whoever reads the devices. A port: the wiring says who runs them.
//!
//! They leave after the commit, like every effect, so that a pass begun on one's account began after what it is about
//! was durable. Nobody waits for them.

use gpulease_core::{id::Name, request::Process};

/// Takes errands. No method may wait; whoever runs them bounds what is not run yet (a newer check of a device stands
/// for the older ones).
pub trait Errands: Send + Sync {
    /// A full pass over a device is wanted, begun after this call (P6, P7).
    fn check(&self, node: &Name, device: &Name, number: u64);

    /// A node's driver is to be let go, or taken up again.
    fn quiesce(&self, node: &Name, quiesced: bool);

    /// From now on passes tell whether anything of this process's tree lives.
    fn track(&self, process: Process);
}

/// Nobody runs them: devices whose figures are exact at every moment need none.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoErrands;

impl Errands for NoErrands {
    fn check(&self, _: &Name, _: &Name, _: u64) {}

    fn quiesce(&self, _: &Name, _: bool) {}

    fn track(&self, _: Process) {}
}
