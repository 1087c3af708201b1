//! The calls that make a plan, reserve one, and show the queue.
//!
//! A plan that is only made is a question, answered between two batches; a reservation is an input like any request.

use std::sync::Arc;

use gpulease_core::{input::Input, output::Answer, request::InvalidField};
use gpulease_proto::v1;

use super::{
    convert::{self, Display},
    lease::Leases,
    status::EdgeError,
};

/// Entries of the queue where no number is asked for.
const QUEUE_ENTRIES: u32 = 100;
/// The most that may be asked for: 1,000 × some 1.5 KiB are 1.5 MB, one message.
const QUEUE_ENTRIES_MAX: u32 = 1_000;

impl Leases {
    /// Makes a plan, and grants it where it is to be reserved.
    pub(super) async fn plan(&self, wire: &v1::PlanRequest) -> Result<v1::PlanResponse, EdgeError> {
        let plan = Arc::new(convert::plan(wire)?);
        if !plan.reserves() {
            let (planned, revision, now) = self
                .handle
                .query(move |reading| {
                    let planned = reading.scheduler.plan(&plan);
                    (planned, reading.scheduler.revision(), reading.now)
                })
                .await?;
            return Ok(convert::planned(wire, &planned?, &Display::at(now), revision.0));
        }
        let reply = self.ask(|ticket| Input::Reserve { ticket, plan }).await?;
        match reply.outcome? {
            Answer::Planned(planned) => {
                Ok(convert::planned(wire, &planned, &Display::at(reply.now), reply.revision.0))
            }
            _ => Err(EdgeError::Mismatched),
        }
    }

    /// Shows the queue.
    pub(super) async fn queue(
        &self,
        wire: &v1::QueueRequest,
    ) -> Result<v1::QueueResponse, EdgeError> {
        let limit = match wire.limit {
            0 => QUEUE_ENTRIES,
            limit @ 1..=QUEUE_ENTRIES_MAX => limit,
            limit => {
                let bound = format!("0 to {QUEUE_ENTRIES_MAX}");
                return Err(InvalidField::new("limit", limit, bound).into());
            }
        };
        let service = match wire.service.as_str() {
            "" => None,
            service => Some(convert::known_text("service", service)?),
        };
        let (queue, revision, now) = self
            .handle
            .query(move |reading| {
                let queue = reading.scheduler.queue(limit as usize, service.as_ref());
                (queue, reading.scheduler.revision(), reading.now)
            })
            .await?;
        Ok(convert::queue(&queue, &Display::at(now), revision.0))
    }
}
