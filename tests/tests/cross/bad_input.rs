//! Bad input over the wire: each refusal names the field, the value and the bound, and nobody else notices.

use gpulease_proto::v1::{self, session_request::Body, session_response};
use gpulease_tests::{
    coordinator::Coordinator,
    deadline::soon,
    wire::{self, Refusal, Wire, refusal, request, seconds},
};
use tokio_stream::StreamExt as _;
use tonic::Code;

/// A spoilt field: its name, how the value reads in the refusal, and a part of the bound.
type Spoilt = (&'static str, &'static str, &'static str, fn(&mut v1::AcquireRequest));

const SPOILT: &[Spoilt] = &[
    ("service", "empty", "1 to 128 bytes", |request| request.service.clear()),
    ("holder", "empty", "1 to 128 bytes", |request| request.holder.clear()),
    ("request_id", "empty", "1 to 128 bytes", |request| request.request_id.clear()),
    ("request_id", "1048576 bytes long", "1 to 128 bytes", |request| {
        request.request_id = mebibyte()
    }),
    ("service", "1048576 bytes long", "1 to 128 bytes", |request| request.service = mebibyte()),
    ("name", "1048576 bytes long", "1 to 128 bytes", |request| request.name = mebibyte()),
    ("name", "\"line\\nline\"", "control characters", |request| request.name = "line\nline".into()),
    ("ask", "absent", "exclusive", |request| request.ask = None),
    ("ask", "empty", "exclusive", |request| request.ask = Some(v1::Ask::default())),
    ("ask", "exclusive with slots", "exclusive", |request| {
        request.ask = Some(v1::Ask { exclusive: true, slots: Some(1), ..Default::default() });
    }),
    ("ask.devices", "0", "1 to 1024", |request| ask(request).devices = Some(0)),
    ("ask.devices", "4294967295", "1 to 1024", |request| ask(request).devices = Some(u32::MAX)),
    ("ask.slots", "0", "1 to 1000000", |request| ask(request).slots = Some(0)),
    ("ask.slots", "4294967295", "1 to 1000000", |request| ask(request).slots = Some(u32::MAX)),
    ("ask.memory_bytes", "0", "1 to ", |request| ask(request).memory_bytes = Some(0)),
    ("ask.memory_bytes", "18446744073709551615", "1 to ", |request| {
        ask(request).memory_bytes = Some(u64::MAX)
    }),
    ("priority", "99", "PRIORITY_NORMAL", |request| request.priority = 99),
    ("priority", "-1", "PRIORITY_NORMAL", |request| request.priority = -1),
    ("ttl", "0s", "2s to ", |request| request.ttl = Some(seconds(0))),
    ("ttl", "-5s", "2s to ", |request| request.ttl = Some(seconds(-5))),
    ("ttl", "9223372036854775807s", "2s to ", |request| request.ttl = Some(seconds(i64::MAX))),
    ("ttl", "-9223372036854775808s", "2s to ", |request| request.ttl = Some(seconds(i64::MIN))),
    ("ttl", "5 s and -1 ns", "2s to ", |request| {
        request.ttl = Some(prost_types::Duration { seconds: 5, nanos: -1 });
    }),
    ("wait", "-1s", "0s to ", |request| request.wait = Some(seconds(-1))),
    ("wait", "9223372036854775807s", "0s to ", |request| request.wait = Some(seconds(i64::MAX))),
    ("expected_duration", "-1s", "0s to ", |request| request.expected_duration = Some(seconds(-1))),
    ("lifetime_max", "0s", "2s to ", |request| request.lifetime_max = Some(seconds(0))),
    ("constraints.models", "65 entries", "at most 64 entries", |request| {
        constraints(request).models = vec!["H100".into(); 65];
    }),
    ("constraints.device_deny", "1048576 bytes long", "1 to 256 bytes", |request| {
        constraints(request).device_deny = vec![mebibyte()];
    }),
    ("constraints.node_labels", "65 entries", "at most 64 entries", |request| {
        constraints(request).node_labels = labels(65);
    }),
];

fn mebibyte() -> String {
    "x".repeat(1 << 20)
}

fn ask(request: &mut v1::AcquireRequest) -> &mut v1::Ask {
    request.ask.get_or_insert_default()
}

fn constraints(request: &mut v1::AcquireRequest) -> &mut v1::Constraints {
    request.constraints.get_or_insert_default()
}

fn labels(count: usize) -> std::collections::HashMap<String, String> {
    (0..count).map(|number| (format!("label-{number}"), "value".to_owned())).collect()
}

#[tokio::test]
async fn every_spoilt_field_is_named_with_its_value_and_bound() -> anyhow::Result<()> {
    let coordinator = Coordinator::simulate("2x24GiB").await?;
    let wire = Wire::connect(coordinator.endpoint()).await?;
    let revision = wire.status().await?.revision;
    let mut wrong = Vec::new();
    for (field, value, bound, spoil) in SPOILT {
        let mut spoilt = request("spoilt");
        spoil(&mut spoilt);
        let got = refusal(soon(field, wire.leases().acquire(spoilt)).await);
        let named = (got.code, got.reason.as_str(), got.field.as_str(), got.figure("value"));
        let right = named == (Code::InvalidArgument, "INVALID_FIELD", *field, *value)
            && got.figure("bound").contains(bound)
            && got.message.contains(field);
        if !right {
            wrong.push(format!("{field} {value} {bound}: {got:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(wire.status().await?.revision, revision, "a refusal is no event");
    wire.acquire(request("valid")).await?;
    Ok(())
}

#[tokio::test]
async fn a_session_names_the_field_too_and_goes_on() -> anyhow::Result<()> {
    let coordinator = Coordinator::simulate("2x24GiB").await?;
    let wire = Wire::connect(coordinator.endpoint()).await?;
    let hello = v1::SessionHello {
        service: wire::SERVICE.into(),
        holder: "holder".into(),
        revision_seen: 0,
    };
    let spoilt = v1::AcquireRequest { ttl: Some(seconds(-1)), ..request("spoilt") };
    let bodies = [Body::Hello(hello), Body::Acquire(spoilt), Body::Acquire(request("valid"))];
    let messages = bodies
        .into_iter()
        .zip(1..)
        .map(|(body, sequence)| v1::SessionRequest { sequence, body: Some(body) });
    let open = tokio_stream::iter(messages).chain(tokio_stream::pending());
    let mut session = wire.leases().session(open).await?.into_inner();
    let mut refused = None;
    loop {
        let message = soon("the session's answers", session.message()).await?.expect("it goes on");
        match message.body {
            Some(session_response::Body::Error(error)) => {
                assert_eq!(message.sequence, 2);
                refused = Some(error);
            }
            Some(session_response::Body::Granted(_)) => break,
            _ => {}
        }
    }
    let error = refused.expect("the spoilt request was refused before the valid one was granted");
    assert_eq!(
        (error.code, error.reason.as_str(), error.field.as_str()),
        (3, "INVALID_FIELD", "ttl")
    );
    Ok(())
}

#[tokio::test]
async fn a_session_that_does_not_begin_with_a_hello_is_ended() -> anyhow::Result<()> {
    let coordinator = Coordinator::simulate("2x24GiB").await?;
    let wire = Wire::connect(coordinator.endpoint()).await?;
    let first = v1::SessionRequest { sequence: 1, body: Some(Body::Acquire(request("early"))) };
    let open = tokio_stream::once(first).chain(tokio_stream::pending());
    let status = match wire.leases().session(open).await {
        Err(status) => status,
        Ok(session) => soon("the end", session.into_inner().message()).await.expect_err("no hello"),
    };
    let got = Refusal::of(&status);
    assert_eq!((got.code, got.reason.as_str()), (Code::InvalidArgument, "NO_HELLO"));
    Ok(())
}

#[tokio::test]
async fn a_message_over_the_bound_is_refused_and_a_million_labels_are_one() -> anyhow::Result<()> {
    let coordinator = Coordinator::simulate("2x24GiB").await?;
    let wire = Wire::connect(coordinator.endpoint()).await?;
    let mut labelled = request("labelled");
    constraints(&mut labelled).node_labels = labels(1_000_000);
    let long = v1::AcquireRequest { name: "x".repeat(5 << 20), ..request("long") };
    for (what, message) in [("a million labels", labelled), ("a name of 5 MiB", long)] {
        let got = refusal(soon(what, wire.leases().acquire(message)).await);
        assert_eq!(
            (got.code, got.reason.as_str()),
            (Code::ResourceExhausted, "MESSAGE_TOO_LARGE"),
            "{what}: {got:?}"
        );
        assert_eq!(got.figure("max_bytes"), "4194304");
    }
    wire.acquire(request("valid")).await?;
    Ok(())
}

#[tokio::test]
async fn names_request_ids_holders_and_tokens_are_kept_apart() -> anyhow::Result<()> {
    let coordinator = Coordinator::simulate("2x24GiB").await?;
    let wire = Wire::connect(coordinator.endpoint()).await?;
    let named = |id: &str| v1::AcquireRequest { name: "trainer".into(), ..request(id) };
    let lease = wire.acquire(named("first")).await?;

    let got = refusal(wire.leases().acquire(named("second")).await);
    assert_eq!(
        (got.code, got.reason.as_str(), got.field.as_str()),
        (Code::AlreadyExists, "NAME_TAKEN", "name")
    );
    assert_eq!(got.figure("lease_id"), lease.id.to_string());

    let other_body = v1::AcquireRequest { ttl: Some(seconds(30)), ..named("first") };
    let got = refusal(wire.leases().acquire(other_body).await);
    assert_eq!((got.code, got.reason.as_str()), (Code::InvalidArgument, "REQUEST_ID_REUSED"));
    let other_wait = v1::AcquireRequest { wait: Some(seconds(1)), ..named("first") };
    assert_eq!(wire.acquire(other_wait).await?.id, lease.id, "compared without its wait");
    let other_holder = v1::AcquireRequest { holder: "somebody".into(), ..named("first") };
    let got = refusal(wire.leases().acquire(other_holder).await);
    assert_eq!((got.code, got.reason.as_str()), (Code::AlreadyExists, "REQUEST_ID_TAKEN"));

    let renewal = v1::RenewRequest {
        lease_id: lease.id,
        fencing_token: lease.fencing_token,
        ..Default::default()
    };
    let by_other = v1::RenewRequest {
        service: wire::SERVICE.into(),
        holder: "somebody".into(),
        ..renewal.clone()
    };
    let got = refusal(wire.leases().renew(by_other).await);
    assert_eq!((got.code, got.reason.as_str()), (Code::PermissionDenied, "NOT_THE_HOLDER"));
    let stale = v1::RenewRequest { fencing_token: lease.fencing_token + 1, ..renewal.clone() };
    let got = refusal(wire.leases().renew(stale).await);
    assert_eq!((got.code, got.reason.as_str()), (Code::FailedPrecondition, "STALE_TOKEN"));
    let release =
        v1::ReleaseRequest { lease_id: lease.id, fencing_token: Some(0), ..Default::default() };
    let got = refusal(wire.leases().release(release).await);
    assert_eq!((got.code, got.reason.as_str()), (Code::FailedPrecondition, "STALE_TOKEN"));
    let unknown = v1::RenewRequest { lease_id: u64::MAX, ..renewal };
    let got = refusal(wire.leases().renew(unknown).await);
    assert_eq!((got.code, got.reason.as_str()), (Code::NotFound, "LEASE_NOT_FOUND"));
    Ok(())
}

#[tokio::test]
async fn lists_watches_and_subscriptions_name_what_is_wrong_with_them() -> anyhow::Result<()> {
    let coordinator = Coordinator::simulate("2x24GiB").await?;
    let wire = Wire::connect(coordinator.endpoint()).await?;
    let check = |got: Refusal, code, reason: &str, field: &str| {
        assert_eq!(
            (got.code, got.reason.as_str(), got.field.as_str()),
            (code, reason, field),
            "{got:?}"
        );
    };
    let list =
        |list: v1::LeaseServiceListRequest| async { refusal(wire.leases().list(list).await) };
    let page = v1::LeaseServiceListRequest { page_size: 1_001, ..Default::default() };
    check(list(page).await, Code::InvalidArgument, "INVALID_FIELD", "page_size");
    let states = v1::LeaseServiceListRequest { states: vec![99], ..Default::default() };
    check(list(states).await, Code::InvalidArgument, "INVALID_FIELD", "states");
    let token = v1::LeaseServiceListRequest { page_token: "nonsense".into(), ..Default::default() };
    check(list(token).await, Code::InvalidArgument, "INVALID_PAGE_TOKEN", "page_token");

    let future = v1::WatchRequest { after_revision: Some(u64::MAX), ..Default::default() };
    let got = refusal(wire.events().watch(future).await);
    check(got, Code::InvalidArgument, "INVALID_FIELD", "after_revision");
    let interval = v1::SubscribeRequest { interval_min: Some(seconds(-1)), ..Default::default() };
    let got = refusal(wire.metrics().subscribe(interval).await);
    check(got, Code::InvalidArgument, "INVALID_FIELD", "interval_min");
    let unknown = v1::DeviceServiceGetRequest { uuid: "GPU-nowhere".into() };
    let got = refusal(wire.devices().get(unknown).await);
    check(got, Code::NotFound, "DEVICE_NOT_FOUND", "");
    let reason = v1::RevokeRequest { lease_id: 1, reason: "x".repeat(1_025) };
    let got = refusal(wire.leases().revoke(reason).await);
    check(got, Code::InvalidArgument, "INVALID_FIELD", "reason");
    Ok(())
}

#[tokio::test]
async fn what_no_node_could_ever_satisfy_is_refused_with_what_excludes_it() -> anyhow::Result<()> {
    let coordinator = Coordinator::simulate("2x24GiB:H100").await?;
    let wire = Wire::connect(coordinator.endpoint()).await?;
    let refused = |spoil: fn(&mut v1::AcquireRequest)| {
        let mut message = v1::AcquireRequest { wait: Some(seconds(600)), ..request("never") };
        spoil(&mut message);
        let wire = wire.clone();
        async move { refusal(soon("the refusal", wire.leases().acquire(message)).await) }
    };
    let got = refused(|request| constraints(request).models = vec!["A100".into()]).await;
    assert_eq!(
        (got.code, got.reason.as_str()),
        (Code::FailedPrecondition, "UNSATISFIABLE"),
        "{got:?}"
    );
    assert_eq!((got.field.as_str(), got.figure("excluded_by_model")), ("constraints.models", "2"));
    let got = refused(|request| ask(request).devices = Some(3)).await;
    assert_eq!(
        (got.reason.as_str(), got.figure("devices_wanted")),
        ("UNSATISFIABLE", "3"),
        "{got:?}"
    );
    let got = refused(|request| ask(request).memory_bytes = Some(wire::GIB << 10)).await;
    assert_eq!(
        (got.reason.as_str(), got.figure("excluded_by_memory")),
        ("UNSATISFIABLE", "2"),
        "{got:?}"
    );
    Ok(())
}
