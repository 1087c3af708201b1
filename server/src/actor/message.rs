//! What leaves the actor: replies, and what a session is told without asking.
//!
//! A reply carries the revision up to which everything is durable, so that a client may watch from there.
//! A caller that gets no reply (its oneshot is dropped, its inbox ends) asks [`super::Handle::refusal`] why.

use gpulease_core::{
    id::Revision,
    output::{Answer, Rejection},
    time::Time,
    view::LeaseView,
};
use tokio::sync::oneshot;

/// The answer to one request.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The last durable revision when it left.
    pub revision: Revision,
    /// The time of the batch that made it.
    pub now: Time,
    /// What the rules say.
    pub outcome: Result<Answer, Rejection>,
}

/// Where the replies of one request go. Sending one never blocks.
#[derive(Debug)]
pub enum ReplyTo {
    /// A unary call: gets the final reply only, never [`Answer::Queued`].
    Call(oneshot::Sender<Reply>),
    /// The session that the input's caller names: gets every reply in its outbox.
    Session {
        /// The request's number within the session.
        sequence: u64,
    },
}

/// One message to a session.
#[derive(Clone, Debug)]
pub enum SessionMessage {
    /// Answers a request of the session.
    Reply {
        /// The request's number within the session.
        sequence: u64,
        /// The answer.
        reply: Reply,
    },
    /// A lease of the holder changed without its asking.
    Changed {
        /// The last durable revision when it left.
        revision: Revision,
        /// When it changed.
        now: Time,
        /// The lease as it is now.
        lease: Box<LeaseView>,
    },
    /// A newer session of the same holder took over (P22); nothing follows.
    Replaced,
    /// The coordinator stops; nothing follows.
    Goodbye {
        /// Watch from here.
        revision: Revision,
    },
}
