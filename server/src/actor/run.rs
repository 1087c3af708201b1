//! The actor's thread: turns for as long as there is work, sleep until something arrives or a deadline comes, and the
//! three ways to end.
//!
//! Promises: when a commit fails, nothing that the failed batch decided leaves, the health says so before any way back
//! is dropped, and the state is never used again.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{Arc, atomic::AtomicU64},
    thread,
};

use gpulease_core::id::Revision;
use tokio::sync::{Semaphore, oneshot, watch};

use super::{
    batch::CommitError,
    errands::Errands,
    handle::{Handle, Shared},
    health::{Facts, Figures, Health},
    intake::{Intake, QUERIES_MAX},
    recovery::Recovered,
    ring::Ring,
    snapshot,
    turn::{Actor, Next},
};
use crate::{clock::Clock, journal::HistoryBound};

/// What the actor starts with.
pub struct Setup {
    /// State and journal.
    pub recovered: Recovered,
    /// A clock that goes on from the state's time.
    pub clock: Arc<dyn Clock>,
    /// How much history to keep for watchers.
    pub history: HistoryBound,
    /// Where the journal is, for display.
    pub data_directory: Option<PathBuf>,
    /// What the devices are read with, for display.
    pub backend: String,
    /// Who runs what the rules want of whoever reads the devices.
    pub errands: Arc<dyn Errands>,
}

/// How the actor ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// On request.
    Stopped {
        /// The last durable batch.
        revision: Revision,
    },
    /// The journal failed; what was acknowledged is durable.
    JournalFailed(Arc<str>),
    /// A broken invariant; what was acknowledged is durable.
    Defect(Arc<str>),
}

/// The actor at work.
pub struct Running {
    ended: oneshot::Receiver<Exit>,
}

impl Running {
    /// Waits for the end.
    pub async fn ended(self) -> Exit {
        let lost = || Exit::Defect("the actor's thread is gone without a word".into());
        self.ended.await.unwrap_or_else(|_| lost())
    }
}

/// Starts the actor on a thread of its own.
///
/// # Errors
/// The system has no thread to give.
pub fn start(setup: Setup) -> std::io::Result<(Handle, Running)> {
    let (handle, actor, snapshots) = assemble(setup)?;
    let (end, ended) = oneshot::channel();
    let work = move || {
        let exit = live(actor);
        // Nobody may wait for the end any more.
        let _ = end.send(exit);
        // A snapshot that is being written may be cut off by the end of the process: it appears whole or not at all.
        snapshots.stop();
    };
    let thread = thread::Builder::new().name("actor".to_owned()).spawn(work)?;
    handle.shared.intake.serve_from(thread.thread().clone());
    Ok((handle, Running { ended }))
}

/// The actor and its way in, not yet running: tests turn it by hand.
pub(super) fn assemble(setup: Setup) -> std::io::Result<(Handle, Actor, snapshot::SnapshotThread)> {
    let Setup { recovered, clock, history, data_directory, backend, errands } = setup;
    let Recovered { scheduler, journal, snapshot_revision, backlog } = recovered;
    let figures = Figures::default();
    figures.set_revision(scheduler.revision());
    figures.set_snapshot_revision(Revision(snapshot_revision.0));
    let facts = Facts {
        started: clock.wall_now(),
        data_directory,
        backend,
        revision: scheduler.revision(),
        oldest_revision: Revision(journal.archive().oldest_revision().0),
        snapshot_revision: Revision(snapshot_revision.0),
        grants_total: 0,
    };
    let shared = Arc::new(Shared {
        intake: Intake::default(),
        health: watch::Sender::new(Health::Serving),
        figures,
        ring: Ring::after(scheduler.revision()),
        clock,
        archive: journal.archive(),
        facts,
        queries: Arc::new(Semaphore::new(QUERIES_MAX)),
        next_caller: AtomicU64::new(1),
        next_ticket: AtomicU64::new(1),
    });
    let (trigger, snapshots) = snapshot::start(Arc::clone(&shared), history, backlog)?;
    let actor = Actor::new(scheduler, journal, Arc::clone(&shared), trigger, errands);
    Ok((Handle { shared }, actor, snapshots))
}

/// The actor's life. It is dropped, and with it every way back, only after the health says why.
pub(super) fn live(mut actor: Actor) -> Exit {
    let ended = catch_unwind(AssertUnwindSafe(|| work(&mut actor)));
    match ended {
        Ok(Ok(())) => Exit::Stopped { revision: actor.say_goodbye() },
        Ok(Err(error)) => {
            let reason = describe(&error);
            actor.fail(Arc::clone(&reason));
            Exit::JournalFailed(reason)
        }
        Err(panic) => {
            let reason: Arc<str> =
                format!("a broken invariant, which is a defect of gpulease: {}", text_of(&*panic))
                    .into();
            actor.fail(Arc::clone(&reason));
            Exit::Defect(reason)
        }
    }
}

fn work(actor: &mut Actor) -> Result<(), CommitError> {
    loop {
        match actor.turn()? {
            Next::Again => {}
            Next::Stop => return Ok(()),
            Next::Wait(None) => thread::park(),
            Next::Wait(Some(deadline)) => {
                let now = actor.shared.clock.now();
                thread::park_timeout(deadline.since(now).as_duration());
            }
        }
    }
}

/// An error with its causes, on one line.
fn describe(error: &CommitError) -> Arc<str> {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text.into()
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}
