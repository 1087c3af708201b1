//! Requests from the wire: each bad one names the field, the value and what would do.

use gpulease_core::{
    input::TargetName,
    request::{InvalidField, Priority, Share, TTL_DEFAULT},
    time::{Span, Time},
};
use gpulease_proto::v1;

use super::{
    Display, duration, extension as extension_of, from_span, request, state_filter, target,
    text_within_bytes, work,
};
use crate::{
    api::{limits::REASON_BYTES_MAX, peer::Peer},
    telemetry::operations::Work,
};

fn good() -> v1::AcquireRequest {
    v1::AcquireRequest {
        service: "training".to_owned(),
        holder: "worker-1".to_owned(),
        request_id: "job".to_owned(),
        ask: Some(v1::Ask { memory_bytes: Some(1), ..v1::Ask::default() }),
        ..v1::AcquireRequest::default()
    }
}

fn ask(ask: v1::Ask) -> v1::AcquireRequest {
    v1::AcquireRequest { ask: Some(ask), ..good() }
}

fn constraints(constraints: v1::Constraints) -> v1::AcquireRequest {
    v1::AcquireRequest { constraints: Some(constraints), ..good() }
}

fn lasting(seconds: i64, nanos: i32) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos })
}

/// Checks that a request is refused for this field, with this in the value and this in the bound.
fn check(wire: &v1::AcquireRequest, field: &str, value: &str, bound: &str) {
    let invalid = request(wire, None, &Peer::Remote).expect_err(field);
    assert_eq!(invalid.field, field, "{invalid}");
    assert!(invalid.value.contains(value), "{invalid}");
    assert!(invalid.bound.contains(bound), "{invalid}");
    assert!(invalid.to_string().len() < 400, "{invalid}");
}

#[test]
fn what_is_absent_has_the_defaults_of_the_contract() {
    let request = request(&good(), None, &Peer::Remote).unwrap();
    assert_eq!((request.ask.devices, request.priority), (1, Priority::Normal));
    assert_eq!((request.ttl, request.wait), (TTL_DEFAULT, Span::ZERO));
    assert_eq!((&request.name, request.lifetime_max), (&None, None));
    let part = Share::Part { slots: None, memory_bytes: Some(1) };
    assert_eq!(request.ask.share, part);
}

#[test]
fn texts_out_of_bounds_are_refused() {
    let long = "x".repeat(129);
    let endless = "x".repeat(1 << 20);
    let with = |change: fn(&mut v1::AcquireRequest, String), text: &str| {
        let mut wire = good();
        change(&mut wire, text.to_owned());
        wire
    };
    let service = |text: &str| with(|wire, text| wire.service = text, text);
    check(&service(""), "service", "empty", "1 to 128 bytes");
    check(&service(&long), "service", "129 bytes long", "1 to 128 bytes");
    check(&service(&endless), "service", "1048576 bytes long", "1 to 128 bytes");
    check(&service("a\nb"), "service", "a\\nb", "control characters");
    check(&service("a\u{85}b"), "service", "u{85}", "control characters");
    let holder = |text: &str| with(|wire, text| wire.holder = text, text);
    check(&holder(&endless), "holder", "1048576", "128");
    let id = |text: &str| with(|wire, text| wire.request_id = text, text);
    check(&id(""), "request_id", "empty", "1 to 128");
    check(&id(&long), "request_id", "129", "128");
    check(&with(|wire, text| wire.name = text, &endless), "name", "1048576", "128");
}

#[test]
fn asks_out_of_bounds_are_refused() {
    let some = v1::Ask { memory_bytes: Some(1), ..v1::Ask::default() };
    check(&v1::AcquireRequest { ask: None, ..good() }, "ask", "absent", "memory_bytes");
    check(&ask(v1::Ask::default()), "ask", "empty", "exclusive");
    check(&ask(v1::Ask { devices: Some(0), ..some }), "ask.devices", "0", "1 to 1024");
    check(&ask(v1::Ask { devices: Some(1_025), ..some }), "ask.devices", "1025", "1 to 1024");
    check(&ask(v1::Ask { slots: Some(0), ..some }), "ask.slots", "0", "1 to 1000000");
    check(&ask(v1::Ask { slots: Some(u32::MAX), ..some }), "ask.slots", "4294967295", "1000000");
    check(&ask(v1::Ask { memory_bytes: Some(0), ..some }), "ask.memory_bytes", "0", "1 to");
    let absurd = v1::Ask { memory_bytes: Some(u64::MAX), ..some };
    check(&ask(absurd), "ask.memory_bytes", "18446744073709551615", "1125899906842624");
    check(&ask(v1::Ask { exclusive: true, ..some }), "ask", "with memory_bytes", "exclusive");
    let both = v1::Ask { exclusive: true, slots: Some(1), ..v1::Ask::default() };
    check(&ask(both), "ask", "with slots", "exclusive");
}

#[test]
fn durations_out_of_bounds_are_refused() {
    let ttl = |ttl| v1::AcquireRequest { ttl, ..good() };
    check(&ttl(lasting(1, 999_000_000)), "ttl", "1.999s", "2s to 86400s");
    check(&ttl(lasting(86_400, 1)), "ttl", "86400.000000001s", "2s to 86400s");
    check(&ttl(lasting(-5, 0)), "ttl", "-5s", "2s to");
    check(&ttl(lasting(0, -500_000_000)), "ttl", "-0.5s", "2s to");
    check(&ttl(lasting(30, 1_000_000_000)), "ttl", "1000000000 ns", "2s to");
    check(&ttl(lasting(30, -1)), "ttl", "30 s and -1 ns", "2s to");
    check(&ttl(lasting(i64::MAX, 999_999_999)), "ttl", "9223372036854775807", "86400s");
    check(&ttl(lasting(i64::MIN, i32::MIN)), "ttl", "-9223372036854775808", "2s to");
    let wait = v1::AcquireRequest { wait: lasting(30 * 86_400 + 1, 0), ..good() };
    check(&wait, "wait", "2592001s", "0s to 2592000s");
    let expected = v1::AcquireRequest { expected_duration: lasting(-1, 0), ..good() };
    check(&expected, "expected_duration", "-1s", "0s to");
    let lifetime = v1::AcquireRequest { lifetime_max: lasting(1, 0), ..good() };
    check(&lifetime, "lifetime_max", "1s", "2s to");
    let hold = |minimum_hold| v1::AcquireRequest { minimum_hold, ..good() };
    check(&hold(lasting(-1, 0)), "minimum_hold", "-1s", "0s to 86400s");
    check(&hold(lasting(86_400, 1_000_000)), "minimum_hold", "86400.001s", "0s to 86400s");
}

#[test]
fn ways_to_preempt_processes_and_traces_out_of_bounds_are_refused() {
    for number in [4, 99, -1, i32::MIN] {
        let wire = v1::AcquireRequest { preemptible: number, ..good() };
        check(&wire, "preemptible", &number.to_string(), "PREEMPTIBLE_PAUSE (2)");
    }
    let process = Some(v1::Process { pid: 77, started_ticks: None });
    check(&v1::AcquireRequest { process, ..good() }, "process.pid", "77", "Unix socket");
    let local = Peer::Local { uid: 0, pid: None };
    let gone = Some(v1::Process { pid: u32::MAX, started_ticks: None });
    let invalid = request(&v1::AcquireRequest { process: gone, ..good() }, None, &local);
    let invalid = invalid.expect_err("no process has this id");
    assert_eq!((&*invalid.field, invalid.value.as_str()), ("process.pid", "4294967295"));
    assert!(invalid.bound.contains("runs on this host"), "{invalid}");
    let trace = v1::AcquireRequest { trace_parent: "x".repeat(56), ..good() };
    check(&trace, "trace_parent", "56 bytes long", "at most 55 bytes");
}

/// Checks a refusal of something else than a request.
fn refused<T: std::fmt::Debug>(
    checked: Result<T, InvalidField>,
    field: &str,
    value: &str,
    bound: &str,
) {
    let invalid = checked.expect_err(field);
    assert_eq!(invalid.field, field, "{invalid}");
    assert!(invalid.value.contains(value) && invalid.bound.contains(bound), "{invalid}");
}

#[test]
fn extensions_targets_and_reasons_out_of_bounds_are_refused() {
    let extend = |extension| {
        extension_of(&v1::ExtendNoticeRequest { extension, ..v1::ExtendNoticeRequest::default() })
    };
    assert_eq!(extend(lasting(5, 0)), Ok(Span::from_secs(5)));
    refused(extend(None), "extension", "absent", "1ms to 86400s");
    refused(extend(lasting(0, 0)), "extension", "0s", "1ms to");
    refused(extend(lasting(-3, 0)), "extension", "-3s", "1ms to");
    refused(extend(lasting(86_401, 0)), "extension", "86401s", "to 86400s");
    let named = |target| v1::Target { target: Some(target) };
    let device = |uuid: &str| named(v1::target::Target::DeviceUuid(uuid.to_owned()));
    let node = |name: &str| named(v1::target::Target::Node(name.to_owned()));
    assert_eq!(target(Some(&device("GPU-1"))), Ok(TargetName::Device("GPU-1".into())));
    refused(target(None), "target", "absent", "device_uuid or node");
    refused(target(Some(&v1::Target { target: None })), "target", "absent", "device_uuid or node");
    refused(target(Some(&device(""))), "target.device_uuid", "empty", "1 to 256");
    refused(target(Some(&device("a\tb"))), "target.device_uuid", "a\\tb", "control characters");
    refused(target(Some(&node(&"x".repeat(257)))), "target.node", "257 bytes", "1 to 256");
    let reason = |text: &str| text_within_bytes("reason", text, REASON_BYTES_MAX);
    assert_eq!(reason("").as_deref(), Ok(""));
    refused(reason(&"x".repeat(1_025)), "reason", "1025 bytes long", "at most 1024 bytes");
}

#[test]
fn work_out_of_bounds_is_refused_and_kept_to_the_nanosecond() {
    let told = |count, busy| {
        let operations = Some(v1::Operations { count, busy });
        work(&v1::RenewRequest { operations, ..v1::RenewRequest::default() })
    };
    assert_eq!(work(&v1::RenewRequest::default()), Ok(None));
    let done = Work { count: 1_000_000_000_000, busy: std::time::Duration::from_nanos(1) };
    assert_eq!(told(done.count, lasting(0, 1)), Ok(Some(done)));
    assert_eq!(told(0, None), Ok(Some(Work::default())));
    refused(
        told(1_000_000_000_001, None),
        "operations.count",
        "1000000000001",
        "0 to 1000000000000",
    );
    refused(told(1, lasting(-1, 0)), "operations.busy", "-1s", "0s to 31536000s");
    refused(told(1, lasting(31_536_000, 1)), "operations.busy", "31536000.000000001s", "31536000s");
    refused(told(1, lasting(1, -1)), "operations.busy", "1 s and -1 ns", "31536000s");
}

#[test]
fn unknown_priorities_name_the_allowed_ones() {
    for number in [4, 99, -1, i32::MAX, i32::MIN] {
        let wire = v1::AcquireRequest { priority: number, ..good() };
        check(&wire, "priority", &number.to_string(), "PRIORITY_IMMEDIATE (3)");
    }
}

#[test]
fn constraints_out_of_bounds_are_refused() {
    let texts = |count: usize, length: usize| vec!["x".repeat(length); count];
    let models = |models| constraints(v1::Constraints { models, ..v1::Constraints::default() });
    check(&models(texts(65, 1)), "constraints.models", "65 entries", "at most 64");
    check(&models(texts(1_000_000, 0)), "constraints.models", "1000000 entries", "at most 64");
    check(&models(texts(1, 257)), "constraints.models", "257 bytes long", "1 to 256");
    check(&models(texts(1, 0)), "constraints.models", "empty", "1 to 256");
    let all = v1::Constraints {
        models: texts(64, 200),
        node_deny: texts(64, 200),
        ..v1::Constraints::default()
    };
    check(&constraints(all), "constraints", "25600 bytes", "4096 bytes");
    let labels = (0..65).map(|number| (number.to_string(), String::new())).collect();
    let many = v1::Constraints { node_labels: labels, ..v1::Constraints::default() };
    check(&constraints(many), "constraints.node_labels", "65 entries", "at most 64");
    let cpu = v1::Constraints { host_cpu_millis: u64::MAX, ..v1::Constraints::default() };
    check(&constraints(cpu), "constraints.host_cpu_millis", "18446744073709551615", "1000000000");
    let vendor = v1::Constraints { vendor: "\u{0}".to_owned(), ..v1::Constraints::default() };
    check(&constraints(vendor), "constraints.vendor", "\\0", "control characters");
}

#[test]
fn a_duration_survives_the_way_out_and_in_and_is_never_shortened() {
    let bounds = (Span::ZERO, Span::from_millis(u64::MAX));
    for millis in [0, 1, 999, 1_000, 30_000, 86_400_001] {
        let span = Span::from_millis(millis);
        assert_eq!(duration("ttl", &from_span(span), bounds), Ok(span));
    }
    let odd = prost_types::Duration { seconds: 2, nanos: 1 };
    assert_eq!(duration("ttl", &odd, bounds), Ok(Span::from_millis(2_001)));
}

#[test]
fn times_are_shown_at_their_distance_from_now() {
    let now = Time::from_millis(1_000_000);
    let display = Display::at(now);
    let (past, next) = (Time::from_millis(990_000), Time::from_millis(1_005_000));
    let seconds = |time| display.timestamp(time).seconds;
    assert_eq!(seconds(now) - seconds(past), 10);
    assert_eq!(seconds(next) - seconds(now), 5);
    assert_eq!(seconds(Time::NEVER), 253_402_300_799, "the last second of the year 9999");
}

#[test]
fn a_filter_of_states_shows_what_it_names_and_by_default_all_that_live() {
    use gpulease_core::lease::{EndReason, State};
    let states = [
        State::Queued,
        State::Active,
        State::Reclaiming(EndReason::Expired),
        State::Ended(EndReason::Expired),
    ];
    let shown = |filter: &[i32]| {
        let filter = state_filter(filter).unwrap();
        states.map(|state| filter.shows(state))
    };
    assert_eq!(shown(&[]), [true, true, true, false]);
    assert_eq!(shown(&[v1::LeaseState::Ended.into()]), [false, false, false, true]);
    assert_eq!(shown(&[1, 5]), [true, false, true, false]);
    for wrong in [0, 7, -1] {
        assert!(state_filter(&[wrong]).unwrap_err().bound.contains("LEASE_STATE_ACTIVE (2)"));
    }
    assert!(state_filter(&[1; 13]).is_err());
}
