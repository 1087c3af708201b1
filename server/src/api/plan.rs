//! The call that makes a plan, or reserves one.
//!
//! A plan that is only made is a question, answered between two batches; a reservation is an input like any request.

use std::sync::Arc;

use gpulease_core::{input::Input, output::Answer};
use gpulease_proto::v1;

use super::{
    convert::{self, Display},
    lease::Leases,
    status::EdgeError,
};

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
}
