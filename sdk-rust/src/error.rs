//! What can go wrong, by the coordinator's own reasons.
//!
//! [`ErrorKind`] is for `match`, [`Error::reason`] is the stable UPPER_SNAKE word on the wire, the message is for
//! people. How statuses and in-stream refusals become an [`Error`] is in `refusal.rs`.

use std::{collections::BTreeMap, fmt, time::Duration};

/// The kinds of failure a caller can tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Nothing fits now, and the request may not wait.
    NoCapacity,
    /// The longest wait was over before anything fitted.
    WaitOver,
    /// No known node could ever satisfy the request.
    Unsatisfiable,
    /// A quota, a queue or another bound of the coordinator is full.
    QuotaExceeded,
    /// The fencing token is not the lease's newest.
    StaleToken,
    /// The lease has ended, or can no longer be renewed.
    LeaseEnded,
    /// The holder can no longer prove that it holds the lease.
    LeaseLost,
    /// The lease is paused and holds no devices now.
    LeasePaused,
    /// The notice does not stand any more, or cannot be extended any further.
    NoticeOver,
    /// There is no such lease, device or node.
    NotFound,
    /// Another live lease of the service has the name.
    NameTaken,
    /// The request id belongs to another holder, or was used with another body.
    RequestIdConflict,
    /// The lease is somebody else's.
    NotTheHolder,
    /// A field of the request or an argument is wrong.
    InvalidArgument,
    /// The caller is unknown or may not do this.
    PermissionDenied,
    /// The coordinator cannot be reached, or cannot serve now.
    Unavailable,
    /// GPUs are disabled by the client's settings.
    Disabled,
    /// The coordinator failed so often that this client leaves it alone for a while.
    CircuitOpen,
    /// No answer within the time given.
    DeadlineExceeded,
    /// A newer session of the same holder took over.
    SessionReplaced,
    /// The revision asked for is no longer kept: list, and watch from the list's revision.
    HistoryGone,
    /// The request was cancelled.
    Cancelled,
    /// The client was closed.
    Closed,
    /// Anything else; see the reason and the message.
    Other,
}

/// A failed call: kind, reason, message and whatever else the coordinator said.
#[derive(Clone)]
pub struct Error(Box<Parts>);

#[derive(Clone, Debug)]
struct Parts {
    kind: ErrorKind,
    reason: String,
    message: String,
    metadata: BTreeMap<String, String>,
    field: Option<String>,
    retry_after: Option<Duration>,
    request_id: Option<String>,
    /// The connection was refused: nobody is there who could grant anything.
    nobody_there: bool,
}

impl Error {
    pub(crate) fn new(
        kind: ErrorKind,
        reason: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self(Box::new(Parts {
            kind,
            reason: reason.into(),
            message: message.into(),
            metadata: BTreeMap::new(),
            field: None,
            retry_after: None,
            request_id: None,
            nobody_there: false,
        }))
    }

    pub(crate) fn with_metadata(mut self, metadata: BTreeMap<String, String>) -> Self {
        self.0.metadata = metadata;
        self
    }

    pub(crate) fn with_field(mut self, field: Option<String>) -> Self {
        self.0.field = field.filter(|field| !field.is_empty());
        self
    }

    pub(crate) fn with_retry_after(mut self, retry_after: Option<Duration>) -> Self {
        self.0.retry_after = retry_after;
        self
    }

    pub(crate) fn with_request_id(mut self, request_id: &str) -> Self {
        self.0.request_id = Some(request_id.to_owned());
        self
    }

    pub(crate) fn with_nobody_there(mut self, nobody_there: bool) -> Self {
        self.0.nobody_there = nobody_there;
        self
    }

    /// The connection was refused: nobody is there who could grant anything.
    pub(crate) fn is_nobody_there(&self) -> bool {
        self.0.nobody_there
    }

    /// What kind of failure it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The reason in UPPER_SNAKE, stable across releases, such as `NO_CAPACITY`. Reasons of the client itself are
    /// `UNREACHABLE`, `DEADLINE_EXCEEDED`, `CIRCUIT_OPEN`, `DISABLED`, `LEASE_LOST`, `LEASE_PAUSED`, `CLIENT_CLOSED`,
    /// `INVALID_ENDPOINT`, `INVALID_SETTING`, `NEEDS_SOCKET` and `PROTOCOL`.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.0.reason
    }

    /// The message for people: what was attempted on what, why it failed, what to do.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// When a retry may help; `None`: the coordinator did not say that one would.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// The request it is about, for calls that have one.
    #[must_use]
    pub fn request_id(&self) -> Option<&str> {
        self.0.request_id.as_deref()
    }

    /// The field at fault, as a path such as `ask.devices`.
    #[must_use]
    pub fn field(&self) -> Option<&str> {
        self.0.field.as_deref()
    }

    /// The figures of the message, for programs.
    #[must_use]
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.0.metadata
    }

    /// Whether repeating the very same call can help. `NO_CAPACITY` is not retried although it says when capacity
    /// may return: a request that may not wait wants its answer now.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self.0.kind {
            ErrorKind::NoCapacity | ErrorKind::SessionReplaced | ErrorKind::Closed => false,
            ErrorKind::Unavailable => true,
            _ => self.0.retry_after.is_some(),
        }
    }

    pub(crate) fn closed() -> Self {
        Self::new(ErrorKind::Closed, "CLIENT_CLOSED", "the client was closed: connect a new one")
    }

    pub(crate) fn protocol(what: &str) -> Self {
        let message = format!("the coordinator's answer makes no sense: {what}");
        Self::new(ErrorKind::Other, "PROTOCOL", message)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({})", self.0.message, self.0.reason)?;
        if let Some(field) = &self.0.field {
            write!(formatter, ", field {field}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl std::error::Error for Error {}
