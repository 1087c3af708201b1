//! What is told of a lease while it is held: that others need its devices, that it paused and for how long, that it
//! goes on, that nobody answers.
//!
//! Promises: in words it goes to stderr, for people; under `--json` each is one object with `event` and `id`, on
//! stderr where stdout belongs to a command.

use std::convert::Infallible;
use std::future::pending;
use std::time::Duration;

use gpulease::{Change, Grant, Lease};
use serde::Serialize;

use crate::format;
use crate::output::{Output, stderr_line, to_json};
use crate::{table, view};

/// Tells of one lease.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Teller {
    output: Output,
    lease_id: u64,
    /// Objects are this program's data, and go to stdout.
    is_data: bool,
}

/// What there is to tell.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Told {
    /// Others need the devices.
    Noticed { notice: view::Notice },
    /// They need them no longer.
    NoticeWithdrawn,
    /// The devices are gone, and what was on them.
    DevicesLost,
    /// The devices are given back; how long that took, where it is known.
    Paused { took_seconds: Option<f64> },
    /// There are devices again; how long the lease had none, where it is known.
    Resumed { fencing_token: u64, devices: Vec<view::DeviceShare>, paused_seconds: Option<f64> },
    /// The coordinator does not answer; how long the lease is still valid.
    Uncertain { remaining_seconds: f64 },
    /// It answers again.
    Certain,
}

#[derive(Serialize)]
struct Line<'a> {
    id: String,
    #[serde(flatten)]
    told: &'a Told,
}

impl Teller {
    /// For a lease whose stdout belongs to somebody else.
    pub(crate) fn beside(output: Output, lease_id: u64) -> Self {
        Self { output, lease_id, is_data: false }
    }

    /// For a lease whose changes are what the program prints.
    pub(crate) fn of_data(output: Output, lease_id: u64) -> Self {
        Self { output, lease_id, is_data: true }
    }

    pub(crate) fn tell(&self, told: &Told) {
        if !self.output.json {
            return stderr_line(&format!("gpulease: lease {} {}", self.lease_id, words(told)));
        }
        let line = Line { id: self.lease_id.to_string(), told };
        if self.is_data {
            // A reader that has enough is no reason to give the lease up.
            let _ = self.output.object(&line);
        } else if let Ok(line) = to_json(&line) {
            stderr_line(&line);
        }
    }

    /// Tells whether the coordinator answers, for as long as it is polled.
    pub(crate) async fn follow_answers(&self, lease: &Lease) -> Infallible {
        let mut changes = lease.changes();
        while let Some(change) = changes.next().await {
            if matches!(change, Change::Uncertain { .. } | Change::Certain) {
                told(&change).iter().for_each(|told| self.tell(told));
            }
        }
        pending().await
    }
}

/// What there is to tell of a change.
pub(crate) fn told(change: &Change) -> Option<Told> {
    Some(match change {
        Change::Noticed(notice) | Change::NoticeChanged(notice) => {
            Told::Noticed { notice: notice.into() }
        }
        Change::NoticeWithdrawn => Told::NoticeWithdrawn,
        Change::Paused => Told::Paused { took_seconds: None },
        Change::Resumed(grant) => resumed(grant, None),
        Change::Uncertain { remaining } => {
            Told::Uncertain { remaining_seconds: remaining.as_secs_f64() }
        }
        Change::Certain => Told::Certain,
        _ => return None,
    })
}

/// There are devices again.
pub(crate) fn resumed(grant: &Grant, paused: Option<Duration>) -> Told {
    Told::Resumed {
        fencing_token: grant.fencing_token,
        devices: grant.devices.iter().map(Into::into).collect(),
        paused_seconds: paused.map(|paused| paused.as_secs_f64()),
    }
}

fn words(told: &Told) -> String {
    let time = |seconds: &Option<f64>| seconds.and_then(table::seconds).map(format::tenths);
    match told {
        Told::Noticed { notice } => {
            let left = table::seconds(notice.remaining_seconds).unwrap_or_default();
            let why = notice.why();
            format!("is to give its devices back within {}: {why}", format::duration(left))
        }
        Told::NoticeWithdrawn => "keeps its devices: the notice is withdrawn".to_owned(),
        Told::DevicesLost => "has lost its devices".to_owned(),
        Told::Paused { took_seconds } => match time(took_seconds) {
            Some(took) => format!("is paused; giving way took {took}"),
            None => "is paused".to_owned(),
        },
        Told::Resumed { fencing_token, devices, paused_seconds } => {
            let places: Vec<String> =
                devices.iter().map(|device| format!("{}/{}", device.node, device.index)).collect();
            let places = places.join(" ");
            match time(paused_seconds) {
                Some(paused) => {
                    format!("is resumed after {paused}, with token {fencing_token} on {places}")
                }
                None => format!("is resumed, with token {fencing_token} on {places}"),
            }
        }
        Told::Uncertain { remaining_seconds } => {
            let left = table::seconds(*remaining_seconds).unwrap_or_default();
            format!("gets no answer to its renewals; it is valid for {}", format::duration(left))
        }
        Told::Certain => "is renewed again".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::tests::{active_lease, standing_notice};

    #[test]
    fn what_is_told_reads_as_a_sentence_and_as_an_object() {
        let devices = active_lease().devices;
        let rows = [
            (
                Told::Noticed { notice: standing_notice() },
                "is to give its devices back within 12s: lease 20 needs the devices",
                "noticed",
            ),
            (
                Told::NoticeWithdrawn,
                "keeps its devices: the notice is withdrawn",
                "notice_withdrawn",
            ),
            (
                Told::Paused { took_seconds: Some(1.25) },
                "is paused; giving way took 1.2s",
                "paused",
            ),
            (
                Told::Resumed { fencing_token: 43, devices, paused_seconds: Some(75.0) },
                "is resumed after 1m15s, with token 43 on box/0",
                "resumed",
            ),
        ];
        for (told, sentence, event) in rows {
            assert_eq!(words(&told), sentence);
            let line = serde_json::to_value(Line { id: "17".to_owned(), told: &told });
            let line = line.expect("it serialises");
            assert_eq!((&line["event"], &line["id"]), (&event.into(), &"17".into()));
        }
    }
}
