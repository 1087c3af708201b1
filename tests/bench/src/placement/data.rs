//! Reading a folder of cluster traces: nodes, pod lists, arrival orders, and published results where there are any.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufReader, Read as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow, bail};
use flate2::read::MultiGzDecoder;
use gpulease_core::{
    id::Name,
    inventory::{DeviceFacts, NodeFacts},
    placement::Demand,
    request::{Ask, Constraints, Share},
};
use serde::Deserialize;

/// A whole device in the trace's unit.
pub(super) const WHOLE_MILLI: u32 = 1_000;

/// A node of the trace.
#[derive(Debug, Deserialize)]
pub(super) struct NodeRow {
    sn: String,
    cpu_milli: u64,
    memory_mib: u64,
    gpu: u32,
    model: String,
}

#[derive(Debug, Deserialize)]
struct TaskRow {
    cpu_milli: u64,
    memory_mib: u64,
    num_gpu: u32,
    gpu_milli: u32,
    #[serde(default)]
    gpu_spec: String,
}

/// A task of a workload.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) ask: Ask,
    pub(super) constraints: Constraints,
    /// Devices asked for, in thousandths.
    pub(super) milli: u64,
}

impl Task {
    pub(super) fn demand(&self) -> Demand<'_> {
        Demand { ask: self.ask, constraints: &self.constraints }
    }

    fn of(row: &TaskRow) -> Self {
        let devices = row.num_gpu;
        let whole = devices != 1 || row.gpu_milli >= WHOLE_MILLI;
        let share = if whole {
            Share::Exclusive
        } else {
            Share::Part { slots: Some(row.gpu_milli), memory_bytes: None }
        };
        let models = row.gpu_spec.split('|').filter(|model| devices > 0 && !model.is_empty());
        let each = if whole { WHOLE_MILLI } else { row.gpu_milli };
        Self {
            ask: Ask { devices, share },
            constraints: Constraints {
                models: models.map(Name::new).collect(),
                same_node: true,
                host_cpu_millis: row.cpu_milli,
                host_memory_bytes: row.memory_mib << 20,
                ..Constraints::default()
            },
            milli: u64::from(devices) * u64::from(each),
        }
    }
}

/// A pod list with its arrival orders.
#[derive(Debug)]
pub(super) struct Workload {
    pub(super) name: String,
    pub(super) tasks: Vec<Task>,
    /// By seed: numbers of tasks, in order of arrival.
    pub(super) arrivals: BTreeMap<u64, Vec<usize>>,
}

/// What a folder holds.
pub(super) struct Folder(PathBuf);

const NODES: &str = "openb_node_list_gpu_node.csv";
const PODS: &str = "openb_pod_list_";
const ARRIVALS: (&str, &str) = ("arrivals_", ".csv.gz");
const PUBLISHED: &str = "fgd_published_alloc.csv";

impl Folder {
    /// A folder of traces, or one that has such a folder in it as `openb`.
    pub(super) fn new(path: &Path) -> Self {
        let below = path.join("openb");
        let is_below = !path.join(NODES).exists() && below.join(NODES).exists();
        Self(if is_below { below } else { path.to_owned() })
    }

    /// The nodes with devices.
    pub(super) fn nodes(&self) -> anyhow::Result<Vec<NodeRow>> {
        let nodes = rows(&self.0.join(NODES))?;
        if nodes.is_empty() {
            bail!("{NODES} in {} names no node", self.0.display());
        }
        Ok(nodes)
    }

    /// The names of the workloads that have both a pod list and arrival orders.
    pub(super) fn workloads(&self) -> anyhow::Result<Vec<String>> {
        let reading = || format!("list {}", self.0.display());
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.0).with_context(reading)? {
            let file = entry.with_context(reading)?.file_name().to_string_lossy().into_owned();
            let name = file.strip_prefix(ARRIVALS.0).and_then(|it| it.strip_suffix(ARRIVALS.1));
            names.extend(name.filter(|name| self.pods(name).exists()).map(str::to_owned));
        }
        names.sort();
        if names.is_empty() {
            bail!("{} holds no arrivals_X.csv.gz with an {PODS}X.csv", self.0.display());
        }
        Ok(names)
    }

    fn pods(&self, name: &str) -> PathBuf {
        self.0.join(format!("{PODS}{name}.csv"))
    }

    pub(super) fn workload(&self, name: &str) -> anyhow::Result<Workload> {
        let tasks: Vec<TaskRow> = rows(&self.pods(name))?;
        let tasks: Vec<Task> = tasks.iter().map(Task::of).collect();
        let path = self.0.join(format!("{}{name}{}", ARRIVALS.0, ARRIVALS.1));
        let arrivals =
            arrivals(&path, tasks.len()).with_context(|| format!("read {}", path.display()))?;
        Ok(Workload { name: name.to_owned(), tasks, arrivals })
    }

    /// Mean of the published rows of each policy and workload, by percent arrived; nothing where the folder has none.
    pub(super) fn published(&self) -> anyhow::Result<Published> {
        let path = self.0.join(PUBLISHED);
        if path.exists() {
            Published::read(&path).with_context(|| format!("read {}", path.display()))
        } else {
            Ok(Published::default())
        }
    }
}

fn rows<T: for<'de> Deserialize<'de>>(path: &Path) -> anyhow::Result<Vec<T>> {
    let reading = || format!("read {}", path.display());
    let mut reader = csv::Reader::from_path(path).with_context(reading)?;
    reader.deserialize().collect::<Result<Vec<T>, _>>().with_context(reading)
}

fn arrivals(path: &Path, tasks: usize) -> anyhow::Result<BTreeMap<u64, Vec<usize>>> {
    let mut text = String::new();
    MultiGzDecoder::new(BufReader::new(File::open(path)?)).read_to_string(&mut text)?;
    let mut by_seed = BTreeMap::new();
    for line in text.lines().skip(1).filter(|line| !line.is_empty()) {
        let (seed, order) =
            line.split_once(',').ok_or_else(|| anyhow!("a line without a comma"))?;
        let mut numbers = Vec::new();
        for number in order.split_ascii_whitespace() {
            let number: usize = number.parse().with_context(|| format!("the number {number}"))?;
            if number >= tasks {
                bail!("task {number} of {tasks} arrives");
            }
            numbers.push(number);
        }
        by_seed.insert(seed.parse().with_context(|| format!("the seed {seed}"))?, numbers);
    }
    if by_seed.is_empty() {
        bail!("no arrival order in it");
    }
    Ok(by_seed)
}

/// What was published: percent allocated, by workload and policy, for each percent arrived.
#[derive(Debug, Default)]
pub(super) struct Published(BTreeMap<(String, String), Vec<f64>>);

impl Published {
    fn read(path: &Path) -> anyhow::Result<Self> {
        let mut sums: BTreeMap<(String, String), (Vec<f64>, u32)> = BTreeMap::new();
        let mut reader = csv::Reader::from_path(path)?;
        for record in reader.records() {
            let record = record?;
            let field = |at: usize| record.get(at).ok_or_else(|| anyhow!("a short row"));
            let workload = field(0)?.strip_prefix(PODS).unwrap_or(field(0)?).to_owned();
            let policy = field(1)?.split_once('-').map_or(field(1)?, |(_, name)| name).to_owned();
            let (sum, rows) = sums.entry((workload, policy)).or_default();
            for (at, value) in record.iter().skip(5).enumerate() {
                // A percentage at which nothing arrived is left empty.
                let value: f64 = if value.is_empty() { f64::NAN } else { value.parse()? };
                if sum.len() <= at {
                    sum.push(0.0);
                }
                sum[at] += value;
            }
            *rows += 1;
        }
        let mean =
            |(sum, rows): (Vec<f64>, u32)| sum.iter().map(|it| it / f64::from(rows)).collect();
        Ok(Self(sums.into_iter().map(|(key, sum)| (key, mean(sum))).collect()))
    }

    /// The mean over the seeds.
    pub(super) fn curve(&self, workload: &str, policy: &str) -> Option<&[f64]> {
        self.0.get(&(workload.to_owned(), policy.to_owned())).map(Vec::as_slice)
    }

    /// One of its values.
    pub(super) fn at(&self, workload: &str, policy: &str, percent: usize) -> Option<f64> {
        self.curve(workload, policy)?.get(percent).copied().filter(|value| value.is_finite())
    }
}

impl NodeRow {
    /// What the core is told of it.
    pub(super) fn facts(&self) -> (NodeFacts, Vec<DeviceFacts>) {
        let device = |index: u32| DeviceFacts {
            uuid: Name::new(&format!("{}/{index}", self.sn)),
            index,
            pci_address: None,
            vendor: "nvidia".into(),
            model: Name::new(&self.model),
            compute_capability: None,
            frameworks: Vec::new(),
            // A slot is a thousandth of the device, and so many bytes: both shares are always equal.
            memory_total_bytes: u64::from(WHOLE_MILLI) << 24,
            memory_driver_bytes: 0,
            memory_limit_bytes: None,
            memory_reserve_bytes: 0,
            slots: WHOLE_MILLI,
            answers_at_once: true,
        };
        let node = NodeFacts {
            name: Name::new(&self.sn),
            boot_id: "boot".into(),
            labels: BTreeMap::new(),
            host_cpu_millis: self.cpu_milli,
            host_memory_bytes: self.memory_mib << 20,
        };
        (node, (0..self.gpu).map(device).collect())
    }

    pub(super) const fn devices(&self) -> u32 {
        self.gpu
    }
}
