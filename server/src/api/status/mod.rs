//! Refusals on the wire: the only place where a [`Status`] or a [`v1::Error`] is built (P18).
//!
//! Every way to be refused, by the rules ([`Rejection`]) or by the edge ([`EdgeError`]), has one row: code, reason in
//! UPPER_SNAKE, what to do next, figures, the field at fault, and a retry hint where a retry can help. Both matches are
//! exhaustive, so that a new refusal does not compile before it has its row.

mod edge;
mod rejection;
#[cfg(test)]
mod tests;

use std::{borrow::Cow, collections::HashMap, fmt, time::Duration};

use gpulease_proto::v1;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

pub(super) use edge::{EdgeError, undecodable};

/// Who gives the reasons their meaning.
const DOMAIN: &str = "gpulease";

/// What the caller wanted; begins every message.
#[derive(Clone, Copy, Debug)]
pub(super) enum Attempt<'a> {
    Acquire,
    Renew(u64),
    Release(u64),
    Acknowledge(u64),
    ExtendNotice(u64),
    Explain(u64),
    Plan,
    ReadQueue,
    Reserve,
    Revoke(u64),
    ReadLease(u64),
    ListLeases,
    ReadDevice(&'a str),
    Cordon(&'a str),
    Uncordon(&'a str),
    Drain(&'a str),
    OpenDevice(&'a str),
    Quiesce(&'a str),
    ListProcesses,
    ListDevices,
    Session,
    Watch,
    ReadSamples,
    ReadStatus,
    Call,
}

impl fmt::Display for Attempt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Acquire => f.write_str("acquire a lease"),
            Self::Renew(lease) => write!(f, "renew lease {lease}"),
            Self::Release(lease) => write!(f, "release lease {lease}"),
            Self::Acknowledge(lease) => write!(f, "answer the notice of lease {lease}"),
            Self::ExtendNotice(lease) => write!(f, "extend the notice of lease {lease}"),
            Self::Explain(lease) => write!(f, "explain lease {lease}"),
            Self::Plan => f.write_str("make a plan"),
            Self::ReadQueue => f.write_str("show the queue"),
            Self::Reserve => f.write_str("reserve a plan"),
            Self::Revoke(lease) => write!(f, "revoke lease {lease}"),
            Self::ReadLease(lease) => write!(f, "show lease {lease}"),
            Self::ListLeases => f.write_str("list leases"),
            Self::ReadDevice(uuid) => write!(f, "show device {uuid:.64}"),
            Self::Cordon(target) => write!(f, "cordon {target:.64}"),
            Self::Drain(target) => write!(f, "drain {target:.64}"),
            Self::Uncordon(target) => write!(f, "uncordon {target:.64}"),
            Self::Quiesce(node) => write!(f, "quiesce or resume the driver of {node:.64}"),
            Self::OpenDevice(uuid) => write!(f, "open device {uuid:.64}"),
            Self::ListProcesses => f.write_str("list processes"),
            Self::ListDevices => f.write_str("list devices"),
            Self::Session => f.write_str("hold the session"),
            Self::Watch => f.write_str("watch events"),
            Self::ReadSamples => f.write_str("read samples"),
            Self::ReadStatus => f.write_str("show the status"),
            Self::Call => f.write_str("take the call"),
        }
    }
}

/// One row of the table.
#[derive(Debug)]
pub(super) struct Refusal {
    code: Code,
    reason: &'static str,
    /// Why, and what to do next.
    why: String,
    metadata: Vec<(&'static str, String)>,
    /// The field at fault, and what would do.
    field: Option<(Cow<'static, str>, String)>,
    retry_after: Option<Duration>,
    /// The quota that is used up, and its bound.
    quota: Option<(String, String)>,
}

impl Refusal {
    fn new(code: Code, reason: &'static str, why: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            why: why.into(),
            metadata: Vec::new(),
            field: None,
            retry_after: None,
            quota: None,
        }
    }

    fn with(mut self, key: &'static str, value: impl ToString) -> Self {
        self.metadata.push((key, value.to_string()));
        self
    }

    fn field(
        mut self,
        field: impl Into<Cow<'static, str>>,
        description: impl Into<String>,
    ) -> Self {
        self.field = Some((field.into(), description.into()));
        self
    }

    fn retry_after(mut self, retry_after: Duration) -> Self {
        self.retry_after = Some(retry_after);
        self
    }

    fn quota(mut self, subject: impl Into<String>, description: impl Into<String>) -> Self {
        self.quota = Some((subject.into(), description.into()));
        self
    }

    fn text(&self, attempt: Attempt<'_>) -> String {
        format!("cannot {attempt}: {}", self.why)
    }

    fn figures(&mut self) -> HashMap<String, String> {
        self.metadata.drain(..).map(|(key, value)| (key.to_owned(), value)).collect()
    }

    /// As the end of a call or stream.
    pub(super) fn status(mut self, attempt: Attempt<'_>) -> Status {
        let mut details = ErrorDetails::with_error_info(self.reason, DOMAIN, self.figures());
        let text = self.text(attempt);
        if let Some((field, description)) = self.field {
            details.add_bad_request_violation(field, description);
        }
        if self.retry_after.is_some() {
            details.set_retry_info(self.retry_after);
        }
        if let Some((subject, description)) = self.quota {
            details.add_quota_failure_violation(subject, description);
        }
        Status::with_error_details(self.code, text, details)
    }

    /// As a message within a session.
    pub(super) fn message(mut self, attempt: Attempt<'_>) -> v1::Error {
        v1::Error {
            code: self.code.into(),
            reason: self.reason.to_owned(),
            message: self.text(attempt),
            metadata: self.figures(),
            field: self.field.map(|(field, _)| field.into_owned()).unwrap_or_default(),
            retry_after: self.retry_after.and_then(|after| after.try_into().ok()),
        }
    }
}

/// The status of any refusal.
pub(super) fn refuse(attempt: Attempt<'_>, refusal: impl Into<Refusal>) -> Status {
    refusal.into().status(attempt)
}
