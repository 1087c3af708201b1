//! The table: every refusal has a code and a reason of its own, the same in a status and in a session.

use std::collections::BTreeMap;

use gpulease_core::{
    id::{LeaseId, Revision, Token},
    lease::EndReason,
    output::{Exclusion, Quota, QuotaReached, Rejection, Unsatisfiable},
    plan::Unassigned,
    request::InvalidField,
    time::Span,
};
use tonic::Code;
use tonic_types::StatusExt as _;

use super::{Attempt, EdgeError, Refusal, undecodable};
use crate::actor::SubmitError;

/// Code, reason, field at fault, whether a retry hint comes along, whether a quota does.
type Row = (Code, &'static str, &'static str, bool, bool);

/// Checks a refusal against its row, in both forms.
fn check(make: impl Fn() -> Refusal, row: Row) {
    let (code, reason, field, retry, quota) = row;
    let status = make().status(Attempt::Acquire);
    let details = status.get_error_details();
    let info = details.error_info().expect("every refusal has an ErrorInfo");
    assert_eq!((status.code(), info.reason.as_str()), (code, reason));
    let named = details.bad_request().map(|bad| bad.field_violations[0].field.as_str());
    assert_eq!(named.unwrap_or_default(), field, "{reason}");
    let wait = details.retry_info().and_then(|retry| retry.retry_delay);
    assert_eq!((wait.is_some(), details.quota_failure().is_some()), (retry, quota), "{reason}");

    let message = make().message(Attempt::Acquire);
    assert_eq!((message.code, message.reason.as_str()), (code.into(), reason));
    assert_eq!((message.field.as_str(), message.retry_after.is_some()), (field, retry));
    assert_eq!(message.message, status.message());
    assert_eq!(message.metadata, info.metadata);
    let text = status.message();
    assert!(text.starts_with("cannot acquire a lease: ") && !text.ends_with('.'), "{text}");
    assert!(reason.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_'), "{reason}");
}

fn rejections() -> Vec<(Rejection, Row)> {
    of_capacity().into_iter().chain(of_leases()).collect()
}

const fn row(code: Code, reason: &'static str) -> Row {
    (code, reason, "", false, false)
}

fn of_capacity() -> Vec<(Rejection, Row)> {
    use Code::{DeadlineExceeded, FailedPrecondition, NotFound, ResourceExhausted, Unavailable};
    let what = Unsatisfiable {
        excluded: vec![(Exclusion::NotSeen, 9), (Exclusion::Memory, 4), (Exclusion::Vendor, 1)],
        ..Unsatisfiable::default()
    };
    let full = |reason| (ResourceExhausted, reason, "", true, true);
    vec![
        (
            Rejection::PlanIncomplete {
                pipeline: 3,
                name: "p".into(),
                unassigned: 1,
                why: Unassigned { reason: "held by other leases: 2".to_owned(), never: false },
            },
            (ResourceExhausted, "PLAN_INCOMPLETE", "pipelines[3]", true, false),
        ),
        (Rejection::NoCapacity, (ResourceExhausted, "NO_CAPACITY", "", true, false)),
        (
            Rejection::DevicesClosed { devices: 2, remaining: Span::from_secs(45) },
            (ResourceExhausted, "DEVICES_CLOSED", "", true, false),
        ),
        (Rejection::DeviceNotFound { uuid: "GPU-7".into() }, row(NotFound, "DEVICE_NOT_FOUND")),
        (
            Rejection::WaitOver { waited: Span::ZERO, held_back: None },
            row(DeadlineExceeded, "WAIT_OVER"),
        ),
        (
            Rejection::Unsatisfiable(Box::new(what)),
            (FailedPrecondition, "UNSATISFIABLE", "ask.memory_bytes", false, false),
        ),
        (Rejection::InventoryUnknown, (Unavailable, "INVENTORY_UNKNOWN", "", true, false)),
        (Rejection::QueueFull { max: 5 }, full("QUEUE_FULL")),
        (Rejection::LeasesFull { max: 5 }, full("LEASES_FULL")),
        (Rejection::ServicesFull { max: 5 }, full("SERVICES_FULL")),
        (Rejection::NodeNotFound { name: "rack-7".into() }, row(NotFound, "NODE_NOT_FOUND")),
        (Rejection::QuotaReached(quota(1)), full("QUOTA_REACHED")),
    ]
}

fn quota(wanted: u64) -> Box<QuotaReached> {
    let (service, quota) = ("batch".into(), Quota::Devices);
    Box::new(QuotaReached { service, quota, limit: 4, in_use: 4, wanted, others_first: false })
}

fn of_leases() -> Vec<(Rejection, Row)> {
    use Code::{
        Aborted, AlreadyExists, Cancelled, FailedPrecondition, InvalidArgument, NotFound,
        PermissionDenied,
    };
    let lease = LeaseId(7);
    vec![
        (
            Rejection::StaleToken { lease, given: Some(Token(3)) },
            row(FailedPrecondition, "STALE_TOKEN"),
        ),
        (
            Rejection::LeaseEnded { lease, reason: EndReason::Expired },
            row(FailedPrecondition, "LEASE_ENDED"),
        ),
        (Rejection::LeaseNotActive { lease }, row(FailedPrecondition, "LEASE_NOT_ACTIVE")),
        (Rejection::LeaseNotFound { lease }, row(NotFound, "LEASE_NOT_FOUND")),
        (Rejection::NotTheHolder { lease }, row(PermissionDenied, "NOT_THE_HOLDER")),
        (Rejection::NoticeOver { lease }, row(FailedPrecondition, "NOTICE_OVER")),
        (
            Rejection::NoticeAtBound { lease, max: Span::from_secs(120) },
            row(FailedPrecondition, "NOTICE_AT_BOUND"),
        ),
        (
            Rejection::NameTaken { name: "main".into(), lease },
            (AlreadyExists, "NAME_TAKEN", "name", false, false),
        ),
        (
            Rejection::RequestIdTaken { lease },
            (AlreadyExists, "REQUEST_ID_TAKEN", "request_id", false, false),
        ),
        (
            Rejection::RequestIdReused { lease },
            (InvalidArgument, "REQUEST_ID_REUSED", "request_id", false, false),
        ),
        (Rejection::Cancelled { lease }, row(Cancelled, "REQUEST_CANCELLED")),
        (Rejection::Revoked { lease, detail: None }, row(FailedPrecondition, "REVOKED")),
        (Rejection::Superseded { lease }, row(Aborted, "SUPERSEDED")),
        (Rejection::SessionReplaced, row(Aborted, "SESSION_REPLACED")),
        (
            Rejection::InvalidField(InvalidField::new("ttl", "1s", "2s to 24h")),
            (InvalidArgument, "INVALID_FIELD", "ttl", false, false),
        ),
    ]
}

fn edge_errors() -> Vec<(fn() -> EdgeError, Row)> {
    use Code::{Internal, InvalidArgument, OutOfRange, ResourceExhausted, Unavailable};
    vec![
        (|| SubmitError::Overloaded.into(), (ResourceExhausted, "OVERLOADED", "", true, false)),
        (|| SubmitError::Stopping.into(), (Unavailable, "SHUTTING_DOWN", "", true, false)),
        (
            || SubmitError::Failed("disk full".into()).into(),
            (Unavailable, "JOURNAL_FAILED", "", true, false),
        ),
        (|| EdgeError::NoHello, (InvalidArgument, "NO_HELLO", "hello", false, false)),
        (|| EdgeError::TooManyInFlight, (ResourceExhausted, "TOO_MANY_IN_FLIGHT", "", false, true)),
        (|| EdgeError::SlowReader, (ResourceExhausted, "SLOW_READER", "", true, false)),
        (
            || EdgeError::TooManyReaders { max: 9 },
            (ResourceExhausted, "TOO_MANY_READERS", "", true, true),
        ),
        (
            || EdgeError::HistoryGone { asked: Revision(1), oldest: Revision(9) },
            row(OutOfRange, "HISTORY_GONE"),
        ),
        (
            || EdgeError::HistoryUnreadable("i/o error".to_owned()),
            (Unavailable, "HISTORY_UNREADABLE", "", true, false),
        ),
        (
            || EdgeError::InvalidPageToken,
            (InvalidArgument, "INVALID_PAGE_TOKEN", "page_token", false, false),
        ),
        (|| EdgeError::MessageTooLarge, row(ResourceExhausted, "MESSAGE_TOO_LARGE")),
        (|| EdgeError::MalformedMessage, row(InvalidArgument, "MALFORMED_MESSAGE")),
        (|| EdgeError::Mismatched, row(Internal, "MISMATCHED_ANSWER")),
    ]
}

#[test]
fn every_refusal_has_its_row() {
    for (rejection, row) in rejections() {
        check(|| Refusal::from(&rejection), row);
    }
    for (make, row) in edge_errors() {
        check(|| make().into(), row);
    }
}

/// A number for each kind of rejection; a new one does not compile before it is here, and fails before it has a row.
fn number(rejection: &Rejection) -> usize {
    match rejection {
        Rejection::NoCapacity => 0,
        Rejection::DevicesClosed { .. } => 1,
        Rejection::DeviceNotFound { .. } => 2,
        Rejection::WaitOver { .. } => 3,
        Rejection::Unsatisfiable(_) => 4,
        Rejection::InventoryUnknown => 5,
        Rejection::QueueFull { .. } => 6,
        Rejection::LeasesFull { .. } => 7,
        Rejection::ServicesFull { .. } => 8,
        Rejection::StaleToken { .. } => 9,
        Rejection::LeaseEnded { .. } => 10,
        Rejection::LeaseNotActive { .. } => 11,
        Rejection::LeaseNotFound { .. } => 12,
        Rejection::NoticeOver { .. } => 13,
        Rejection::NoticeAtBound { .. } => 14,
        Rejection::NodeNotFound { .. } => 15,
        Rejection::NotTheHolder { .. } => 16,
        Rejection::NameTaken { .. } => 17,
        Rejection::RequestIdTaken { .. } => 18,
        Rejection::RequestIdReused { .. } => 19,
        Rejection::Cancelled { .. } => 20,
        Rejection::Revoked { .. } => 21,
        Rejection::Superseded { .. } => 22,
        Rejection::SessionReplaced => 23,
        Rejection::InvalidField(_) => 24,
        Rejection::QuotaReached(_) => 25,
        Rejection::PlanIncomplete { .. } => 26,
    }
}

#[test]
fn no_rejection_is_without_a_row() {
    let mut numbers: Vec<usize> = rejections().iter().map(|(it, _)| number(it)).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..27).collect::<Vec<_>>());
}

#[test]
fn no_two_refusals_share_a_reason() {
    let of_rules = rejections().into_iter().map(|(_, row)| row.1);
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for reason in of_rules.chain(edge_errors().into_iter().map(|(_, row)| row.1)) {
        *counts.entry(reason).or_default() += 1;
    }
    assert!(counts.values().all(|count| *count == 1), "{counts:?}");
}

#[test]
fn the_edge_says_the_same_as_the_rules_where_both_can_say_it() {
    let same = |edge: EdgeError, rejection: Rejection| {
        let (edge, rejection) = (Refusal::from(edge), Refusal::from(rejection));
        assert_eq!((edge.code, edge.reason), (rejection.code, rejection.reason));
    };
    same(EdgeError::SessionReplaced, Rejection::SessionReplaced);
    let lease = LeaseId(7);
    same(EdgeError::LeaseNotFound(lease), Rejection::LeaseNotFound { lease });
    same(EdgeError::DeviceNotFound, Rejection::DeviceNotFound { uuid: "GPU-7".into() });
    same(EdgeError::Rejected(Rejection::NoCapacity), Rejection::NoCapacity);
}

#[test]
fn who_is_above_a_quota_alone_is_not_told_to_try_again() {
    let message = Refusal::from(Rejection::QuotaReached(quota(9))).message(Attempt::Acquire);
    assert_eq!((message.reason.as_str(), message.retry_after), ("QUOTA_TOO_SMALL", None));
    assert_eq!(message.metadata["limit"], "4");
}

#[test]
fn a_stop_tells_a_watch_where_to_go_on() {
    let message = Refusal::from(EdgeError::Stopping(Revision(42))).message(Attempt::Watch);
    assert_eq!(message.metadata["revision"], "42");
    assert_eq!(message.reason, "SHUTTING_DOWN");
}

#[test]
fn messages_say_what_was_attempted_on_what() {
    let refusal = Refusal::from(Rejection::StaleToken { lease: LeaseId(7), given: None });
    let text = refusal.message(Attempt::Renew(7)).message;
    assert!(
        text.starts_with("cannot renew lease 7: ") && text.contains("none was given"),
        "{text}"
    );
}

#[test]
fn only_what_tonic_could_not_decode_is_exchanged() {
    let other = tonic::Status::internal("h2 protocol error");
    assert!(undecodable(&other).is_none());
    let range = tonic::Status::out_of_range("past the end");
    assert!(undecodable(&range).is_none());
}
