//! `gpulease events`: everything that happens, in order.

use clap::Args;
use tokio_stream::StreamExt;

use crate::failure::Failure;
use crate::format::{self, UNKNOWN};
use crate::help::with_exit_codes;
use crate::options::Context;
use crate::table;
use crate::view::{DeviceShare, Event, NoticeTold, Subject};

pub(crate) const HELP: &str = with_exit_codes!(
    "Every event carries a revision; all events of one revision became durable together. After a\n",
    "break go on with --after and the last revision seen: nothing is missed, nothing comes twice.\n",
    "A revision that is no longer kept is refused (HISTORY_GONE): list, then go on from now.\n",
    "The stream ends with Ctrl-C, or when its reader closes it.\n",
    "\nExamples:\n",
    "  gpulease events\n",
    "  gpulease events --after 0\n",
    "  gpulease events --json | jq -c 'select(.type == \"lease\") | {lease_id, kind}'\n",
);

/// The options of `events`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Begin behind this revision; 0: with all that is kept [default: with the next event]
    #[arg(long, value_name = "REV")]
    after: Option<u64>,
}

pub(crate) async fn events(context: &Context, options: &Options) -> Result<(), Failure> {
    let client = context.connect().await?;
    let mut batches = client.watch(options.after).await?;
    while let Some(batch) = batches.next().await {
        let batch = batch?;
        for event in &batch.events {
            let event =
                Event { revision: batch.revision, time: Some(batch.time), subject: event.into() };
            if context.output.json {
                context.output.object(&event)?;
            } else {
                context.output.text(&line(&event))?;
            }
        }
    }
    Ok(())
}

/// An event as one line: time, revision, what, how.
fn line(event: &Event) -> String {
    let time = event.time.map_or_else(|| UNKNOWN.to_owned(), format::time);
    format!("{time}  {:>6}  {}", event.revision, subject(&event.subject))
}

fn subject(subject: &Subject) -> String {
    let mut words = Words::default();
    match subject {
        Subject::Lease {
            kind,
            lease_id,
            service,
            holder,
            name,
            ask,
            fencing_token,
            devices,
            end_reason,
            detail,
            kept_devices,
            notice,
            ..
        } => {
            words.add(format!("lease {lease_id} {kind}"));
            words.add_some(end_reason.clone());
            words.add(format!("{service}/{holder}"));
            words.add_some(name.as_ref().map(|name| format!("name {name}")));
            words.add_some(ask.as_ref().map(|ask| format!("asks {}", table::ask(ask))));
            words.add_some(fencing_token.map(|token| format!("token {token}")));
            devices.iter().for_each(|device| words.add(share(device)));
            kept_devices.iter().for_each(|uuid| words.add(uuid.clone()));
            notice.iter().for_each(|notice| words.add_notice(notice));
            words.add_some(detail.clone());
        }
        Subject::Device { kind, node, uuid, lease_id, detail } => {
            words.add(format!("device {uuid} {kind}"));
            words.add(format!("node {node}"));
            words.add_some(lease_id.as_ref().map(|id| format!("former lease {id}")));
            words.add_some(detail.clone());
        }
        Subject::Node { kind, node, detail } => {
            words.add(format!("node {node} {kind}"));
            words.add_some(detail.clone());
        }
        Subject::Other => words.add("an event that this release does not know".to_owned()),
    }
    words.0.join("  ")
}

fn share(device: &DeviceShare) -> String {
    format!("{}/{} {}", device.node, device.index, table::share(device))
}

/// The parts of a line.
#[derive(Default)]
struct Words(Vec<String>);

impl Words {
    fn add(&mut self, word: String) {
        self.0.push(word);
    }

    fn add_notice(&mut self, notice: &NoticeTold) {
        self.add(format!("notice {}", notice.id));
        let left = notice.remaining_seconds.and_then(table::seconds);
        self.add_some(left.map(|left| format!("{} left", format::duration(left))));
        notice.causes.iter().for_each(|cause| self.add(cause.description.clone()));
    }

    fn add_some(&mut self, word: Option<String>) {
        self.0.extend(word);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::tests::{active_lease, standing_notice};
    use crate::view;

    #[test]
    fn an_event_is_one_line() {
        let granted = Subject::Lease {
            kind: "GRANTED".to_owned(),
            lease_id: "17".to_owned(),
            service: "train".to_owned(),
            holder: "box-1".to_owned(),
            request_id: "r-1".to_owned(),
            name: None,
            priority: "NORMAL".to_owned(),
            ask: None,
            fencing_token: Some(42),
            devices: active_lease().devices,
            end_reason: None,
            detail: None,
            kept_devices: Vec::new(),
            notice: None,
        };
        let mut noticed = granted.clone();
        if let Subject::Lease { kind, fencing_token, devices, notice, .. } = &mut noticed {
            let view::Notice { id, causes, .. } = standing_notice();
            *notice = Some(Box::new(NoticeTold { id, remaining_seconds: Some(30.0), causes }));
            (*kind, *fencing_token) = ("NOTICED".to_owned(), None);
            devices.clear();
        }
        let lost = Subject::Device {
            kind: "LOST".to_owned(),
            node: "box".to_owned(),
            uuid: "GPU-1".to_owned(),
            lease_id: None,
            detail: Some("XID 79".to_owned()),
        };
        let rows = [
            (granted, "lease 17 GRANTED  train/box-1  token 42  box/0 8.0GiB"),
            (
                noticed,
                "lease 17 NOTICED  train/box-1  notice 3  30s left  lease 20 needs the devices",
            ),
            (lost, "device GPU-1 LOST  node box  XID 79"),
        ];
        for (subject, expected) in rows {
            let event = Event { revision: 12, time: Some(std::time::UNIX_EPOCH), subject };
            assert_eq!(line(&event), format!("1970-01-01T00:00:00.000Z      12  {expected}"));
        }
    }
}
