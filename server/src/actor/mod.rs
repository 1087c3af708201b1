//! The actor: one thread owns the state, takes inputs in batches, commits their events, and only then lets anything out.
//!
//! Start with [`batch`], the commit gate as a type. `intake` is the way in and its bounds, `lanes` the order of work,
//! `turn` one round, `delivery` the way out; [`Handle`] is what the rest of the coordinator holds of it all.
//! [`recovery`] makes the state from the journal, `snapshot` folds the journal in the background.
//! If a commit fails, memory is ahead of the disk: the actor stops, and the process with it (exit code 5).

pub mod batch;
pub mod recovery;

mod delivery;
mod errands;
mod feed;
mod handle;
mod health;
mod intake;
mod lanes;
mod message;
mod outbox;
mod query;
mod ring;
mod run;
mod snapshot;
mod subject;
mod turn;

#[cfg(test)]
mod tests;

pub use errands::{Errands, NoErrands};
pub use feed::{Cursor, Feed, FeedEnd, HistoryGone, Published};
pub use handle::Handle;
pub use health::{Facts, Health, SubmitError};
pub use intake::{ORDINARY_INPUTS_MAX, URGENT_INPUTS_MAX};
pub use message::{Reply, ReplyTo, SessionMessage};
pub use outbox::{InboxEnd, OUTBOX_MESSAGES_MAX, SessionInbox, SessionOutbox, session_channel};
pub use query::Reading;
pub use run::{Exit, Running, Setup, start};
pub use subject::Subject;
