//! What a lease asks for, as a type that cannot be invalid.
//!
//! [`RequestFields`] is what a caller says; [`RequestFields::validate`] is the only way to a [`Request`], and names
//! the field, the value and the bound when it refuses. Whether anything can satisfy it is not decided here (P13).

use std::{borrow::Cow, collections::BTreeMap, fmt, ops::Deref};

use serde::{Deserialize, Serialize};

use crate::{
    id::{Holder, Name},
    time::Span,
};

/// The longest service, holder, lease name or request id, in bytes.
pub const LABEL_BYTES_MAX: usize = 128;
/// The most devices of one lease: 128 nodes of 8.
pub const DEVICES_MAX: u32 = 1_024;
/// The most slots of one device: a slot is at the finest a millionth of it.
pub const SLOTS_MAX: u32 = 1_000_000;
/// The most bytes of one device: 1 PiB, a thousand times today's largest.
pub const MEMORY_BYTES_MAX: u64 = 1 << 50;
/// The bounds of a TTL.
pub const TTL_MIN: Span = Span::from_secs(2);
/// See [`TTL_MIN`].
pub const TTL_MAX: Span = Span::from_secs(24 * 3_600);
/// The TTL where none is asked for.
pub const TTL_DEFAULT: Span = Span::from_secs(30);
/// The longest wait: 30 days.
pub const WAIT_MAX: Span = Span::from_secs(30 * 86_400);
/// The longest expected duration or lifetime: 365 days.
pub const DURATION_MAX: Span = Span::from_secs(365 * 86_400);
/// The longest minimum hold: a day, so that a drain comes to an end.
pub const MINIMUM_HOLD_MAX: Span = Span::from_secs(24 * 3_600);
/// The most that a pause may be said to cost: a day.
pub const PAUSE_COST_MAX: Span = Span::from_secs(24 * 3_600);
/// The longest list in a constraint: 64 UUIDs of 40 bytes are 2.5 KiB.
pub const LIST_MAX: usize = 64;
/// All texts of a constraint together, in bytes. With it bounds the memory of waiting requests: a million of them take
/// half a gigabyte as they mostly are, and 4 GB at the worst.
pub const CONSTRAINT_BYTES_MAX: usize = 4 * 1_024;
/// The most host CPU, in thousandths of a core: a million cores.
pub const HOST_CPU_MILLIS_MAX: u64 = 1_000_000_000;

/// How urgent a request is; declared from low to high, so that they compare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Priority {
    /// Work that may wait for hours.
    Background,
    /// The default.
    #[default]
    Normal,
    /// Somebody waits for the answer.
    Immediate,
}

impl Priority {
    /// All of them, from low to high.
    pub const ALL: [Self; 3] = [Self::Background, Self::Normal, Self::Immediate];
}

/// How a lease may be taken back before its holder is done (P14).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Preemptible {
    /// Not at all.
    #[default]
    Never,
    /// By a notice; the holder keeps the lease and resumes.
    Pause,
    /// By a notice; the lease ends.
    End,
}

/// How devices are chosen among those that would do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PlacementPolicy {
    /// Where least is left afterwards.
    BestFit,
    /// Where most device memory is free: spreads.
    MostFreeMemory,
    /// Where the smallest share of slots and bytes is in use.
    LeastLoaded,
    /// The next device after the one granted last.
    RoundRobin,
    /// Where the free capacity stays most useful for the requests seen so far.
    #[default]
    Fragmentation,
    /// On devices and nodes that are in use already.
    Pack,
}

impl PlacementPolicy {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::BestFit,
        Self::MostFreeMemory,
        Self::LeastLoaded,
        Self::RoundRobin,
        Self::Fragmentation,
        Self::Pack,
    ];

    /// Its name, as in configuration files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::BestFit => "best-fit",
            Self::MostFreeMemory => "most-free-memory",
            Self::LeastLoaded => "least-loaded",
            Self::RoundRobin => "round-robin",
            Self::Fragmentation => "fragmentation",
            Self::Pack => "pack",
        }
    }
}

/// What leases with one affinity key share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum AffinityScope {
    /// Their devices.
    #[default]
    Device,
    /// Their nodes.
    Node,
}

/// A lease goes where others of its service with the same key hold devices, while any does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Affinity {
    /// What they have in common, such as the name of a pipeline.
    pub key: Name,
    /// What they share.
    pub scope: AffinityScope,
}

/// A process on the coordinator's host. With its start time it never means another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// When it started, in clock ticks since boot.
    pub started_ticks: u64,
}

/// What is taken of each device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Share {
    /// All of it.
    Exclusive,
    /// Slots, bytes or both; a `None` takes none of that kind. Never both `None`.
    Part {
        /// How many slots.
        slots: Option<u32>,
        /// How many bytes.
        memory_bytes: Option<u64>,
    },
}

impl Share {
    /// The slots taken; 0 for none, and for a whole device.
    #[must_use]
    pub const fn slots(self) -> u32 {
        match self {
            Self::Part { slots: Some(slots), .. } => slots,
            _ => 0,
        }
    }

    /// The bytes taken; 0 for none, and for a whole device.
    #[must_use]
    pub const fn memory_bytes(self) -> u64 {
        match self {
            Self::Part { memory_bytes: Some(bytes), .. } => bytes,
            _ => 0,
        }
    }
}

/// What a lease takes: a share of each of so many devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Ask {
    /// How many devices, 1 to [`DEVICES_MAX`].
    pub devices: u32,
    /// What of each.
    pub share: Share,
}

/// Which devices and nodes will do, and what is taken of each node. The default excludes nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Constraints {
    /// The vendor.
    pub vendor: Option<Name>,
    /// Any of these models, without regard to case.
    pub models: Vec<Name>,
    /// At least this compute capability, as (major, minor).
    pub compute_capability_min: Option<(u32, u32)>,
    /// Only these devices, by UUID.
    pub device_allow: Vec<Name>,
    /// None of these devices, by UUID.
    pub device_deny: Vec<Name>,
    /// Only these nodes, by name.
    pub node_allow: Vec<Name>,
    /// None of these nodes, by name.
    pub node_deny: Vec<Name>,
    /// Labels the node must carry.
    pub node_labels: BTreeMap<Name, Name>,
    /// Taken when it fits.
    pub preferred_device: Option<Name>,
    /// All devices on one node.
    pub same_node: bool,
    /// Devices that serve this framework, without regard to case.
    pub framework: Option<Name>,
    /// Where others with the same key are.
    pub affinity: Option<Affinity>,
    /// Host CPU taken on each node, in thousandths of a core.
    pub host_cpu_millis: u64,
    /// Host memory taken on each node, in bytes.
    pub host_memory_bytes: u64,
}

impl Constraints {
    fn lists(&self) -> [(&'static str, &[Name]); 5] {
        [
            ("constraints.models", &self.models),
            ("constraints.device_allow", &self.device_allow),
            ("constraints.device_deny", &self.device_deny),
            ("constraints.node_allow", &self.node_allow),
            ("constraints.node_deny", &self.node_deny),
        ]
    }

    /// All texts together, in bytes.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        let listed = self.lists().into_iter().flat_map(|(_, list)| list);
        let labels = self.node_labels.iter().flat_map(|(key, value)| [key, value]);
        let key = self.affinity.iter().map(|affinity| &affinity.key);
        let single = self.framework.iter().chain(key);
        let all = listed.chain(labels).chain(single);
        all.map(|name| name.as_str().len()).fold(0, usize::saturating_add)
    }
}

/// What a caller says it wants, unchecked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RequestFields {
    /// Who asks.
    pub holder: Holder,
    /// Names the request within the service.
    pub request_id: Name,
    /// A name unique among the service's live leases.
    pub name: Option<Name>,
    /// What it takes.
    pub ask: Ask,
    /// Which devices will do.
    pub constraints: Constraints,
    /// How urgent it is.
    pub priority: Priority,
    /// How long it lives without a renewal.
    pub ttl: Span,
    /// How long it may wait.
    pub wait: Span,
    /// How long its holder expects to hold it.
    pub expected_duration: Option<Span>,
    /// How long it may live at the most.
    pub lifetime_max: Option<Span>,
    /// How it may be preempted.
    pub preemptible: Preemptible,
    /// No notice before it has held its devices this long; counts anew at each grant.
    pub minimum_hold: Span,
    /// The process that will use the devices, with everything it starts.
    pub process: Option<Process>,
    /// How devices are chosen for it; `None`: as configured.
    pub placement: Option<PlacementPolicy>,
    /// What a pause costs its holder, in time lost by stopping and starting again, beside what is measured (P14).
    pub pause_cost: Option<Span>,
}

/// A field that is out of bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidField {
    /// Its path, as in the `.proto` files.
    pub field: Cow<'static, str>,
    /// What was given, cut to a readable length.
    pub value: String,
    /// What would do.
    pub bound: String,
}

impl InvalidField {
    /// Names the field, the value (cut to 64 characters) and the bound.
    pub fn new(
        field: impl Into<Cow<'static, str>>,
        value: impl fmt::Display,
        bound: impl fmt::Display,
    ) -> Self {
        let full = value.to_string();
        let mut value: String = full.chars().take(64).collect();
        if value.len() < full.len() {
            value.push('…');
        }
        Self { field: field.into(), value, bound: bound.to_string() }
    }

    /// The same fault, of a field within another.
    #[must_use]
    pub fn within(self, outer: &str) -> Self {
        Self { field: format!("{outer}.{}", self.field).into(), ..self }
    }
}

impl fmt::Display for InvalidField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}; it must be {}", self.field, self.value, self.bound)
    }
}

/// A request within all bounds. Read its fields through `Deref`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Request(RequestFields);

impl Deref for Request {
    type Target = RequestFields;
    fn deref(&self) -> &RequestFields {
        &self.0
    }
}

impl Request {
    /// The same request, with a device that it prefers.
    pub(crate) fn preferring(&self, device: Name) -> Self {
        let mut fields = self.0.clone();
        fields.constraints.preferred_device = Some(device);
        Self(fields)
    }

    /// Asks for something else; answers whether that is within its bounds, and changes nothing where not.
    pub(crate) fn set_ask(&mut self, ask: Ask) -> bool {
        let valid = ask.validate().is_ok();
        if valid {
            self.0.ask = ask;
        }
        valid
    }

    /// Whether both ask for the same, their waits aside (P16).
    #[must_use]
    pub fn same_body(&self, other: &Self) -> bool {
        let (mine, theirs) = (&self.0, &other.0);
        mine.holder == theirs.holder
            && mine.request_id == theirs.request_id
            && mine.name == theirs.name
            && mine.ask == theirs.ask
            && mine.constraints == theirs.constraints
            && mine.priority == theirs.priority
            && mine.ttl == theirs.ttl
            && mine.expected_duration == theirs.expected_duration
            && mine.lifetime_max == theirs.lifetime_max
            && mine.preemptible == theirs.preemptible
            && mine.minimum_hold == theirs.minimum_hold
            && mine.process == theirs.process
            && mine.placement == theirs.placement
            && mine.pause_cost == theirs.pause_cost
    }
}

impl RequestFields {
    /// Checks every field against its bound.
    ///
    /// # Errors
    /// The first field that is out of bounds.
    pub fn validate(self) -> Result<Request, InvalidField> {
        label("service", &self.holder.service)?;
        label("holder", &self.holder.name)?;
        label("request_id", &self.request_id)?;
        if let Some(name) = &self.name {
            label("name", name)?;
        }
        self.ask.validate()?;
        self.constraints.validate()?;
        span("ttl", self.ttl, TTL_MIN, TTL_MAX)?;
        span("wait", self.wait, Span::ZERO, WAIT_MAX)?;
        if let Some(expected) = self.expected_duration {
            span("expected_duration", expected, Span::ZERO, DURATION_MAX)?;
        }
        if let Some(lifetime) = self.lifetime_max {
            span("lifetime_max", lifetime, TTL_MIN, DURATION_MAX)?;
        }
        span("minimum_hold", self.minimum_hold, Span::ZERO, MINIMUM_HOLD_MAX)?;
        if let Some(cost) = self.pause_cost {
            span("pause_cost", cost, Span::ZERO, PAUSE_COST_MAX)?;
        }
        Ok(Request(self))
    }
}

impl Ask {
    pub(crate) fn validate(self) -> Result<(), InvalidField> {
        number("ask.devices", u64::from(self.devices), 1, u64::from(DEVICES_MAX))?;
        let Share::Part { slots, memory_bytes } = self.share else { return Ok(()) };
        if slots.is_none() && memory_bytes.is_none() {
            let forms = "exclusive, slots, memory_bytes, or slots and memory_bytes";
            return Err(InvalidField::new("ask", "empty", forms));
        }
        if let Some(slots) = slots {
            number("ask.slots", u64::from(slots), 1, u64::from(SLOTS_MAX))?;
        }
        memory_bytes.map_or(Ok(()), |bytes| number("ask.memory_bytes", bytes, 1, MEMORY_BYTES_MAX))
    }
}

impl Constraints {
    fn validate(&self) -> Result<(), InvalidField> {
        for (field, list) in self.lists() {
            if list.len() > LIST_MAX {
                let bound = format!("at most {LIST_MAX} entries");
                return Err(InvalidField::new(field, format!("{} entries", list.len()), bound));
            }
        }
        if self.node_labels.len() > LIST_MAX {
            let value = format!("{} entries", self.node_labels.len());
            let bound = format!("at most {LIST_MAX} entries");
            return Err(InvalidField::new("constraints.node_labels", value, bound));
        }
        let bytes = self.text_bytes();
        if bytes > CONSTRAINT_BYTES_MAX {
            let bound = format!("at most {CONSTRAINT_BYTES_MAX} bytes of text in all");
            return Err(InvalidField::new("constraints", format!("{bytes} bytes"), bound));
        }
        if let Some(affinity) = &self.affinity {
            label("constraints.affinity.key", &affinity.key)?;
        }
        number("constraints.host_cpu_millis", self.host_cpu_millis, 0, HOST_CPU_MILLIS_MAX)?;
        number("constraints.host_memory_bytes", self.host_memory_bytes, 0, MEMORY_BYTES_MAX)
    }
}

pub(crate) fn label(field: &'static str, name: &Name) -> Result<(), InvalidField> {
    let text = name.as_str();
    let bound = || format!("1 to {LABEL_BYTES_MAX} bytes without control characters");
    if text.is_empty() {
        return Err(InvalidField::new(field, "empty", bound()));
    }
    if text.len() > LABEL_BYTES_MAX {
        return Err(InvalidField::new(field, format!("{} bytes long", text.len()), bound()));
    }
    if text.chars().any(char::is_control) {
        return Err(InvalidField::new(field, format!("{text:?}"), bound()));
    }
    Ok(())
}

fn number(field: &'static str, value: u64, min: u64, max: u64) -> Result<(), InvalidField> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(InvalidField::new(field, value, format!("{min} to {max}")))
}

fn span(field: &'static str, value: Span, min: Span, max: Span) -> Result<(), InvalidField> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(InvalidField::new(field, value, format!("{min} to {max}")))
}
