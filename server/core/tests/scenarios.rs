//! Runs the stories in `tests/scenarios/*.txt`: prose, commands, and what the scheduler answered.
//!
//! A line with `#` is prose, one with `>` a command; the lines behind a command are its expected output.
//! `REWRITE=1 cargo test --release -p gpulease-core --test scenarios` writes the present output into the files, to be
//! read as a diff. The commands are listed at [`Story::command`].

mod world;

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path, sync::Arc};

use gpulease_core::{
    event::Event,
    id::{Caller, Holder, LeaseId, Name, Ticket, Token},
    input::Input,
    lease::{OpenCause, State as LeaseState},
    output::{Answer, Effect, Rejection},
    policy::Policy,
    request::{Ask, Constraints, Priority, Request, RequestFields, Share},
    time::{Span, Time},
    view::LeaseView,
};
use world::World;

struct Story {
    world: World,
    /// Leases by the names that the story gives them, and back.
    leases: BTreeMap<String, LeaseId>,
    names: BTreeMap<LeaseId, String>,
    tickets: BTreeMap<Ticket, String>,
    callers: BTreeMap<String, Caller>,
    told: String,
}

/// `key=value` and bare words of a command.
struct Words<'a> {
    words: Vec<&'a str>,
}

impl<'a> Words<'a> {
    fn word(&self, index: usize) -> &'a str {
        let bare = self.words.iter().filter(|word| !word.contains('='));
        bare.copied()
            .nth(index)
            .unwrap_or_else(|| panic!("word {index} is missing in {:?}", self.words))
    }

    fn value(&self, key: &str) -> Option<&'a str> {
        self.words.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    }

    fn has(&self, flag: &str) -> bool {
        self.words.contains(&flag)
    }

    fn number(&self, key: &str) -> Option<u64> {
        self.value(key)
            .map(|value| value.parse().unwrap_or_else(|_| panic!("{key}={value} is no number")))
    }
}

/// `8GiB`, `512MiB`.
fn bytes(text: &str) -> u64 {
    let (number, shift) = match (text.strip_suffix("GiB"), text.strip_suffix("MiB")) {
        (Some(number), _) => (number, 30),
        (_, Some(number)) => (number, 20),
        _ => (text, 0),
    };
    number.parse::<u64>().unwrap_or_else(|_| panic!("{text} is no size")) << shift
}

/// `10s`, `5m`, `2h`, `250ms`.
fn span(text: &str) -> Span {
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

fn names(words: &Words<'_>, key: &str) -> Vec<Name> {
    words.value(key).map(|value| value.split(',').map(Name::new).collect()).unwrap_or_default()
}

impl Story {
    fn new() -> Self {
        Self {
            world: World::new(Policy::default()),
            leases: BTreeMap::new(),
            names: BTreeMap::new(),
            tickets: BTreeMap::new(),
            callers: BTreeMap::new(),
            told: String::new(),
        }
    }

    /// Runs one command and answers what came of it.
    ///
    /// node NAME [devices=2] [memory=24GiB] [slots=4] [model=M] [reserve=1GiB] [cpu=64000] [hostmem=256GiB] [label=k:v]
    /// · change NODE DEVICE [memory=] [slots=] · policy KEY=VALUE
    /// · acquire NAME [service= holder= id= name= devices= memory= slots= exclusive priority= ttl= wait= expect= life=
    ///   models= allow= deny= nodes= notnodes= prefer= same-node cpu= hostmem= label= caller=]
    /// · renew NAME [token=] [holder=S/H] · release NAME [token=|none] [holder=S/H] · revoke NAME [why=]
    /// · gone CALLER · session SERVICE/HOLDER as CALLER
    /// · pass SPAN · stall SPAN · restart · snapshot
    /// · lose DEVICE · find DEVICE · forget DEVICE · reboot NODE · silent NODE · heard NODE · foreign DEVICE SIZE
    /// · unmeasured DEVICE · show
    fn command(&mut self, line: &str) {
        let words = Words { words: line.split_whitespace().collect() };
        match words.word(0) {
            "node" => self.node(&words),
            "change" => self.change(&words),
            "policy" => self.policy(&words),
            "acquire" => self.acquire(&words),
            "renew" | "release" | "revoke" => self.hold(&words),
            "gone" | "session" => self.caller(&words),
            "pass" => {
                let seen = self.world.pass(span(words.word(1)));
                self.tell_all(seen);
            }
            "stall" => self.world.now = self.world.now.after(span(words.word(1))),
            "tick" => {
                let seen = self.world.feed(Input::Tick);
                self.tell(seen);
            }
            "restart" => {
                self.world.restart(Span::ZERO);
                self.callers.clear();
                self.tickets.clear();
                for name in self.world.nodes.keys().cloned().collect::<Vec<_>>() {
                    if !self.world.nodes[&name].silent {
                        let seen = self.world.observe(&name);
                        self.tell(seen);
                    }
                }
                let seen = self.world.sample_all();
                self.tell_all(seen);
            }
            "snapshot" => self.world.take_snapshot(),
            "show" => self.show(),
            _ => self.device(&words),
        }
    }

    fn node(&mut self, words: &Words<'_>) {
        let name = words.word(1);
        let memory = bytes(words.value("memory").unwrap_or("24GiB"));
        let slots = u32::try_from(words.number("slots").unwrap_or(4)).expect("few slots");
        let model = words.value("model").unwrap_or("SIM");
        let count = u32::try_from(words.number("devices").unwrap_or(1)).expect("few devices");
        let mut devices: Vec<_> =
            (0..count).map(|index| world::device(name, index, memory, slots, model)).collect();
        for device in &mut devices {
            let facts = Arc::make_mut(&mut device.facts);
            facts.memory_reserve_bytes = words.value("reserve").map_or(0, bytes);
        }
        let mut node = world::node(name, devices);
        let facts = Arc::make_mut(&mut node.facts);
        facts.host_cpu_millis = words.number("cpu").unwrap_or(facts.host_cpu_millis);
        facts.host_memory_bytes = words.value("hostmem").map_or(facts.host_memory_bytes, bytes);
        facts.labels = labels(words);
        self.world.nodes.insert(name.to_owned(), node);
        let seen = self.world.observe(name);
        self.tell(seen);
        let seen = self.world.sample(name);
        self.tell(seen);
    }

    fn change(&mut self, words: &Words<'_>) {
        let uuid = words.word(1);
        let name = node_of(uuid);
        let device = self.model(uuid);
        let facts = Arc::make_mut(&mut device.facts);
        facts.memory_limit_bytes = words.value("memory").map(bytes);
        if let Some(slots) = words.number("slots") {
            facts.slots = u32::try_from(slots).expect("few slots");
        }
        let seen = self.world.observe(&name);
        self.tell(seen);
    }

    fn policy(&mut self, words: &Words<'_>) {
        let policy = &mut self.world.policy;
        for (key, target) in [
            ("lock_delay", &mut policy.lock_delay),
            ("session_grace", &mut policy.session_grace),
            ("keep_max", &mut policy.keep_max),
            ("aging_step", &mut policy.aging_step),
        ] {
            if let Some(value) = words.value(key) {
                *target = span(value);
            }
        }
        if let Some(max) = words.number("queued_max") {
            policy.queued_max = usize::try_from(max).expect("a small bound");
        }
        if words.has("grant_unmeasured") {
            policy.grant_unmeasured = true;
        }
        self.world.restart(Span::ZERO);
    }

    fn acquire(&mut self, words: &Words<'_>) {
        let alias = words.word(1);
        let request = request(alias, words);
        let caller = match words.value("caller") {
            Some(name) => self.known_caller(name),
            None => self.known_caller(alias),
        };
        let ticket = Ticket(self.world.number());
        self.tickets.insert(ticket, alias.to_owned());
        match request.validate() {
            Ok(request) => {
                let seen =
                    self.world.feed(Input::Acquire { caller, ticket, request: Arc::new(request) });
                self.learn(alias, ticket, &seen.1);
                self.tell(seen);
            }
            Err(invalid) => self.say(&format!("{alias}: invalid: {invalid}")),
        }
    }

    /// Remembers which lease a story's name means: the one that its request was answered with.
    fn learn(&mut self, alias: &str, ticket: Ticket, effects: &[Effect]) {
        let answered = effects.iter().find_map(|effect| match effect {
            Effect::Reply { ticket: to, reply: Ok(Answer::Queued(view) | Answer::Lease(view)) }
                if *to == ticket =>
            {
                Some(view.id)
            }
            _ => None,
        });
        if let Some(id) = answered {
            self.leases.insert(alias.to_owned(), id);
            self.names.insert(id, alias.to_owned());
        }
    }

    fn hold(&mut self, words: &Words<'_>) {
        let alias = words.word(1);
        let lease = match self.leases.get(alias) {
            Some(lease) => *lease,
            None => LeaseId(alias.parse().expect("a lease's name or number")),
        };
        let own = self.world.scheduler.state().lease(lease).map_or(Token(0), |lease| lease.token);
        let token = words.number("token").map_or(own, Token);
        let holder = words.value("holder").map(holder);
        let ticket = Ticket(self.world.number());
        let caller = self.known_caller(words.value("caller").unwrap_or("someone"));
        self.tickets.insert(ticket, format!("{} {alias}", words.word(0)));
        let input = match words.word(0) {
            "renew" => Input::Renew { caller, ticket, lease, token, holder },
            "release" => {
                let token = (!words.has("none")).then_some(token);
                Input::Release { caller, ticket, lease, token, holder }
            }
            _ => {
                Input::Revoke { ticket, lease, detail: Arc::from(words.value("why").unwrap_or("")) }
            }
        };
        let seen = self.world.feed(input);
        self.tell(seen);
    }

    fn caller(&mut self, words: &Words<'_>) {
        if words.word(0) == "gone" {
            let caller = self.known_caller(words.word(1));
            let seen = self.world.feed(Input::CallerGone { caller });
            return self.tell(seen);
        }
        let name = words.word(3).to_owned();
        let caller = Caller::Session(self.world.number());
        self.callers.insert(name.clone(), caller);
        let ticket = Ticket(self.world.number());
        self.tickets.insert(ticket, name);
        let seen =
            self.world.feed(Input::SessionOpened { caller, ticket, holder: holder(words.word(1)) });
        self.tell(seen);
    }

    fn device(&mut self, words: &Words<'_>) {
        let target = words.word(1);
        let name = node_of(target);
        match words.word(0) {
            "lose" => self.model(target).lost = Some("gone".into()),
            "find" => self.model(target).lost = None,
            "forget" => {
                self.node_model(&name).devices.retain(|device| device.facts.uuid.as_str() != target)
            }
            "foreign" => self.model(target).foreign_bytes = bytes(words.word(2)),
            "unmeasured" => self.model(target).measured = false,
            "silent" => self.node_model(&name).silent = true,
            "heard" => self.node_model(&name).silent = false,
            "reboot" => Arc::make_mut(&mut self.node_model(&name).facts).boot_id = "boot-2".into(),
            other => panic!("{other} is no command"),
        }
        if words.word(0) != "silent" {
            let seen = self.world.observe(&name);
            self.tell(seen);
            let seen = self.world.sample(&name);
            self.tell(seen);
        }
    }

    fn node_model(&mut self, name: &str) -> &mut world::NodeModel {
        self.world.nodes.get_mut(name).unwrap_or_else(|| panic!("{name} is no node"))
    }

    fn model(&mut self, uuid: &str) -> &mut world::DeviceModel {
        let node = self.node_model(&node_of(uuid));
        let mut devices = node.devices.iter_mut();
        devices
            .find(|device| device.facts.uuid.as_str() == uuid)
            .unwrap_or_else(|| panic!("{uuid} is no device"))
    }

    fn known_caller(&mut self, name: &str) -> Caller {
        let next = Caller::Call(self.world.number());
        *self.callers.entry(name.to_owned()).or_insert(next)
    }

    fn say(&mut self, line: &str) {
        self.told.push_str(line);
        self.told.push('\n');
    }

    fn tell_all(&mut self, seen: Vec<(Time, Vec<Event>, Vec<Effect>)>) {
        for (at, events, effects) in seen {
            // The time made durable now and then is no part of any story.
            if effects.is_empty() && events.iter().all(|event| *event == Event::Checkpoint) {
                continue;
            }
            self.say(&format!("at {at}"));
            self.tell((events, effects));
        }
    }

    fn tell(&mut self, (events, effects): (Vec<Event>, Vec<Effect>)) {
        for event in events {
            let line = self.event(&event);
            self.say(&format!("  {line}"));
        }
        for effect in effects {
            let line = self.effect(&effect);
            self.say(&format!("  -> {line}"));
        }
    }

    fn name(&self, id: LeaseId) -> String {
        self.names.get(&id).cloned().unwrap_or_else(|| format!("lease {id}"))
    }

    fn uuids(&self, devices: &[gpulease_core::id::DeviceId]) -> String {
        let inventory = self.world.scheduler.state().inventory();
        let uuid = |id: &gpulease_core::id::DeviceId| {
            inventory.device(*id).map(|device| device.facts.uuid.to_string())
        };
        devices.iter().filter_map(uuid).collect::<Vec<_>>().join(" ")
    }

    fn event(&self, event: &Event) -> String {
        let inventory = self.world.scheduler.state().inventory();
        let node = |id: gpulease_core::id::NodeId| {
            inventory.node(id).map_or_else(String::new, |node| node.facts.name.to_string())
        };
        match event {
            Event::NodeAdded { facts } => format!("node {} added", facts.name),
            Event::NodeChanged { node: id, facts } => {
                format!("node {} changed, boot id {}", node(*id), facts.boot_id)
            }
            Event::NodeLost { node: id } => format!("node {} lost", node(*id)),
            Event::NodeRecovered { node: id } => format!("node {} recovered", node(*id)),
            Event::DeviceAdded { facts, .. } => format!("device {} added", facts.uuid),
            Event::DeviceChanged { facts, .. } => format!("device {} changed", facts.uuid),
            Event::DeviceLost { device, detail } => {
                format!("device {} lost: {detail}", self.uuids(&[*device]))
            }
            Event::DeviceRecovered { device } => {
                format!("device {} recovered", self.uuids(&[*device]))
            }
            Event::Requested { lease, .. } => format!("{} requested", self.name(*lease)),
            Event::Granted { lease, token, devices } => {
                format!("{} granted, token {token}: {}", self.name(*lease), self.uuids(devices))
            }
            Event::Kept { lease, devices, lapses_at } => {
                format!("kept for {} until {lapses_at}: {}", self.name(*lease), self.uuids(devices))
            }
            Event::KeepDropped { lease, cause, .. } => {
                format!("no longer kept for {}: {cause:?}", self.name(*lease))
            }
            Event::Reclaiming { lease, reason, detail } => {
                format!(
                    "{} reclaiming: {reason:?}{}",
                    self.name(*lease),
                    in_words(detail.as_deref())
                )
            }
            Event::Opened { device, lease, cause } => {
                let cause = match cause {
                    OpenCause::LockDelay => "lock delay over",
                    OpenCause::Reboot => "node rebooted",
                    OpenCause::LateRelease => "released late",
                };
                format!("{} opened after {}: {cause}", self.uuids(&[*device]), self.name(*lease))
            }
            Event::Ended { lease, reason, detail } => {
                format!("{} ended: {reason:?}{}", self.name(*lease), in_words(detail.as_deref()))
            }
            Event::Checkpoint => "checkpoint".to_owned(),
        }
    }

    fn effect(&self, effect: &Effect) -> String {
        match effect {
            Effect::Reply { ticket, reply } => {
                let to =
                    self.tickets.get(ticket).cloned().unwrap_or_else(|| format!("ticket {ticket}"));
                match reply {
                    Ok(answer) => format!("{to}: {}", self.answer(answer)),
                    Err(rejection) => format!("{to}: no: {}", self.rejection(rejection)),
                }
            }
            Effect::Changed { caller, lease } => {
                format!("{} hears: {}", self.caller_name(*caller), self.view(lease))
            }
            Effect::SessionReplaced { caller } => {
                format!("{} hears: replaced", self.caller_name(*caller))
            }
        }
    }

    fn caller_name(&self, caller: Caller) -> String {
        let named = self.callers.iter().find(|(_, known)| **known == caller);
        named.map_or_else(|| "an older session".to_owned(), |(name, _)| name.clone())
    }

    fn answer(&self, answer: &Answer) -> String {
        match answer {
            Answer::Queued(view) | Answer::Lease(view) => self.view(view),
            Answer::Renewed { token, remaining, .. } => {
                format!("renewed, token {token}, for {remaining}")
            }
            Answer::Released(view) => format!("released, {}", self.view(view)),
            Answer::Revoked(view) => format!("revoked, {}", self.view(view)),
            Answer::Welcome(leases) => {
                let leases: Vec<String> =
                    leases.iter().map(|view| format!(" {};", self.view(view))).collect();
                format!(
                    "welcome,{}",
                    if leases.is_empty() { " nothing held".to_owned() } else { leases.concat() }
                )
            }
        }
    }

    fn view(&self, view: &LeaseView) -> String {
        let mut line = format!("{} is {}", self.name(view.id), state(view.state));
        let list = |names: &[gpulease_core::view::DeviceName]| {
            names.iter().map(|name| name.facts.uuid.to_string()).collect::<Vec<_>>().join(" ")
        };
        if view.state == LeaseState::Queued {
            let _ = write!(line, " at {}", view.queue_position);
        }
        for (what, devices) in
            [("on", &view.devices), ("closing", &view.closed), ("kept", &view.kept)]
        {
            if !devices.is_empty() {
                let _ = write!(line, ", {what} {}", list(devices));
            }
        }
        if let Some(remaining) = view.remaining {
            let _ = write!(line, ", {remaining} left");
        }
        line
    }

    fn rejection(&self, rejection: &Rejection) -> String {
        match rejection {
            Rejection::Unsatisfiable(report) => format!("unsatisfiable: {report}"),
            Rejection::WaitOver { waited } => format!("waited {waited}"),
            Rejection::StaleToken { given, .. } => {
                format!(
                    "stale token {}",
                    given.map_or_else(|| "none".to_owned(), |token| token.to_string())
                )
            }
            Rejection::LeaseEnded { reason, .. } => format!("ended: {reason:?}"),
            Rejection::NameTaken { name, lease } => {
                format!("name {name} is taken by {}", self.name(*lease))
            }
            Rejection::RequestIdTaken { lease } => format!("request id is {}'s", self.name(*lease)),
            Rejection::RequestIdReused { lease } => {
                format!("request id made {}", self.name(*lease))
            }
            other => format!("{other:?}"),
        }
    }

    fn show(&mut self) {
        let now = self.world.now;
        let scheduler = &self.world.scheduler;
        let mut lines = vec![format!("time {now}")];
        for (_, view) in scheduler.devices(None, 100, None) {
            let free = view
                .memory_free_bytes
                .map_or_else(|| "?".to_owned(), |bytes| format!("{}MiB", bytes >> 20));
            let device = &view.device;
            let kept = device
                .kept_for
                .map_or_else(String::new, |lease| format!(", kept for {}", self.name(lease)));
            lines.push(format!(
                "{}: {:?}, {free} free, {} slots used{kept}",
                device.facts.uuid, view.condition, device.slots_used
            ));
        }
        for view in scheduler.leases(LeaseId(0), 100, |lease| lease.state.live()) {
            lines.push(self.view(&view));
        }
        for line in lines {
            self.say(&format!("  {line}"));
        }
    }
}

fn state(state: LeaseState) -> String {
    match state {
        LeaseState::Queued => "QUEUED".to_owned(),
        LeaseState::Active => "ACTIVE".to_owned(),
        LeaseState::Reclaiming(reason) => format!("RECLAIMING ({reason:?})"),
        LeaseState::Ended(reason) => format!("ENDED ({reason:?})"),
    }
}

fn in_words(detail: Option<&str>) -> String {
    detail.map(|detail| format!(", {detail}")).unwrap_or_default()
}

fn node_of(uuid: &str) -> String {
    uuid.split('/').next().unwrap_or(uuid).to_owned()
}

fn holder(text: &str) -> Holder {
    let (service, name) = text.split_once('/').unwrap_or((text, text));
    Holder { service: service.into(), name: name.into() }
}

fn labels(words: &Words<'_>) -> BTreeMap<Name, Name> {
    let pair = |text: &str| text.split_once(':').map(|(key, value)| (key.into(), value.into()));
    words.value("label").and_then(pair).into_iter().collect()
}

fn request(alias: &str, words: &Words<'_>) -> RequestFields {
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
            host_cpu_millis: words.number("cpu").unwrap_or(0),
            host_memory_bytes: words.value("hostmem").map_or(0, bytes),
            ..Constraints::default()
        },
        priority,
        ttl: words.value("ttl").map_or(Span::from_secs(30), span),
        wait: words.value("wait").map_or(Span::ZERO, span),
        expected_duration: words.value("expect").map(span),
        lifetime_max: words.value("life").map(span),
    }
}

/// Runs one file and answers it with the present output in place.
fn run(text: &str) -> String {
    let mut story = Story::new();
    let mut written = String::new();
    for line in text.lines() {
        if let Some(command) = line.strip_prefix("> ") {
            written.push_str(line);
            written.push('\n');
            story.told.clear();
            story.command(command);
            written.push_str(&story.told);
        } else if line.starts_with('#') || line.is_empty() {
            written.push_str(line);
            written.push('\n');
        }
    }
    written
}

#[test]
fn every_story_is_told_as_it_happens() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut files: Vec<_> =
        fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut told = 0;
    let mut wrong = Vec::new();
    for path in files.iter().filter(|path| path.extension().is_some_and(|ext| ext == "txt")) {
        let text = fs::read_to_string(path).unwrap();
        println!("{}", path.display());
        let present = run(&text);
        told += 1;
        if present == text {
            continue;
        }
        if std::env::var_os("REWRITE").is_some() {
            fs::write(path, present).unwrap();
        } else {
            let first = text.lines().zip(present.lines()).find(|(old, new)| old != new);
            wrong.push(format!("{}: expected / happened: {first:#?}", path.display()));
        }
    }
    assert!(told >= 20, "only {told} stories were found in {}", folder.display());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
