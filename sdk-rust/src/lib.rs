//! The Rust client of gpulease. What follows is its README.
//!
//! No type of the coordinator's rules or of the wire is public here; what can grow is non-exhaustive.
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod acquired;
mod book;
mod breaker;
mod builder;
mod changes;
mod client;
mod clock;
mod convert;
mod counters;
mod device;
mod endpoint;
mod environment;
mod error;
mod event;
mod events;
mod explain;
mod facts;
mod held;
mod info;
mod keepalive;
mod lease;
mod link;
mod metrics;
mod notice;
#[cfg(feature = "opentelemetry")]
mod opentelemetry;
mod operator;
mod pauses;
mod pending;
mod placement;
mod plan;
mod planning;
mod process;
mod queue;
mod refusal;
mod request;
mod resume;
mod retry;
mod session;
mod shared;
mod standing;
mod state;
mod status;
mod trace;
mod unary;

#[cfg(test)]
mod tests;

pub use acquired::{Acquired, CpuReason, DeviceKind};
pub use breaker::{BreakerSettings, BreakerState};
pub use builder::ClientBuilder;
pub use changes::LeaseChanges;
pub use client::Client;
pub use counters::Counters;
pub use device::{ComputeCapability, Cordon, DeviceInfo, DeviceProcess, DeviceState};
pub use endpoint::ENDPOINT_DEFAULT;
pub use error::{Error, ErrorKind};
pub use event::{
    DeviceEvent, DeviceEventKind, Event, EventBatch, LeaseEvent, LeaseEventKind, NodeEvent,
    NodeEventKind,
};
pub use events::EventStream;
pub use explain::{BlockingLease, Exclusion, Explanation, Granted, Waiting};
pub use info::{
    Ask, EndReason, LeaseDetail, LeaseFact, LeaseInfo, LeaseState, LeasedDevice, ParseNameError,
    Priority, Renewed,
};
pub use lease::Lease;
pub use metrics::{Sample, SampleBatch, SampleStream};
pub use notice::{Notice, NoticeCause, Preemptible, Process};
pub use operator::{Drained, ProcessFilter, Target};
pub use pauses::{PauseHandler, PauseReason, Turn};
pub use placement::{Affinity, AffinityScope, PlacementPolicy};
pub use plan::{
    Assignment, DeviceLoad, Pipeline, PipelineScope, Plan, Reservation, ReservedPlan, Step,
    StepAssignment,
};
pub use queue::{OrderClass, Queue, QueueEntry, QuotaUse, ServiceShare};
pub use request::{Constraints, LeaseFilter, LeaseRequest, Listing, WhileUnreachable};
pub use shared::{set_shared, shared};
pub use standing::{Change, Grant, LeaseStatus, LostReason};
pub use status::Status;
