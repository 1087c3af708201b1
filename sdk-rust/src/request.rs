//! What a caller asks for: the request for a lease, its constraints, and the filter of a list.
//!
//! Nothing is checked here beyond what the types say; the coordinator checks and names the field at fault.

use std::{collections::BTreeMap, time::Duration};

use gpulease_proto::v1;

use crate::{
    convert,
    device::ComputeCapability,
    info::{LeaseState, Priority},
};

/// How long a request waits unless it says otherwise.
const WAIT_DEFAULT: Duration = Duration::from_secs(15);

/// Which devices and nodes will do. The default excludes nothing.
///
/// ```
/// use gpulease::Constraints;
/// let constraints = Constraints { vendor: Some("nvidia".into()), ..Constraints::default() };
/// assert!(!constraints.same_node);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Constraints {
    /// The device vendor, such as `nvidia`.
    pub vendor: Option<String>,
    /// Device models, any of which will do; compared without regard to case.
    pub models: Vec<String>,
    /// The lowest compute capability that will do, such as `(8, 9)`.
    pub compute_capability_min: Option<ComputeCapability>,
    /// Only these devices, by UUID.
    pub device_allow: Vec<String>,
    /// None of these devices, by UUID.
    pub device_deny: Vec<String>,
    /// Only these nodes, by name.
    pub node_allow: Vec<String>,
    /// None of these nodes, by name.
    pub node_deny: Vec<String>,
    /// Labels that the node must carry with these very values.
    pub node_labels: BTreeMap<String, String>,
    /// A device to take when it fits, by UUID.
    pub preferred_device: Option<String>,
    /// All devices on one node.
    pub same_node: bool,
    /// Host CPU taken on each node of the lease, in thousandths of a core.
    pub host_cpu_millis: u64,
    /// Host memory taken on each node of the lease, in bytes.
    pub host_memory_bytes: u64,
}

impl From<v1::Constraints> for Constraints {
    fn from(wire: v1::Constraints) -> Self {
        Self {
            vendor: convert::text(wire.vendor),
            models: wire.models,
            compute_capability_min: wire
                .compute_capability_min
                .map(|capability| (capability.major, capability.minor)),
            device_allow: wire.device_allow,
            device_deny: wire.device_deny,
            node_allow: wire.node_allow,
            node_deny: wire.node_deny,
            node_labels: wire.node_labels.into_iter().collect(),
            preferred_device: convert::text(wire.preferred_device),
            same_node: wire.same_node,
            host_cpu_millis: wire.host_cpu_millis,
            host_memory_bytes: wire.host_memory_bytes,
        }
    }
}

impl From<Constraints> for v1::Constraints {
    fn from(constraints: Constraints) -> Self {
        Self {
            vendor: constraints.vendor.unwrap_or_default(),
            models: constraints.models,
            compute_capability_min: constraints
                .compute_capability_min
                .map(|(major, minor)| v1::ComputeCapability { major, minor }),
            device_allow: constraints.device_allow,
            device_deny: constraints.device_deny,
            node_allow: constraints.node_allow,
            node_deny: constraints.node_deny,
            node_labels: constraints.node_labels.into_iter().collect(),
            preferred_device: constraints.preferred_device.unwrap_or_default(),
            same_node: constraints.same_node,
            host_cpu_millis: constraints.host_cpu_millis,
            host_memory_bytes: constraints.host_memory_bytes,
        }
    }
}

/// A request for a lease: what it takes of each device, and how.
///
/// ```
/// use gpulease::{LeaseRequest, Priority};
/// use std::time::Duration;
/// let request = LeaseRequest::memory(8 << 30)
///     .devices(2)
///     .priority(Priority::Background)
///     .wait(Duration::from_secs(600));
/// ```
#[derive(Clone, Debug, PartialEq)]
#[must_use = "a request does nothing until it is passed to Client::acquire"]
pub struct LeaseRequest {
    ask: v1::Ask,
    constraints: Option<Constraints>,
    priority: Priority,
    name: Option<String>,
    ttl: Option<Duration>,
    wait: Duration,
    expected_duration: Option<Duration>,
    lifetime_max: Option<Duration>,
    request_id: Option<String>,
}

impl LeaseRequest {
    fn new(ask: v1::Ask) -> Self {
        Self {
            ask,
            constraints: None,
            priority: Priority::Normal,
            name: None,
            ttl: None,
            wait: WAIT_DEFAULT,
            expected_duration: None,
            lifetime_max: None,
            request_id: None,
        }
    }

    /// So many bytes of device memory, the whole process tree and its driver context included.
    pub fn memory(bytes: u64) -> Self {
        Self::new(v1::Ask { memory_bytes: Some(bytes), ..v1::Ask::default() })
    }

    /// So many slots of a device.
    pub fn slots(slots: u32) -> Self {
        Self::new(v1::Ask { slots: Some(slots), ..v1::Ask::default() })
    }

    /// A whole device that nobody else may use.
    pub fn exclusive() -> Self {
        Self::new(v1::Ask { exclusive: true, ..v1::Ask::default() })
    }

    /// On so many devices, each of them alike. Default: 1.
    pub fn devices(mut self, devices: u32) -> Self {
        self.ask.devices = Some(devices);
        self
    }

    /// Takes slots too.
    pub fn and_slots(mut self, slots: u32) -> Self {
        self.ask.slots = Some(slots);
        self
    }

    /// Takes memory too, in bytes.
    pub fn and_memory(mut self, bytes: u64) -> Self {
        self.ask.memory_bytes = Some(bytes);
        self
    }

    /// How urgent it is. Default: normal.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// A name that no other live lease of the service may have.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// How long the lease lives without a renewal: 2 s to 24 h. Default: the coordinator's, 30 s.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// How long to wait for devices; zero: an answer now. Default: 15 s.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// How long the lease will probably be held, a hint for forecasts.
    pub fn expected_duration(mut self, duration: Duration) -> Self {
        self.expected_duration = Some(duration);
        self
    }

    /// The longest the lease may live after its grant, renewals or not.
    pub fn lifetime_max(mut self, lifetime: Duration) -> Self {
        self.lifetime_max = Some(lifetime);
        self
    }

    /// Names the request, unique within the holder: repeating it gives the same lease, never a second one.
    /// Default: a fresh UUID.
    pub fn request_id(mut self, request_id: impl Into<String>) -> Self {
        self.request_id = Some(request_id.into());
        self
    }

    /// Which devices will do. Default: any.
    pub fn constraints(mut self, constraints: Constraints) -> Self {
        self.constraints = Some(constraints);
        self
    }

    /// The longest wait that is asked for.
    pub(crate) fn wait_max(&self) -> Duration {
        self.wait
    }

    /// The message, with a request id of its own where the caller gave none. Service and holder are the session's.
    pub(crate) fn into_wire(self) -> v1::AcquireRequest {
        v1::AcquireRequest {
            service: String::new(),
            holder: String::new(),
            request_id: self.request_id.unwrap_or_else(|| uuid::Uuid::now_v7().to_string()),
            name: self.name.unwrap_or_default(),
            ask: Some(self.ask),
            constraints: self.constraints.map(v1::Constraints::from),
            priority: self.priority.to_wire(),
            ttl: self.ttl.map(convert::wire_duration),
            wait: Some(convert::wire_duration(self.wait)),
            expected_duration: self.expected_duration.map(convert::wire_duration),
            lifetime_max: self.lifetime_max.map(convert::wire_duration),
            preemptible: v1::Preemptible::Unspecified.into(),
            minimum_hold: None,
            process: None,
        }
    }
}

/// Which leases to list. The default: all that have not ended.
///
/// ```
/// use gpulease::{LeaseFilter, LeaseState};
/// let ended = LeaseFilter::default().state(LeaseState::Ended).service("training");
/// let all = LeaseFilter::all();
/// # let _ = (ended, all);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "a filter does nothing until it is passed to Client::leases"]
pub struct LeaseFilter {
    pub(crate) states: Vec<LeaseState>,
    pub(crate) service: Option<String>,
}

impl LeaseFilter {
    /// Leases in every state, ended ones included.
    pub fn all() -> Self {
        Self { states: LeaseState::ALL.to_vec(), service: None }
    }

    /// Leases in this state too.
    pub fn state(mut self, state: LeaseState) -> Self {
        self.states.push(state);
        self
    }

    /// Only leases of this service.
    pub fn service(mut self, service: impl Into<String>) -> Self {
        self.service = Some(service.into());
        self
    }
}

/// All pages of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Listing<T> {
    /// The items, in the coordinator's order.
    pub items: Vec<T>,
    /// The revision of the first page: watch from here, and nothing is missed.
    pub revision: u64,
}
