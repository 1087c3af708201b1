//! The index checked against a look at everything anew, for tests.

use std::collections::BTreeSet;

use super::{Apart, Capacity, Scored, Search, verdict};
use crate::{
    id::NodeId,
    placement::{Demand, HostKept, Site, node::NodeFree},
};

impl Capacity {
    /// See [`super::arena::Arena::verify`].
    pub(crate) fn verify(&mut self, site: &Site<'_>) -> Result<(), String> {
        if self.mistakes > 0 {
            return Err(format!("{} times a node changed and nobody said so", self.mistakes));
        }
        self.refresh(site);
        let mut slate = std::mem::take(&mut self.slate);
        for index in 0..self.nodes.len() {
            let id = NodeId(u32::try_from(index).unwrap_or(u32::MAX));
            let mut free = NodeFree::of(site, id, &mut self.kinds, (0, 0), &|_, _| true);
            free.unusable = slate.unusable(&self.scale.weights, &free);
            let Some(known) = self.nodes.get(index) else { continue };
            if known.free != free {
                return Err(format!("node {id} is remembered as {:?} and is {free:?}", known.free));
            }
            for (shape, scores) in self.shapes.iter().filter(|(_, it)| it.era == self.era) {
                let Some(scored) = scores.nodes.get(index) else { continue };
                if scored.version != known.version {
                    continue;
                }
                let (host_kept, nodes) = (HostKept::new(), BTreeSet::new());
                let search = Search {
                    demand: Demand { ask: shape.ask, constraints: &shape.constraints },
                    policy: shape.policy,
                    host_kept: &host_kept,
                    apart: Apart::Nodes(&nodes),
                    open: &|_, _| true,
                };
                let verdict =
                    verdict(site, &search, &scores.wanted, &self.scale, (id, &free), &mut slate);
                let anew = Scored::of(known.version, verdict);
                if (anew.score, anew.fitting) != (scored.score, scored.fitting) {
                    return Err(format!(
                        "node {id} scored {scored:?}, and anew {anew:?}: {shape:?}"
                    ));
                }
            }
        }
        self.slate = slate;
        Ok(())
    }
}
