//! Placement by itself: the index against a look at everything anew, and the measure against a naive one.
#![allow(clippy::indexing_slicing, reason = "tests")]

use std::collections::BTreeMap;

use gpulease_core::{
    id::{DeviceId, Name, NodeId},
    inventory::{DeviceFacts, NodeFacts},
    placement::{
        Demand,
        arena::{Arena, Booking, Spot},
    },
    request::{Ask, Constraints, PlacementPolicy, Share},
};

const SLOTS: u32 = 1_000;

/// Numbers that differ from one call to the next, and not from one run to the next.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn of<T: Copy>(&mut self, list: &[T]) -> T {
        let at = self.below(list.len() as u64);
        list[usize::try_from(at).expect("a short list")]
    }
}

fn device(node: u32, index: u32, model: &str) -> DeviceFacts {
    DeviceFacts {
        uuid: Name::new(&format!("n{node}/{index}")),
        index,
        pci_address: None,
        vendor: "simulated".into(),
        model: model.into(),
        compute_capability: None,
        frameworks: Vec::new(),
        memory_total_bytes: u64::from(SLOTS) << 24,
        memory_driver_bytes: 0,
        memory_limit_bytes: None,
        memory_reserve_bytes: 0,
        slots: SLOTS,
        answers_at_once: true,
    }
}

/// A few nodes, no two alike; `mixed`: some have two models.
fn arena(dice: &mut Dice, mixed: bool) -> Arena {
    let mut nodes = Vec::new();
    for number in 0..12 {
        let models =
            if mixed { dice.of(&[["A", "A"], ["B", "B"], ["A", "B"]]) } else { ["A", "A"] };
        let count = u32::try_from(1 + dice.below(4)).expect("few");
        let devices =
            (0..count).map(|index| device(number, index, models[(index % 2) as usize])).collect();
        let facts = NodeFacts {
            name: Name::new(&format!("n{number}")),
            boot_id: "boot".into(),
            labels: BTreeMap::new(),
            host_cpu_millis: 8_000 * (1 + dice.below(4)),
            host_memory_bytes: (16 << 30) * (1 + dice.below(4)),
        };
        nodes.push((facts, devices));
    }
    Arena::new(nodes)
}

fn wish(dice: &mut Dice, models: &[&str]) -> (Ask, Constraints) {
    let part = |slots| Share::Part { slots: Some(slots), memory_bytes: None };
    let (devices, share) = match dice.below(8) {
        0 => (0, Share::Exclusive),
        1 => (2, Share::Exclusive),
        2 | 3 => (1, Share::Exclusive),
        _ => (1, part(dice.of(&[100, 250, 300, 500, 700]))),
    };
    let named =
        if models.is_empty() || dice.below(3) > 0 { Vec::new() } else { vec![dice.of(models)] };
    let constraints = Constraints {
        models: named.into_iter().map(Name::new).collect(),
        same_node: true,
        host_cpu_millis: dice.of(&[0, 1_000, 2_000, 6_000]),
        host_memory_bytes: dice.of(&[0, 0, 1 << 30, 20 << 30, 50 << 30]),
        ..Constraints::default()
    };
    (Ask { devices, share }, constraints)
}

#[test]
fn the_index_remembers_nothing_but_what_a_look_at_everything_gives() {
    for seed in 0..20 {
        let mut dice = Dice(seed);
        let mut arena = arena(&mut dice, true);
        let mut bookings: Vec<Booking> = Vec::new();
        for _ in 0..150 {
            let (ask, constraints) = wish(&mut dice, &["A", "B"]);
            let demand = Demand { ask, constraints: &constraints };
            let policy = dice.of(&PlacementPolicy::ALL);
            let nodes =
                || (0..12).map(NodeId).filter(|id| arena.devices_for(demand, *id).is_some());
            let feasible: Vec<NodeId> = nodes().collect();
            assert_eq!(arena.nodes_for(demand), feasible, "seed {seed}: {demand:?}");
            match arena.place(demand, policy) {
                None => {
                    assert!(feasible.is_empty(), "seed {seed}: {demand:?} fits on {feasible:?}")
                }
                Some(spot) => {
                    let fits = arena.devices_for(demand, spot.node).expect("a node that fits");
                    assert!(
                        spot.devices.iter().all(|id| fits.contains(id)),
                        "seed {seed}: {spot:?}"
                    );
                    assert_eq!(spot.devices.len(), ask.devices as usize);
                    bookings.push(arena.book(demand, spot));
                }
            }
            arena.learn(demand);
            if !bookings.is_empty() && dice.below(3) == 0 {
                let gone = dice.below(bookings.len() as u64);
                arena.give_back(&bookings.swap_remove(usize::try_from(gone).expect("few")));
            }
            arena.verify().unwrap_or_else(|difference| panic!("seed {seed}: {difference}"));
        }
    }
}

/// What is free of a node, by the book of the test.
struct Free {
    cpu: u64,
    milli: Vec<(DeviceId, u64)>,
}

/// F(n), as the paper has it, in floats.
fn unusable(arena: &Arena, cpu: u64, milli: &[u64]) -> f64 {
    let all: u64 = milli.iter().sum();
    let mut sum = 0.0;
    for (class, weight) in arena.mix().popular() {
        let need = match class.ask.share {
            Share::Exclusive => 1_000,
            Share::Part { slots, .. } => u64::from(slots.unwrap_or(0)),
        };
        let fitting = milli.iter().filter(|free| **free >= need).count();
        let devices = class.ask.devices as usize;
        let starts = devices > 0 && fitting >= devices && class.host_cpu_millis <= cpu;
        let small: u64 = milli.iter().filter(|free| **free < need).sum();
        sum += weight as f64 / 65_536.0 * if starts { small as f64 } else { all as f64 };
    }
    sum
}

fn naive(arena: &Arena, free: &[Free], demand: Demand<'_>) -> Option<Spot> {
    let need = match demand.ask.share {
        Share::Exclusive => 1_000,
        Share::Part { slots, .. } => u64::from(slots.unwrap_or(0)),
    };
    let mut best: Option<(f64, Spot)> = None;
    for (number, node) in free.iter().enumerate() {
        let id = NodeId(u32::try_from(number).expect("few nodes"));
        let Some(fitting) = arena.devices_for(demand, id) else { continue };
        let before: Vec<u64> = node.milli.iter().map(|(_, milli)| *milli).collect();
        // Sets of devices to try: each alone, tightest first; several whole ones are the first.
        let mut tried: Vec<Vec<DeviceId>> = match demand.ask.devices {
            0 => vec![Vec::new()],
            1 => fitting.iter().map(|device| vec![*device]).collect(),
            wanted => vec![fitting.iter().copied().take(wanted as usize).collect()],
        };
        let milli = |id: &DeviceId| node.milli.iter().find(|(other, _)| other == id).map(|it| it.1);
        tried.sort_by_key(|devices| devices.first().map(|id| (milli(id), *id)));
        for devices in tried {
            let after: Vec<u64> = (node.milli.iter())
                .map(|(id, milli)| if devices.contains(id) { milli - need } else { *milli })
                .collect();
            let cpu = node.cpu - demand.constraints.host_cpu_millis;
            let shrinks = unusable(arena, node.cpu, &before) - unusable(arena, cpu, &after);
            let score = (100.0 / (1.0 + (-shrinks / 2_500.0).exp())).floor();
            if best.as_ref().is_none_or(|(most, _)| score > *most) {
                best = Some((score, Spot { node: id, devices }));
            }
        }
    }
    best.map(|(_, spot)| spot)
}

#[test]
fn the_default_policy_places_as_a_naive_reading_of_the_paper_does() {
    for seed in 100..120 {
        let mut dice = Dice(seed);
        let mut arena = arena(&mut dice, false);
        for _ in 0..60 {
            let (ask, constraints) = wish(&mut dice, &[]);
            arena.learn(Demand { ask, constraints: &constraints });
        }
        let mut free: Vec<Free> = (arena.inventory().nodes())
            .map(|(_, node)| Free {
                cpu: node.facts.host_cpu_millis,
                milli: node.devices.iter().map(|id| (*id, 1_000)).collect(),
            })
            .collect();
        for at in 0..80 {
            let (ask, constraints) = wish(&mut dice, &[]);
            let demand = Demand { ask, constraints: &constraints };
            let expected = naive(&arena, &free, demand);
            let spot = arena.place(demand, PlacementPolicy::Fragmentation);
            assert_eq!(spot, expected, "seed {seed}, task {at}: {demand:?}");
            let Some(spot) = spot else { continue };
            let node = &mut free[spot.node.0 as usize];
            node.cpu -= constraints.host_cpu_millis;
            for (id, milli) in &mut node.milli {
                if spot.devices.contains(id) {
                    *milli -= match ask.share {
                        Share::Part { slots: Some(slots), .. } => u64::from(slots),
                        _ => 1_000,
                    };
                }
            }
            arena.book(demand, spot);
        }
    }
}
