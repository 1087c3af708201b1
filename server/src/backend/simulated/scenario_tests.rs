//! Scenario files, good and bad: what they mean, and what is said of a bad one.

use gpulease_core::time::Time;

use super::super::plan::{Act, DeviceAt, Event};
use super::*;

const EXAMPLE: &str = include_str!("example.toml");

fn plan(text: &str) -> Plan {
    parse(text, &DeviceDefaults::default()).unwrap()
}

/// A bad scenario: the line, the key and a part of what is said.
fn check(text: &str, line: usize, key: Option<&str>, problem: &str) {
    let flaw = parse(text, &DeviceDefaults::default()).unwrap_err();
    let error = flaw.into_error(Path::new("bad.toml"), text);
    let message = error.to_string();
    let BackendError::Scenario { line: found_line, key: found_key, .. } = error else {
        panic!("{text}: {message}")
    };
    assert_eq!((found_line, found_key.as_deref()), (line, key), "{text}\n{message}");
    assert!(message.contains(problem), "{text}\n{message}");
    assert!(message.starts_with(&format!("bad.toml:{line}: ")), "{message}");
}

/// A bad event on line 5 and after, beside one good node.
fn check_event(event: &str, line: usize, key: &str, problem: &str) {
    let text = format!(
        "[[node]]\nname = \"a\"\ndevices = {{ memory = \"8GiB\" }}\n[[event]]\nat = \"1s\"\n{event}\n"
    );
    check(&text, line, Some(key), problem);
}

#[test]
fn the_example_says_what_its_comments_say() {
    let plan = plan(EXAMPLE);
    assert_eq!((plan.seed, plan.random_utilization), (7, true));
    let [alpha, beta, gamma] = &plan.nodes[..] else { panic!("{:?}", plan.nodes) };
    assert_eq!(alpha.facts.boot_id.as_str(), "alpha-first-boot");
    assert_eq!(alpha.facts.labels.len(), 2);
    assert_eq!(alpha.devices[7].facts.uuid.as_str(), "SIM-alpha-7");
    assert_eq!(alpha.devices[7].facts.slots, 8, "64 CPUs for 8 devices");
    assert_eq!(beta.facts.boot_id.as_str(), "sim-7-beta");
    let t4 = &beta.devices[1].facts;
    assert_eq!((t4.compute_capability, t4.slots), (Some((7, 5)), 4));
    assert_eq!(t4.memory_ceiling_bytes(), 15 << 30);
    assert_eq!(gamma.facts.host_memory_bytes, 256 << 30);
    assert_eq!(gamma.devices[0].facts.model.as_str(), "SIM");
    assert!(!gamma.devices[0].sensors);
}

#[test]
fn events_come_in_order_of_time_with_their_ends() {
    let plan = plan(EXAMPLE);
    assert!(plan.events.is_sorted_by_key(|event| event.at));
    let at = |secs: u64| Time::from_millis(secs * 1_000);
    let foreign = DeviceAt { node: 0, device: 0 };
    for expected in [
        Event { at: at(10), act: Act::ForeignMemory(foreign, 3 << 30) },
        Event { at: at(30), act: Act::ForeignMemory(foreign, 0) },
        Event { at: at(50), act: Act::DeviceBack(DeviceAt { node: 1, device: 1 }) },
        Event { at: at(120), act: Act::NodeSilent(1) },
        Event { at: at(165), act: Act::Reboot(1) },
    ] {
        assert!(plan.events.contains(&expected), "{expected:?} is missing");
    }
}

#[test]
fn a_group_and_single_devices_share_one_count_of_indexes() {
    let plan = plan(
        "[[node]]\nname = \"a\"\ndevices = { count = 2, memory = \"8GiB\" }\n[[node.device]]\nmemory = \"9GiB\"\n",
    );
    let uuids: Vec<_> =
        plan.nodes[0].devices.iter().map(|device| device.facts.uuid.as_str()).collect();
    assert_eq!(uuids, ["SIM-a-0", "SIM-a-1", "SIM-a-2"]);
}

#[test]
fn a_node_may_have_no_devices() {
    assert!(plan("[[node]]\nname = \"cpu-only\"\n").nodes[0].devices.is_empty());
}

#[test]
fn bad_toml_is_refused_with_its_line() {
    check("", 1, Some("node"), "no node");
    check("seed = 1\nsee = 2\n", 2, Some("see"), "unknown field `see`");
    check("seed = -1\n", 1, Some("seed"), "-1");
    check("seed = 1\nseed = 2\n", 2, Some("seed"), "duplicate key");
    check("\n[[node]\n", 2, None, "");
}

#[test]
fn a_bad_node_is_refused_with_its_line_and_key() {
    check("[[node]]\nlabels = {}\n", 1, None, "missing field `name`");
    check("[[node]]\nname = 3\n", 2, Some("name"), "expected a string");
    check("[[node]]\nname = \"\"\n", 2, Some("name"), "no node name");
    check("[[node]]\nname = \"a b\"\n", 2, Some("name"), "no node name");
    check("[[node]]\nname = \"a\"\n[[node]]\nname = \"a\"\n", 4, Some("name"), "two nodes a");
    check("[[node]]\nname = \"a\"\nhost_memory = \"lots\"\n", 3, Some("host_memory"), "24GiB");
    check("[[node]]\nname = \"a\"\nhost_cpu = 3\n", 3, Some("host_cpu"), "host_cpu_millis");
    check("[[node]]\nname = \"a\"\nboot_id = \"\"\n", 3, Some("boot_id"), "1 to 256");
    check("[[node]]\nname = \"a\"\nlabels = { \"\" = \"x\" }\n", 3, Some("labels"), "at most 64");
    let long = format!("[[node]]\nname = \"{}\"\n", "a".repeat(241));
    check(&long, 2, Some("name"), "no node name");
}

#[test]
fn a_bad_device_is_refused_with_its_line_and_key() {
    let bad = |device: &str, key: &str, problem: &str| {
        check(
            &format!("[[node]]\nname = \"a\"\n\n[[node.device]]\n{device}\n"),
            5,
            Some(key),
            problem,
        );
        let inline = device.replace('\n', ", ");
        check(
            &format!("[[node]]\nname = \"a\"\ndevices = {{ {inline} }}\n"),
            3,
            Some(key),
            problem,
        );
    };
    bad("memory = 24", "memory", "expected a size");
    bad("memory = \"24\"", "memory", "not a size");
    bad("memory = \"512MiB\"", "memory", "nothing could be granted");
    bad("count = 0\nmemory = \"8GiB\"", "count", "at least 1");
    bad("count = 1025\nmemory = \"8GiB\"", "count", "at most 1024");
    check(
        "[[node]]\nname = \"a\"\n[[node.device]]\nmemory = \"8GiB\"\nslots = 0\n",
        5,
        Some("slots"),
        "1 to 1000000",
    );
    check(
        "[[node]]\nname = \"a\"\n[[node.device]]\nmemory = \"8GiB\"\ncompute_capability = \"nine\"\n",
        5,
        Some("compute_capability"),
        "9.0",
    );
    check(
        "[[node]]\nname = \"a\"\n[[node.device]]\nmemory = \"8GiB\"\nmodel = \"A/B\"\n",
        5,
        Some("model"),
        "no model",
    );
}

#[test]
fn a_bad_event_is_refused_with_its_line_and_key() {
    check_event("action = \"explode\"", 6, "action", "unknown variant `explode`");
    check_event("action = \"reboot\"", 6, "action", "`node` is missing");
    check_event("action = \"reboot\"\nnode = \"b\"", 7, "node", "no node \"b\"");
    check_event("action = \"reboot\"\nnode = \"a\"\nmemory = \"1GiB\"", 6, "memory", "not take it");
    check_event("action = \"device_lost\"", 6, "action", "`device` is missing");
    check_event("action = \"device_lost\"\ndevice = \"SIM-a-1\"", 7, "device", "such as SIM-a-0");
    check_event("action = \"load\"\ndevice = \"SIM-a-0\"", 6, "action", "`memory` or");
    check_event(
        "action = \"foreign_memory\"\ndevice = \"SIM-a-0\"",
        6,
        "action",
        "`memory` is missing",
    );
    check_event(
        "action = \"load\"\ndevice = \"SIM-a-0\"\nutilization_permille = 1001",
        8,
        "utilization_permille",
        "1001",
    );
    check_event("action = \"reboot\"\nnode = \"a\"\nfor = \"soon\"", 8, "for", "\"10s\"");
    check_event("action = \"reboot\"\nwhen = \"a\"", 7, "when", "unknown field");
}

#[test]
fn a_file_that_is_too_large_or_no_text_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("big.toml");
    std::fs::File::create(&path).unwrap().set_len(FILE_BYTES_MAX + 1).unwrap();
    let defaults = DeviceDefaults::default();
    assert!(matches!(read(&path, &defaults), Err(BackendError::ScenarioUnreadable { .. })));
    std::fs::write(&path, [0xff, 0xfe]).unwrap();
    assert!(matches!(read(&path, &defaults), Err(BackendError::ScenarioUnreadable { .. })));
    assert!(matches!(
        read(directory.path(), &defaults),
        Err(BackendError::ScenarioUnreadable { .. })
    ));
}
