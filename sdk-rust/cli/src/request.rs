//! The options that describe a lease, shared by `acquire` and `run`, and the request they stand for.
//!
//! Promises: exactly one of the contract's four kinds of request comes out, and options that contradict
//! one another are refused here, by name.
//! Leaves to others: every bound that the coordinator checks; it names the field at fault.

use std::time::Duration;

use clap::{Args, ValueEnum};
use gpulease::{Affinity, Constraints, LeaseRequest, PlacementPolicy, Preemptible};

use crate::options::Identity;
use crate::parse;

/// What to lease.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "What to lease")]
pub(crate) struct LeaseOptions {
    /// Device memory on each device, like 8GiB, 500MB or 24g (g = GB = 10^9 bytes): all that the process
    /// and its children will use, the CUDA context (0.3 to 1.5 GB) included
    #[arg(long, value_name = "SIZE", value_parser = parse::size)]
    memory: Option<u64>,

    /// How many devices [default: 1]; without --memory and --slots they are leased whole
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    devices: Option<u32>,

    /// Slots (equal shares of a device's concurrency) on each device; may be combined with --memory
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    slots: Option<u32>,

    /// Whole devices that nobody else may use; the same as giving neither --memory nor --slots
    #[arg(long, conflicts_with_all = ["memory", "slots"])]
    exclusive: bool,

    /// How urgent it is; higher goes first
    #[arg(long, value_enum, default_value_t = PriorityOption::Normal)]
    priority: PriorityOption,

    /// Who asks: the service that the lease is for
    #[arg(long, value_name = "NAME", env = "GPULEASE_SERVICE", default_value = "cli")]
    service: String,

    /// This client's identity [default: a new one for each call]; one that runs already is replaced
    #[arg(long, value_name = "ID")]
    holder: Option<String>,

    /// A name that no other live lease of the service may have
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    /// How long to wait for devices, like 30s, 10m or 1h30m; 0: take them now or not at all
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = parse::duration)]
    wait: Duration,

    /// How long the lease lives without a renewal, 2s to 24h [default: 30s]
    #[arg(long, value_name = "DURATION", value_parser = parse::duration)]
    ttl: Option<Duration>,

    /// How long you expect to hold it: a hint for forecasts, it ends nothing
    #[arg(long, value_name = "DURATION", value_parser = parse::duration)]
    expected_duration: Option<Duration>,

    /// The longest the lease may live, renewals or not [default: no bound]
    #[arg(long, value_name = "DURATION", value_parser = parse::duration)]
    lifetime_max: Option<Duration>,

    /// How it may be taken back before its holder is done [default: never; for `run` and `adopt`: pause, where
    /// --on-pause or --pause-signal says how]
    #[arg(long, value_enum, value_name = "HOW")]
    preemptible: Option<PreemptibleOption>,

    /// No notice before the devices were held this long; counts anew after each pause [default: 0]
    #[arg(long, value_name = "DURATION", value_parser = parse::duration)]
    minimum_hold: Option<Duration>,

    /// What a pause costs you in time lost by stopping and starting again: of several victims those that lose least go
    #[arg(long, value_name = "DURATION", value_parser = parse::duration)]
    pause_cost: Option<Duration>,

    /// How devices are chosen among those that would do [default: as the coordinator is configured]
    #[arg(long, value_enum, value_name = "POLICY")]
    placement: Option<PlacementOption>,

    /// A name for this very request: repeating it, with the same --holder, gives the same lease
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,

    #[command(flatten)]
    constraints: ConstraintOptions,
}

/// Which devices will do.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Which devices will do [default: any]")]
struct ConstraintOptions {
    /// The device vendor, like nvidia or amd
    #[arg(long, value_name = "NAME")]
    vendor: Option<String>,

    /// A device model, like H100; repeat it to allow several
    #[arg(long = "model", value_name = "NAME")]
    models: Vec<String>,

    /// The lowest CUDA compute capability, like 8.9
    #[arg(long, value_name = "X.Y", value_parser = parse::compute_capability)]
    min_compute_capability: Option<(u32, u32)>,

    /// Only this device, by UUID; repeat it to allow several
    #[arg(long = "device", value_name = "UUID")]
    device_allow: Vec<String>,

    /// Not this device, by UUID; may be repeated
    #[arg(long = "exclude-device", value_name = "UUID")]
    device_deny: Vec<String>,

    /// Only this node, by name; repeat it to allow several
    #[arg(long = "node", value_name = "NAME")]
    node_allow: Vec<String>,

    /// Not this node, by name; may be repeated
    #[arg(long = "exclude-node", value_name = "NAME")]
    node_deny: Vec<String>,

    /// A label that the node must carry; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse::label)]
    labels: Vec<(String, String)>,

    /// The device to take where it fits, by UUID; another where it does not
    #[arg(long, value_name = "UUID")]
    prefer_device: Option<String>,

    /// All devices on one node
    #[arg(long)]
    same_node: bool,

    /// A framework whose programs the device must be able to run, like torch, jax or cuda
    #[arg(long, value_name = "NAME")]
    framework: Option<String>,

    /// On the devices of other leases of the service with this key, like the name of a pipeline
    #[arg(long, value_name = "KEY", conflicts_with = "near_node")]
    near: Option<String>,

    /// On the nodes of other leases of the service with this key
    #[arg(long, value_name = "KEY")]
    near_node: Option<String>,

    /// Host cores taken on each node of the lease, like 4, 1.5 or 1500m
    #[arg(long, value_name = "CORES", value_parser = parse::cpu_millis)]
    host_cpu: Option<u64>,

    /// Host memory taken on each node of the lease, like 16GiB
    #[arg(long, value_name = "SIZE", value_parser = parse::size)]
    host_memory: Option<u64>,
}

/// How urgent a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PriorityOption {
    /// Work that may wait for hours
    Background,
    /// The usual
    Normal,
    /// Somebody is waiting for the answer
    Immediate,
}

/// How a lease may be taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PreemptibleOption {
    /// Not at all
    Never,
    /// By a notice: the holder gives the devices back, keeps the lease, and gets devices again in its turn
    Pause,
    /// By a notice: the holder stops, and the lease ends
    End,
}

/// How devices are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum PlacementOption {
    /// Where least is left afterwards
    BestFit,
    /// Where most device memory is free: spreads
    MostFreeMemory,
    /// Where the smallest share is in use
    LeastLoaded,
    /// The next device after the one granted last
    RoundRobin,
    /// Where the free capacity stays most useful for the requests seen so far
    Fragmentation,
    /// On devices and nodes that are in use already
    Pack,
}

impl LeaseOptions {
    pub(crate) fn identity(&self) -> Identity {
        Identity { service: Some(self.service.clone()), holder: self.holder.clone() }
    }

    /// The longest wait for devices.
    pub(crate) fn wait(&self) -> Duration {
        self.wait
    }

    /// How it may be taken back, where that was said.
    pub(crate) fn preemptible(&self) -> Option<PreemptibleOption> {
        self.preemptible
    }

    /// The devices that were asked for by UUID; none: any will do.
    pub(crate) fn devices_named(&self) -> &[String] {
        &self.constraints.device_allow
    }

    /// Asks for these devices alone.
    pub(crate) fn only_devices(&mut self, uuids: Vec<String>) {
        self.constraints.device_allow = uuids;
    }

    /// The request that the options stand for.
    pub(crate) fn request(&self) -> LeaseRequest {
        let mut request = self
            .kind()
            .priority(self.priority.into())
            .wait(self.wait)
            .constraints(self.constraints.clone().into());
        if let Some(devices) = self.devices {
            request = request.devices(devices);
        }
        if let Some(name) = &self.name {
            request = request.name(name);
        }
        if let Some(ttl) = self.ttl {
            request = request.ttl(ttl);
        }
        if let Some(expected) = self.expected_duration {
            request = request.expected_duration(expected);
        }
        if let Some(lifetime) = self.lifetime_max {
            request = request.lifetime_max(lifetime);
        }
        if let Some(preemptible) = self.preemptible {
            request = request.preemptible(preemptible.into());
        }
        if let Some(minimum) = self.minimum_hold {
            request = request.minimum_hold(minimum);
        }
        if let Some(cost) = self.pause_cost {
            request = request.pause_cost(cost);
        }
        if let Some(policy) = self.placement {
            request = request.placement(policy.into());
        }
        if let Some(request_id) = &self.request_id {
            request = request.request_id(request_id);
        }
        request
    }

    /// Which of the contract's four kinds of request it is.
    fn kind(&self) -> LeaseRequest {
        match (self.slots, self.memory) {
            (None, None) => LeaseRequest::exclusive(),
            (Some(slots), None) => LeaseRequest::slots(slots),
            (None, Some(bytes)) => LeaseRequest::memory(bytes),
            (Some(slots), Some(bytes)) => LeaseRequest::memory(bytes).and_slots(slots),
        }
    }
}

impl From<PriorityOption> for gpulease::Priority {
    fn from(option: PriorityOption) -> Self {
        match option {
            PriorityOption::Background => Self::Background,
            PriorityOption::Normal => Self::Normal,
            PriorityOption::Immediate => Self::Immediate,
        }
    }
}

impl From<PlacementOption> for PlacementPolicy {
    fn from(option: PlacementOption) -> Self {
        match option {
            PlacementOption::BestFit => Self::BestFit,
            PlacementOption::MostFreeMemory => Self::MostFreeMemory,
            PlacementOption::LeastLoaded => Self::LeastLoaded,
            PlacementOption::RoundRobin => Self::RoundRobin,
            PlacementOption::Fragmentation => Self::Fragmentation,
            PlacementOption::Pack => Self::Pack,
        }
    }
}

impl From<PreemptibleOption> for Preemptible {
    fn from(option: PreemptibleOption) -> Self {
        match option {
            PreemptibleOption::Never => Self::Never,
            PreemptibleOption::Pause => Self::Pause,
            PreemptibleOption::End => Self::End,
        }
    }
}

impl From<ConstraintOptions> for Constraints {
    fn from(options: ConstraintOptions) -> Self {
        Self {
            vendor: options.vendor,
            models: options.models,
            compute_capability_min: options.min_compute_capability,
            device_allow: options.device_allow,
            device_deny: options.device_deny,
            node_allow: options.node_allow,
            node_deny: options.node_deny,
            node_labels: options.labels.into_iter().collect(),
            preferred_device: options.prefer_device,
            same_node: options.same_node,
            framework: options.framework,
            affinity: (options.near.map(Affinity::on_device))
                .or_else(|| options.near_node.map(Affinity::on_node)),
            host_cpu_millis: options.host_cpu.unwrap_or(0),
            host_memory_bytes: options.host_memory.unwrap_or(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    /// The default of `--wait`.
    const WAIT_DEFAULT: Duration = Duration::from_secs(15);

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        lease: LeaseOptions,
    }

    /// The request behind a line of options, or the refusal's first line.
    fn check(line: &str, expected: Result<LeaseRequest, &str>) {
        let words = std::iter::once("acquire").chain(line.split_whitespace());
        match (Line::try_parse_from(words), expected) {
            (Ok(parsed), Ok(request)) => {
                let mut request = request.constraints(parsed.lease.constraints.clone().into());
                if !line.contains("--wait") {
                    request = request.wait(WAIT_DEFAULT);
                }
                assert_eq!(parsed.lease.request(), request, "{line}");
            }
            (Err(error), Err(word)) => {
                let text = error.to_string();
                assert!(text.contains(word), "{line}: {text}");
            }
            (Ok(_), Err(word)) => panic!("{line}: accepted, expected a refusal with {word:?}"),
            (Err(error), Ok(_)) => panic!("{line}: {error}"),
        }
    }

    #[test]
    fn the_four_kinds_of_request() {
        check("", Ok(LeaseRequest::exclusive()));
        check("--devices 4", Ok(LeaseRequest::exclusive().devices(4)));
        check("--exclusive --devices 2", Ok(LeaseRequest::exclusive().devices(2)));
        check("--slots 3", Ok(LeaseRequest::slots(3)));
        check("--memory 8GiB", Ok(LeaseRequest::memory(8 << 30)));
        check(
            "--memory 8GiB --slots 2 --devices 4",
            Ok(LeaseRequest::memory(8 << 30).and_slots(2).devices(4)),
        );
    }

    #[test]
    fn waits_and_names_reach_the_request() {
        check("--wait 0", Ok(LeaseRequest::exclusive().wait(Duration::ZERO)));
        check(
            "--wait 10m --ttl 300s --name train --priority background --request-id r1",
            Ok(LeaseRequest::exclusive()
                .wait(Duration::from_secs(600))
                .ttl(Duration::from_secs(300))
                .name("train")
                .priority(gpulease::Priority::Background)
                .request_id("r1")),
        );
        check(
            "--preemptible pause --minimum-hold 10m",
            Ok(LeaseRequest::exclusive()
                .preemptible(Preemptible::Pause)
                .minimum_hold(Duration::from_secs(600))),
        );
    }

    #[test]
    fn contradictions_and_nonsense_are_refused_by_name() {
        check("--exclusive --memory 8GiB", Err("--memory"));
        check("--exclusive --slots 1", Err("--slots"));
        check("--devices 0", Err("0 is not in 1..=1024"));
        check("--memory 0", Err("no memory"));
        check("--ttl 30", Err("not a duration"));
        check("--ttl -5s", Err("-5"));
        check("--priority urgent", Err("background"));
    }

    #[test]
    fn constraints_are_carried_over() {
        let words = "acquire --vendor nvidia --model H100 --model A100 --node a --exclude-node b \
                     --label zone=west --min-compute-capability 8.9 --host-cpu 1.5 --same-node \
                     --host-memory 1GiB --framework torch --near p1 --device GPU-1 --exclude-device GPU-2 --prefer-device GPU-1";
        let parsed = Line::try_parse_from(words.split_whitespace()).expect("it parses");
        let expected = Constraints {
            vendor: Some("nvidia".into()),
            models: vec!["H100".into(), "A100".into()],
            compute_capability_min: Some((8, 9)),
            device_allow: vec!["GPU-1".into()],
            device_deny: vec!["GPU-2".into()],
            node_allow: vec!["a".into()],
            node_deny: vec!["b".into()],
            node_labels: [("zone".to_owned(), "west".to_owned())].into(),
            preferred_device: Some("GPU-1".into()),
            same_node: true,
            framework: Some("torch".into()),
            affinity: Some(Affinity::on_device("p1")),
            host_cpu_millis: 1_500,
            host_memory_bytes: 1 << 30,
        };
        assert_eq!(Constraints::from(parsed.lease.constraints), expected);
    }
}
