//! The trace: nodes and tasks as the openb files have them, and nothing that gpulease made of it.

use std::{collections::BTreeMap, path::Path};

use anyhow::Context as _;
use serde::Deserialize;

/// A node of the trace.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct TraceNode {
    pub(super) sn: String,
    pub(super) cpu_milli: u64,
    pub(super) memory_mib: u64,
    pub(super) gpu: u32,
    pub(super) model: String,
}

#[derive(Debug, Deserialize)]
struct Row {
    name: String,
    cpu_milli: u64,
    memory_mib: u64,
    num_gpu: u32,
    gpu_milli: u32,
    gpu_spec: String,
    qos: String,
    creation_time: Option<f64>,
    deletion_time: Option<f64>,
    scheduled_time: Option<f64>,
}

/// A task that ran on GPUs and whose times are all known.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Task {
    pub(super) name: String,
    pub(super) cpu_millis: u64,
    pub(super) memory_mib: u64,
    pub(super) devices: u32,
    /// Of one device, in thousandths; 1,000 for whole devices.
    pub(super) gpu_milli: u32,
    /// Any of these will do; none named: any at all.
    pub(super) models: Vec<String>,
    pub(super) class: Class,
    /// Seconds from the start of the trace.
    pub(super) arrival: f64,
    pub(super) run_seconds: f64,
}

/// The trace's class of service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    /// Latency sensitive.
    Ls,
    Guaranteed,
    Burstable,
    /// Best effort.
    Be,
}

impl Class {
    fn parse(text: &str) -> anyhow::Result<Self> {
        Ok(match text {
            "LS" => Self::Ls,
            "Guaranteed" => Self::Guaranteed,
            "Burstable" => Self::Burstable,
            "BE" => Self::Be,
            other => anyhow::bail!("{other:?} is no qos: LS, Guaranteed, Burstable or BE"),
        })
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Ls => "LS",
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::Be => "BE",
        }
    }
}

/// Reads the nodes, in the file's order.
pub(super) fn read_nodes(path: &Path) -> anyhow::Result<Vec<TraceNode>> {
    let reading = || format!("read the nodes of {}", path.display());
    let mut reader = csv::Reader::from_path(path).with_context(reading)?;
    reader.deserialize().collect::<Result<_, _>>().with_context(reading)
}

/// The tasks to replay, in order of arrival, and how many GPU tasks were left out for want of a time.
pub(super) fn read_tasks(path: &Path) -> anyhow::Result<(Vec<Task>, usize)> {
    let reading = || format!("read the tasks of {}", path.display());
    let mut reader = csv::Reader::from_path(path).with_context(reading)?;
    let (mut tasks, mut untimed) = (Vec::new(), 0);
    for row in reader.deserialize() {
        let row: Row = row.with_context(reading)?;
        if row.num_gpu == 0 {
            continue;
        }
        match task(row).with_context(reading)? {
            Some(task) => tasks.push(task),
            None => untimed += 1,
        }
    }
    tasks.sort_by(|one, other| {
        one.arrival.total_cmp(&other.arrival).then_with(|| one.name.cmp(&other.name))
    });
    Ok((tasks, untimed))
}

/// `None`: a time is missing, so that nobody knows how long it ran.
fn task(row: Row) -> anyhow::Result<Option<Task>> {
    let times = (row.creation_time, row.scheduled_time, row.deletion_time);
    let (Some(created), Some(scheduled), Some(deleted)) = times else { return Ok(None) };
    Ok(Some(Task {
        class: Class::parse(&row.qos).with_context(|| format!("task {}", row.name))?,
        name: row.name,
        cpu_millis: row.cpu_milli,
        memory_mib: row.memory_mib,
        devices: row.num_gpu,
        gpu_milli: row.gpu_milli,
        models: row
            .gpu_spec
            .split('|')
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
            .collect(),
        arrival: created,
        run_seconds: (deleted - scheduled).max(0.0),
    }))
}

/// How many tasks there are of each class.
pub(super) fn by_class(tasks: &[Task]) -> BTreeMap<Class, usize> {
    let mut counts = BTreeMap::new();
    for task in tasks {
        *counts.entry(task.class).or_insert(0) += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,creation_time,deletion_time,scheduled_time\n";

    fn tasks(rows: &str) -> (Vec<Task>, usize) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), format!("{HEAD}{rows}")).unwrap();
        read_tasks(file.path()).unwrap()
    }

    #[test]
    fn tasks_come_in_order_of_arrival_with_their_run_times() {
        let (tasks, untimed) = tasks(
            "late,1000,64,1,460,A10|T4,BE,Running,9,30,10\n\
             early,1000,64,2,1000,,LS,Running,3,8,4\n",
        );
        assert_eq!(untimed, 0);
        let found: Vec<_> =
            tasks.iter().map(|task| (task.name.as_str(), task.run_seconds)).collect();
        assert_eq!(found, [("early", 4.0), ("late", 20.0)]);
        assert_eq!(tasks[1].models, ["A10", "T4"]);
    }

    #[test]
    fn tasks_without_gpu_or_times_are_left_out() {
        let (tasks, untimed) =
            tasks("cpu,1000,64,0,0,,LS,Running,0,5,1\npending,1000,64,1,1000,,LS,Pending,3,8,\n");
        assert_eq!((tasks.len(), untimed), (0, 1));
    }
}
