//! Waiting for facts instead of for time: the event stream, read until it tells what a test waits for.

use gpulease::{Client, Event, EventBatch, EventStream, LeaseEvent, LeaseEventKind};
use tokio_stream::StreamExt as _;

use crate::deadline::soon;

/// Everything that happens, from the moment it is made.
#[derive(Debug)]
pub struct Facts {
    stream: EventStream,
}

impl Facts {
    /// Watches from now on.
    ///
    /// # Errors
    /// No coordinator.
    pub async fn from_now(client: &Client) -> Result<Self, gpulease::Error> {
        Ok(Self { stream: client.watch(None).await? })
    }

    /// Watches everything behind a revision.
    ///
    /// # Errors
    /// No coordinator, or no such history.
    pub async fn after(client: &Client, revision: u64) -> Result<Self, gpulease::Error> {
        Ok(Self { stream: client.watch(Some(revision)).await? })
    }

    /// The next batch. Breaks of the connection are the stream's own to bridge.
    ///
    /// # Panics
    /// When none comes soon, or the stream is over.
    pub async fn batch(&mut self) -> EventBatch {
        loop {
            match soon("another batch of events", self.stream.next()).await {
                Some(Ok(batch)) => return batch,
                Some(Err(error)) if error.is_retryable() => {}
                end => panic!("the event stream is over: {end:?}"),
            }
        }
    }

    /// The next events of leases of one kind, so many of them, in their order.
    ///
    /// # Panics
    /// When they do not come soon.
    pub async fn leases(&mut self, kind: LeaseEventKind, count: usize) -> Vec<LeaseEvent> {
        let mut found = Vec::new();
        while found.len() < count {
            for event in self.batch().await.events {
                match event {
                    Event::Lease(lease) if lease.kind == kind => found.push(lease),
                    _ => {}
                }
            }
        }
        found
    }

    /// The next event of any kind that a test accepts.
    ///
    /// # Panics
    /// When it does not come soon.
    pub async fn until(&mut self, accepts: impl Fn(&Event) -> bool) -> Event {
        loop {
            if let Some(event) = self.batch().await.events.into_iter().find(&accepts) {
                return event;
            }
        }
    }
}
