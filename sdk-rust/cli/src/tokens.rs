//! Which fencing token a verb sends: the one given, the one of the environment, or the one kept.
//!
//! Promises: a token is only taken for the very lease and coordinator it was given out by; trouble with the
//! file of tokens never fails a verb that has a token or needs none.
//! Leaves to others: the file (`token_file`), and whether the token is good (the coordinator).

use std::time::{Duration, SystemTime};

use crate::failure::Failure;
use crate::options::Context;
use crate::token_file::{self, Entry, TokenFile};

/// What to do about a token that is not known.
pub(crate) const MISSING_HINT: &str = "Pass the fencing token with --token (`acquire` printed it).";

/// A lease's token, and where it is known from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    pub(crate) fencing_token: Option<u64>,
    /// What the file has of the lease.
    pub(crate) entry: Option<Entry>,
}

/// Finds the token of a lease: `--token`, then the environment that `run` and `acquire` set, then the file.
pub(crate) fn find(context: &Context, lease_id: u64, given: Option<u64>) -> Known {
    let variable = |name: &str| std::env::var(name).ok();
    let entry = match TokenFile::of_user().and_then(|file| file.find(&context.endpoint, lease_id)) {
        Ok(entry) => entry,
        Err(error) => {
            if given.is_none() {
                context.output.warn(&format!("{error:#}"));
            }
            None
        }
    };
    let fencing_token = given
        .or_else(|| of_environment(lease_id, variable))
        .or(entry.as_ref().map(|entry| entry.fencing_token));
    Known { fencing_token, entry }
}

/// The failure of a verb that cannot do without a token.
pub(crate) fn missing(context: &Context, lease_id: u64) -> Failure {
    Failure::usage(format!(
        "no fencing token is known for lease {lease_id} of {}: this user acquired none with that \
         id on this machine",
        context.endpoint
    ))
    .hint(MISSING_HINT)
}

/// Keeps the token of a lease that lives on without this process.
pub(crate) fn keep(context: &Context, entry: Entry) {
    keep_all(context, vec![entry]);
}

/// Keeps the tokens of many leases at once.
pub(crate) fn keep_all(context: &Context, entries: Vec<Entry>) {
    let kept = TokenFile::of_user().and_then(|file| file.remember_all(entries, SystemTime::now()));
    if let Err(error) = kept {
        context.output.warn(&format!("the token is not kept, pass --token later: {error:#}"));
    }
}

/// Keeps the token that a renewal answered with, where the file has the lease.
pub(crate) fn renewed(context: &Context, known: Known, fencing_token: u64, remaining: Duration) {
    if let Some(entry) = known.entry {
        let expires_unix_seconds = token_file::expires_unix_seconds(SystemTime::now(), remaining);
        keep(context, Entry { fencing_token, expires_unix_seconds, ..entry });
    }
}

/// Notes that a lease is over, so that its token goes before others.
pub(crate) fn ended(context: &Context, lease_id: u64) {
    all_ended(context, &[lease_id]);
}

/// Notes that many leases are over.
pub(crate) fn all_ended(context: &Context, leases: &[u64]) {
    let noted = TokenFile::of_user()
        .and_then(|file| file.ended(&context.endpoint, leases, SystemTime::now()));
    if let Err(error) = noted {
        context.output.warn(&format!("an old token stays in its file: {error:#}"));
    }
}

fn of_environment(lease_id: u64, variable: impl Fn(&str) -> Option<String>) -> Option<u64> {
    let number = |name: &str| variable(name)?.parse::<u64>().ok();
    (number("GPULEASE_LEASE_ID")? == lease_id).then(|| number("GPULEASE_FENCING_TOKEN"))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environments_token_serves_its_own_lease_only() {
        let set = |name: &str| match name {
            "GPULEASE_LEASE_ID" => Some("7".to_owned()),
            "GPULEASE_FENCING_TOKEN" => Some("42".to_owned()),
            _ => None,
        };
        assert_eq!(of_environment(7, set), Some(42));
        assert_eq!(of_environment(8, set), None);
        assert_eq!(of_environment(7, |_| None), None);
    }
}
