//! The lease service: each unary verb, and the door to the session.
//!
//! A unary acquire waits for its last answer; when its caller goes away before that, the actor is told, and the place
//! in the queue is kept for the session grace (P11). Views are made by the actor and converted here, off its thread.

use std::sync::Arc;

use gpulease_core::{
    id::{Caller, LeaseId, NoticeId, Ticket, Token},
    input::Input,
    output::Answer,
    time::Time,
    view::LeasePage,
};
use gpulease_proto::v1::{self, lease_service_server::LeaseService};
use prost::Message as _;
use tokio::sync::oneshot;
use tonic::{Request, Response, Status, Streaming};

use super::{
    convert::{self, Display, Page, PageKind},
    limits::{LEASES_BYTES_MAX, REASON_BYTES_MAX},
    operations,
    peer::Peer,
    session::{self, SessionStream},
    status::{Attempt, EdgeError, refuse},
};
use crate::actor::{Handle, Reply, ReplyTo};

/// The lease service over a handle.
#[derive(Clone)]
pub(super) struct Leases {
    pub(super) handle: Handle,
    options: Arc<session::Settings>,
}

impl Leases {
    pub(super) fn new(handle: Handle, options: session::Settings) -> Self {
        Self { handle, options: Arc::new(options) }
    }

    /// Hands in a request and waits for its last reply.
    pub(super) async fn ask(
        &self,
        make: impl FnOnce(Ticket) -> Input + Send,
    ) -> Result<Reply, EdgeError> {
        let (to, answered) = oneshot::channel();
        self.handle.submit(ReplyTo::Call(to), make)?;
        // Dropped without an answer: the coordinator ends, and says why.
        answered.await.map_err(|_| unanswered(&self.handle))
    }

    async fn acquire(
        &self,
        wire: &v1::AcquireRequest,
        peer: Peer,
    ) -> Result<v1::AcquireResponse, EdgeError> {
        let request = Arc::new(convert::request(wire, None, &peer)?);
        let mut waiting = Waiting::begin(&self.handle);
        let caller = waiting.caller;
        let reply = self.ask(|ticket| Input::Acquire { caller, ticket, request }).await;
        waiting.answered = true;
        let reply = reply?;
        let lease = lease_of(&reply)?;
        Ok(v1::AcquireResponse { lease: Some(lease), revision: reply.revision.0 })
    }

    async fn renew(&self, wire: &v1::RenewRequest) -> Result<v1::RenewResponse, EdgeError> {
        let caller = self.handle.caller_call();
        let (lease, token) = (LeaseId(wire.lease_id), Token(wire.fencing_token));
        let holder = convert::optional_holder(&wire.service, &wire.holder)?;
        let told = convert::work(wire)?;
        let reply =
            self.ask(|ticket| Input::Renew { caller, ticket, lease, token, holder }).await?;
        let answer = reply.outcome?;
        let told = told.into_iter().map(|work| (lease, work)).collect();
        operations::count(&self.handle, &self.options.operations, told).await;
        convert::renewed(&answer, reply.now).ok_or(EdgeError::Mismatched)
    }

    async fn acknowledge(
        &self,
        wire: &v1::AcknowledgeRequest,
    ) -> Result<v1::AcknowledgeResponse, EdgeError> {
        let caller = self.handle.caller_call();
        let (lease, token) = (LeaseId(wire.lease_id), Token(wire.fencing_token));
        let notice = NoticeId(wire.notice_id);
        let holder = convert::optional_holder(&wire.service, &wire.holder)?;
        let reply = self
            .ask(|ticket| Input::Acknowledge { caller, ticket, lease, token, notice, holder })
            .await?;
        Ok(v1::AcknowledgeResponse { lease: Some(lease_of(&reply)?) })
    }

    async fn extend_notice(
        &self,
        wire: &v1::ExtendNoticeRequest,
    ) -> Result<v1::ExtendNoticeResponse, EdgeError> {
        let caller = self.handle.caller_call();
        let (lease, token) = (LeaseId(wire.lease_id), Token(wire.fencing_token));
        let notice = NoticeId(wire.notice_id);
        let extension = convert::extension(wire)?;
        let holder = convert::optional_holder(&wire.service, &wire.holder)?;
        let reply = self
            .ask(|ticket| Input::ExtendNotice {
                caller,
                ticket,
                lease,
                token,
                notice,
                extension,
                holder,
            })
            .await?;
        Ok(v1::ExtendNoticeResponse { lease: Some(lease_of(&reply)?) })
    }

    async fn explain(&self, id: LeaseId) -> Result<v1::ExplainResponse, EdgeError> {
        let read = self
            .handle
            .query(move |reading| {
                let found = reading.scheduler.explain(id);
                (found, reading.scheduler.revision(), reading.now)
            })
            .await?;
        let (Some(found), revision, now) = read else {
            return Err(EdgeError::LeaseNotFound(id));
        };
        Ok(convert::explanation(&found, &Display::at(now), revision.0))
    }

    async fn release(&self, wire: &v1::ReleaseRequest) -> Result<v1::ReleaseResponse, EdgeError> {
        let caller = self.handle.caller_call();
        let (lease, token) = (LeaseId(wire.lease_id), wire.fencing_token.map(Token));
        let holder = convert::optional_holder(&wire.service, &wire.holder)?;
        let reply =
            self.ask(|ticket| Input::Release { caller, ticket, lease, token, holder }).await?;
        Ok(v1::ReleaseResponse { lease: Some(lease_of(&reply)?) })
    }

    async fn revoke(&self, wire: &v1::RevokeRequest) -> Result<v1::RevokeResponse, EdgeError> {
        let lease = LeaseId(wire.lease_id);
        let detail = convert::text_within_bytes("reason", &wire.reason, REASON_BYTES_MAX)?;
        let reply = self.ask(|ticket| Input::Revoke { ticket, lease, detail }).await?;
        Ok(v1::RevokeResponse { lease: Some(lease_of(&reply)?) })
    }

    async fn read(&self, id: LeaseId) -> Result<v1::LeaseServiceGetResponse, EdgeError> {
        let read = self
            .handle
            .query(move |reading| {
                let found = reading.scheduler.lease(id);
                (found, reading.scheduler.revision(), reading.now)
            })
            .await?;
        let (Some(found), revision, now) = read else {
            return Err(EdgeError::LeaseNotFound(id));
        };
        let display = Display::at(now);
        Ok(v1::LeaseServiceGetResponse {
            lease: Some(convert::lease(&found.lease, &display)),
            history: convert::facts(&found.facts, &display),
            revision: revision.0,
        })
    }

    async fn page(
        &self,
        wire: &v1::LeaseServiceListRequest,
    ) -> Result<v1::LeaseServiceListResponse, EdgeError> {
        let states = convert::state_filter(&wire.states)?;
        let service = match wire.service.as_str() {
            "" => None,
            service => Some(convert::known_text("service", service)?),
        };
        let filter = format!("{states:?} {service:?}");
        let page = Page::parse(PageKind::Leases, wire.page_size, &wire.page_token, &filter)?;
        let (after, limit) = (LeaseId(page.after.unwrap_or(0)), page.size);
        let (found, revision, now) = self
            .handle
            .query(move |reading| {
                let of_service =
                    |named: &_| service.as_ref().is_none_or(|service| service == named);
                let leases = reading.scheduler.leases(after, limit, |lease| {
                    states.shows(lease.state) && of_service(&lease.request.holder.service)
                });
                (leases, reading.scheduler.revision(), reading.now)
            })
            .await?;
        let (leases, next_page_token) = fill(&page, &found, now);
        Ok(v1::LeaseServiceListResponse { leases, next_page_token, revision: revision.0 })
    }
}

/// Fills a page up to its size in bytes, with at least one of the entries found, so that every page gets on.
fn fill(page: &Page, found: &LeasePage, now: Time) -> (Vec<v1::Lease>, String) {
    let display = Display::at(now);
    let (mut leases, mut bytes) = (Vec::new(), 0);
    for view in &found.leases {
        let lease = convert::lease(view, &display);
        bytes += lease.encoded_len();
        if bytes > LEASES_BYTES_MAX && !leases.is_empty() {
            break;
        }
        leases.push(lease);
    }
    let cut = leases.len() < found.leases.len();
    let last = leases.last().filter(|_| cut).map(|lease| LeaseId(lease.id));
    let token = last.or(found.go_on_after).map(|after| page.token_after(after.0));
    (leases, token.unwrap_or_default())
}

fn unanswered(handle: &Handle) -> EdgeError {
    handle.refusal().unwrap_or(crate::actor::SubmitError::Stopping).into()
}

fn lease_of(reply: &Reply) -> Result<v1::Lease, EdgeError> {
    match &reply.outcome {
        Ok(
            Answer::Lease(view)
            | Answer::Released(view)
            | Answer::Revoked(view)
            | Answer::Acknowledged(view)
            | Answer::NoticeExtended(view),
        ) => Ok(convert::lease(view, &Display::at(reply.now))),
        Ok(
            Answer::Queued(_)
            | Answer::Planned(_)
            | Answer::Cordoned(_)
            | Answer::Uncordoned
            | Answer::Quiesced
            | Answer::Renewed { .. }
            | Answer::DeviceOpened { .. }
            | Answer::Welcome(_),
        ) => Err(EdgeError::Mismatched),
        Err(rejection) => Err(rejection.clone().into()),
    }
}

/// A unary acquire that waits: tells the actor when its caller goes away before the last answer.
struct Waiting<'a> {
    handle: &'a Handle,
    caller: Caller,
    answered: bool,
}

impl<'a> Waiting<'a> {
    fn begin(handle: &'a Handle) -> Self {
        Self { handle, caller: handle.caller_call(), answered: false }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.handle.tell(Input::CallerGone { caller: self.caller });
        }
    }
}

#[tonic::async_trait]
impl LeaseService for Leases {
    async fn acquire(
        &self,
        request: Request<v1::AcquireRequest>,
    ) -> Result<Response<v1::AcquireResponse>, Status> {
        let peer = Peer::of(request.extensions());
        let answer = Self::acquire(self, request.get_ref(), peer).await;
        answer.map(Response::new).map_err(|error| refuse(Attempt::Acquire, error))
    }

    async fn renew(
        &self,
        request: Request<v1::RenewRequest>,
    ) -> Result<Response<v1::RenewResponse>, Status> {
        let wire = request.get_ref();
        let answer = Self::renew(self, wire).await;
        answer.map(Response::new).map_err(|error| refuse(Attempt::Renew(wire.lease_id), error))
    }

    async fn release(
        &self,
        request: Request<v1::ReleaseRequest>,
    ) -> Result<Response<v1::ReleaseResponse>, Status> {
        let wire = request.get_ref();
        let answer = Self::release(self, wire).await;
        answer.map(Response::new).map_err(|error| refuse(Attempt::Release(wire.lease_id), error))
    }

    async fn get(
        &self,
        request: Request<v1::LeaseServiceGetRequest>,
    ) -> Result<Response<v1::LeaseServiceGetResponse>, Status> {
        let id = request.get_ref().lease_id;
        let answer = self.read(LeaseId(id)).await;
        answer.map(Response::new).map_err(|error| refuse(Attempt::ReadLease(id), error))
    }

    async fn list(
        &self,
        request: Request<v1::LeaseServiceListRequest>,
    ) -> Result<Response<v1::LeaseServiceListResponse>, Status> {
        let answer = self.page(request.get_ref()).await;
        answer.map(Response::new).map_err(|error| refuse(Attempt::ListLeases, error))
    }

    async fn revoke(
        &self,
        request: Request<v1::RevokeRequest>,
    ) -> Result<Response<v1::RevokeResponse>, Status> {
        let wire = request.get_ref();
        let answer = Self::revoke(self, wire).await;
        answer.map(Response::new).map_err(|error| refuse(Attempt::Revoke(wire.lease_id), error))
    }

    async fn acknowledge(
        &self,
        request: Request<v1::AcknowledgeRequest>,
    ) -> Result<Response<v1::AcknowledgeResponse>, Status> {
        let wire = request.get_ref();
        let answer = Self::acknowledge(self, wire).await;
        answer
            .map(Response::new)
            .map_err(|error| refuse(Attempt::Acknowledge(wire.lease_id), error))
    }

    async fn extend_notice(
        &self,
        request: Request<v1::ExtendNoticeRequest>,
    ) -> Result<Response<v1::ExtendNoticeResponse>, Status> {
        let wire = request.get_ref();
        let answer = Self::extend_notice(self, wire).await;
        answer
            .map(Response::new)
            .map_err(|error| refuse(Attempt::ExtendNotice(wire.lease_id), error))
    }

    async fn explain(
        &self,
        request: Request<v1::ExplainRequest>,
    ) -> Result<Response<v1::ExplainResponse>, Status> {
        let id = request.get_ref().lease_id;
        let answer = Self::explain(self, LeaseId(id)).await;
        answer.map(Response::new).map_err(|error| refuse(Attempt::Explain(id), error))
    }

    async fn queue(
        &self,
        request: Request<v1::QueueRequest>,
    ) -> Result<Response<v1::QueueResponse>, Status> {
        let answer = Self::queue(self, request.get_ref()).await;
        answer.map(Response::new).map_err(|error| refuse(Attempt::ReadQueue, error))
    }

    async fn plan(
        &self,
        request: Request<v1::PlanRequest>,
    ) -> Result<Response<v1::PlanResponse>, Status> {
        let wire = request.get_ref();
        let attempt = if wire.reserve.is_some() { Attempt::Reserve } else { Attempt::Plan };
        let answer = Self::plan(self, wire).await;
        answer.map(Response::new).map_err(|error| refuse(attempt, error))
    }

    type SessionStream = SessionStream;

    async fn session(
        &self,
        request: Request<Streaming<v1::SessionRequest>>,
    ) -> Result<Response<SessionStream>, Status> {
        let peer = Peer::of(request.extensions());
        let settings = Arc::clone(&self.options);
        let stream = session::open(self.handle.clone(), settings, peer, request.into_inner());
        Ok(Response::new(stream))
    }
}
