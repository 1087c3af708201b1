//! `gpulease show ID`: one lease with its whole history and causes.

use clap::Args;

use crate::failure::Failure;
use crate::format::{self, UNKNOWN};
use crate::help::with_exit_codes;
use crate::options::Context;
use crate::table::{self, Style};
use crate::view::{Lease, LeaseHistory};

pub(crate) const HELP: &str = with_exit_codes!(
    "Examples:\n",
    "  gpulease show 17\n",
    "  gpulease show 17 --json | jq -r .state\n",
);

/// The options of `show`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// The lease's number
    #[arg(value_name = "ID")]
    id: u64,
}

pub(crate) async fn show(context: &Context, options: &Options) -> Result<(), Failure> {
    let client = context.connect().await?;
    let detail = LeaseHistory::from(&client.lease(options.id).await?);
    if context.output.json {
        return context.output.object(&detail);
    }
    context.output.text(&text(&detail, Style::of(&context.output)))
}

fn text(detail: &LeaseHistory, style: Style) -> String {
    let summary = table::pairs(&summary(&detail.lease), style);
    format!("{summary}\n\n{}", table::history(&detail.history, style))
}

/// What is known of the lease, a pair a line; what does not apply is left out.
fn summary(lease: &Lease) -> Vec<(&'static str, String)> {
    let seconds =
        |seconds: f64| table::seconds(seconds).map_or_else(|| UNKNOWN.to_owned(), format::duration);
    let mut pairs = vec![
        ("lease", lease.id.clone()),
        ("state", table::lease_state(lease)),
        ("service", lease.service.clone()),
        ("holder", lease.holder.clone()),
        ("request", lease.request_id.clone()),
        ("priority", lease.priority.to_lowercase()),
        ("asks", table::ask(&lease.ask)),
        ("ttl", seconds(lease.ttl_seconds)),
        ("waited", seconds(lease.waited_seconds)),
    ];
    let mut add = |name, value: Option<String>| pairs.extend(value.map(|value| (name, value)));
    add("name", lease.name.clone());
    add("token", (lease.fencing_token > 0).then(|| lease.fencing_token.to_string()));
    add("left", lease.remaining_seconds.map(seconds));
    add("because", lease.end_detail.clone());
    add("requested", lease.requested_at.map(format::time));
    add("granted", lease.granted_at.map(format::time));
    add("ended", lease.ended_at.map(format::time));
    add("kept for it", list(&lease.kept_devices));
    add(
        "preemptible",
        (lease.preemptible != table::NEVER).then(|| lease.preemptible.to_lowercase()),
    );
    let held = lease.minimum_hold_seconds;
    add("minimum hold", (held > 0.0).then(|| seconds(held)));
    add("notice", lease.notice.as_ref().map(table::notice));
    add("preemptions", (lease.preemptions > 0).then(|| lease.preemptions.to_string()));
    add("pause took", lease.pause_took_seconds.map(seconds));
    add("pause cost", lease.pause_cost_seconds.map(seconds));
    add("placement", lease.placement.as_ref().map(|name| name.to_lowercase().replace('_', "-")));
    add("near", lease.affinity.clone());
    add("process", lease.process.map(|process| process.pid.to_string()));
    add("closes", list(&lease.closed_devices));
    pairs.extend(lease.devices.iter().map(|device| ("device", table::device_line(device))));
    pairs
}

fn list(words: &[String]) -> Option<String> {
    (!words.is_empty()).then(|| words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::tests::{PLAIN, active_lease};
    use crate::view::Fact;

    #[test]
    fn a_lease_is_shown_with_its_history() {
        let fact = |revision, state: &str, description: &str| Fact {
            time: Some(std::time::UNIX_EPOCH),
            revision,
            state: state.to_owned(),
            description: description.to_owned(),
        };
        let detail = LeaseHistory {
            lease: active_lease(),
            history: vec![
                fact(None, "QUEUED", "asked for"),
                fact(Some(12), "ACTIVE", "granted with token 42"),
            ],
            revision: 12,
        };
        let expected = "\
lease     17
state     ACTIVE
service   train
holder    box-1
request   r-1
priority  normal
asks      8.0GiB
ttl       30s
waited    1s
name      nightly
token     42
left      29s
granted   1970-01-01T00:00:00.000Z
device    box/0  H100  8.0GiB  GPU-1

TIME                      REVISION  STATE   WHAT HAPPENED
1970-01-01T00:00:00.000Z  -         QUEUED  asked for
1970-01-01T00:00:00.000Z  12        ACTIVE  granted with token 42";
        assert_eq!(text(&detail, PLAIN), expected);
    }
}
