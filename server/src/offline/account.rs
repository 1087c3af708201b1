//! What a journal amounts to: the state as far as it can be made, and what is damaged or lost.
//!
//! Promises: the state is the fold of an unbroken row of batches, from a snapshot or from the first batch on, and keeps
//! every invariant; or there is none. Tokens, TTLs and revisions are looked for in every batch that can be decoded, also
//! in those that cannot be applied, because what they say was true all the same.

use gpulease_core::{
    event::{self, Event},
    id::Token,
    invariant,
    state::State,
    time::Span,
};

use super::{
    error::OfflineError,
    source::{Found, Source},
};
use crate::{
    actor::recovery::{self, Fold, RecoveryError},
    journal::{Batch, Revision, Snapshot, portable::Item},
};

/// The most problems that are told; the others are counted. 64 lines of some 100 bytes fit on a few screens.
const PROBLEMS_MAX: usize = 64;

/// See the head of this file.
#[derive(Default)]
pub(super) struct Account {
    /// The state as far as it can be made.
    pub(super) state: Option<State>,
    /// What is damaged or lost, in the order in which it was found.
    pub(super) problems: Vec<String>,
    problems_untold: usize,
    /// The snapshot that the state begins with.
    pub(super) snapshot: Option<Revision>,
    /// The last revision known to have been acknowledged.
    pub(super) acknowledged: Option<Revision>,
    /// The first and last batch that can be decoded.
    pub(super) oldest: Option<Revision>,
    pub(super) newest: Option<Revision>,
    /// Batches that can be decoded, and those of them that cannot be applied.
    pub(super) batches: u64,
    pub(super) unusable: u64,
    /// The highest token and longest TTL that were found anywhere.
    pub(super) token: Token,
    pub(super) ttl: Option<Span>,
    fold: Option<Fold>,
    /// The last batch, decoded or not.
    previous: Option<Revision>,
    /// The row of batches is broken.
    broken: bool,
    /// The batch at which the row ends, since it does not fit the state before it.
    misfit: Option<(Revision, String)>,
}

impl Account {
    /// Reads a journal to its end.
    ///
    /// # Errors
    /// It cannot be read, other than by being damaged.
    pub(super) fn of(source: &dyn Source) -> Result<Self, OfflineError> {
        let mut account = Self::default();
        source.read(&mut |found| account.take(found, None))?;
        if let Some((revision, why)) = account.misfit.take() {
            // It left a state of no use: once more, up to the batch before.
            account = Self::default();
            source.read(&mut |found| account.take(found, Some((revision, &why))))?;
        }
        account.finish();
        Ok(account)
    }

    /// Nothing is damaged or lost.
    pub(super) fn is_whole(&self) -> bool {
        self.problems.is_empty()
    }

    /// The highest revision that is known to have been given to a batch.
    pub(super) fn revision_max(&self) -> Option<Revision> {
        let of_state = self.state.as_ref().map(|state| Revision(state.revision().0));
        [self.newest, self.acknowledged, self.snapshot, of_state].into_iter().flatten().max()
    }

    fn take(&mut self, found: Found, misfit: Option<(Revision, &str)>) {
        match found {
            Err(what) | Ok(Item::Damage(what)) => self.problem(what),
            Ok(Item::Acknowledged(revision)) => self.acknowledged = Some(revision),
            Ok(Item::Snapshot(snapshot)) => self.begin(snapshot),
            Ok(Item::Batch(stored)) => self.batch(&stored, misfit),
        }
    }

    fn begin(&mut self, snapshot: Snapshot) {
        let revision = snapshot.revision;
        match Fold::from_snapshot(Some(snapshot)) {
            Ok(fold) => (self.fold, self.snapshot) = (Some(fold), Some(revision)),
            Err(error) => self.problem(brief(&error)),
        }
    }

    fn batch(&mut self, stored: &Batch, misfit: Option<(Revision, &str)>) {
        let revision = stored.revision;
        self.look_for_gap(revision);
        let batch = match recovery::decode(stored) {
            Ok(batch) => batch,
            Err(error) => {
                self.broken |= revision > self.base();
                return self.problem(brief(&error));
            }
        };
        self.batches += 1;
        self.oldest = self.oldest.or(Some(revision));
        self.newest = self.newest.max(Some(revision));
        self.learn(&batch);
        if self.fold.is_none() && revision == Revision::ZERO.next() {
            self.fold = Some(Fold { state: State::default(), revision: Revision::ZERO });
        }
        if let Some((_, why)) = misfit.filter(|(misfit, _)| *misfit == revision) {
            self.broken = true;
            self.problem(why.to_owned());
        }
        self.apply(revision, &batch);
    }

    /// Applies a batch, unless the row was broken before it or it is older than the state.
    fn apply(&mut self, revision: Revision, batch: &event::Batch) {
        match &mut self.fold {
            Some(fold) if revision <= fold.revision => {}
            Some(fold) if !self.broken => {
                if let Err(error) = fold.apply_batch(batch) {
                    self.broken = true;
                    self.misfit = Some((revision, brief(&error)));
                }
            }
            _ => self.unusable += 1,
        }
    }

    /// The revision of the state so far.
    fn base(&self) -> Revision {
        self.fold.as_ref().map_or(Revision::ZERO, |fold| fold.revision)
    }

    /// Tells of batches that should stand before this one. History before a snapshot may begin anywhere.
    fn look_for_gap(&mut self, revision: Revision) {
        let after_base = self.base().next();
        let expected = match self.previous {
            Some(previous) => previous.next(),
            None if self.fold.is_some() => after_base.min(revision),
            None => Revision::ZERO.next(),
        };
        let first = self.previous.is_none();
        self.previous = self.previous.max(Some(revision));
        if revision < expected {
            self.problem(format!("batch {revision} stands behind a newer one"));
        } else if revision > expected && first && self.fold.is_none() {
            self.problem(format!(
                "no snapshot is left and the oldest batch is {revision}: what was before it is unknown"
            ));
        } else if revision > expected {
            self.broken |= revision > after_base;
            self.problem(missing(expected, Revision(revision.0 - 1)));
        }
    }

    fn learn(&mut self, batch: &event::Batch) {
        for event in &batch.events {
            match event {
                Event::Granted { token, .. } | Event::Imported { token, .. } => {
                    self.token = self.token.max(*token);
                }
                Event::Requested { request, .. } => self.ttl = self.ttl.max(Some(request.ttl)),
                _ => {}
            }
        }
    }

    fn finish(&mut self) {
        let known = self.newest.max(self.snapshot).unwrap_or(Revision::ZERO);
        if let Some(snapshot) = self.snapshot.filter(|snapshot| self.newest < Some(*snapshot)) {
            self.problem(format!(
                "no batch was found that is as new as the snapshot of {snapshot}"
            ));
        }
        if let Some(acknowledged) = self.acknowledged.filter(|revision| *revision > known) {
            self.problem(format!(
                "{}: revision {acknowledged} was acknowledged",
                missing(known.next(), acknowledged)
            ));
        }
        if self.fold.is_none() && self.batches == 0 && self.is_whole() {
            self.fold = Some(Fold { state: State::default(), revision: Revision::ZERO });
        }
        self.state = self.fold.take().map(|fold| fold.state);
        if let Some(violation) = self.state.as_ref().and_then(|state| invariant::check(state).err())
        {
            self.problem(format!("the state breaks a rule, which is a defect: {violation}"));
            self.state = None;
        }
        if let Some(state) = &self.state {
            self.token = self.token.max(state.token());
            self.ttl = self.ttl.max(state.leases().values().map(|lease| lease.request.ttl).max());
        }
        if self.problems_untold > 0 {
            self.problems.push(format!("{} more", self.problems_untold));
        }
    }

    fn problem(&mut self, what: String) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(what);
        } else {
            self.problems_untold += 1;
        }
    }
}

fn missing(first: Revision, last: Revision) -> String {
    if first >= last {
        format!("batch {last} is missing or damaged")
    } else {
        format!("batches {first} to {last} are missing or damaged")
    }
}

/// The error without the way out that stands in it for a coordinator that does not start.
fn brief(error: &RecoveryError) -> String {
    match error {
        RecoveryError::Undecodable { what, source } => {
            format!("{what} cannot be decoded: {source}")
        }
        RecoveryError::Inapplicable(defect) => defect.to_string(),
        RecoveryError::Misplaced { found, expected } => {
            format!("batch {found} lies where {expected} belongs")
        }
        RecoveryError::Journal(error) => error.to_string(),
    }
}
