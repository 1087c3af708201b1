//! Which part of the cluster is simulated, and what each task asks of it.
//!
//! Some tasks want 8 devices of one node, and the trace's first nodes have 2: a slice of the first nodes alone could
//! never serve them. So an eighth of the slice are the first nodes that are wide enough for the widest task, and the
//! rest are the first others, all in the file's order.

use std::time::Duration;

use gpulease::{Constraints, LeaseRequest, Priority};
use gpulease_tests::checker::HostShare;

use super::trace::{Class, Task, TraceNode};
use crate::simulated;

/// Slots of a device: a task's share is given in thousandths.
const SLOTS: u64 = 1_000;
/// One wide node in so many.
const WIDE_EVERY: usize = 8;

/// Chooses the nodes.
pub(super) fn choose(nodes: &[TraceNode], tasks: &[Task], limit: usize) -> Vec<simulated::Node> {
    let widest = tasks.iter().map(|task| task.devices).max().unwrap_or(1);
    let wide_count = limit.div_ceil(WIDE_EVERY);
    let (wide, narrow): (Vec<_>, Vec<_>) = nodes.iter().partition(|node| node.gpu >= widest);
    let others = narrow.iter().chain(wide.iter().skip(wide_count));
    let chosen = wide.iter().take(wide_count).chain(others).take(limit);
    chosen.filter(|node| node.gpu > 0).map(|node| simulated_node(node)).collect()
}

fn simulated_node(node: &TraceNode) -> simulated::Node {
    simulated::Node {
        name: node.sn.clone(),
        host: HostShare { cpu_millis: node.cpu_milli, memory_bytes: node.memory_mib << 20 },
        devices: node.gpu as usize,
        model: node.model.clone(),
        slots: SLOTS,
    }
}

/// Whether some node could hold the task if it were empty: what P13 decides, decided here without it.
pub(super) fn satisfiable(nodes: &[simulated::Node], task: &Task) -> bool {
    let wanted = host(task);
    nodes.iter().any(|node| {
        let models = &task.models;
        node.devices >= task.devices as usize
            && node.host.cpu_millis >= wanted.cpu_millis
            && node.host.memory_bytes >= wanted.memory_bytes
            && (models.is_empty() || models.contains(&node.model))
    })
}

/// What a task takes of its node.
pub(super) fn host(task: &Task) -> HostShare {
    HostShare { cpu_millis: task.cpu_millis, memory_bytes: task.memory_mib << 20 }
}

/// The class of service as a priority.
pub(super) const fn priority(class: Class) -> Priority {
    match class {
        Class::Ls => Priority::Immediate,
        Class::Guaranteed | Class::Burstable => Priority::Normal,
        Class::Be => Priority::Background,
    }
}

/// What a task asks for.
pub(super) fn request(task: &Task, ttl: Duration, wait: Duration) -> LeaseRequest {
    let host = host(task);
    let constraints = Constraints {
        models: task.models.clone(),
        same_node: task.devices > 1,
        host_cpu_millis: host.cpu_millis,
        host_memory_bytes: host.memory_bytes,
        ..Constraints::default()
    };
    let shared = task.devices == 1 && u64::from(task.gpu_milli) < SLOTS;
    let ask = if shared {
        LeaseRequest::slots(task.gpu_milli)
    } else {
        LeaseRequest::exclusive().devices(task.devices)
    };
    ask.constraints(constraints)
        .priority(priority(task.class))
        .request_id(&task.name)
        .ttl(ttl)
        .wait(wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, gpu: u32) -> TraceNode {
        let (cpu_milli, memory_mib) = (8_000, 1_024);
        TraceNode { sn: name.to_owned(), cpu_milli, memory_mib, gpu, model: "T4".to_owned() }
    }

    fn task(devices: u32) -> Task {
        Task {
            name: "task".to_owned(),
            cpu_millis: 4_000,
            memory_mib: 512,
            devices,
            gpu_milli: 1_000,
            models: Vec::new(),
            class: Class::Ls,
            arrival: 0.0,
            run_seconds: 1.0,
        }
    }

    #[test]
    fn a_slice_has_a_wide_node_first_and_then_the_files_first() {
        let nodes = [node("a", 2), node("b", 2), node("c", 8), node("d", 8), node("e", 2)];
        let names = |limit| {
            let chosen = choose(&nodes, &[task(8)], limit);
            chosen.into_iter().map(|node| node.name).collect::<Vec<_>>()
        };
        assert_eq!(names(3), ["c", "a", "b"]);
        assert_eq!(names(5), ["c", "a", "b", "e", "d"]);
    }

    #[test]
    fn a_task_is_satisfiable_by_one_node_alone() {
        let nodes: Vec<_> = [node("a", 2), node("b", 2)].iter().map(simulated_node).collect();
        assert!(satisfiable(&nodes, &task(2)));
        assert!(!satisfiable(&nodes, &task(4)));
        assert!(!satisfiable(&nodes, &Task { cpu_millis: 9_000, ..task(1) }));
        assert!(!satisfiable(&nodes, &Task { models: vec!["A10".to_owned()], ..task(1) }));
    }
}
