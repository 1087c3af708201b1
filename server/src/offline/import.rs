//! `gpulease journal import`: a journal from an export, with what P2 asks for.
//!
//! A whole export keeps its history and its revisions, and the import is one more batch. Where something is lost, the
//! new journal begins with the state as far as it can be made: its revisions begin above every one that may have been
//! given, so that a watcher of the lost ones is told that they are gone, never shown others under their numbers.

use std::{
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use gpulease_core::{
    event::Batch,
    id::{Revision, Token},
    import::{Import, TOKEN_JUMP, TTL_UNKNOWN},
    state::State,
    time::Span,
};

use super::{
    Told, account::Account, args::ImportArgs, configuration, error::OfflineError, report,
    source::Export,
};
use crate::journal::{self, Journal, JournalError, codec, portable, sled};

/// A clock that is before this gpulease was made says nothing: 2026-01-01 in seconds after 1970.
const CLOCK_SECONDS_MIN: u64 = 1_767_225_600;

/// Makes the journal and tells. An import with `--salvage` has done what it was asked, whatever was lost.
pub(super) fn run(args: &ImportArgs, json: bool) -> Result<Told, OfflineError> {
    let config = configuration(&args.place)?;
    let export = Export { path: args.from.clone() };
    let account = Account::of(&export)?;
    if !account.is_whole() && !args.salvage {
        let text = if json {
            format!("{}\n", report::json(&config.data, &account))
        } else {
            told_damage(&account, "Lost:")
                + "Nothing was imported. Use another copy, or import with --salvage to go on without it.\n"
        };
        return Ok(Told { text, whole: false });
    }
    let terms = Terms::of(&account, config.policy.lock_delay)?;
    let (state, batch) = imported(&account, terms.import)?;
    if account.is_whole() {
        let mut file = export.open()?;
        let bytes = encode(&batch)?;
        sled::create(&config.data, |journal| {
            portable::import(&mut file, journal)?;
            journal.append(journal::Revision(batch.revision.0), &bytes)
        })?;
    } else {
        let (bytes, snapshot) = (encode(&batch)?, encode(&state)?);
        sled::create(&config.data, |journal| begin(journal, batch.revision, &bytes, &snapshot))?;
    }
    let text = if json {
        format!("{}\n", told_json(&config.data, &account, &terms, &state))
    } else {
        told(&config.data, &account, &terms, &state)
    };
    Ok(Told { text, whole: true })
}

/// On what terms a journal is imported.
struct Terms {
    import: Import,
    /// The longest TTL that was found, or what counts for it.
    ttl: Span,
    ttl_found: bool,
    lock_delay: Span,
}

impl Terms {
    fn of(account: &Account, lock_delay: Span) -> Result<Self, OfflineError> {
        // A state that is unknown may have had leases of any TTL.
        let ttl_found = account.ttl.filter(|_| account.state.is_some());
        let ttl = ttl_found.unwrap_or(TTL_UNKNOWN);
        let closed_for = ttl.plus(lock_delay);
        let nothing_known = account.state.is_none() && account.token == Token(0);
        let token_found = if nothing_known { Token(counter_from_clock()?) } else { account.token };
        let revision = match (account.is_whole(), account.revision_max()) {
            (true, newest) => newest.unwrap_or_default().0.saturating_add(1),
            (false, Some(newest)) => newest.0.saturating_add(TOKEN_JUMP),
            (false, None) => counter_from_clock()?,
        };
        let import = Import { revision: Revision(revision), token_found, closed_for };
        Ok(Self { import, ttl, ttl_found: ttl_found.is_some(), lock_delay })
    }
}

fn counter_from_clock() -> Result<u64, OfflineError> {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    if since_1970.as_secs() < CLOCK_SECONDS_MIN {
        return Err(OfflineError::Clock { unix_seconds: since_1970.as_secs() });
    }
    Ok(Import::counter_floor(u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)))
}

/// The state after the import, and the batch of the import.
fn imported(account: &Account, import: Import) -> Result<(State, Batch), OfflineError> {
    let mut state = account.state.clone().unwrap_or_default();
    let batch = state.import(import)?;
    Ok((state, batch))
}

fn encode<T: serde::Serialize>(value: &T) -> Result<Vec<u8>, OfflineError> {
    Ok(codec::encode(value)?)
}

/// A journal that begins with a state instead of a history.
fn begin(
    journal: &mut dyn Journal,
    revision: Revision,
    batch: &[u8],
    snapshot: &[u8],
) -> Result<(), JournalError> {
    let revision = journal::Revision(revision.0);
    journal.begin_at(revision)?;
    journal.append(revision, batch)?;
    journal.archive().store_snapshot(revision, snapshot)
}

fn told(data: &Path, account: &Account, terms: &Terms, state: &State) -> String {
    let mut text = told_damage(account, "Lost and left out:");
    let ttl = report::duration(terms.ttl);
    let basis = if terms.ttl_found {
        format!("the longest TTL found, {ttl},")
    } else {
        format!("{ttl}, since no TTL was found that says how long leases live,")
    };
    let closed = report::duration(terms.import.closed_for);
    let delay = report::duration(terms.lock_delay);
    text += &report::lines(&[
        ("imported", format!("{} into {}", what(account), data.display())),
        ("revision", state.revision().to_string()),
        ("leases", format!("{} live on", state.tally().live())),
        ("tokens", format!("raised from {} to {}", account.token, state.token())),
        (
            "devices",
            format!(
                "every one is closed for {closed} from the first start on: {basis} and the lock delay, {delay}"
            ),
        ),
    ]);
    text + "Next: start the coordinator. A reboot of its node, or `gpulease open DEVICE`, opens a device earlier.\n"
}

/// What the new journal was made of.
fn what(account: &Account) -> String {
    match (account.is_whole(), &account.state) {
        (true, _) => format!("{} batches with their history", account.batches),
        (false, Some(_)) => "the state before the first loss".to_owned(),
        (false, None) => "nothing: no state is left".to_owned(),
    }
}

fn told_damage(account: &Account, heading: &str) -> String {
    let mut text = report::list("The export is damaged, or the journal was:", &account.problems);
    if let Some(lost) = report::lost(account).filter(|_| !account.is_whole()) {
        text += &format!("{heading} {lost}.\n");
    }
    text
}

fn told_json(data: &Path, account: &Account, terms: &Terms, state: &State) -> serde_json::Value {
    let mut told = report::json(data, account);
    told["imported"] = serde_json::json!({
        "revision": state.revision().0,
        "leases_live": state.tally().live(),
        "fencing_token_before": account.token.0,
        "fencing_token": state.token().0,
        "ttl_found": terms.ttl_found,
        "closed_seconds": terms.import.closed_for.as_millis() / 1_000,
    });
    told
}
