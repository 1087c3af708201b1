//! The way out: which ticket belongs to whom, and committed effects to their callers.
//!
//! Promises: a request gets its replies in order and none after the final one; a session is woken once for each batch;
//! what belongs to a caller that is gone is forgotten. Only [`Committed`] effects can come here (P3).

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use gpulease_core::{
    id::{Caller, Revision, Ticket},
    output::{Answer, Effect},
};

use super::{
    batch::Committed,
    errands::Errands,
    message::{Reply, ReplyTo, SessionMessage},
    outbox::SessionOutbox,
};

pub(super) struct Delivery {
    errands: Arc<dyn Errands>,
    /// Requests without their final reply.
    pending: HashMap<Ticket, Pending>,
    sessions: HashMap<Caller, Session>,
    /// Tickets of queued requests by unary call.
    waiting_calls: HashMap<Caller, Ticket>,
    /// Sessions with something staged.
    touched: Vec<Caller>,
    /// Sessions that did not take what was theirs.
    unheard: Vec<Caller>,
}

struct Pending {
    caller: Option<Caller>,
    reply_to: ReplyTo,
}

struct Session {
    outbox: SessionOutbox,
    /// What the batch at hand has for it.
    staged: Vec<SessionMessage>,
    /// Tickets of its queued requests.
    waiting: HashSet<Ticket>,
    replaced: bool,
}

impl Delivery {
    pub(super) fn new(errands: Arc<dyn Errands>) -> Self {
        Self {
            errands,
            pending: HashMap::new(),
            sessions: HashMap::new(),
            waiting_calls: HashMap::new(),
            touched: Vec::new(),
            unheard: Vec::new(),
        }
    }

    /// A session to be told of changes.
    pub(super) fn open_session(&mut self, caller: Caller, outbox: SessionOutbox) {
        let session =
            Session { outbox, staged: Vec::new(), waiting: HashSet::new(), replaced: false };
        self.sessions.insert(caller, session);
    }

    /// Remembers where the replies of a ticket go.
    pub(super) fn expect(&mut self, ticket: Ticket, caller: Option<Caller>, reply_to: ReplyTo) {
        self.pending.insert(ticket, Pending { caller, reply_to });
    }

    /// Forgets a caller that is gone, and what waits for it.
    pub(super) fn forget(&mut self, caller: Caller) {
        let waiting = self.sessions.remove(&caller).map(|session| session.waiting);
        let call = self.waiting_calls.remove(&caller);
        for ticket in waiting.into_iter().flatten().chain(call) {
            self.pending.remove(&ticket);
        }
    }

    /// Lets the effects of a committed batch out.
    pub(super) fn let_out(&mut self, committed: Committed) {
        let Committed { revision, now, effects, .. } = committed;
        for effect in effects {
            match effect {
                Effect::Reply { ticket, reply } => {
                    self.reply(ticket, Reply { revision, now, outcome: reply });
                }
                Effect::Changed { caller, lease } => {
                    self.stage(caller, SessionMessage::Changed { revision, now, lease });
                }
                Effect::Check { node, device, number } => {
                    self.errands.check(&node, &device, number);
                }
                Effect::Quiesce { node, quiesced } => self.errands.quiesce(&node, quiesced),
                Effect::Track { process } => self.errands.track(process),
                Effect::ClaimRefused { device, node, claimant } => tracing::warn!(
                    %device, %node, %claimant,
                    "two nodes name one device; it stays where it was for as long as that node is there and names it"
                ),
                Effect::SessionReplaced { caller } => {
                    self.stage(caller, SessionMessage::Replaced);
                    if let Some(session) = self.sessions.get_mut(&caller) {
                        session.replaced = true;
                    }
                }
            }
        }
        self.flush();
    }

    /// Says goodbye to every session.
    pub(super) fn say_goodbye(&mut self, revision: Revision) {
        let callers: Vec<Caller> = self.sessions.keys().copied().collect();
        for caller in callers {
            self.stage(caller, SessionMessage::Goodbye { revision });
        }
        self.flush();
        self.close();
    }

    /// Sessions that took nothing more since the last call: for the scheduler their callers are gone, even while a
    /// connection that is never read keeps the stream from noticing (P11, P19).
    pub(super) fn take_unheard(&mut self) -> Vec<Caller> {
        std::mem::take(&mut self.unheard)
    }

    /// Ends every line without a word, and drops the way back of every request.
    pub(super) fn close(&mut self) {
        self.sessions.drain().for_each(|(_, session)| session.outbox.close());
        self.pending.clear();
    }

    /// How many requests have no final reply yet.
    #[cfg(test)]
    pub(super) fn pending_count(&self) -> usize {
        self.pending.len()
    }

    fn reply(&mut self, ticket: Ticket, reply: Reply) {
        if matches!(reply.outcome, Ok(Answer::Queued(_))) {
            return self.reply_queued(ticket, reply);
        }
        // The caller may be gone.
        let Some(Pending { caller, reply_to }) = self.pending.remove(&ticket) else { return };
        match (reply_to, caller) {
            (ReplyTo::Call(line), caller) => {
                if let Some(caller) = caller {
                    self.waiting_calls.remove(&caller);
                }
                // Nobody may listen any more.
                let _ = line.send(reply);
            }
            (ReplyTo::Session { sequence }, Some(caller)) => {
                if let Some(session) = self.sessions.get_mut(&caller) {
                    session.waiting.remove(&ticket);
                }
                self.stage(caller, SessionMessage::Reply { sequence, reply });
            }
            (ReplyTo::Session { .. }, None) => {}
        }
    }

    fn reply_queued(&mut self, ticket: Ticket, reply: Reply) {
        let Some(Pending { caller: Some(caller), reply_to }) = self.pending.get(&ticket) else {
            return;
        };
        let caller = *caller;
        match *reply_to {
            ReplyTo::Call(_) => {
                self.waiting_calls.insert(caller, ticket);
            }
            ReplyTo::Session { sequence } => {
                if let Some(session) = self.sessions.get_mut(&caller) {
                    session.waiting.insert(ticket);
                    self.stage(caller, SessionMessage::Reply { sequence, reply });
                } else {
                    self.pending.remove(&ticket);
                }
            }
        }
    }

    fn stage(&mut self, caller: Caller, message: SessionMessage) {
        let Some(session) = self.sessions.get_mut(&caller) else { return };
        if session.replaced {
            return;
        }
        if session.staged.is_empty() {
            self.touched.push(caller);
        }
        session.staged.push(message);
    }

    fn flush(&mut self) {
        for caller in self.touched.drain(..) {
            let Some(session) = self.sessions.get_mut(&caller) else { continue };
            if !session.outbox.send_all(&mut session.staged) {
                self.unheard.push(caller);
            }
            if session.replaced {
                session.outbox.close();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use gpulease_core::{output::Rejection, time::Time};

    use super::*;
    use crate::actor::outbox::{OUTBOX_MESSAGES_MAX, session_channel};

    #[test]
    fn a_session_that_takes_nothing_is_reported_once_as_unheard() {
        let mut delivery = Delivery::new(Arc::new(crate::actor::NoErrands));
        let caller = Caller::Session(1);
        let (outbox, _inbox) = session_channel();
        delivery.open_session(caller, outbox);
        let replies = OUTBOX_MESSAGES_MAX as u64 + 1;
        let effects = (0..replies).map(|number| {
            let reply_to = ReplyTo::Session { sequence: number };
            delivery.expect(Ticket(number), Some(caller), reply_to);
            Effect::Reply { ticket: Ticket(number), reply: Err(Rejection::NoCapacity) }
        });
        let effects = effects.collect();
        let committed =
            Committed { revision: Revision(1), now: Time::ZERO, durable: None, effects };
        delivery.let_out(committed);
        assert_eq!(delivery.take_unheard(), [caller]);
        assert_eq!(delivery.take_unheard(), []);
    }
}
