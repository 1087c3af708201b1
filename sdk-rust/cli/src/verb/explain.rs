//! `gpulease explain ID`: why a lease waits, for whom and how long, or why it got the devices it has.

use clap::Args;

use crate::failure::Failure;
use crate::help::with_exit_codes;
use crate::options::Context;
use crate::table::{self, Style};
use crate::view::{Explanation, Granted, Waiting};
use crate::{format, view};

pub(crate) const HELP: &str = with_exit_codes!(
    "For a lease that waits: how many devices would do, what excludes the others, which leases are\n",
    "in its way, and when it should get devices at the earliest, with what that rests on. For a\n",
    "lease that was granted: why it got these devices.\n",
    "\nExamples:\n",
    "  gpulease explain 18\n",
    "  gpulease explain 18 --json | jq '.waiting.blocking[].lease_id'\n",
);

/// The options of `explain`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// The lease's number
    #[arg(value_name = "ID")]
    id: u64,
}

pub(crate) async fn explain(context: &Context, options: &Options) -> Result<(), Failure> {
    let client = context.connect().await?;
    let explanation = Explanation::from(&client.explain(options.id).await?);
    if context.output.json {
        return context.output.object(&explanation);
    }
    context.output.text(&text(&explanation, Style::of(&context.output)))
}

fn text(explanation: &Explanation, style: Style) -> String {
    let lease = &explanation.lease;
    let mut pairs = vec![
        ("lease", format!("{} of {}", lease.id, lease.service)),
        ("state", table::lease_state(lease)),
        ("asks", format!("{}, {}", table::ask(&lease.ask), lease.priority.to_lowercase())),
    ];
    pairs.extend(lease.notice.as_ref().map(|notice| ("notice", table::notice(notice))));
    pairs.extend(explanation.waiting.iter().flat_map(|waiting| waits(lease, waiting)));
    pairs.extend(lease.devices.iter().map(|device| ("device", table::device_line(device))));
    pairs.extend(explanation.granted.as_ref().map(|granted| ("why these", why(granted))));
    let mut text = table::pairs(&pairs, style);
    let blocking = explanation.waiting.as_ref().map(|waiting| waiting.blocking.as_slice());
    if let Some(blocking) = blocking.filter(|blocking| !blocking.is_empty()) {
        text += &format!("\n\nIn its way:\n{}", table::blocking(blocking, style));
    }
    text
}

fn waits(lease: &view::Lease, waiting: &Waiting) -> Vec<(&'static str, String)> {
    let devices = format!(
        "{} known, {} would do if they were empty, {} do now",
        waiting.devices_known, waiting.devices_suitable, waiting.devices_fitting
    );
    let mut pairs = vec![("before it", waiting.queue_position.to_string()), ("devices", devices)];
    for excluded in &waiting.excluded {
        pairs.push(("excluded", format!("{} by: {}", excluded.devices, excluded.what)));
    }
    let kept = &lease.kept_devices;
    pairs.extend((!kept.is_empty()).then(|| ("kept for it", kept.join(" "))));
    pairs.push(("forecast", forecast(waiting)));
    pairs
}

fn forecast(waiting: &Waiting) -> String {
    match waiting.forecast_seconds.and_then(table::seconds) {
        Some(left) => {
            format!("in {} at the earliest, by {}", format::duration(left), waiting.forecast_basis)
        }
        None => format!("nobody can tell: {}", waiting.forecast_basis),
    }
}

fn why(granted: &Granted) -> String {
    let fitting = match granted.devices_fitting {
        1 => "1 device".to_owned(),
        fitting => format!("{fitting} devices"),
    };
    format!("{}; {fitting} could have served it", granted.reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::tests::{PLAIN, active_lease, queued_lease};
    use crate::view::{Blocking, Exclusion};

    fn check(explanation: &Explanation, expected: &str) {
        assert_eq!(text(explanation, PLAIN), expected.trim_start_matches('\n'));
    }

    #[test]
    fn a_waiting_lease_is_explained_with_what_is_in_its_way() {
        let waiting = Waiting {
            queue_position: 0,
            devices_known: 3,
            devices_suitable: 2,
            devices_fitting: 1,
            excluded: vec![
                Exclusion { what: "constraints.models".to_owned(), devices: 1 },
                Exclusion { what: "held by other leases".to_owned(), devices: 1 },
            ],
            blocking: vec![Blocking {
                lease_id: "17".to_owned(),
                state: "ACTIVE".to_owned(),
                service: "train".to_owned(),
                holder: "box-1".to_owned(),
                priority: "NORMAL".to_owned(),
                device_uuid: "GPU-1".to_owned(),
                forecast_seconds: Some(90.0),
                preemption: "may never be preempted".to_owned(),
            }],
            forecast_seconds: Some(90.0),
            forecast_basis: "expected durations".to_owned(),
        };
        let lease = queued_lease();
        let explanation = Explanation { lease, waiting: Some(waiting), granted: None, revision: 9 };
        check(
            &explanation,
            "
lease      18 of train
state      QUEUED #1
asks       2 × whole device, background
before it  0
devices    3 known, 2 would do if they were empty, 1 do now
excluded   1 by: constraints.models
excluded   1 by: held by other leases
forecast   in 1m30s at the earliest, by expected durations

In its way:
LEASE  STATE   SERVICE  PRIORITY  DEVICE  GONE IN  PREEMPTION
17     ACTIVE  train    normal    GPU-1   1m30s    may never be preempted",
        );
    }

    #[test]
    fn a_granted_lease_is_explained_with_why_these_devices() {
        let granted = Granted { devices_fitting: 3, reason: "least free memory".to_owned() };
        let lease = active_lease();
        let explanation = Explanation { lease, waiting: None, granted: Some(granted), revision: 9 };
        check(
            &explanation,
            "
lease      17 of train
state      ACTIVE
asks       8.0GiB, normal
device     box/0  H100  8.0GiB  GPU-1
why these  least free memory; 3 devices could have served it",
        );
    }
}
