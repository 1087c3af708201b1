//! What a caller asks for: the request for a lease, its constraints, and the filter of a list.
//!
//! Only what the coordinator cannot know is checked here; the rest it checks itself, and names the field at fault.

use std::{collections::BTreeMap, time::Duration};

use gpulease_proto::v1;

use crate::{
    convert,
    device::ComputeCapability,
    endpoint::{cannot_keep, needs_socket},
    error::{Error, ErrorKind},
    info::{LeaseState, Priority},
    notice::Preemptible,
    placement::{Affinity, PlacementPolicy},
    process, trace,
};

/// What becomes of a lease while nobody is at the coordinator's endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WhileUnreachable {
    /// It is lost when its validity is over. The default, and the only way over a network.
    #[default]
    Stop,
    /// Each refused connection to the coordinator's Unix socket keeps it for one TTL from when it was tried, so that an
    /// upgrade of the coordinator need not end the work: a coordinator that is gone grants nothing, and gives every lease
    /// its full TTL when it returns. One that answers, or hangs, or whose socket has no file, may be there: then the
    /// validity counts. So it does where nobody could try for a whole TTL, as in a suspend.
    Keep,
}

impl WhileUnreachable {
    pub(crate) const NAMES: &[(&str, Self)] = &[("stop", Self::Stop), ("keep", Self::Keep)];
}

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
    /// A framework whose programs the device must be able to run, such as `torch` or `cuda`.
    pub framework: Option<String>,
    /// Where other leases of the service with the same key are.
    pub affinity: Option<Affinity>,
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
            framework: convert::text(wire.framework),
            affinity: wire.affinity.map(Affinity::from),
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
            framework: constraints.framework.unwrap_or_default(),
            affinity: constraints.affinity.map(v1::Affinity::from),
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
    wait: Option<Duration>,
    expected_duration: Option<Duration>,
    lifetime_max: Option<Duration>,
    request_id: Option<String>,
    preemptible: Option<Preemptible>,
    minimum_hold: Option<Duration>,
    placement: Option<PlacementPolicy>,
    pause_cost: Option<Duration>,
    process: Declared,
    trace_parent: Option<String>,
    while_unreachable: Option<WhileUnreachable>,
}

/// Which process will use the devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Declared {
    /// This one, where the coordinator can see it.
    Own,
    None,
    Given(u32),
}

/// What a client adds to a request.
pub(crate) struct Terms<'a> {
    pub(crate) endpoint: &'a str,
    pub(crate) is_socket: bool,
    pub(crate) wait: Duration,
    pub(crate) while_unreachable: WhileUnreachable,
    pub(crate) trace_parent: Option<String>,
}

/// A request that is ready to be sent.
pub(crate) struct Prepared {
    pub(crate) message: v1::AcquireRequest,
    pub(crate) wait: Duration,
    pub(crate) keeps: bool,
    /// The process is declared by default: a coordinator that cannot see it is asked again without.
    pub(crate) may_omit_process: bool,
}

impl LeaseRequest {
    fn new(ask: v1::Ask) -> Self {
        Self {
            ask,
            constraints: None,
            priority: Priority::Normal,
            name: None,
            ttl: None,
            wait: None,
            expected_duration: None,
            lifetime_max: None,
            request_id: None,
            preemptible: None,
            minimum_hold: None,
            placement: None,
            pause_cost: None,
            process: Declared::Own,
            trace_parent: None,
            while_unreachable: None,
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

    /// How long to wait for devices; zero: an answer now. Default: the client's
    /// [`request_timeout`](crate::ClientBuilder::request_timeout), 15 s.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = Some(wait);
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

    /// How it may be preempted. Default: never.
    pub fn preemptible(mut self, preemptible: Preemptible) -> Self {
        self.preemptible = Some(preemptible);
        self
    }

    /// No notice before it has held its devices this long; counts anew at each grant. Default: 0, at most 24 h.
    pub fn minimum_hold(mut self, minimum: Duration) -> Self {
        self.minimum_hold = Some(minimum);
        self
    }

    /// How its devices are chosen among those that would do. Default: as the coordinator is configured.
    pub fn placement(mut self, policy: PlacementPolicy) -> Self {
        self.placement = Some(policy);
        self
    }

    /// What a pause costs, in time lost by stopping and starting again, such as loading a model anew: at most a day. Of
    /// several leases that may be preempted those go that lose least.
    pub fn pause_cost(mut self, cost: Duration) -> Self {
        self.pause_cost = Some(cost);
        self
    }

    /// The process that will use the devices, itself and everything it starts. Over the coordinator's Unix socket the
    /// default is this process, unless the request has an id of the caller's ([`Self::request_id`]): another process may
    /// repeat that one, and cannot be this process. Over TCP none can be declared.
    pub fn declare_process(mut self, pid: u32) -> Self {
        self.process = Declared::Given(pid);
        self
    }

    /// Declares no process: nobody can tell then whether a holder that is gone still uses the devices.
    pub fn declare_no_process(mut self) -> Self {
        self.process = Declared::None;
        self
    }

    /// The trace that the request belongs to, as a W3C `traceparent`. Default: the client's
    /// [`trace_context`](crate::ClientBuilder::trace_context).
    pub fn trace_parent(mut self, trace_parent: impl Into<String>) -> Self {
        self.trace_parent = Some(trace_parent.into());
        self
    }

    /// What becomes of the lease while nobody is at the coordinator's endpoint. Default: the client's
    /// [`while_unreachable`](crate::ClientBuilder::while_unreachable).
    pub fn while_unreachable(mut self, policy: WhileUnreachable) -> Self {
        self.while_unreachable = Some(policy);
        self
    }

    /// How long it waits, where the client's default is this.
    pub(crate) fn wait_or(&self, default: Duration) -> Duration {
        self.wait.unwrap_or(default)
    }

    /// The message, with a request id of its own where the caller gave none. Service and holder are the session's.
    pub(crate) fn prepare(self, terms: Terms<'_>) -> Result<Prepared, Error> {
        let policy = self.while_unreachable.unwrap_or(terms.while_unreachable);
        if policy == WhileUnreachable::Keep && !terms.is_socket {
            return Err(cannot_keep(terms.endpoint));
        }
        let process = match (self.process, &self.request_id) {
            (Declared::Own, Some(_)) => None,
            (declared, _) => declared.on_wire(&terms)?,
        };
        let given = self.trace_parent.as_deref();
        if let Some(text) = given.filter(|text| !trace::is_trace_parent(text)) {
            let message = format!("trace parent {text:?} is no W3C traceparent, such as 00-…-…-01");
            return Err(Error::new(ErrorKind::InvalidArgument, "INVALID_FIELD", message)
                .with_field(Some("trace_parent".to_owned())));
        }
        let wait = self.wait.unwrap_or(terms.wait);
        let preemptible = self.preemptible.map_or(0, Preemptible::to_wire);
        let message = v1::AcquireRequest {
            service: String::new(),
            holder: String::new(),
            request_id: self.request_id.unwrap_or_else(|| uuid::Uuid::now_v7().to_string()),
            name: self.name.unwrap_or_default(),
            ask: Some(self.ask),
            constraints: self.constraints.map(v1::Constraints::from),
            priority: self.priority.to_wire(),
            ttl: self.ttl.map(convert::wire_duration),
            wait: Some(convert::wire_duration(wait)),
            expected_duration: self.expected_duration.map(convert::wire_duration),
            lifetime_max: self.lifetime_max.map(convert::wire_duration),
            preemptible,
            minimum_hold: self.minimum_hold.map(convert::wire_duration),
            process,
            trace_parent: self.trace_parent.or(terms.trace_parent).unwrap_or_default(),
            placement: self.placement.map_or(0, PlacementPolicy::to_wire),
            pause_cost: self.pause_cost.map(convert::wire_duration),
        };
        let may_omit_process = self.process == Declared::Own && message.process.is_some();
        let keeps = policy == WhileUnreachable::Keep;
        Ok(Prepared { message, wait, keeps, may_omit_process })
    }
}

impl Declared {
    fn on_wire(self, terms: &Terms<'_>) -> Result<Option<v1::Process>, Error> {
        match self {
            Self::Own => Ok(terms.is_socket.then(process::own)),
            Self::None => Ok(None),
            Self::Given(pid) if terms.is_socket => {
                Ok(Some(v1::Process { pid, started_ticks: None }))
            }
            Self::Given(pid) => {
                let what =
                    format!("process {pid} cannot be declared: the coordinator cannot check it");
                Err(needs_socket(terms.endpoint, &what).with_field(Some("process".to_owned())))
            }
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
