//! From the backend to the actor and to the readers of samples; and the wait for the first pass over all nodes.

use std::{collections::HashSet, time::Duration, time::Instant, time::SystemTime};

use gpulease_core::{id::Name, input::Input};
use tokio::sync::oneshot;

use crate::{
    actor::Handle,
    backend::{Measurement, Sink},
    telemetry::hub::{Sample, SampleHub},
};

/// How long the start waits for the first pass. A simulated one takes a millisecond, a driver a few hundred; a driver
/// that hangs must not keep the devices of other nodes from being served.
const FIRST_PASS_MAX: Duration = Duration::from_secs(2);

/// Reports of a backend, passed on.
pub(super) struct ActorSink {
    handle: Handle,
    hub: SampleHub,
    /// The nodes of which no sample has come yet, by count, and those of which one has.
    first_pass: Option<FirstPass>,
}

struct FirstPass {
    nodes: usize,
    sampled: HashSet<Name>,
    done: oneshot::Sender<()>,
}

impl ActorSink {
    /// A sink, and the word that every one of so many nodes has been sampled.
    pub(super) fn new(
        handle: Handle,
        hub: SampleHub,
        nodes: usize,
    ) -> (Self, oneshot::Receiver<()>) {
        let (done, first_pass_done) = oneshot::channel();
        let first_pass = Some(FirstPass { nodes, sampled: HashSet::new(), done });
        (Self { handle, hub, first_pass }, first_pass_done)
    }
}

impl Sink for ActorSink {
    fn report(&mut self, input: Input) {
        let sampled = match &input {
            Input::Sampled { node, .. } => Some(node.clone()),
            _ => None,
        };
        self.handle.tell(input);
        let Some(node) = sampled else { return };
        if let Some(pass) = &mut self.first_pass {
            pass.sampled.insert(node);
        }
        if let Some(pass) = self.first_pass.take_if(|pass| pass.sampled.len() >= pass.nodes) {
            // The start may have stopped waiting.
            let _ = pass.done.send(());
        }
    }

    fn measured(&mut self, measurements: Vec<Measurement>) {
        let (time, measured_at) = (SystemTime::now(), Instant::now());
        let sample = |measured: Measurement| Sample {
            device_uuid: measured.device_uuid,
            time,
            measured_at,
            memory_used_bytes: measured.memory_used_bytes,
            memory_foreign_bytes: measured.memory_foreign_bytes,
            utilization_permille: measured.utilization_permille,
            temperature_celsius: measured.temperature_celsius,
            power_draw_milliwatts: measured.power_draw_milliwatts,
        };
        self.hub.publish(measurements.into_iter().map(sample).collect());
    }
}

/// Waits until the first pass is in the state.
pub(super) async fn wait(first_pass: oneshot::Receiver<()>, handle: &Handle) {
    let in_state = async {
        // An error means that the backend is gone; it will be stale, and the start goes on.
        let _ = first_pass.await;
        // A question is answered after everything that was told before it is committed.
        handle.query(|_| ()).await
    };
    if tokio::time::timeout(FIRST_PASS_MAX, in_state).await.is_err() {
        tracing::warn!(
            "the devices were not measured within {FIRST_PASS_MAX:?}; serving without them"
        );
    }
}
