//! Plans: many pipelines of many steps, and one assignment for all of them.

use std::{fmt, str::FromStr, time::Duration};

use gpulease_proto::v1;

use crate::{
    convert,
    info::{LeaseInfo, LeasedDevice, ParseNameError, Priority, named_enum},
    lease::Lease,
    notice::Preemptible,
    request::Constraints,
};

named_enum! {
    /// What the steps of a pipeline share.
    PipelineScope {
        /// One device, so that data never moves between devices.
        Device = "DEVICE",
        /// The devices of one node.
        Node = "NODE",
    }
}

/// One step of a pipeline. A step of which neither side lies on a device takes none.
///
/// ```
/// use gpulease::Step;
/// let decode = Step::new("decode").input("numpy").output("torch").memory(2 << 30);
/// let write = Step::new("write").input("numpy").output("cpu");
/// assert_ne!(decode, write);
/// ```
#[derive(Clone, Debug, PartialEq)]
#[must_use = "a step does nothing until it is part of a pipeline"]
pub struct Step(v1::PipelineStep);

impl Step {
    /// A step by its name, unique within the pipeline: 1 to 128 bytes.
    pub fn new(name: impl Into<String>) -> Self {
        Self(v1::PipelineStep { name: name.into(), ..v1::PipelineStep::default() })
    }

    /// Where its input lies: a framework whose arrays are on a device, such as `torch`, `cupy`, `jax` or `tensorflow`;
    /// or `numpy` or `cpu`, which need none. Default: none.
    pub fn input(mut self, memory_type: impl Into<String>) -> Self {
        self.0.input_memory_type = memory_type.into();
        self
    }

    /// Where its output lies, likewise.
    pub fn output(mut self, memory_type: impl Into<String>) -> Self {
        self.0.output_memory_type = memory_type.into();
        self
    }

    fn ask(&mut self) -> &mut v1::Ask {
        self.0.ask.get_or_insert_with(v1::Ask::default)
    }

    /// So many bytes of device memory. A step that says nothing takes one slot of one device.
    pub fn memory(mut self, bytes: u64) -> Self {
        self.ask().memory_bytes = Some(bytes);
        self
    }

    /// So many slots of a device.
    pub fn slots(mut self, slots: u32) -> Self {
        self.ask().slots = Some(slots);
        self
    }

    /// A whole device.
    pub fn exclusive(mut self) -> Self {
        self.ask().exclusive = true;
        self
    }

    /// On so many devices of the pipeline's node, each of them alike: only with [`PipelineScope::Node`].
    pub fn devices(mut self, devices: u32) -> Self {
        self.ask().devices = Some(devices);
        self
    }
}

/// Steps that share a device, or a node.
#[derive(Clone, Debug, PartialEq)]
#[must_use = "a pipeline does nothing until it is part of a plan"]
pub struct Pipeline(v1::Pipeline);

impl Pipeline {
    /// A pipeline by its name, unique within the plan: 1 to 63 bytes.
    pub fn new(name: impl Into<String>) -> Self {
        Self(v1::Pipeline { name: name.into(), ..v1::Pipeline::default() })
    }

    /// One step more, behind the others.
    pub fn step(mut self, step: Step) -> Self {
        self.0.steps.push(step.0);
        self
    }

    /// What the steps share. Default: one device.
    pub fn scope(mut self, scope: PipelineScope) -> Self {
        self.0.scope = scope.to_wire();
        self
    }

    /// The steps run at the same time, so that what they take adds up. Default: one after the other.
    pub fn steps_overlap(mut self, overlap: bool) -> Self {
        self.0.steps_overlap = overlap;
        self
    }

    /// Which devices will do for all its steps. Default: any.
    pub fn constraints(mut self, constraints: Constraints) -> Self {
        self.0.constraints = Some(constraints.into());
        self
    }
}

/// How the leases of a plan are asked for. The client's service and holder ask.
///
/// ```
/// use gpulease::{Priority, Reservation};
/// use std::time::Duration;
/// let reservation = Reservation::new("plate-17").priority(Priority::Background).ttl(Duration::from_secs(60));
/// ```
#[derive(Clone, Debug, PartialEq)]
#[must_use = "a reservation does nothing until it is passed to Client::reserve"]
pub struct Reservation(v1::Reservation);

impl Default for Reservation {
    /// A reservation with a request id of its own.
    fn default() -> Self {
        Self::new(uuid::Uuid::now_v7().to_string())
    }
}

impl Reservation {
    /// A reservation by a request id, unique within the holder: 1 to 64 bytes. Repeating it with the same plan gives the
    /// same leases.
    pub fn new(request_id: impl Into<String>) -> Self {
        Self(v1::Reservation { request_id: request_id.into(), ..v1::Reservation::default() })
    }

    /// What the affinity keys of the leases begin with. Default: the request id.
    pub fn affinity_key(mut self, key: impl Into<String>) -> Self {
        self.0.affinity_key = key.into();
        self
    }

    /// How urgent the leases are. Default: normal.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.0.priority = priority.to_wire();
        self
    }

    /// How long each lives without a renewal: 2 s to 24 h. Default: 30 s.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.0.ttl = Some(convert::wire_duration(ttl));
        self
    }

    /// How long they will probably be held, a hint for forecasts.
    pub fn expected_duration(mut self, duration: Duration) -> Self {
        self.0.expected_duration = Some(convert::wire_duration(duration));
        self
    }

    /// How they may be preempted. Default: never.
    pub fn preemptible(mut self, preemptible: Preemptible) -> Self {
        self.0.preemptible = preemptible.to_wire();
        self
    }
}

/// Where one step goes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StepAssignment {
    /// The step.
    pub step: String,
    /// Its devices, by UUID; none: it takes none.
    pub device_uuids: Vec<String>,
}

/// Where one pipeline goes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Assignment {
    /// The pipeline.
    pub pipeline: String,
    /// The node's name; `None`: it takes no device, or none would do.
    pub node: Option<String>,
    /// Its devices.
    pub devices: Vec<LeasedDevice>,
    /// Where each of its steps goes, in order.
    pub steps: Vec<StepAssignment>,
    /// Why it has no device though it needs one.
    pub unassigned_reason: Option<String>,
    /// Its lease as it was granted, where the plan was reserved and the pipeline takes a device.
    pub lease: Option<LeaseInfo>,
    /// The affinity key of its lease: later requests of the service with it go to the pipeline's device or node.
    pub affinity_key: Option<String>,
}

/// How full a device of the plan is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeviceLoad {
    /// The node's name.
    pub node: String,
    /// The device.
    pub uuid: String,
    /// The share of it that was taken before, in thousandths, by the scarcer of slots and bytes.
    pub before_permille: u32,
    /// The share with the plan.
    pub after_permille: u32,
    /// How many pipelines of the plan it has.
    pub pipelines: u32,
}

/// One assignment for all pipelines.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Plan {
    /// In the order asked for.
    pub assignments: Vec<Assignment>,
    /// The devices that the plan uses, in order of node and number.
    pub loads: Vec<DeviceLoad>,
    /// Every pipeline that needs a device has one.
    pub complete: bool,
    /// It was reserved: every assignment with devices carries its lease.
    pub reserved: bool,
    /// The revision at which this was true.
    pub revision: u64,
}

/// A plan that was granted, with its leases.
#[derive(Debug)]
#[non_exhaustive]
#[must_use = "dropping the guards releases the leases"]
pub struct ReservedPlan {
    /// Where everything goes.
    pub plan: Plan,
    /// The lease of each pipeline that takes a device, with the pipeline's name, in the order of the plan. A lease that
    /// is over already, where a reservation was repeated late, is not among them.
    pub leases: Vec<(String, Lease)>,
}

impl ReservedPlan {
    /// The lease of a pipeline.
    #[must_use]
    pub fn lease(&self, pipeline: &str) -> Option<&Lease> {
        self.leases.iter().find(|(name, _)| name == pipeline).map(|(_, lease)| lease)
    }
}

/// The message of a plan.
pub(crate) fn message(
    pipelines: Vec<Pipeline>,
    reserve: Option<v1::Reservation>,
) -> v1::PlanRequest {
    v1::PlanRequest { pipelines: pipelines.into_iter().map(|it| it.0).collect(), reserve }
}

impl Reservation {
    pub(crate) fn of(self, service: &str, holder: &str) -> v1::Reservation {
        v1::Reservation { service: service.to_owned(), holder: holder.to_owned(), ..self.0 }
    }
}

impl From<v1::PlanResponse> for Plan {
    fn from(wire: v1::PlanResponse) -> Self {
        Self {
            assignments: wire.assignments.into_iter().map(Assignment::from).collect(),
            loads: wire.loads.into_iter().map(DeviceLoad::from).collect(),
            complete: wire.complete,
            reserved: wire.reserved,
            revision: wire.revision,
        }
    }
}

impl From<v1::PipelineAssignment> for Assignment {
    fn from(wire: v1::PipelineAssignment) -> Self {
        let step = |wire: v1::StepAssignment| StepAssignment {
            step: wire.step,
            device_uuids: wire.device_uuids,
        };
        Self {
            pipeline: wire.pipeline,
            node: convert::text(wire.node),
            devices: wire.devices.into_iter().map(LeasedDevice::from).collect(),
            steps: wire.steps.into_iter().map(step).collect(),
            unassigned_reason: convert::text(wire.unassigned_reason),
            lease: wire.lease.map(LeaseInfo::from),
            affinity_key: convert::text(wire.affinity_key),
        }
    }
}

impl From<v1::DeviceLoad> for DeviceLoad {
    fn from(wire: v1::DeviceLoad) -> Self {
        Self {
            node: wire.node,
            uuid: wire.uuid,
            before_permille: wire.load_before_permille,
            after_permille: wire.load_after_permille,
            pipelines: wire.pipelines,
        }
    }
}
