//! Errands of the rules, brought to the backend.

use gpulease_core::{id::Name, request::Process};

use crate::{actor::Errands, backend::Handle};

/// The way to the one backend there is: it knows which nodes and devices are its own.
pub(super) struct ToBackend(pub(super) Handle);

impl Errands for ToBackend {
    fn check(&self, _: &Name, device: &Name, number: u64) {
        self.0.check(device.clone(), number);
    }

    fn quiesce(&self, node: &Name, quiesced: bool) {
        self.0.quiesce(node.clone(), quiesced);
    }

    fn track(&self, process: Process) {
        self.0.track(process);
    }
}
