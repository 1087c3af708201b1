//! What a client does with plans: makes them, and holds the leases of one that is reserved.

use std::sync::Arc;

use crate::{
    client::{Client, disabled},
    error::Error,
    info::LeaseInfo,
    lease::Lease,
    plan::{self, Pipeline, Plan, Reservation, ReservedPlan},
    refusal::already_ended,
    request::WhileUnreachable,
};

impl Client {
    /// Where pipelines would go now, one device or node for each, balanced by load. Nothing is changed by it. What does
    /// not fit is told with its reason, and the plan is not complete then.
    ///
    /// ```no_run
    /// # async fn example(client: gpulease::Client) -> Result<(), gpulease::Error> {
    /// use gpulease::{Pipeline, Step};
    /// let wells = (1..=96).map(|well| {
    ///     Pipeline::new(format!("well-{well}"))
    ///         .step(Step::new("load").input("numpy").output("numpy"))
    ///         .step(Step::new("segment").input("numpy").output("torch").memory(2 << 30))
    /// });
    /// let plan = client.plan(wells).await?;
    /// for assignment in &plan.assignments {
    ///     println!("{} goes to {:?}", assignment.pipeline, assignment.node);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument), with the path of the field, or no coordinator.
    pub async fn plan(&self, pipelines: impl IntoIterator<Item = Pipeline>) -> Result<Plan, Error> {
        let message = plan::message(pipelines.into_iter().collect(), None);
        self.unary.plan(message).await.map(Plan::from)
    }

    /// Grants a plan, all of it or nothing, and holds its leases: one for each pipeline that takes a device, kept alive like
    /// any other. Repeating a reservation gives the same leases, those that are over aside, whose assignments have no devices
    /// then. If the future is dropped after the coordinator took the
    /// call, the leases end with their TTL.
    ///
    /// # Errors
    /// [`NoCapacity`](crate::ErrorKind::NoCapacity) where not all of it fits now, naming the first pipeline that does not;
    /// [`LeaseEnded`](crate::ErrorKind::LeaseEnded) where it was reserved before and all of its leases are over; and as
    /// [`Self::plan`].
    pub async fn reserve(
        &self,
        pipelines: impl IntoIterator<Item = Pipeline>,
        reservation: Reservation,
    ) -> Result<ReservedPlan, Error> {
        if !self.conduct.enabled {
            return Err(disabled());
        }
        let reserve = reservation.of(self.service(), self.holder());
        let message = plan::message(pipelines.into_iter().collect(), Some(reserve));
        let asked_at = self.session.now();
        let plan = Plan::from(self.unary.plan(message).await?);
        let keeps = self.conduct.while_unreachable == WhileUnreachable::Keep;
        let granted: Vec<&LeaseInfo> =
            plan.assignments.iter().filter_map(|it| it.lease.as_ref()).collect();
        if let Some(over) = granted.first()
            && granted.iter().all(|lease| !lease.state.is_kept())
        {
            return Err(already_ended(over));
        }
        let mut leases = Vec::new();
        for assignment in &plan.assignments {
            let Some(info) = assignment.lease.clone().filter(|info| info.state.is_kept()) else {
                continue;
            };
            let held = self.session.take_up(info, keeps, asked_at)?;
            let lease = Lease::new(held, Arc::clone(&self.session), Arc::clone(&self.tally));
            leases.push((assignment.pipeline.clone(), lease));
        }
        Ok(ReservedPlan { plan, leases })
    }
}
