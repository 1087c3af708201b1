//! SIGKILL at any moment: what was acknowledged is there at the next opening, whole and in order.

use std::io::{BufRead, BufReader};

use gpulease_server::journal::Revision;

use crate::writer::Work;

/// How many times the writer is killed.
const KILLS: u64 = 40;

#[test]
fn a_writer_killed_at_any_moment_loses_nothing_acknowledged() {
    let place = tempfile::tempdir().unwrap();
    let mut work = Work::new(place.path(), 1_000_000, 2_000);
    work.snapshot_every = 25;
    let mut acknowledged = 0;
    for kill in 0..KILLS {
        // From during the opening (0 lines) to some way into the work.
        let lines = kill * kill % 61;
        acknowledged = acknowledged.max(run_and_kill(&work, lines));
        let last = work.check(&mut work.open().unwrap());
        assert!(
            last >= Revision(acknowledged),
            "revision {acknowledged} was acknowledged, {last} is the last"
        );
        acknowledged = last.0;
    }
    assert!(
        acknowledged > 500,
        "only {acknowledged} batches were written: the kills came too early to show anything"
    );
}

/// Runs the writer until it has said `lines` lines, kills it, and returns the last revision it acknowledged.
fn run_and_kill(work: &Work, lines: u64) -> u64 {
    let mut child = work.command(&[]).spawn().unwrap();
    let mut acknowledged = 0;
    let mut said = 0;
    let out = BufReader::new(child.stdout.take().unwrap());
    let mut out = out.lines();
    while said < lines {
        let line = out.next().expect("the writer works until it is killed").unwrap();
        if let Some(revision) = line.strip_prefix("acknowledged ") {
            acknowledged = revision.parse().unwrap();
        }
        said += u64::from(line.starts_with("acknowledged") || line.starts_with("opened"));
    }
    child.kill().unwrap();
    // What it said before the kill is in the pipe.
    for line in out.map_while(Result::ok) {
        if let Some(revision) = line.strip_prefix("acknowledged ") {
            acknowledged = revision.parse().unwrap_or(acknowledged);
        }
    }
    child.wait().unwrap();
    acknowledged
}
