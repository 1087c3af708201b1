//! A lease from request to end, over the SDK and over the command line.

use gpulease::{Client, ErrorKind, LeaseEventKind, LeaseRequest, LeaseState, LostReason};
use gpulease_tests::{
    coordinator::Coordinator, deadline::soon, events::Facts, shell::Shell, wire::GIB,
};

#[tokio::test]
async fn the_command_line_acquires_renews_shows_and_releases() -> anyhow::Result<()> {
    let coordinator = Coordinator::simulate("2x24GiB").await?;
    let shell = Shell::at(coordinator.endpoint())?;
    let lease = shell.json(&["acquire", "--memory", "8GiB", "--ttl", "300s"]).await?;
    assert_eq!(lease["state"], "ACTIVE");
    assert_eq!(lease["devices"][0]["memory_bytes"], 8 * GIB);
    let token = lease["fencing_token"].as_u64().expect("a token is a number");
    let id = lease["id"].as_str().expect("an id is a text");

    let renewed = shell.json(&["renew", id]).await?;
    assert_eq!(renewed["fencing_token"], token);
    assert!(renewed["remaining_seconds"].as_f64().is_some_and(|left| left > 200.0), "{renewed}");
    let listed = shell.lines(&["leases"]).await?;
    assert_eq!(listed.iter().map(|lease| lease["id"].as_str()).collect::<Vec<_>>(), [Some(id)]);
    let devices = shell.lines(&["devices"]).await?;
    assert_eq!(devices.len(), 2);
    assert_eq!(devices[0]["memory_leased_bytes"], 8 * GIB);

    let released = shell.json(&["release", id]).await?;
    assert_eq!(released["state"], "ENDED");
    assert_eq!(released["end_reason"], "RELEASED");
    let shown = shell.json(&["show", id]).await?;
    let states: Vec<_> =
        shown["history"].as_array().into_iter().flatten().map(|fact| &fact["state"]).collect();
    assert!(states.contains(&&"ACTIVE".into()) && states.contains(&&"ENDED".into()), "{states:?}");
    assert!(shell.lines(&["leases"]).await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn the_command_line_tells_failures_apart_by_exit_code() -> anyhow::Result<()> {
    let coordinator = Coordinator::simulate("1x24GiB").await?;
    let shell = Shell::at(coordinator.endpoint())?;
    let lease = shell.json(&["acquire", "--exclusive", "--ttl", "300s"]).await?;
    let id = lease["id"].as_str().expect("an id is a text");

    let (code, report) = shell.failure(&["acquire", "--memory", "1GiB", "--wait", "0"]).await?;
    assert_eq!((code, &report["error"]["reason"]), (4, &"NO_CAPACITY".into()), "{report}");
    let (code, report) = shell.failure(&["show", "999"]).await?;
    assert_eq!((code, &report["error"]["reason"]), (5, &"LEASE_NOT_FOUND".into()), "{report}");
    let (code, report) = shell.failure(&["renew", id, "--token", "99999"]).await?;
    assert_eq!((code, &report["error"]["reason"]), (1, &"STALE_TOKEN".into()), "{report}");
    let (code, report) = shell.failure(&["acquire", "--memory", "100GiB"]).await?;
    assert_eq!((code, &report["error"]["reason"]), (1, &"UNSATISFIABLE".into()), "{report}");
    assert_eq!(shell.run(&["acquire", "--memory", "lots"]).await?.code(), Some(2));
    Ok(())
}

#[tokio::test]
async fn with_no_coordinator_the_command_line_names_the_command_that_starts_one()
-> anyhow::Result<()> {
    let free = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let shell = Shell::at(&format!("http://{free}"))?;
    let finished = shell.run(&["devices"]).await?;
    assert_eq!(finished.code(), Some(3), "{finished:?}");
    assert!(finished.stderr.contains(&format!("gpulease serve --listen {free}")), "{finished:?}");
    assert!(finished.stdout.is_empty(), "{finished:?}");
    Ok(())
}

#[tokio::test]
async fn a_waiting_request_gets_the_device_that_is_released_with_a_greater_token()
-> anyhow::Result<()> {
    let coordinator = Coordinator::simulate("1x24GiB").await?;
    let (first, second) = two_clients(&coordinator).await?;
    let held = first.acquire(LeaseRequest::exclusive()).await?;
    let (queued, is_queued) = tokio::sync::oneshot::channel();
    let waiting = tokio::spawn(async move {
        let mut queued = Some(queued);
        let told = |info: &gpulease::LeaseInfo| {
            assert_eq!(info.state, LeaseState::Queued);
            queued.take().map(|queued| queued.send(info.id));
        };
        second.acquire_with(LeaseRequest::exclusive(), told).await
    });
    let id = soon("the word that the request waits", is_queued).await?;
    let token = held.fencing_token();
    held.release().await?;
    let granted = soon("the grant", waiting).await??;
    assert_eq!(granted.id(), id);
    assert!(granted.fencing_token() > token);
    granted.release().await?;
    Ok(())
}

#[tokio::test]
async fn a_revoked_lease_is_lost_to_its_holder_and_its_device_opens_after_the_lock_delay()
-> anyhow::Result<()> {
    let coordinator = Coordinator::settings()
        .simulate("1x24GiB")
        .environment("GPULEASE_LEASES_LOCK_DELAY", "1s")
        .start()
        .await?;
    let (holder, operator) = two_clients(&coordinator).await?;
    let mut facts = Facts::from_now(&operator).await?;
    let lease = holder.acquire(LeaseRequest::exclusive()).await?;
    let revoked = operator.revoke(lease.id(), "maintenance at noon").await?;
    assert_eq!(revoked.state, LeaseState::Reclaiming);
    assert_eq!(revoked.end_detail, "maintenance at noon");
    let reason = soon("the holder's word that it lost the lease", lease.lost()).await;
    assert!(matches!(reason, LostReason::Ended { .. }), "{reason:?}");
    let ended = facts.leases(LeaseEventKind::Ended, 1).await;
    assert_eq!(ended[0].lease_id, lease.id());
    let next = operator.acquire(LeaseRequest::exclusive().wait(std::time::Duration::ZERO)).await?;
    assert!(next.fencing_token() > lease.fencing_token());
    Ok(())
}

#[tokio::test]
async fn a_lease_that_nobody_renews_expires_and_its_token_is_worthless() -> anyhow::Result<()> {
    let coordinator = Coordinator::simulate("1x24GiB").await?;
    let (holder, watcher) = two_clients(&coordinator).await?;
    let mut facts = Facts::from_now(&watcher).await?;
    let ttl = std::time::Duration::from_secs(2);
    let (id, token) = holder.acquire(LeaseRequest::memory(GIB).ttl(ttl)).await?.detach();
    let reclaimed = facts.leases(LeaseEventKind::Reclaiming, 1).await;
    assert_eq!(reclaimed[0].lease_id, id);
    let error = holder.renew(id, token).await.expect_err("nothing revives a lease");
    assert_eq!(error.kind(), ErrorKind::LeaseEnded, "{error}");
    Ok(())
}

#[tokio::test]
async fn dropping_the_guard_releases_the_lease() -> anyhow::Result<()> {
    let coordinator = Coordinator::simulate("1x24GiB").await?;
    let (holder, watcher) = two_clients(&coordinator).await?;
    let mut facts = Facts::from_now(&watcher).await?;
    let lease = holder.acquire(LeaseRequest::slots(1)).await?;
    let id = lease.id();
    drop(lease);
    let ended = facts.leases(LeaseEventKind::Ended, 1).await;
    assert_eq!(ended[0].lease_id, id);
    assert_eq!(ended[0].end_reason, Some(gpulease::EndReason::Released));
    Ok(())
}

async fn two_clients(coordinator: &Coordinator) -> Result<(Client, Client), gpulease::Error> {
    let client =
        |holder| Client::builder().endpoint(coordinator.endpoint()).holder(holder).connect();
    Ok((client("first").await?, client("second").await?))
}
