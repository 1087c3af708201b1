//! The desk of a session: turns messages into inputs, and answers into messages under the holder's numbers.

use std::sync::Arc;

use gpulease_core::{
    id::{Caller, Holder, LeaseId, NoticeId, Revision, Token},
    input::Input,
    output::Answer,
    request::InvalidField,
    time::Time,
    view::LeaseView,
};
use gpulease_proto::v1::{
    self, session_renewal_outcome::Outcome, session_request::Body as Ask,
    session_response::Body as Say,
};

use super::{
    Settings,
    pending::{Asked, Batch, Pending, Waiting},
};
use crate::{
    actor::{Handle, Reply, ReplyTo},
    api::{
        convert::{self, Display},
        flow::Flow,
        limits::{LEASES_BYTES_MAX, RENEWALS_MAX, WRITE_BURST_MAX},
        operations::count,
        peer::Peer,
        status::{Attempt, EdgeError, Refusal},
    },
    telemetry::operations::Work,
};

/// One session's desk.
pub(super) struct Desk {
    handle: Handle,
    caller: Caller,
    peer: Peer,
    holder: Holder,
    settings: Arc<Settings>,
    flow: Flow<v1::SessionResponse>,
    pending: Pending,
    /// The newest revision told.
    revision: Revision,
    /// Messages written since the reader last took all.
    written: usize,
}

impl Desk {
    pub(super) fn new(
        handle: Handle,
        (caller, peer): (Caller, Peer),
        holder: Holder,
        settings: Arc<Settings>,
        flow: Flow<v1::SessionResponse>,
    ) -> Self {
        let revision = handle.facts().revision;
        let (pending, written) = (Pending::default(), 0);
        Self { handle, caller, peer, holder, settings, flow, pending, revision, written }
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Everything asked was answered.
    pub(super) fn idle(&self) -> bool {
        self.pending.is_empty()
    }

    /// Enough is written for the reader to have a turn.
    pub(super) fn written_enough(&self) -> bool {
        self.written >= WRITE_BURST_MAX
    }

    /// Waits until the reader took all.
    pub(super) async fn taken(&mut self) {
        self.flow.taken().await;
        self.written = 0;
    }

    /// Takes a place for the hello's answer; answers its tag.
    pub(super) fn expect(&mut self, sequence: u64) -> u64 {
        self.pending.insert(Waiting::Answer { sequence, asked: Asked::Hello })
    }

    fn say(&mut self, sequence: u64, body: Say) {
        let revision = self.revision.0;
        self.flow.put(v1::SessionResponse { sequence, revision, body: Some(body) });
        self.written += 1;
    }

    fn refuse(&mut self, sequence: u64, attempt: Attempt<'_>, refusal: impl Into<Refusal>) {
        self.say(sequence, Say::Error(refusal.into().message(attempt)));
    }

    /// Takes one message of the holder's.
    pub(super) fn take(&mut self, request: v1::SessionRequest) {
        let sequence = request.sequence;
        let wrong = match request.body {
            Some(Ask::Acquire(wire)) => return self.acquire(sequence, &wire),
            Some(Ask::Renew(wire)) => return self.renew(sequence, wire.leases),
            Some(Ask::Release(wire)) => return self.release(sequence, &wire),
            Some(Ask::Hello(_)) => {
                InvalidField::new("hello", "sent again", "the first message of a session only")
            }
            Some(Ask::Acknowledge(wire)) => return self.acknowledge(sequence, &wire),
            Some(Ask::ExtendNotice(wire)) => return self.extend_notice(sequence, &wire),
            None => InvalidField::new(
                "body",
                "absent or unknown",
                "acquire, renew, release, acknowledge or extend_notice",
            ),
        };
        self.refuse(sequence, Attempt::Session, EdgeError::Invalid(wrong));
    }

    fn acquire(&mut self, sequence: u64, wire: &v1::AcquireRequest) {
        let caller = self.caller;
        match convert::request(wire, Some(&self.holder), &self.peer) {
            Err(invalid) => self.refuse(sequence, Attempt::Acquire, EdgeError::Invalid(invalid)),
            Ok(request) => {
                let request = Arc::new(request);
                self.submit(sequence, Asked::Acquire, |ticket| Input::Acquire {
                    caller,
                    ticket,
                    request,
                });
            }
        }
    }

    fn release(&mut self, sequence: u64, wire: &v1::ReleaseRequest) {
        let (caller, holder) = (self.caller, Some(self.holder.clone()));
        let (lease, token) = (LeaseId(wire.lease_id), wire.fencing_token.map(Token));
        self.submit(sequence, Asked::Release(lease.0), |ticket| Input::Release {
            caller,
            ticket,
            lease,
            token,
            holder,
        });
    }

    fn acknowledge(&mut self, sequence: u64, wire: &v1::AcknowledgeRequest) {
        let (caller, holder) = (self.caller, Some(self.holder.clone()));
        let (lease, token) = (LeaseId(wire.lease_id), Token(wire.fencing_token));
        let notice = NoticeId(wire.notice_id);
        self.submit(sequence, Asked::Acknowledge(lease.0), |ticket| Input::Acknowledge {
            caller,
            ticket,
            lease,
            token,
            notice,
            holder,
        });
    }

    fn extend_notice(&mut self, sequence: u64, wire: &v1::ExtendNoticeRequest) {
        let (caller, holder) = (self.caller, Some(self.holder.clone()));
        let (lease, token) = (LeaseId(wire.lease_id), Token(wire.fencing_token));
        let notice = NoticeId(wire.notice_id);
        let extension = match convert::extension(wire) {
            Ok(extension) => extension,
            Err(invalid) => {
                let attempt = Attempt::ExtendNotice(wire.lease_id);
                return self.refuse(sequence, attempt, EdgeError::Invalid(invalid));
            }
        };
        self.submit(sequence, Asked::ExtendNotice(lease.0), |ticket| Input::ExtendNotice {
            caller,
            ticket,
            lease,
            token,
            notice,
            extension,
            holder,
        });
    }

    fn submit(
        &mut self,
        sequence: u64,
        asked: Asked,
        make: impl FnOnce(gpulease_core::id::Ticket) -> Input,
    ) {
        if self.pending.is_full() {
            return self.refuse(sequence, asked.attempt(), EdgeError::TooManyInFlight);
        }
        let tag = self.pending.insert(Waiting::Answer { sequence, asked });
        if let Err(error) = self.handle.submit(ReplyTo::Session { sequence: tag }, make) {
            self.pending.remove(tag);
            self.refuse(sequence, asked.attempt(), EdgeError::Refused(error));
        }
    }

    fn renew(&mut self, sequence: u64, wire: Vec<v1::RenewRequest>) {
        if wire.is_empty() || wire.len() > RENEWALS_MAX {
            let bound = format!("1 to {RENEWALS_MAX} entries");
            let invalid =
                InvalidField::new("renew.leases", format!("{} entries", wire.len()), bound);
            return self.refuse(sequence, Attempt::Session, EdgeError::Invalid(invalid));
        }
        if self.pending.is_full() {
            return self.refuse(sequence, Attempt::Session, EdgeError::TooManyInFlight);
        }
        let told: Vec<_> = wire.iter().map(convert::work).collect();
        let tag = self.pending.insert(Waiting::Outcomes(Batch::new(sequence, &wire, &told)));
        for ((renewal, told), tag) in wire.iter().zip(told).zip(tag..) {
            let submitted =
                told.map_err(EdgeError::from).and_then(|_| self.renew_one(renewal, tag));
            if let Err(error) = submitted {
                self.outcome(tag, Err(error), Time::ZERO);
            }
        }
    }

    fn renew_one(&self, renewal: &v1::RenewRequest, tag: u64) -> Result<(), EdgeError> {
        let (caller, holder) = (self.caller, Some(self.holder.clone()));
        let (lease, token) = (LeaseId(renewal.lease_id), Token(renewal.fencing_token));
        let reply_to = ReplyTo::Session { sequence: tag };
        let renew = |ticket| Input::Renew { caller, ticket, lease, token, holder };
        Ok(self.handle.submit(reply_to, renew)?)
    }

    /// Writes what the actor answered.
    pub(super) fn answer(&mut self, tag: u64, reply: Reply) {
        self.revision = self.revision.max(reply.revision);
        let Some((waiting, _)) = self.pending.find(tag) else { return };
        let Waiting::Answer { sequence, asked } = *waiting else {
            return self.outcome(tag, reply.outcome.map_err(EdgeError::Rejected), reply.now);
        };
        if !matches!(reply.outcome, Ok(Answer::Queued(_))) {
            self.pending.remove(tag);
        }
        match reply.outcome {
            Ok(answer) => self.say_answer(sequence, answer, reply.now),
            Err(rejection) => self.refuse(sequence, asked.attempt(), rejection),
        }
    }

    fn say_answer(&mut self, sequence: u64, answer: Answer, now: Time) {
        let display = Display::at(now);
        let lease = |view: &LeaseView| Some(convert::lease(view, &display));
        let body = match answer {
            Answer::Queued(view) => Say::Queued(v1::SessionQueued { lease: lease(&view) }),
            Answer::Lease(view) => {
                let revision = self.revision.0;
                Say::Granted(v1::AcquireResponse { lease: lease(&view), revision })
            }
            Answer::Released(view) => Say::Released(v1::ReleaseResponse { lease: lease(&view) }),
            Answer::Welcome(leases) => Say::Welcome(v1::SessionWelcome {
                leases: convert::leases_within(&leases, &display, LEASES_BYTES_MAX),
                session_grace: Some(convert::from_span(self.settings.session_grace)),
                version: env!("CARGO_PKG_VERSION").to_owned(),
            }),
            Answer::Acknowledged(view) => {
                Say::Acknowledged(v1::AcknowledgeResponse { lease: lease(&view) })
            }
            Answer::NoticeExtended(view) => {
                Say::NoticeExtended(v1::ExtendNoticeResponse { lease: lease(&view) })
            }
            Answer::Cordoned(_)
            | Answer::Planned(_)
            | Answer::Uncordoned
            | Answer::Quiesced
            | Answer::Renewed { .. }
            | Answer::Revoked(_)
            | Answer::DeviceOpened { .. } => {
                return self.refuse(sequence, Attempt::Session, EdgeError::Mismatched);
            }
        };
        self.say(sequence, body);
    }

    /// Notes what became of one renewal, and answers when its batch is whole.
    fn outcome(&mut self, tag: u64, outcome: Result<Answer, EdgeError>, now: Time) {
        let Some((Waiting::Outcomes(batch), index)) = self.pending.find(tag) else { return };
        let Some(slot) = batch.outcomes.get_mut(index) else { return };
        let lease = batch.leases.get(index).copied().unwrap_or_default();
        let refused =
            |error: EdgeError| Outcome::Error(Refusal::from(error).message(Attempt::Renew(lease)));
        slot.outcome = Some(match outcome {
            Ok(answer) => match convert::renewed(&answer, now) {
                Some(renewed) => Outcome::Renewed(renewed),
                None => refused(EdgeError::Mismatched),
            },
            Err(error) => refused(error),
        });
        batch.left = batch.left.saturating_sub(1);
        if batch.left > 0 {
            return;
        }
        if let Some(Waiting::Outcomes(batch)) = self.pending.remove(tag) {
            self.count(batch.worked());
            let Batch { sequence, outcomes, .. } = batch;
            self.say(sequence, Say::Renewed(v1::SessionRenewed { outcomes }));
        }
    }

    /// Counts work told with renewals that succeeded. Nobody waits for it.
    fn count(&self, told: Vec<(LeaseId, Work)>) {
        if told.is_empty() {
            return;
        }
        let (handle, operations) = (self.handle.clone(), self.settings.operations.clone());
        tokio::spawn(async move { count(&handle, &operations, told).await });
    }

    /// Writes that a lease changed without the holder's asking.
    pub(super) fn changed(&mut self, revision: Revision, now: Time, lease: &LeaseView) {
        self.revision = self.revision.max(revision);
        self.say(0, Say::Changed(convert::lease(lease, &Display::at(now))));
    }

    /// Writes that the coordinator goes away.
    pub(super) fn goodbye(&mut self, revision: Revision) {
        self.revision = self.revision.max(revision);
        let reason = "the coordinator is shutting down; come back when it is up again".to_owned();
        self.say(0, Say::Goodbye(v1::SessionGoodbye { revision: revision.0, reason }));
    }
}

impl Asked {
    /// The words of a refusal.
    const fn attempt(self) -> Attempt<'static> {
        match self {
            Self::Hello => Attempt::Session,
            Self::Acquire => Attempt::Acquire,
            Self::Release(lease) => Attempt::Release(lease),
            Self::Acknowledge(lease) => Attempt::Acknowledge(lease),
            Self::ExtendNotice(lease) => Attempt::ExtendNotice(lease),
        }
    }
}
