//! The events of a scenario file: from tables to [`Event`]s in order of time.
//!
//! ```text
//! action          on      keys (* required)                       for = "5s" means
//! foreign_memory  device  memory*                                 then 0
//! load            device  memory, utilization_permille, lease     then none
//! device_lost     device  reason                                  then device_back
//! device_silent   device                                          then device_back
//! device_back     device
//! memory_unknown  device                                          then memory_known
//! memory_known    device
//! node_silent     node                                            then node_back
//! node_back       node
//! reboot          node                                            silent for so long, then there anew
//! ```

use std::collections::BTreeMap;

use gpulease_core::{
    id::{LeaseId, Name},
    time::Time,
};
use serde::Deserialize;
use toml::Spanned;

use super::amount::{Length, Size, shown};
use super::plan::{Act, DeviceAt, Event, Load, NodePlan};
use super::scenario::Flaw;

/// One `[[event]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EventTable {
    at: Length,
    action: Spanned<Action>,
    node: Option<Spanned<String>>,
    device: Option<Spanned<String>>,
    memory: Option<Size>,
    utilization_permille: Option<Spanned<u32>>,
    lease: Option<u64>,
    reason: Option<String>,
    #[serde(rename = "for")]
    lasts: Option<Length>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Action {
    ForeignMemory,
    Load,
    DeviceLost,
    DeviceSilent,
    DeviceBack,
    MemoryUnknown,
    MemoryKnown,
    NodeSilent,
    NodeBack,
    Reboot,
}

impl Action {
    /// Keys that it takes beside `at` and `action`.
    fn keys(self) -> &'static [&'static str] {
        match self {
            Action::ForeignMemory => &["device", "memory", "for"],
            Action::Load => &["device", "memory", "utilization_permille", "lease", "for"],
            Action::DeviceLost => &["device", "reason", "for"],
            Action::DeviceSilent | Action::MemoryUnknown => &["device", "for"],
            Action::DeviceBack | Action::MemoryKnown => &["device"],
            Action::NodeSilent | Action::Reboot => &["node", "for"],
            Action::NodeBack => &["node"],
        }
    }
}

/// Where each device of the plan is, by UUID, and each node, by name.
pub(super) struct Places {
    nodes: BTreeMap<Name, usize>,
    devices: BTreeMap<Name, DeviceAt>,
}

impl Places {
    pub(super) fn of(nodes: &[NodePlan]) -> Self {
        let mut places = Self { nodes: BTreeMap::new(), devices: BTreeMap::new() };
        for (node, plan) in nodes.iter().enumerate() {
            places.nodes.insert(plan.facts.name.clone(), node);
            for (device, plan) in plan.devices.iter().enumerate() {
                places.devices.insert(plan.facts.uuid.clone(), DeviceAt { node, device });
            }
        }
        places
    }
}

/// Makes the events, in order of time.
pub(super) fn events(tables: &[EventTable], places: &Places) -> Result<Vec<Event>, Flaw> {
    let mut events = Vec::new();
    for table in tables {
        table.check_keys()?;
        let at = Time::ZERO.after(table.at.0);
        let (act, undo) = table.acts(places)?;
        let later = table.lasts.map(|Length(span)| at.after(span));
        match (act, undo, later) {
            (Act::Reboot(node), _, Some(later)) => {
                events.push(Event { at, act: Act::NodeSilent(node) });
                events.push(Event { at: later, act: Act::Reboot(node) });
            }
            (act, Some(undo), Some(later)) => {
                events.push(Event { at, act });
                events.push(Event { at: later, act: undo });
            }
            (act, ..) => events.push(Event { at, act }),
        }
    }
    events.sort_by_key(|event| event.at);
    Ok(events)
}

impl EventTable {
    /// What happens, and what ends it.
    fn acts(&self, places: &Places) -> Result<(Act, Option<Act>), Flaw> {
        let device = || self.device(places);
        let node = || self.node(places);
        Ok(match self.action.get_ref() {
            Action::ForeignMemory => {
                let memory = self.memory.ok_or_else(|| self.missing("memory"))?;
                let at = device()?;
                (Act::ForeignMemory(at, memory.0), Some(Act::ForeignMemory(at, 0)))
            }
            Action::Load => self.load(device()?)?,
            Action::DeviceLost => {
                let at = device()?;
                let reason = self.reason.as_deref().unwrap_or("lost in the scenario");
                (Act::DeviceLost(at, Name::new(reason)), Some(Act::DeviceBack(at)))
            }
            Action::DeviceSilent => {
                let at = device()?;
                (Act::DeviceSilent(at), Some(Act::DeviceBack(at)))
            }
            Action::DeviceBack => (Act::DeviceBack(device()?), None),
            Action::MemoryUnknown => {
                let at = device()?;
                (Act::MemoryUnknown(at), Some(Act::MemoryKnown(at)))
            }
            Action::MemoryKnown => (Act::MemoryKnown(device()?), None),
            Action::NodeSilent => {
                let at = node()?;
                (Act::NodeSilent(at), Some(Act::NodeBack(at)))
            }
            Action::NodeBack => (Act::NodeBack(node()?), None),
            Action::Reboot => (Act::Reboot(node()?), None),
        })
    }

    fn load(&self, at: DeviceAt) -> Result<(Act, Option<Act>), Flaw> {
        if let Some(busy) =
            self.utilization_permille.as_ref().filter(|busy| *busy.get_ref() > 1_000)
        {
            let problem = format!("{} is more than all of 1000", busy.get_ref());
            return Err(Flaw::at(busy, "utilization_permille", problem));
        }
        let utilization_permille = self.utilization_permille.as_ref().map(|busy| *busy.get_ref());
        let memory_bytes = self.memory.map_or(0, |memory| memory.0);
        if memory_bytes == 0 && utilization_permille.is_none() && self.memory.is_none() {
            return Err(self.missing("memory` or `utilization_permille"));
        }
        let lease = self.lease.map(LeaseId);
        let load = Load { lease, memory_bytes, utilization_permille };
        let none =
            Load { lease, memory_bytes: 0, utilization_permille: utilization_permille.map(|_| 0) };
        Ok((Act::Load(at, load), Some(Act::Load(at, none))))
    }

    fn check_keys(&self) -> Result<(), Flaw> {
        let given = [
            ("node", self.node.is_some()),
            ("device", self.device.is_some()),
            ("memory", self.memory.is_some()),
            ("utilization_permille", self.utilization_permille.is_some()),
            ("lease", self.lease.is_some()),
            ("reason", self.reason.is_some()),
            ("for", self.lasts.is_some()),
        ];
        let keys = self.action.get_ref().keys();
        match given.into_iter().find(|(key, is_given)| *is_given && !keys.contains(key)) {
            None => Ok(()),
            Some((key, _)) => Err(Flaw::at(
                &self.action,
                key,
                format!("this action does not take it; it takes {}", keys.join(", ")),
            )),
        }
    }

    fn missing(&self, key: &str) -> Flaw {
        Flaw::at(&self.action, "action", format!("the key `{key}` is missing"))
    }

    fn device(&self, places: &Places) -> Result<DeviceAt, Flaw> {
        let uuid = self.device.as_ref().ok_or_else(|| self.missing("device"))?;
        places.devices.get(uuid.get_ref().as_str()).copied().ok_or_else(|| {
            let problem = format!(
                "there is no device {:?}; a device is called SIM-<node>-<index>, such as {}",
                shown(uuid.get_ref()),
                places.devices.keys().next().map_or("SIM-alpha-0", Name::as_str)
            );
            Flaw::at(uuid, "device", problem)
        })
    }

    fn node(&self, places: &Places) -> Result<usize, Flaw> {
        let name = self.node.as_ref().ok_or_else(|| self.missing("node"))?;
        places.nodes.get(name.get_ref().as_str()).copied().ok_or_else(|| {
            Flaw::at(name, "node", format!("there is no node {:?}", shown(name.get_ref())))
        })
    }
}
