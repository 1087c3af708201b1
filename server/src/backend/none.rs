//! The backend of a host without a usable driver: one node, no device.
//!
//! It promises that the local node is reported and stays heard, so that requests are refused because nothing can
//! satisfy them (P13), and never because nobody looked.

use std::sync::Arc;

use gpulease_core::{input::Input, inventory::NodeFacts, time::Time};

use super::{Backend, SAMPLE_PERIOD, Sink, Summary};

/// Reports a node that has no devices.
#[derive(Debug)]
pub struct NoDriver {
    node: Arc<NodeFacts>,
    /// When the next sign of life is due; `None`: the node was not reported yet.
    next: Option<Time>,
}

impl NoDriver {
    /// Of this node.
    #[must_use]
    pub fn new(node: NodeFacts) -> Self {
        Self { node: Arc::new(node), next: None }
    }
}

impl Backend for NoDriver {
    fn summary(&self) -> Summary {
        Summary { name: "none", nodes: 1, devices: 0 }
    }

    fn step(&mut self, now: Time, sink: &mut dyn Sink) {
        match self.next {
            None => {
                sink.report(Input::Observed { node: self.node.clone(), devices: Vec::new() });
            }
            Some(next) if next <= now => {
                sink.report(Input::Sampled {
                    node: self.node.name.clone(),
                    samples: Vec::new(),
                    trees: None,
                });
            }
            Some(_) => return,
        }
        self.next = Some(now.after(SAMPLE_PERIOD));
    }

    fn due_at(&self) -> Time {
        self.next.unwrap_or(Time::ZERO)
    }
}
