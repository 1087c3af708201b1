//! Answers that cross what they answer on the way.

use gpulease_proto::v1::{
    self, LeaseState as State, session_request::Body as Ask, session_response::Body as Say,
};

use super::harness::{Coordinator, acknowledge, device, pausable};

/// However an answer and a withdrawal meet, the holder learns which came first: ACTIVE with the same token means go on,
/// PAUSED is followed by a new token.
#[tokio::test]
async fn an_answer_that_crosses_a_withdrawal_tells_the_holder_which_came_first() {
    let coordinator = Coordinator::start().await;
    let mut session = coordinator.session("training", "worker-1").await;
    session.send(2, Ask::Acquire(pausable("job", 8)));
    let mut lease = session.granted().await;
    for round in 0..40_u64 {
        let drain = v1::DrainRequest { target: device("SIM-node-0-0"), reason: String::new() };
        coordinator.admin().drain(drain).await.unwrap();
        let pausing = session.changed().await;
        assert_eq!((pausing.state(), pausing.fencing_token), (State::Pausing, lease.fencing_token));
        let mut admin = coordinator.admin();
        let uncordon = v1::UncordonRequest { target: device("SIM-node-0-0") };
        let withdrawn = tokio::spawn(async move { admin.uncordon(uncordon).await.unwrap() });
        if round % 2 == 0 {
            tokio::task::yield_now().await;
        }
        session.send(100 + round, Ask::Acknowledge(acknowledge(&pausing)));
        // The withdrawal is told where it came first; a resume, where the answer did.
        let (mut answered, mut changed) = (None, None);
        while answered.is_none() || changed.is_none() {
            let said = session.next().await;
            match said.body {
                Some(Say::Acknowledged(it)) => answered = it.lease,
                Some(Say::Changed(it)) => changed = Some(it),
                other => panic!("{other:?}"),
            }
        }
        withdrawn.await.unwrap();
        let (answered, changed) = (answered.unwrap(), changed.unwrap());
        assert_eq!(changed.state(), State::Active);
        match answered.state() {
            State::Active => {
                assert_eq!(answered.fencing_token, lease.fencing_token, "withdrawn: go on");
                assert_eq!(changed.fencing_token, lease.fencing_token);
            }
            State::Paused => assert!(changed.fencing_token > lease.fencing_token, "resumed"),
            other => panic!("{other:?}"),
        }
        lease = changed;
    }
}
