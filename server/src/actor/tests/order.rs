//! Who goes first, what is refused, and what becomes of those who left.

use std::{
    pin::Pin,
    task::{Context, Waker},
};

use super::*;
use crate::{
    actor::{ORDINARY_INPUTS_MAX, SubmitError, intake::QUERIES_MAX},
    clock::Clock as _,
};

#[test]
fn a_release_goes_before_the_acquires_of_others_and_after_those_of_its_own_session() {
    let mut rig = Rig::on(&Disk::new());
    let (first, second) = (rig.grant("first"), rig.grant("second"));
    let mut session = rig.session();
    rig.settle().unwrap();
    session.messages();
    let mut other = rig.acquire(request("other", GIB));
    session.acquire(1, request("own", GIB));
    session.release(2, first.id, first.token);
    session.acquire(3, request("own too", GIB));
    let mut released = rig.call(|caller, ticket| Input::Release {
        caller,
        ticket,
        lease: second.id,
        token: Some(second.token),
        holder: None,
    });
    rig.settle().unwrap();
    assert_eq!(session.sequences(), [1, 2, 3]);
    let other = lease_of(other.try_recv().unwrap());
    let released = lease_of(released.try_recv().unwrap());
    // All of it is one batch; in it, the other caller's release stands before every acquire.
    let history = |id| rig.actor.scheduler().state().lease(id).unwrap().history.clone();
    assert_eq!(history(released.id).last().unwrap().revision, history(other.id)[0].revision);
    let batches =
        rig.handle.shared.archive.read_batches(crate::journal::Revision::ZERO, 99).unwrap();
    let last: gpulease_core::event::Batch =
        crate::journal::codec::decode(&batches.last().unwrap().bytes).unwrap();
    use gpulease_core::event::Event;
    assert!(matches!(last.events[0], Event::Ended { lease, .. } if lease == released.id));
    let ended = |event: &Event| matches!(event, Event::Ended { lease, .. } if *lease == first.id);
    assert!(last.events.iter().position(ended).unwrap() > 3, "{:?}", last.events);
}

#[test]
fn a_renewal_that_stands_behind_its_sessions_acquires_still_goes_before_the_expiry() {
    let mut rig = Rig::on(&Disk::new());
    let mut session = rig.session();
    let lease = rig.grant("one");
    rig.pass(Span::from_secs(9));
    assert!(is_active(&rig, lease.id));
    // Within the gap that P4 forgives: the deadline is over when both are taken.
    rig.clock.advance(Span::from_millis(999));
    let doomed = rig.grant("unrelated");
    rig.clock.advance(Span::from_millis(900));
    session.acquire(1, request("before it", GIB));
    session.renew(2, lease.id, lease.token);
    rig.settle().unwrap();
    assert!(is_active(&rig, lease.id) && is_active(&rig, doomed.id));
    assert_eq!(session.sequences(), [0, 1, 2]);
    rig.pass(Span::from_secs(12));
    assert!(!is_active(&rig, lease.id), "nobody renewed it again");
}

#[test]
fn overload_is_refused_at_the_handle_and_leaves_room_for_urgent_requests() {
    let mut rig = Rig::on(&Disk::new());
    let lease = rig.grant("one");
    let body = Arc::new(request("flood", GIB).validate().unwrap());
    let submit = |rig: &Rig| {
        let (line, answered) = oneshot::channel();
        let caller = rig.handle.caller_call();
        let request = Arc::clone(&body);
        let make = |ticket| Input::Acquire { caller, ticket, request };
        rig.handle.submit(ReplyTo::Call(line), make).map(|()| answered)
    };
    let waiting: Vec<_> = (0..ORDINARY_INPUTS_MAX).map(|_| submit(&rig).unwrap()).collect();
    assert_eq!(submit(&rig).map(drop), Err(SubmitError::Overloaded));
    let mut released = rig.call(|caller, ticket| Input::Release {
        caller,
        ticket,
        lease: lease.id,
        token: Some(lease.token),
        holder: None,
    });
    assert_eq!(rig.actor.turn().unwrap(), Next::Again, "one batch takes only so many acquires");
    assert!(released.try_recv().is_ok());
    assert!(submit(&rig).is_ok());
    rig.settle().unwrap();
    assert_eq!(
        waiting.into_iter().filter_map(|mut line| line.try_recv().ok()).count(),
        ORDINARY_INPUTS_MAX
    );
}

#[test]
fn the_queued_reply_is_for_sessions_and_the_final_one_for_everyone() {
    let mut rig = Rig::on(&Disk::new());
    let mut session = rig.session();
    let mut whole = Vec::new();
    for number in 0..2 {
        let mut answered = rig.acquire(request(&format!("whole {number}"), 24 * GIB));
        rig.settle().unwrap();
        whole.push(lease_of(answered.try_recv().unwrap()));
    }
    let mut unary = rig.acquire(request("unary", 24 * GIB));
    session.acquire(1, request("streamed", 24 * GIB));
    rig.settle().unwrap();
    assert_eq!(session.sequences(), [0, 1]);
    assert!(unary.try_recv().is_err());
    for lease in whole {
        session.release(2, lease.id, lease.token);
    }
    rig.settle().unwrap();
    assert!(lease_of(unary.try_recv().unwrap()).state == State::Active);
    assert_eq!(session.sequences(), [2, 2, 1]);
    assert_eq!(rig.actor.delivery().pending_count(), 0);
}

#[test]
fn an_acquire_whose_caller_left_before_its_turn_never_happens() {
    let mut rig = Rig::on(&Disk::new());
    let lease = rig.grant("one");
    let session = rig.session();
    session.acquire(1, request("nobody waits for it", GIB));
    session.release(2, lease.id, lease.token);
    rig.handle.tell(Input::CallerGone { caller: session.caller });
    rig.settle().unwrap();
    assert_eq!(rig.actor.scheduler().state().tally().live(), 0, "the release still counts");
    assert_eq!(rig.actor.delivery().pending_count(), 0);
}

#[test]
fn a_thousand_waiting_callers_that_vanish_at_once_leave_nothing_behind() {
    let mut rig = Rig::on(&Disk::new());
    for number in 0..2 {
        drop(rig.acquire(request(&format!("whole {number}"), 24 * GIB)));
    }
    rig.settle().unwrap();
    let mut callers = Vec::new();
    for number in 0..1_000 {
        let body = Arc::new(request(&format!("waits {number}"), 24 * GIB).validate().unwrap());
        drop(rig.call(|caller, ticket| {
            callers.push(caller);
            Input::Acquire { caller, ticket, request: body }
        }));
    }
    rig.settle().unwrap();
    assert_eq!(rig.actor.delivery().pending_count(), 1_000);
    callers.into_iter().for_each(|caller| rig.handle.tell(Input::CallerGone { caller }));
    rig.settle().unwrap();
    assert_eq!(rig.actor.delivery().pending_count(), 0);
}

#[test]
fn a_newer_session_of_the_holder_ends_the_older_with_a_word() {
    let mut rig = Rig::on(&Disk::new());
    let mut older = rig.session();
    let mut newer = rig.session();
    rig.settle().unwrap();
    let last = older.messages().pop();
    assert!(matches!(last, Some(SessionMessage::Replaced)), "{last:?}");
    assert_eq!(newer.sequences(), [0]);
}

#[test]
fn of_observations_that_wait_the_newest_of_each_node_is_kept() {
    let mut rig = Rig::on(&Disk::new());
    (0..10_000).for_each(|_| rig.handle.tell(sampled(2)));
    rig.handle.tell(observed(1));
    rig.handle.tell(observed(2));
    let before = rig.handle.facts().revision;
    rig.settle().unwrap();
    assert_eq!(rig.handle.facts().revision, before, "nothing changed in the end");
}

#[test]
fn questions_are_answered_a_few_between_two_batches_and_refused_when_too_many_wait() {
    let mut rig = Rig::on(&Disk::new());
    let handle = rig.handle.clone();
    let mut cx = Context::from_waker(Waker::noop());
    let mut asked: Vec<_> = (0..=QUERIES_MAX).map(|_| Box::pin(handle.query(|_| ()))).collect();
    let mut answered = |asked: &mut Vec<_>| {
        let before = asked.len();
        asked.retain_mut(|question| Future::poll(Pin::as_mut(question), &mut cx).is_pending());
        before - asked.len()
    };
    let mut last = vec![asked.pop().unwrap()];
    assert_eq!(answered(&mut asked), 0);
    assert_eq!(answered(&mut last), 1, "one over the bound is refused at once");
    assert_eq!(rig.actor.turn().unwrap(), Next::Again);
    let first = answered(&mut asked);
    assert!((1..100).contains(&first), "{first} at once keep everybody else waiting");
    rig.settle().unwrap();
    assert_eq!(answered(&mut asked), QUERIES_MAX - first);
}

#[test]
fn a_page_looks_at_so_many_leases_and_says_where_to_go_on() {
    let mut rig = Rig::on(&Disk::new());
    let asked: Vec<_> =
        (0..8_200).map(|index| rig.acquire(request(&index.to_string(), 1 << 20))).collect();
    rig.settle().unwrap();
    drop(asked);
    let page = |after, limit, keep| rig.actor.scheduler().leases(LeaseId(after), limit, |_| keep);
    let none = page(0, 10, false);
    assert_eq!((none.leases.len(), none.go_on_after), (0, Some(LeaseId(8_192))));
    assert_eq!(page(8_192, 10, false).go_on_after, None);
    assert_eq!(page(0, 10, true).go_on_after, Some(LeaseId(10)));
    assert_eq!(page(8_190, 10, true).leases.len(), 10);
    assert_eq!(page(8_190, 10, true).go_on_after, None);
}

#[test]
fn what_a_full_batch_leaves_goes_on_before_any_acquire_and_holds_no_renewal_up() {
    let small = Policy { batch_events_max: 4, ..Policy::default() };
    let mut rig = Rig::under(small, &Disk::new());
    let holding = ["one", "two"].map(|id| lease_of(granted(&mut rig, request(id, 24 * GIB))));
    let waiting: Vec<_> =
        (0..20).map(|id| rig.acquire(request(&format!("waits {id}"), GIB))).collect();
    rig.settle().unwrap();
    let mut session = rig.session();
    rig.settle().unwrap();
    session.messages();
    session.release(1, holding[0].id, holding[0].token);
    let turned = rig.actor.turn().unwrap();
    assert_eq!(turned, Next::Wait(Some(rig.clock.now())), "it goes on at once");
    // Behind its own acquire stands a renewal, for which a tick would wait.
    session.acquire(2, request("late", GIB));
    session.renew(3, holding[1].id, holding[1].token);
    let mut renewed = rig.call(|caller, ticket| Input::Renew {
        caller,
        ticket,
        lease: holding[1].id,
        token: holding[1].token,
        holder: None,
    });
    rig.actor.turn().unwrap();
    assert!(renewed.try_recv().is_ok(), "in the very next batch");
    assert_eq!(session.sequences(), [1], "the acquire and what is behind it wait");
    while rig.actor.scheduler().has_rest() {
        rig.actor.turn().unwrap();
    }
    rig.settle().unwrap();
    assert_eq!(session.sequences(), [2, 3]);
    let last = rig.actor.scheduler().state().token();
    for mut answered in waiting {
        assert!(lease_of(answered.try_recv().unwrap()).token < last, "served before who came late");
    }
}

fn granted(rig: &mut Rig, fields: RequestFields) -> Reply {
    let mut answered = rig.acquire(fields);
    rig.settle().unwrap();
    answered.try_recv().unwrap()
}
