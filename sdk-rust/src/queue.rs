//! The queue as plain Rust values: who waits, in which order, and what every service uses.

use std::{fmt, str::FromStr, time::Duration};

use gpulease_proto::v1;

use crate::{
    client::Client,
    convert,
    error::Error,
    info::{LeaseInfo, ParseNameError, named_enum},
};

named_enum! {
    /// By which class a request stands in the order.
    OrderClass {
        /// By its priority.
        Background = "BACKGROUND",
        /// By its priority, or raised by waiting.
        Normal = "NORMAL",
        /// By its priority, or raised by waiting.
        Immediate = "IMMEDIATE",
        /// As far as waiting raises.
        Aged = "AGED",
        /// On devices that its service owns.
        Owner = "OWNER",
    }
}

/// The queue from its front.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Queue {
    /// In order.
    pub entries: Vec<QueueEntry>,
    /// How many wait in all, of all services.
    pub waiting: u64,
    /// Services that hold devices, wait, or used something of late, those that used most first.
    pub services: Vec<ServiceShare>,
    /// The revision at which this was true.
    pub revision: u64,
}

/// A request that waits.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct QueueEntry {
    /// The lease, queued or paused.
    pub lease: LeaseInfo,
    /// How many requests stand before it.
    pub position: u64,
    /// By which class it stands; `None`: by one that this release does not know.
    pub class: Option<OrderClass>,
    /// It held devices before and goes before new requests of its class.
    pub resumed: bool,
    /// The usage of its service divided by the service's weight, in GiB-hours of device memory: within a class less goes
    /// first.
    pub fair_share_usage: f64,
    /// Its caller or holder is away, and its place is kept.
    pub away: bool,
    /// Why it may not be granted though devices may be free, such as its service's quota.
    pub held_back: Option<String>,
    /// When it should get devices at the earliest, counted from the answer; `None`: nobody can tell.
    pub forecast: Option<Duration>,
}

/// What a service uses and may use.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ServiceShare {
    /// The service.
    pub service: String,
    /// With twice the weight it gets twice as much.
    pub weight: u32,
    /// What it used of late, decayed by half-life, in GiB-hours of device memory.
    pub usage: f64,
    /// Its part of the usage of all, in thousandths.
    pub usage_permille: u32,
    /// Its leases that hold devices.
    pub leases: QuotaUse,
    /// Devices that they hold.
    pub devices: QuotaUse,
    /// Bytes that they hold.
    pub memory_bytes: QuotaUse,
    /// Its requests that wait.
    pub waiting: QuotaUse,
}

/// A quota and its use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct QuotaUse {
    /// In use.
    pub used: u64,
    /// What may be; `None`: no bound.
    pub limit: Option<u64>,
}

impl Client {
    /// At most `limit` requests from the front of the queue (1 to 1,000; 0: 100), of one service or of all, and what every
    /// service uses.
    ///
    /// ```no_run
    /// # async fn example(client: gpulease::Client) -> Result<(), gpulease::Error> {
    /// for entry in client.queue(10, None).await?.entries {
    ///     println!("{} of {} waits behind {}", entry.lease.id, entry.lease.service, entry.position);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument), or no coordinator.
    pub async fn queue(&self, limit: u32, service: Option<&str>) -> Result<Queue, Error> {
        let service = service.unwrap_or_default().to_owned();
        let answer = self
            .unary
            .call(v1::QueueRequest { limit, service }, |request| {
                let mut client = self.unary.lease_service();
                async move { client.queue(request).await }
            })
            .await?;
        Ok(answer.into())
    }
}

impl From<v1::QueueResponse> for Queue {
    fn from(wire: v1::QueueResponse) -> Self {
        Self {
            entries: wire.entries.into_iter().map(QueueEntry::from).collect(),
            waiting: wire.waiting,
            services: wire.services.into_iter().map(ServiceShare::from).collect(),
            revision: wire.revision,
        }
    }
}

impl From<v1::QueueEntry> for QueueEntry {
    fn from(wire: v1::QueueEntry) -> Self {
        Self {
            lease: wire.lease.unwrap_or_default().into(),
            position: wire.position,
            class: OrderClass::from_wire(wire.class),
            resumed: wire.resumed,
            fair_share_usage: wire.fair_share_usage,
            away: wire.away,
            held_back: convert::text(wire.held_back),
            forecast: wire.forecast.and_then(convert::duration),
        }
    }
}

impl From<v1::ServiceShare> for ServiceShare {
    fn from(wire: v1::ServiceShare) -> Self {
        let quota = |wire: Option<v1::QuotaUse>| {
            let wire = wire.unwrap_or_default();
            QuotaUse { used: wire.used, limit: wire.limit }
        };
        Self {
            service: wire.service,
            weight: wire.weight,
            usage: wire.usage,
            usage_permille: wire.usage_permille,
            leases: quota(wire.leases),
            devices: quota(wire.devices),
            memory_bytes: quota(wire.memory_bytes),
            waiting: quota(wire.waiting),
        }
    }
}
