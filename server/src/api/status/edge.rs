//! The rows of what the edge refuses before the rules see it, or because the coordinator cannot serve.

use std::time::Duration;

use gpulease_core::{
    id::{LeaseId, Revision},
    output::Rejection,
    request::InvalidField,
};
use tonic::{Code, Status};

use super::{
    Refusal,
    rejection::{lease_not_found, session_replaced},
};
use crate::{
    actor::SubmitError,
    api::limits::{HELLO_WAIT_MAX, IN_FLIGHT_MAX, MESSAGE_BYTES_MAX},
};

/// After which the actor has worked off what waits: 16,384 acquires at 20,000 a second.
const OVERLOAD_RETRY: Duration = Duration::from_secs(1);
/// After which a restarted coordinator serves again: 100,000 live leases within 2 s.
const RESTART_RETRY: Duration = Duration::from_secs(2);

/// A refusal of the edge.
#[derive(Debug)]
pub(in crate::api) enum EdgeError {
    /// The rules said no.
    Rejected(Rejection),
    /// A field is out of bounds.
    Invalid(InvalidField),
    /// The coordinator takes no more, or ends.
    Refused(SubmitError),
    /// The coordinator stops; watch on after this revision.
    Stopping(Revision),
    /// The first message of a session was no hello, or none came.
    NoHello,
    /// A session has too much in flight.
    TooManyInFlight,
    /// A session does not read.
    SlowReader,
    /// A newer session took over.
    SessionReplaced,
    /// A watch asks for, or fell behind to, what is no longer kept.
    HistoryGone {
        /// The revision asked for.
        asked: Revision,
        /// The oldest that is kept.
        oldest: Revision,
    },
    /// A page token is none of ours.
    InvalidPageToken,
    /// There is no such lease.
    LeaseNotFound(LeaseId),
    /// There is no such device.
    DeviceNotFound,
    /// Too many watches, subscriptions or sessions.
    TooManyReaders {
        /// As many of this kind may be.
        max: usize,
    },
    /// A message is over the bound.
    MessageTooLarge,
    /// A message is no message.
    MalformedMessage,
    /// Past events cannot be read.
    HistoryUnreadable(String),
    /// A reply of a kind that the request cannot have: a defect.
    Mismatched,
}

impl From<Rejection> for EdgeError {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

impl From<InvalidField> for EdgeError {
    fn from(invalid: InvalidField) -> Self {
        Self::Invalid(invalid)
    }
}

impl From<SubmitError> for EdgeError {
    fn from(error: SubmitError) -> Self {
        Self::Refused(error)
    }
}

/// What tonic could not decode; anything else is the transport's and stays as it is.
pub(in crate::api) fn undecodable(status: &Status) -> Option<EdgeError> {
    let text = status.message();
    if status.code() == Code::OutOfRange && text.contains("message length too large") {
        return Some(EdgeError::MessageTooLarge);
    }
    let no_message = text.contains("decode") || text.contains("Missing request message");
    (status.code() == Code::Internal && no_message).then_some(EdgeError::MalformedMessage)
}

impl From<EdgeError> for Refusal {
    fn from(error: EdgeError) -> Self {
        match error {
            EdgeError::Rejected(rejection) => Self::from(&rejection),
            EdgeError::Invalid(invalid) => Self::from(&invalid),
            EdgeError::Refused(error) => Self::from(&error),
            EdgeError::SessionReplaced => session_replaced(),
            EdgeError::LeaseNotFound(lease) => lease_not_found(lease.0),
            EdgeError::Stopping(revision) => shutting_down().with("revision", revision),
            EdgeError::NoHello
            | EdgeError::TooManyInFlight
            | EdgeError::SlowReader
            | EdgeError::TooManyReaders { .. }
            | EdgeError::MessageTooLarge
            | EdgeError::MalformedMessage => of_stream(&error),
            EdgeError::HistoryGone { asked, oldest } => history_gone(asked, oldest),
            EdgeError::InvalidPageToken => {
                let why = "this page token was not given out for this list and filter; start from the first page";
                Self::new(Code::InvalidArgument, "INVALID_PAGE_TOKEN", why)
                    .field("page_token", "empty, or the next_page_token of the page before")
            }
            EdgeError::HistoryUnreadable(cause) => {
                let why =
                    format!("past events cannot be read ({cause}); watch from the newest revision");
                Self::new(Code::Unavailable, "HISTORY_UNREADABLE", why).retry_after(RESTART_RETRY)
            }
            EdgeError::Mismatched => {
                let why =
                    "the coordinator gave an answer of the wrong kind, a defect; please report it";
                Self::new(Code::Internal, "MISMATCHED_ANSWER", why)
            }
            EdgeError::DeviceNotFound => {
                let why =
                    "there is no device with this uuid; list the devices to see what there is";
                Self::new(Code::NotFound, "DEVICE_NOT_FOUND", why)
            }
        }
    }
}

/// A message or a stream over its bound.
fn of_stream(error: &EdgeError) -> Refusal {
    match error {
        EdgeError::NoHello => {
            let why = format!(
                "its first message must be a hello, within {} s; send a hello with service and holder",
                HELLO_WAIT_MAX.as_secs()
            );
            Refusal::new(Code::InvalidArgument, "NO_HELLO", why).field("hello", "the first message")
        }
        EdgeError::TooManyInFlight => {
            let why =
                format!("{IN_FLIGHT_MAX} messages are in flight; read replies before sending more");
            Refusal::new(Code::ResourceExhausted, "TOO_MANY_IN_FLIGHT", why)
                .with("max", IN_FLIGHT_MAX)
                .quota("messages in flight", format!("at most {IN_FLIGHT_MAX}"))
        }
        EdgeError::SlowReader => {
            let why =
                "more messages wait than may, for it does not read; read faster, and open it again";
            Refusal::new(Code::ResourceExhausted, "SLOW_READER", why).retry_after(OVERLOAD_RETRY)
        }
        EdgeError::TooManyReaders { max } => {
            let why = format!("{max} streams of this kind are open; close some");
            Refusal::new(Code::ResourceExhausted, "TOO_MANY_READERS", why)
                .with("max", max)
                .quota("open streams", format!("at most {max}"))
                .retry_after(OVERLOAD_RETRY)
        }
        EdgeError::MessageTooLarge => {
            let why =
                format!("the message is longer than {MESSAGE_BYTES_MAX} bytes; send smaller ones");
            Refusal::new(Code::ResourceExhausted, "MESSAGE_TOO_LARGE", why)
                .with("max_bytes", MESSAGE_BYTES_MAX)
        }
        _ => {
            let why =
                "the message is not what the .proto files of gpulease.v1 say; compare the versions";
            Refusal::new(Code::InvalidArgument, "MALFORMED_MESSAGE", why)
        }
    }
}

fn history_gone(asked: Revision, oldest: Revision) -> Refusal {
    let why = format!(
        "the history after revision {asked} is no longer kept, the oldest kept revision is {oldest}; \
         list, then watch from the list's revision"
    );
    Refusal::new(Code::OutOfRange, "HISTORY_GONE", why)
        .with("revision", asked)
        .with("revision_oldest", oldest)
}

fn shutting_down() -> Refusal {
    let why = "the coordinator is shutting down; come back when it is up again";
    Refusal::new(Code::Unavailable, "SHUTTING_DOWN", why).retry_after(RESTART_RETRY)
}

impl From<&SubmitError> for Refusal {
    fn from(error: &SubmitError) -> Self {
        match error {
            SubmitError::Stopping => shutting_down(),
            SubmitError::Overloaded => {
                let why = "as many requests wait for the coordinator as may; try again in a moment";
                Self::new(Code::ResourceExhausted, "OVERLOADED", why).retry_after(OVERLOAD_RETRY)
            }
            SubmitError::Failed(cause) => {
                let why = format!(
                    "the coordinator could not write its journal ({cause}), so the outcome is unknown; \
                     repeat it with the same request id when the coordinator is back"
                );
                Self::new(Code::Unavailable, "JOURNAL_FAILED", why).retry_after(RESTART_RETRY)
            }
        }
    }
}
