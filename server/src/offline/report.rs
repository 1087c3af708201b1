//! What is told of a journal, as lines for people or as one JSON object.

use std::{
    collections::BTreeMap,
    fmt::{Display, Write as _},
    path::Path,
    time::Duration,
};

use gpulease_core::{lease, state::State, time::Span};
use serde_json::{Value, json};

use super::account::Account;
use crate::journal::Revision;

/// What a journal amounts to.
pub(super) fn of_account(data: &Path, account: &Account) -> Vec<(&'static str, String)> {
    let mut lines = vec![("data", data.display().to_string()), ("revision", revisions(account))];
    match &account.state {
        Some(state) => lines.extend(of_state(state)),
        None => {
            lines.push(("state", "unknown: nothing that batches can be applied to is left".into()))
        }
    }
    lines.push(("tokens", format!("newest found {}", account.token)));
    let ttl = account.ttl.map_or_else(|| "none found".to_owned(), duration);
    lines.push(("longest TTL", ttl));
    lines
}

fn revisions(account: &Account) -> String {
    let state = account.state.as_ref().map(|state| state.revision());
    let mut text = state.map_or_else(|| "unknown".to_owned(), |revision| revision.to_string());
    if let (Some(oldest), Some(newest)) = (account.oldest, account.newest) {
        let _ = write!(text, "; batches {oldest} to {newest} are readable");
    }
    if let Some(snapshot) = account.snapshot {
        let _ = write!(text, "; snapshot of {snapshot}");
    }
    if let Some(acknowledged) = account.acknowledged {
        let _ = write!(text, "; acknowledged up to {acknowledged}");
    }
    text
}

fn of_state(state: &State) -> [(&'static str, String); 3] {
    let leases = counts(state);
    let mut words: Vec<String> =
        leases.iter().map(|(name, count)| format!("{count} {name}")).collect();
    if words.is_empty() {
        words.push("none".to_owned());
    }
    let inventory = state.inventory();
    let (devices, nodes) = (inventory.devices().len(), inventory.nodes().len());
    let closed = inventory.devices().filter(|(_, device)| device.closed_until.is_some()).count();
    let mut devices = format!("{devices} on {nodes} nodes");
    if closed > 0 {
        let remaining = duration(state.closed_until().since(state.time()));
        let _ = write!(devices, "; {closed} closed by an import for {remaining}");
    }
    let ran = duration(state.time().since(gpulease_core::time::Time::ZERO));
    [
        ("clock", format!("{ran} at the last batch")),
        ("leases", words.join(", ")),
        ("devices", devices),
    ]
}

/// How many leases stand in each state.
fn counts(state: &State) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    for lease in state.leases().values() {
        let name = match lease.state {
            lease::State::Queued => "QUEUED",
            lease::State::Active => "ACTIVE",
            lease::State::Pausing => "PAUSING",
            lease::State::Paused => "PAUSED",
            lease::State::Reclaiming(_) => "RECLAIMING",
            lease::State::Ended(_) => "ENDED",
        };
        *counts.entry(name).or_default() += 1;
    }
    counts
}

/// What was acknowledged or is readable and is not in the state.
pub(super) fn lost(account: &Account) -> Option<String> {
    let state = account.state.as_ref().map(|state| Revision(state.revision().0));
    let newest = account.revision_max()?;
    let unusable = match account.unusable {
        0 => String::new(),
        count => format!(", of which {count} batches are readable and cannot be applied"),
    };
    match state {
        None => Some(format!("everything up to revision {newest}{unusable}")),
        Some(state) if state >= newest => None,
        Some(state) => Some(format!("revisions {} to {newest}{unusable}", state.next())),
    }
}

/// The same as [`of_account`] for machines.
pub(super) fn json(data: &Path, account: &Account) -> Value {
    let state = account.state.as_ref();
    let inventory = state.map(State::inventory);
    json!({
        "data": data,
        "whole": account.is_whole(),
        "revision": state.map(|state| state.revision().0),
        "revision_oldest": account.oldest.map(|revision| revision.0),
        "revision_newest": account.newest.map(|revision| revision.0),
        "revision_snapshot": account.snapshot.map(|revision| revision.0),
        "revision_acknowledged": account.acknowledged.map(|revision| revision.0),
        "batches": account.batches,
        "batches_unusable": account.unusable,
        "time_seconds": state.map(|state| state.time().as_millis() / 1_000),
        "leases": state.map(counts),
        "nodes": inventory.map(|inventory| inventory.nodes().len()),
        "devices": inventory.map(|inventory| inventory.devices().len()),
        "fencing_token": account.token.0,
        "ttl_longest_seconds": account.ttl.map(|ttl| ttl.as_millis() / 1_000),
        "problems": account.problems,
        "lost": lost(account),
    })
}

/// Lines with their names in a column.
pub(super) fn lines(lines: &[(&'static str, String)]) -> String {
    let mut text = String::new();
    for (name, value) in lines {
        let _ = writeln!(text, "{name:<13}{value}");
    }
    text
}

/// Numbered lines below a heading; nothing where there are none.
pub(super) fn list(heading: &str, items: &[impl Display]) -> String {
    if items.is_empty() {
        return String::new();
    }
    let mut text = format!("{heading}\n");
    for (number, item) in (1..).zip(items) {
        let _ = writeln!(text, "  {number}. {item}");
    }
    text
}

/// `1m 30s`.
pub(super) fn duration(span: Span) -> String {
    humantime::format_duration(Duration::from_millis(span.as_millis())).to_string()
}
