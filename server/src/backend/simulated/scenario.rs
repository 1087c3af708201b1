//! Scenario files: nodes, devices and a script, in TOML. `example.toml` beside this file shows every key.
//!
//! It promises that a file that cannot be played is refused with its line, the key and what would be right; unknown
//! keys are errors. Only scenarios have several nodes; none of them is the local host.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;

use gpulease_core::{
    id::{NAME_BYTES_MAX, Name},
    inventory::{DEVICES_KNOWN_MAX, NODES_MAX, NodeFacts},
    request::SLOTS_MAX,
};
use serde::Deserialize;
use toml::Spanned;

use super::super::{BackendError, DEVICES_PER_NODE_MAX, DeviceDefaults};
use super::amount::{Size, shown};
use super::plan::{self, DeviceWish, NODE_NAME_BYTES_MAX, NodePlan, Plan};
use super::script::{self, EventTable, Places};
use super::spec::checked_model;

/// The largest file, in bytes: 16,384 nodes of 400 bytes are 6.5 MB, so this leaves as much for a script.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// CPU of a node unless given: a common host of two sockets with 32 cores each, in thousandths of a core.
const HOST_CPU_MILLIS: u64 = 64_000;
/// Memory of a node unless given: 256 GiB, which goes with that host.
const HOST_MEMORY_BYTES: u64 = 256 << 30;
/// The most labels of a node.
const LABELS_MAX: usize = 64;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ScenarioTable {
    #[serde(default)]
    seed: u64,
    #[serde(default)]
    random_utilization: bool,
    #[serde(default)]
    node: Vec<NodeTable>,
    #[serde(default)]
    event: Vec<EventTable>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeTable {
    name: Spanned<String>,
    labels: Option<Spanned<BTreeMap<String, String>>>,
    host_cpu_millis: Option<u64>,
    host_memory: Option<Size>,
    boot_id: Option<Spanned<String>>,
    devices: Option<DeviceTable>,
    #[serde(default)]
    device: Vec<DeviceTable>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeviceTable {
    count: Option<Spanned<usize>>,
    memory: Spanned<Size>,
    memory_driver: Option<Size>,
    memory_limit: Option<Size>,
    memory_reserve: Option<Size>,
    model: Option<Spanned<String>>,
    vendor: Option<Spanned<String>>,
    compute_capability: Option<Spanned<String>>,
    frameworks: Option<Spanned<Vec<String>>>,
    slots: Option<Spanned<u32>>,
    sensors: Option<bool>,
}

/// What is wrong with a scenario, and where.
#[derive(Debug)]
pub(super) struct Flaw {
    span: Range<usize>,
    key: Option<String>,
    problem: String,
}

impl Flaw {
    pub(super) fn at<T>(place: &Spanned<T>, key: &str, problem: String) -> Self {
        Self { span: place.span(), key: Some(key.to_owned()), problem }
    }

    fn of_toml(error: &toml::de::Error, text: &str) -> Self {
        let span = error.span().unwrap_or_default();
        Self { key: key_at(text, span.clone()), span, problem: error.message().to_owned() }
    }

    fn into_error(self, path: &Path, text: &str) -> BackendError {
        let before = text.as_bytes().iter().take(self.span.start);
        let line = before.filter(|byte| **byte == b'\n').count() + 1;
        BackendError::Scenario { path: path.to_owned(), line, key: self.key, problem: self.problem }
    }
}

/// The key whose value the span is, or the key that the span is.
fn key_at(text: &str, span: Range<usize>) -> Option<String> {
    let is_key = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let line_start = text.get(..span.start)?.rfind('\n').map_or(0, |at| at + 1);
    let before = text.get(line_start..span.start)?.trim_end();
    let key = match before.strip_suffix('=') {
        Some(before) => before.trim_end().rsplit(|c| !is_key(c)).next()?,
        None => text.get(span)?.split(|c| !is_key(c)).next()?,
    };
    (!key.is_empty()).then(|| key.to_owned())
}

/// Reads a scenario file.
///
/// # Errors
/// `ScenarioUnreadable`, or `Scenario` with the line and key at fault.
pub fn read(path: &Path, defaults: &DeviceDefaults) -> Result<Plan, BackendError> {
    let unreadable = |source| BackendError::ScenarioUnreadable { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut text = String::new();
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(unreadable(io::ErrorKind::FileTooLarge.into()));
    }
    parse(&text, defaults).map_err(|flaw| flaw.into_error(path, &text))
}

fn parse(text: &str, defaults: &DeviceDefaults) -> Result<Plan, Flaw> {
    let table: ScenarioTable = toml::from_str(text).map_err(|error| Flaw::of_toml(&error, text))?;
    let mut nodes = Vec::new();
    let mut names = BTreeMap::new();
    let mut devices = 0;
    for node in &table.node {
        let made = node.plan(table.seed, defaults)?;
        devices += made.devices.len();
        if names.insert(made.facts.name.clone(), ()).is_some() {
            return Err(node.flaw(format!("there are two nodes {}", made.facts.name)));
        }
        if names.len() > NODES_MAX || devices > DEVICES_KNOWN_MAX {
            let most = format!("at most {NODES_MAX} nodes and {DEVICES_KNOWN_MAX} devices");
            return Err(node.flaw(format!("this node is one too many: {most}")));
        }
        nodes.push(made);
    }
    if nodes.is_empty() {
        let problem = "there is no node: add a [[node]] with a name and devices".to_owned();
        return Err(Flaw { span: 0..0, key: Some("node".to_owned()), problem });
    }
    let events = script::events(&table.event, &Places::of(&nodes))?;
    Ok(Plan { seed: table.seed, random_utilization: table.random_utilization, nodes, events })
}

impl NodeTable {
    fn flaw(&self, problem: String) -> Flaw {
        Flaw::at(&self.name, "name", problem)
    }

    fn plan(&self, seed: u64, defaults: &DeviceDefaults) -> Result<NodePlan, Flaw> {
        let facts = self.facts(seed)?;
        let mut wishes = Vec::new();
        for table in self.devices.iter().chain(&self.device) {
            let count = table.checked_count(DEVICES_PER_NODE_MAX - wishes.len())?;
            wishes.resize(wishes.len() + count, table.wish(defaults)?);
        }
        let devices = plan::devices(&facts, &wishes, defaults);
        Ok(NodePlan { facts, devices })
    }

    fn facts(&self, seed: u64) -> Result<NodeFacts, Flaw> {
        let name = self.name.get_ref();
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if name.is_empty() || name.len() > NODE_NAME_BYTES_MAX || !name.bytes().all(fits) {
            return Err(self.flaw(format!(
                "{:?} is no node name: 1 to {NODE_NAME_BYTES_MAX} letters, digits and . _ -",
                shown(name)
            )));
        }
        let boot_id = match &self.boot_id {
            Some(boot_id) => short_text(boot_id, "boot_id")?,
            None => Name::new(&format!("sim-{seed}-{name}")),
        };
        Ok(NodeFacts {
            name: Name::new(name),
            boot_id,
            labels: self.labels()?,
            host_cpu_millis: self.host_cpu_millis.unwrap_or(HOST_CPU_MILLIS),
            host_memory_bytes: self.host_memory.map_or(HOST_MEMORY_BYTES, |size| size.0),
        })
    }

    fn labels(&self) -> Result<BTreeMap<Name, Name>, Flaw> {
        let Some(labels) = &self.labels else { return Ok(BTreeMap::new()) };
        let fits = |text: &str| (1..=NAME_BYTES_MAX).contains(&text.len());
        let table = labels.get_ref();
        if table.len() > LABELS_MAX || !table.iter().all(|(key, value)| fits(key) && fits(value)) {
            let problem = format!(
                "at most {LABELS_MAX} labels, each key and value of 1 to {NAME_BYTES_MAX} bytes"
            );
            return Err(Flaw::at(labels, "labels", problem));
        }
        Ok(table.iter().map(|(key, value)| (Name::new(key), Name::new(value))).collect())
    }
}

impl DeviceTable {
    fn checked_count(&self, left: usize) -> Result<usize, Flaw> {
        let Some(count) = &self.count else {
            let problem = format!("a node has at most {DEVICES_PER_NODE_MAX} devices");
            return (left > 0).then_some(1).ok_or(Flaw::at(&self.memory, "memory", problem));
        };
        let problem = format!(
            "{} is no count: at least 1, and at most {DEVICES_PER_NODE_MAX} on a node",
            count.get_ref()
        );
        let is_good = (1..=left).contains(count.get_ref());
        if is_good { Ok(*count.get_ref()) } else { Err(Flaw::at(count, "count", problem)) }
    }

    fn wish(&self, defaults: &DeviceDefaults) -> Result<DeviceWish, Flaw> {
        let model = |(key, text): (&str, &Option<Spanned<String>>)| match text {
            None => Ok(None),
            Some(text) => {
                let checked = checked_model(text.get_ref());
                checked.map(Some).map_err(|problem| Flaw::at(text, key, problem))
            }
        };
        let slots = self.slots.as_ref().map(checked_slots).transpose()?;
        let capability = self.compute_capability.as_ref().map(checked_capability).transpose()?;
        let wish = DeviceWish {
            memory_total_bytes: self.memory.get_ref().0,
            memory_driver_bytes: self.memory_driver.map_or(0, |size| size.0),
            memory_limit_bytes: self.memory_limit.map(|size| size.0),
            memory_reserve_bytes: self.memory_reserve.map(|size| size.0),
            model: model(("model", &self.model))?,
            vendor: model(("vendor", &self.vendor))?,
            compute_capability: capability,
            frameworks: self.frameworks.as_ref().map(checked_frameworks).transpose()?,
            slots,
            sensors: self.sensors.unwrap_or(true),
        };
        match wish.flaw(defaults) {
            Some(problem) => Err(Flaw::at(&self.memory, "memory", problem)),
            None => Ok(wish),
        }
    }
}

fn checked_frameworks(names: &Spanned<Vec<String>>) -> Result<Vec<Name>, Flaw> {
    let short = |name: &String| !name.is_empty() && name.len() <= 64;
    if names.get_ref().len() > 32 || !names.get_ref().iter().all(short) {
        let problem = "a device has at most 32 frameworks, of 1 to 64 bytes each".to_owned();
        return Err(Flaw::at(names, "frameworks", problem));
    }
    Ok(names.get_ref().iter().map(|name| Name::new(&name.to_lowercase())).collect())
}

fn checked_slots(slots: &Spanned<u32>) -> Result<u32, Flaw> {
    let checked = Some(*slots.get_ref()).filter(|slots| (1..=SLOTS_MAX).contains(slots));
    checked.ok_or_else(|| {
        let problem = format!("a device has 1 to {SLOTS_MAX} slots, not {}", slots.get_ref());
        Flaw::at(slots, "slots", problem)
    })
}

fn checked_capability(text: &Spanned<String>) -> Result<(u32, u32), Flaw> {
    let parts = text.get_ref().split_once('.');
    let parsed = parts.and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    parsed.ok_or_else(|| {
        let problem =
            format!("{:?} is no compute capability such as \"9.0\"", shown(text.get_ref()));
        Flaw::at(text, "compute_capability", problem)
    })
}

fn short_text(text: &Spanned<String>, key: &str) -> Result<Name, Flaw> {
    if (1..=NAME_BYTES_MAX).contains(&text.get_ref().len()) {
        return Ok(Name::new(text.get_ref()));
    }
    Err(Flaw::at(text, key, format!("a text of 1 to {NAME_BYTES_MAX} bytes is needed")))
}

#[cfg(test)]
#[path = "scenario_tests.rs"]
mod tests;
