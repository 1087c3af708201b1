//! The words of a command: sizes, spans, lists, and the request that `acquire` makes of them.

use std::collections::BTreeMap;

use gpulease_core::{
    id::{Holder, Name},
    request::{
        Affinity, AffinityScope, Ask, Constraints, PlacementPolicy, Preemptible, Priority,
        RequestFields, Share,
    },
    time::Span,
};

use crate::world::process;

/// `key=value` and bare words of a command.
pub(crate) struct Words<'a> {
    pub(crate) words: Vec<&'a str>,
}

impl<'a> Words<'a> {
    pub(crate) fn word(&self, index: usize) -> &'a str {
        let bare = self.words.iter().filter(|word| !word.contains('='));
        bare.copied()
            .nth(index)
            .unwrap_or_else(|| panic!("word {index} is missing in {:?}", self.words))
    }

    pub(crate) fn value(&self, key: &str) -> Option<&'a str> {
        self.words.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    }

    pub(crate) fn has(&self, flag: &str) -> bool {
        self.words.contains(&flag)
    }

    pub(crate) fn number(&self, key: &str) -> Option<u64> {
        self.value(key)
            .map(|value| value.parse().unwrap_or_else(|_| panic!("{key}={value} is no number")))
    }
}

/// `8GiB`, `512MiB`.
pub(crate) fn bytes(text: &str) -> u64 {
    let (number, shift) = match (text.strip_suffix("GiB"), text.strip_suffix("MiB")) {
        (Some(number), _) => (number, 30),
        (_, Some(number)) => (number, 20),
        _ => (text, 0),
    };
    number.parse::<u64>().unwrap_or_else(|_| panic!("{text} is no size")) << shift
}

/// `10s`, `5m`, `2h`, `250ms`.
pub(crate) fn span(text: &str) -> Span {
    let parse =
        |number: &str| number.parse::<u64>().unwrap_or_else(|_| panic!("{text} is no duration"));
    if let Some(number) = text.strip_suffix("ms") {
        Span::from_millis(parse(number))
    } else if let Some(number) = text.strip_suffix('s') {
        Span::from_secs(parse(number))
    } else if let Some(number) = text.strip_suffix('m') {
        Span::from_minutes(parse(number))
    } else if let Some(number) = text.strip_suffix('h') {
        Span::from_minutes(parse(number) * 60)
    } else {
        panic!("{text} is no duration")
    }
}

pub(crate) fn names(words: &Words<'_>, key: &str) -> Vec<Name> {
    words.value(key).map(|value| value.split(',').map(Name::new).collect()).unwrap_or_default()
}

pub(crate) fn node_of(uuid: &str) -> String {
    uuid.split('/').next().unwrap_or(uuid).to_owned()
}

pub(crate) fn holder(text: &str) -> Holder {
    let (service, name) = text.split_once('/').unwrap_or((text, text));
    Holder { service: service.into(), name: name.into() }
}

pub(crate) fn labels(words: &Words<'_>) -> BTreeMap<Name, Name> {
    let pair = |text: &str| text.split_once(':').map(|(key, value)| (key.into(), value.into()));
    words.value("label").and_then(pair).into_iter().collect()
}

pub(crate) fn request(alias: &str, words: &Words<'_>) -> RequestFields {
    let slots = words.number("slots").map(|slots| u32::try_from(slots).expect("few slots"));
    let memory_bytes = words.value("memory").map(bytes);
    let share =
        if words.has("exclusive") { Share::Exclusive } else { Share::Part { slots, memory_bytes } };
    let priority = match words.value("priority") {
        None | Some("normal") => Priority::Normal,
        Some("background") => Priority::Background,
        Some("immediate") => Priority::Immediate,
        Some(other) => panic!("{other} is no priority"),
    };
    RequestFields {
        holder: Holder {
            service: words.value("service").unwrap_or("service").into(),
            name: words.value("holder").unwrap_or("holder").into(),
        },
        request_id: words.value("id").unwrap_or(alias).into(),
        name: words.value("name").map(Name::new),
        ask: Ask {
            devices: u32::try_from(words.number("devices").unwrap_or(1)).expect("few"),
            share,
        },
        constraints: Constraints {
            models: names(words, "models"),
            device_allow: names(words, "allow"),
            device_deny: names(words, "deny"),
            node_allow: names(words, "nodes"),
            node_deny: names(words, "notnodes"),
            node_labels: labels(words),
            preferred_device: words.value("prefer").map(Name::new),
            same_node: words.has("same-node"),
            framework: words.value("framework").map(Name::new),
            affinity: affinity(words),
            host_cpu_millis: words.number("cpu").unwrap_or(0),
            host_memory_bytes: words.value("hostmem").map_or(0, bytes),
            ..Constraints::default()
        },
        priority,
        ttl: words.value("ttl").map_or(Span::from_secs(30), span),
        wait: words.value("wait").map_or(Span::ZERO, span),
        expected_duration: words.value("expect").map(span),
        lifetime_max: words.value("life").map(span),
        preemptible: match words.value("preemptible") {
            None | Some("never") => Preemptible::Never,
            Some("pause") => Preemptible::Pause,
            Some("end") => Preemptible::End,
            Some(other) => panic!("{other} is no way to preempt"),
        },
        minimum_hold: words.value("hold").map_or(Span::ZERO, span),
        process: words.number("pid").map(|pid| process(u32::try_from(pid).expect("a process id"))),
        placement: words.value("placement").map(placement),
        pause_cost: words.value("pause-cost").map(span),
    }
}

/// A placement policy by its name.
pub(super) fn placement(text: &str) -> PlacementPolicy {
    let named = PlacementPolicy::ALL.into_iter().find(|policy| policy.name() == text);
    named.unwrap_or_else(|| panic!("{text} is no placement policy"))
}

/// `near=KEY` shares devices with others of the key, `near-node=KEY` nodes.
fn affinity(words: &Words) -> Option<Affinity> {
    let near = |word, scope| words.value(word).map(|key| Affinity { key: Name::new(key), scope });
    near("near", AffinityScope::Device).or_else(|| near("near-node", AffinityScope::Node))
}
