//! How a verb fails, and the exit code that says so.
//!
//! Promises: every failure carries one exit code out of the documented list and is printed once, on
//! stderr, as text or as one JSON object. A closed stdout is the one failure that is silent.

use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;

use crate::output::{Output, stderr_line};

/// The exit codes of the client verbs, as the help texts list them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// The coordinator refused, or anything that has no code of its own.
    Failed = 1,
    /// The options make no sense together.
    Usage = 2,
    /// Nobody answers at the endpoint.
    Unreachable = 3,
    /// Nothing was granted: no capacity now, or the wait was over.
    NoCapacity = 4,
    /// There is no such lease, device, node or process.
    NotFound = 5,
    /// `run`: the lease was lost, and the command was stopped for it.
    LeaseLost = 124,
    /// `run`: the lease could not be had.
    NoLease = 125,
    /// `run`: the command is there and cannot be run.
    CannotRun = 126,
    /// `run`: the command was not found.
    CommandNotFound = 127,
}

impl Exit {
    pub(crate) fn code(self) -> u8 {
        self as u8
    }
}

/// Why a verb ended without doing what it was asked.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: u8,
    // Boxed: every result of this crate carries one.
    report: Option<Box<Report>>,
}

/// What is said about a failure.
#[derive(Debug, Serialize)]
struct Report {
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        let report = Report {
            message: message.into(),
            reason: None,
            field: None,
            retry_after_seconds: None,
            request_id: None,
            hint: None,
        };
        Self { exit: exit.code(), report: Some(Box::new(report)) }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    pub(crate) fn other(message: impl Into<String>) -> Self {
        Self::new(Exit::Failed, message)
    }

    /// Whoever read stdout has enough: done, not failed.
    pub(crate) fn reader_gone() -> Self {
        Self { exit: 0, report: None }
    }

    /// A signal asked the program to stop before it was done.
    pub(crate) fn interrupted(signal: i32) -> Self {
        Self { exit: exit_of_signal(signal), report: None }
    }

    /// Says what to do next.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        if let Some(report) = &mut self.report {
            report.hint = Some(hint.into());
        }
        self
    }

    /// Says what else could be done.
    pub(crate) fn also_hint(self, hint: &str) -> Self {
        let before = self.report.as_ref().and_then(|report| report.hint.clone());
        self.hint(before.map_or_else(|| hint.to_owned(), |before| format!("{before}\n{hint}")))
    }

    /// The same failure under another exit code; one that reports nothing keeps its own.
    pub(crate) fn exiting(mut self, exit: Exit) -> Self {
        if self.report.is_some() {
            self.exit = exit.code();
        }
        self
    }

    /// What is said of it.
    #[cfg(test)]
    pub(crate) fn message(&self) -> &str {
        self.report.as_ref().map_or("", |report| &report.message)
    }

    pub(crate) fn is(&self, exit: Exit) -> bool {
        self.exit == exit.code()
    }

    /// Prints the failure and names its exit code.
    pub(crate) fn report(self, output: &Output) -> ExitCode {
        if let Some(report) = &self.report {
            stderr_line(&report.rendered(self.exit, output.json));
        }
        ExitCode::from(self.exit)
    }
}

impl Report {
    fn rendered(&self, exit: u8, json: bool) -> String {
        if json {
            return serde_json::json!({ "error": self, "exit_code": exit }).to_string();
        }
        let mut text = format!("error: {}", self.message);
        if let Some(field) = self.field.as_ref().filter(|field| !text.contains(*field)) {
            text += &format!(" (field {field})");
        }
        if let Some(hint) = &self.hint {
            text += &format!("\n{hint}");
        }
        text
    }
}

/// The exit code of a program that a signal ended, as shells have it.
pub(crate) fn exit_of_signal(signal: i32) -> u8 {
    u8::try_from(signal).map_or(u8::MAX, |signal| signal.saturating_add(128))
}

/// The exit code that a refusal of this reason stands for.
fn exit_of_reason(reason: &str) -> Exit {
    match reason {
        "NO_CAPACITY" | "PLAN_INCOMPLETE" | "QUOTA_REACHED" | "DEVICES_CLOSED" | "WAIT_OVER" => {
            Exit::NoCapacity
        }
        "LEASE_NOT_FOUND" | "DEVICE_NOT_FOUND" | "NODE_NOT_FOUND" => Exit::NotFound,
        _ => Exit::Failed,
    }
}

/// What a refusal of the coordinator says.
pub(crate) struct Refusal<'a> {
    pub(crate) message: String,
    pub(crate) reason: &'a str,
    pub(crate) field: Option<&'a str>,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) request_id: Option<&'a str>,
    pub(crate) unreachable: bool,
}

impl From<Refusal<'_>> for Failure {
    fn from(refusal: Refusal<'_>) -> Self {
        let exit =
            if refusal.unreachable { Exit::Unreachable } else { exit_of_reason(refusal.reason) };
        let report = Report {
            message: refusal.message,
            reason: Some(refusal.reason.to_owned()).filter(|reason| !reason.is_empty()),
            field: refusal.field.map(str::to_owned),
            retry_after_seconds: refusal.retry_after.map(|after| after.as_secs_f64()),
            request_id: refusal.request_id.map(str::to_owned),
            hint: None,
        };
        Self { exit: exit.code(), report: Some(Box::new(report)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(reason: &str, unreachable: bool) -> Failure {
        Failure::from(Refusal {
            message: "cannot acquire".to_owned(),
            reason,
            field: None,
            retry_after: Some(Duration::from_millis(1_500)),
            request_id: None,
            unreachable,
        })
    }

    #[test]
    fn every_refusal_has_its_documented_exit_code() {
        let rows = [
            ("NO_CAPACITY", false, 4),
            ("WAIT_OVER", false, 4),
            ("LEASE_NOT_FOUND", false, 5),
            ("DEVICE_NOT_FOUND", false, 5),
            ("NODE_NOT_FOUND", false, 5),
            ("STALE_TOKEN", false, 1),
            ("UNSATISFIABLE", false, 1),
            ("", true, 3),
        ];
        for (reason, unreachable, code) in rows {
            assert_eq!(refusal(reason, unreachable).exit, code, "{reason}");
        }
    }

    #[test]
    fn a_failure_is_one_json_object_under_json() {
        let failure = refusal("NO_CAPACITY", false);
        let report = failure.report.as_ref().expect("a refusal reports");
        assert_eq!(
            report.rendered(4, true),
            r#"{"error":{"message":"cannot acquire","reason":"NO_CAPACITY","retry_after_seconds":1.5},"exit_code":4}"#
        );
    }

    #[test]
    fn a_hint_stands_on_its_own_line() {
        let failure = Failure::other("cannot release lease 7").hint("pass --token");
        let report = failure.report.expect("it reports");
        assert_eq!(report.rendered(1, false), "error: cannot release lease 7\npass --token");
    }

    #[test]
    fn a_signal_ends_with_128_and_its_number() {
        for (signal, code) in [(2, 130), (15, 143), (-1, 255), (200, 255)] {
            assert_eq!(exit_of_signal(signal), code, "{signal}");
        }
    }
}
