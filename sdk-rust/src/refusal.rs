//! From the wire's refusals to [`Error`]: gRPC statuses with their details, and the same inside a session.

use std::{collections::BTreeMap, error::Error as _, io, time::Duration};

use gpulease_proto::v1;
use tonic::{Code, Status, TimeoutExpired};
use tonic_types::StatusExt as _;

use crate::{
    convert,
    error::{Error, ErrorKind},
    info::{EndReason, LeaseInfo},
};

/// The reason given to failures below gRPC: no connection, or a connection that broke.
const UNREACHABLE: &str = "UNREACHABLE";

/// How the messages of such failures begin.
const CANNOT_BE_REACHED: &str = "the coordinator cannot be reached: ";

impl Error {
    /// The message without what a caller says itself: that the coordinator cannot be reached.
    pub(crate) fn cause(&self) -> &str {
        self.message().strip_prefix(CANNOT_BE_REACHED).unwrap_or(self.message())
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        if is_transport_failure(&status) {
            return unreachable(&status);
        }
        let details = status.get_error_details();
        let retry_after = details.retry_info().and_then(|info| info.retry_delay);
        let field = details
            .bad_request()
            .and_then(|request| request.field_violations.first())
            .map(|violation| violation.field.clone());
        let (reason, metadata) = details
            .error_info()
            .map(|info| (info.reason.clone(), info.metadata.clone()))
            .unwrap_or_default();
        build(status.code(), reason, status.message(), metadata.into_iter().collect())
            .with_field(field)
            .with_retry_after(retry_after)
    }
}

impl From<v1::Error> for Error {
    fn from(refusal: v1::Error) -> Self {
        let retry_after: Option<Duration> = refusal.retry_after.and_then(convert::duration);
        let code = Code::from_i32(refusal.code);
        let metadata = refusal.metadata.into_iter().collect();
        build(code, refusal.reason, &refusal.message, metadata)
            .with_field(Some(refusal.field))
            .with_retry_after(retry_after)
    }
}

/// A request that was repeated and whose lease is over already: the coordinator answers with the lease as it is.
pub(crate) fn already_ended(lease: &LeaseInfo) -> Error {
    let reason = lease.end_reason.map_or("ENDED", EndReason::name);
    let message = format!(
        "request {:?} made lease {}, which is {} ({reason}): acquire under a new request id",
        lease.request_id, lease.id, lease.state
    );
    Error::new(ErrorKind::LeaseEnded, "LEASE_ENDED", message)
}

fn build(code: Code, reason: String, message: &str, metadata: BTreeMap<String, String>) -> Error {
    let kind = kind_of_reason(&reason).unwrap_or_else(|| kind_of_code(code));
    let reason = if reason.is_empty() { upper_snake(code) } else { reason };
    let message = if message.is_empty() { code.description() } else { message };
    Error::new(kind, reason, message).with_metadata(metadata)
}

/// A status that tonic made up because the connection failed has a source; one that came over the wire has none.
fn is_transport_failure(status: &Status) -> bool {
    let possible = matches!(
        status.code(),
        Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled
    );
    possible && status.source().is_some()
}

fn unreachable(status: &Status) -> Error {
    let mut cause: &dyn std::error::Error = status;
    let mut nobody_there = false;
    while let Some(deeper) = cause.source() {
        cause = deeper;
        if cause.is::<TimeoutExpired>() {
            let message = "the coordinator did not answer in time";
            return Error::new(ErrorKind::DeadlineExceeded, "DEADLINE_EXCEEDED", message);
        }
        // Only this says that no process listens there; whatever else failed may have failed on this side. A socket
        // without a file may be listened to where this process does not see it.
        nobody_there |= cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
    }
    let message = format!("{CANNOT_BE_REACHED}{cause}");
    Error::new(ErrorKind::Unavailable, UNREACHABLE, message).with_nobody_there(nobody_there)
}

fn kind_of_reason(reason: &str) -> Option<ErrorKind> {
    Some(match reason {
        "NO_CAPACITY" | "PLAN_INCOMPLETE" | "DEVICES_CLOSED" => ErrorKind::NoCapacity,
        "WAIT_OVER" => ErrorKind::WaitOver,
        "UNSATISFIABLE" => ErrorKind::Unsatisfiable,
        "QUEUE_FULL" | "SERVICES_FULL" | "LEASES_FULL" | "TOO_MANY_IN_FLIGHT" => {
            ErrorKind::QuotaExceeded
        }
        "STALE_TOKEN" => ErrorKind::StaleToken,
        "LEASE_ENDED" | "LEASE_NOT_ACTIVE" | "REVOKED" => ErrorKind::LeaseEnded,
        "NOTICE_OVER" | "NOTICE_AT_BOUND" => ErrorKind::NoticeOver,
        "LEASE_NOT_FOUND" | "DEVICE_NOT_FOUND" | "NODE_NOT_FOUND" => ErrorKind::NotFound,
        "NAME_TAKEN" => ErrorKind::NameTaken,
        "REQUEST_ID_TAKEN" | "REQUEST_ID_REUSED" => ErrorKind::RequestIdConflict,
        "NOT_THE_HOLDER" => ErrorKind::NotTheHolder,
        "INVALID_FIELD" | "INVALID_PAGE_TOKEN" | "NO_HELLO" => ErrorKind::InvalidArgument,
        "INVENTORY_UNKNOWN" | "OVERLOADED" | "SHUTTING_DOWN" | "JOURNAL_FAILED" => {
            ErrorKind::Unavailable
        }
        "SESSION_REPLACED" => ErrorKind::SessionReplaced,
        "HISTORY_GONE" => ErrorKind::HistoryGone,
        "REQUEST_CANCELLED" | "SUPERSEDED" => ErrorKind::Cancelled,
        _ => return None,
    })
}

fn kind_of_code(code: Code) -> ErrorKind {
    match code {
        Code::Unavailable => ErrorKind::Unavailable,
        Code::DeadlineExceeded => ErrorKind::DeadlineExceeded,
        Code::NotFound => ErrorKind::NotFound,
        Code::InvalidArgument => ErrorKind::InvalidArgument,
        Code::PermissionDenied | Code::Unauthenticated => ErrorKind::PermissionDenied,
        Code::ResourceExhausted => ErrorKind::QuotaExceeded,
        Code::Cancelled => ErrorKind::Cancelled,
        _ => ErrorKind::Other,
    }
}

/// A code's name on the wire, such as `DEADLINE_EXCEEDED`.
fn upper_snake(code: Code) -> String {
    let mut name = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn a_status_keeps_reason_field_figures_and_retry_time() {
        let mut details = ErrorDetails::new();
        details
            .set_error_info("OVERLOADED", "gpulease", [("queue".to_owned(), "9".to_owned())])
            .set_retry_info(Some(Duration::from_secs(3)))
            .add_bad_request_violation("ask.devices", "too many");
        let status = Status::with_error_details(Code::Unavailable, "try later", details);
        let error = Error::from(status);
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert_eq!(error.reason(), "OVERLOADED");
        assert_eq!(error.field(), Some("ask.devices"));
        assert_eq!(error.metadata().get("queue").map(String::as_str), Some("9"));
        assert_eq!(error.retry_after(), Some(Duration::from_secs(3)));
        assert!(error.is_retryable());
    }

    #[test]
    fn no_capacity_is_an_answer_and_not_retried_although_it_says_when() {
        let error = Error::from(v1::Error {
            code: Code::ResourceExhausted as i32,
            reason: "NO_CAPACITY".to_owned(),
            retry_after: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
            ..v1::Error::default()
        });
        assert_eq!(error.kind(), ErrorKind::NoCapacity);
        assert_eq!(error.retry_after(), Some(Duration::from_secs(1)));
        assert!(!error.is_retryable());
    }

    #[test]
    fn a_status_without_details_is_known_by_its_code() {
        let error = Error::from(Status::deadline_exceeded(""));
        assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
        assert_eq!(error.reason(), "DEADLINE_EXCEEDED");
        assert!(!error.message().is_empty());
    }
}
