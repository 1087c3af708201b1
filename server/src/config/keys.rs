//! The table of keys: the one place that says what can be configured.

use gpulease_core::{request::MEMORY_BYTES_MAX, request::SLOTS_MAX, time::Span};

use super::value::Kind;

const HOUR: Span = Span::from_secs(3_600);
/// The contract's longest notice.
const NOTICE_MAX: Span = Span::from_secs(120);
const DAY: Span = Span::from_secs(86_400);

/// One key.
pub(super) struct Key {
    /// Its path: the table of the file, a dot, the name.
    pub(super) name: &'static str,
    /// What it does, and what follows from it; a sentence for the reference.
    pub(super) meaning: &'static str,
    /// What it holds.
    pub(super) kind: Kind,
}

impl Key {
    /// Its environment variable.
    pub(super) fn variable(&self) -> String {
        format!("GPULEASE_{}", self.name.to_uppercase().replace('.', "_"))
    }

    /// The table it stands in, and its name there.
    pub(super) fn split(&self) -> (&'static str, &'static str) {
        self.name.split_once('.').unwrap_or(("", self.name))
    }
}

/// The key of this name.
pub(super) fn find(name: &str) -> Option<&'static Key> {
    ALL.iter().find(|key| key.name == name)
}

/// The key most like a name that is none, if any is much like it.
pub(super) fn nearest(name: &str) -> Option<&'static str> {
    let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    let likeness = |key: &Key| {
        let whole = strsim::jaro_winkler(name, key.name);
        whole.max(strsim::jaro_winkler(&last(name), &last(key.name)))
    };
    let most = ALL.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    // Below this, the two have hardly a syllable in common.
    (likeness(most) > 0.75).then_some(most.name)
}

macro_rules! key {
    ($name:literal, $meaning:literal, $kind:ident { $($bounds:tt)* }, $($place:ident).+) => {
        Key {
            name: $name,
            meaning: $meaning,
            kind: Kind::$kind { $($bounds)* at: |config| &mut config.$($place).+ },
        }
    };
}

/// All keys, by table.
#[rustfmt::skip]
pub(super) static ALL: &[Key] = &[
    key!("listen", "Where gRPC listens. Port 0 picks a free port, which the ready line names.", Address {}, listen),
    key!("http", "Where HTTP listens: /livez, /readyz and /status.", Address {}, http),
    key!("socket", "Where gRPC listens for programs on this host. A stale socket file is replaced.", OptionalPath {}, socket),
    key!("data", "Where the journal is. One coordinator uses it at a time; without it nothing of the leases is known.", Path {}, data),
    key!("simulate", "Devices to simulate, for trying gpulease out; none: the devices of this host.",
        OptionalText { form: "devices such as 2x24GiB or 8x80GiB:H100, or the path of a scenario", }, simulate),

    key!("log.level", "What is logged, to stderr.", Level {}, log_level),
    key!("log.format", "How it looks: lines for people, or one JSON object per line.", Format {}, log_format),

    key!("journal.history_batches_max", "How many batches behind the newest snapshot watchers can go back.",
        Count { min: 0, max: 100_000_000, }, history_batches_max),
    key!("journal.history_bytes_max", "The same in bytes; whichever is met first. The file takes about three times as much.",
        Size { min: 0, max: 1 << 40, }, history_bytes_max),

    key!("leases.lock_delay", "How long the part of a device stays closed that an unclean end left behind, unless its end is proven.",
        Span { min: Span::ZERO, max: HOUR, }, policy.lock_delay),
    key!("leases.session_grace", "How long a place in the queue outlives its caller, so that it can be taken up again.",
        Span { min: Span::ZERO, max: HOUR, }, policy.session_grace),
    key!("leases.notice", "How long a holder has to answer a notice before its devices are taken.",
        Span { min: Span::from_millis(100), max: NOTICE_MAX, }, policy.notice),
    key!("leases.notice_max", "The longest a notice may become by its holder's extension; below leases.notice there is no extension.",
        Span { min: Span::from_millis(100), max: NOTICE_MAX, }, policy.notice_max),
    key!("leases.release_check_max", "How long a part that was given back stays closed at the most while no pass shows it free; what is left then counts as foreign.",
        Span { min: Span::ZERO, max: Span::from_secs(60), }, policy.release_check_max),
    key!("leases.keep_max", "How long devices are kept for the first waiting request when nobody can say how long that takes, and then not.",
        Span { min: Span::from_secs(1), max: DAY, }, policy.keep_max),
    key!("leases.aging_step", "Waiting this long raises a request's place in the order by one priority.",
        Span { min: Span::from_secs(1), max: DAY, }, policy.aging_step),
    key!("leases.queued_max", "The most requests that wait; further ones are refused. Each takes about 500 bytes.",
        Count { min: 1, max: 1 << 24, }, policy.queued_max),
    key!("leases.live_max", "The most leases that have not ended; further requests are refused. Each takes about 500 bytes.",
        Count { min: 1, max: 1 << 25, }, policy.live_max),
    key!("leases.gap_max", "A pause of the coordinator longer than this extends every deadline by itself.",
        Span { min: Span::from_millis(500), max: Span::from_secs(1), }, policy.gap_max),
    key!("leases.heartbeat", "The longest time between two looks at the clock while leases live; at most half of gap_max by their bounds.",
        Span { min: Span::from_millis(10), max: Span::from_millis(250), }, policy.heartbeat),
    key!("leases.checkpoint", "How often the time is made durable while leases live: what a crash may add to a maximum lifetime.",
        Span { min: Span::from_secs(1), max: Span::from_secs(60), }, policy.checkpoint),

    key!("queue.backfill", "Whether a request that is sure to be gone in time may use devices that are kept for an earlier one: its longest lifetime fits, or it may be preempted and its expected duration fits together with a notice.",
        Boolean {}, policy.backfill),

    key!("preemption.victims", "Who goes first of those that may be preempted, borrowers and low priorities before others in any case.",
        Victims {}, policy.victims),

    key!("fairness.enabled", "Whether a service's use of late counts in the order; without, within a class the first to come is the first served.",
        Boolean {}, policy.fairness),
    key!("fairness.half_life", "In how long the use of a service halves: an hour of today counts as two that are so long ago.",
        Span { min: Span::from_secs(60), max: Span::from_secs(365 * 86_400), }, policy.half_life),

    key!("placement.policy", "How devices are chosen among those that would do, where a request does not say.",
        Placement {}, policy.placement),

    key!("devices.driver", "Whose devices of this host are leased; auto: those of the driver that is there.",
        Driver {}, device_driver),
    key!("devices.nvml_library", "NVIDIA's libnvidia-ml.so; none: the one that the system finds.",
        OptionalPath {}, nvml_library),
    key!("devices.attribution", "Whether device memory is told apart by process; auto: where the host's processes can be seen. On in a PID namespace that is not the host's, it takes processes for others.",
        Attribution {}, attribution),
    key!("devices.slots", "Into how many slots each device is divided; auto: max(1, host CPUs / devices).",
        OptionalCount { min: 1, max: SLOTS_MAX as u64, }, device_slots),
    key!("devices.owners", "Which services own which devices: an owner gets its own back from whoever borrows them, by a notice.",
        Owners {}, policy.owners),
    key!("devices.memory_reserve", "Memory of each device that is kept back from leases; foreign memory uses it up first.",
        Size { min: 0, max: MEMORY_BYTES_MAX, }, device_memory_reserve_bytes),
    key!("devices.memory_limit", "The most memory of each device that may be in use; none: all but the driver's own.",
        OptionalSize { min: 0, max: MEMORY_BYTES_MAX, }, device_memory_limit_bytes),
    key!("devices.exclusive_foreign_max", "Foreign memory up to which a device may be granted whole.",
        Size { min: 0, max: MEMORY_BYTES_MAX, }, policy.exclusive_foreign_max_bytes),
    key!("devices.grant_unmeasured", "Whether a device whose memory is unknown may be granted. If true, leases may meet memory that is not there.",
        Boolean {}, policy.grant_unmeasured),
    key!("devices.sample_age_max", "A device that was not measured for so long is stale: no new grants.",
        Span { min: Span::from_millis(100), max: HOUR, }, policy.sample_age_max),

    key!("nodes.unreachable_after", "A node silent for so long gets no new grants.",
        Span { min: Span::from_millis(100), max: HOUR, }, policy.node_unreachable_after),
    key!("nodes.silent_max", "A node silent for so long is lost, and the leases on it end.",
        Span { min: Span::from_secs(1), max: DAY, }, policy.node_silent_max),
    key!("nodes.known_for", "A node not heard of for so long no longer counts when a request is called satisfiable.",
        Span { min: Span::from_secs(1), max: DAY, }, policy.node_known_for),
    key!("nodes.first_inventory_max", "How long requests wait for the first inventory ever.",
        Span { min: Span::ZERO, max: HOUR, }, policy.first_inventory_max),
];
