//! A story: a world, and names for what it talks about.

mod machine;
mod moves;
mod operate;
mod plan;
mod tell;
mod words;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use gpulease_core::{
    id::{Caller, LeaseId, Name, Ticket, Token},
    input::{DeviceSample, Input, MemoryReading, MemoryReport},
    output::{Answer, Effect},
    plan::PipelineFields,
    policy::Policy,
    time::Span,
};

use self::words::{Words, bytes, holder, labels, request, span};
use crate::world::{self, World};

/// See the head of this file.
pub(crate) struct Story {
    pub(crate) world: World,
    /// Leases by the names that the story gives them, and back.
    pub(crate) leases: BTreeMap<String, LeaseId>,
    pub(crate) names: BTreeMap<LeaseId, String>,
    pub(crate) tickets: BTreeMap<Ticket, String>,
    pub(crate) callers: BTreeMap<String, Caller>,
    /// Processes that are gone.
    pub(crate) exited: BTreeSet<u32>,
    pub(crate) told: String,
    /// The plan at hand, and whether it was asked for.
    pub(crate) pipelines: Vec<PipelineFields>,
    pub(crate) plan_told: bool,
}
impl Story {
    pub(crate) fn new() -> Self {
        Self {
            world: World::new(Policy::default()),
            leases: BTreeMap::new(),
            names: BTreeMap::new(),
            tickets: BTreeMap::new(),
            callers: BTreeMap::new(),
            exited: BTreeSet::new(),
            told: String::new(),
            pipelines: Vec::new(),
            plan_told: false,
        }
    }

    /// Runs one command and answers what came of it.
    ///
    /// The world: node NAME [devices=2] [memory=24GiB] [slots=4] [model=M] [reserve=1GiB] [cpu=64000] [hostmem=256GiB]
    /// [label=k:v] [boot=boot-1] [real] · renode NODE [cpu=] [label=k:v] [model=M] · change DEVICE [memory=] [slots=]
    /// · policy KEY=VALUE … · own SERVICE [devices=] [models=] [nodes=]
    /// · pass SPAN · stall SPAN · tick · restart · snapshot · import SPAN [lost=BATCHES|all] · show
    /// · frameworks DEVICE NAMES · lose DEVICE · find DEVICE · forget DEVICE · reboot NODE · silent NODE · heard NODE · foreign DEVICE SIZE
    /// · unmeasured DEVICE · uses LEASE DEVICE SIZE · impostor NODE DEVICE
    /// · rename NODE NAME [boot=] · carry DEVICE NODE · observe NODE
    ///
    /// Holders: acquire NAME [service= holder= id= name= devices= memory= slots= exclusive priority= ttl= wait= expect=
    /// life= models= allow= deny= nodes= notnodes= prefer= same-node cpu= hostmem= label= preemptible= hold= pid= caller=
    /// placement=]
    /// · renew NAME [token=] [holder=S/H] [caller=] · release NAME [token=|none] [holder=S/H] [caller=]
    /// · acknowledge NAME [notice=] [token=] [holder=S/H] [caller=] · extend NAME by=SPAN [notice=] [token=] [caller=]
    /// · gone CALLER · session SERVICE/HOLDER as CALLER
    ///
    /// · queue [service=]
    ///
    /// Plans: pipeline NAME steps=NAME:IN-OUT[:ASK],… [scope=node] [overlap] · plan [reserve=ID] [key=KEY]
    ///
    /// Operators: revoke NAME [why=] · open DEVICE [why=] · cordon TARGET · drain TARGET · uncordon TARGET
    /// · explain NAME · processes DEVICE · shares · service NAME|* [weight= leases= devices= memory= waiting= least= most= prefer=]
    ///
    /// Nodes with a driver, told of by the next `sample NODE [check=N]` or as time passes: process DEVICE SIZE pid=PID [root=PID]
    /// · exit PID · unexplained DEVICE SIZE · unattributed DEVICE [off] · sums NODE [off]
    pub(crate) fn command(&mut self, line: &str) {
        let words = Words { words: line.split_whitespace().collect() };
        match words.word(0) {
            "node" => self.node(&words),
            "change" => self.change(&words),
            "frameworks" => self.frameworks(&words),
            "uses" => self.uses(&words),
            "impostor" => {
                let reading = MemoryReading::default();
                let memory = Some(MemoryReport::Exact(reading));
                let sample = DeviceSample { uuid: words.word(2).into(), memory, check: 0 };
                let samples = vec![sample];
                let input = Input::Sampled { node: words.word(1).into(), samples, trees: None };
                let seen = self.world.feed(input);
                self.tell(seen);
            }
            "rename" => self.rename(&words),
            "carry" => self.carry(&words),
            "observe" => {
                let seen = self.world.observe(words.word(1));
                self.tell(seen);
            }
            "renode" => self.renode(&words),
            "policy" => self.policy(&words),
            "acquire" => self.acquire(&words),
            "renew" | "release" | "revoke" | "acknowledge" | "extend" => self.hold(&words),
            "cordon" | "drain" | "uncordon" => self.cordon(&words),
            "own" => self.own(&words),
            "service" => self.service(&words),
            "shares" => self.shares(),
            "explain" => self.explain(&words),
            "pipeline" => self.pipeline(&words),
            "plan" => self.plan(&words),
            "queue" => self.queue(&words),
            "process" | "exit" | "unexplained" | "unattributed" | "sums" | "sample"
            | "processes" => self.machine(&words),
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
                self.started();
            }
            "import" => self.import(&words),
            "open" => self.open(&words),
            "snapshot" => self.world.take_snapshot(),
            "show" => self.show(),
            _ => self.device(&words),
        }
    }

    /// What a start brings: nobody is connected, and every node reports.
    fn started(&mut self) {
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

    pub(crate) fn import(&mut self, words: &Words<'_>) {
        let lost = match words.value("lost") {
            Some("all") => usize::MAX,
            _ => usize::try_from(words.number("lost").unwrap_or(0)).expect("a few batches"),
        };
        self.world.import(lost, span(words.word(1)));
        self.started();
    }

    pub(crate) fn node(&mut self, words: &Words<'_>) {
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
            facts.answers_at_once = !words.has("real");
        }
        let mut node = world::node(name, devices);
        let facts = Arc::make_mut(&mut node.facts);
        facts.host_cpu_millis = words.number("cpu").unwrap_or(facts.host_cpu_millis);
        facts.host_memory_bytes = words.value("hostmem").map_or(facts.host_memory_bytes, bytes);
        facts.labels = labels(words);
        facts.boot_id = words.value("boot").map_or(facts.boot_id.clone(), Name::new);
        self.world.nodes.insert(name.to_owned(), node);
        let seen = self.world.observe(name);
        self.tell(seen);
        let seen = self.world.sample(name);
        self.tell(seen);
    }

    pub(crate) fn uses(&mut self, words: &Words<'_>) {
        let (lease, used) = (self.leases[words.word(1)], bytes(words.word(3)));
        let device = self.model(words.word(2));
        device.attributed.retain(|(other, _)| *other != lease);
        device.attributed.push((lease, used));
        let seen = self.world.sample(&self.home_of(words.word(2)));
        self.tell(seen);
    }

    pub(crate) fn renode(&mut self, words: &Words<'_>) {
        let facts = Arc::make_mut(&mut self.node_model(words.word(1)).facts);
        facts.host_cpu_millis = words.number("cpu").unwrap_or(facts.host_cpu_millis);
        facts.labels = labels(words);
        if let Some(model) = words.value("model") {
            for device in &mut self.node_model(words.word(1)).devices {
                Arc::make_mut(&mut device.facts).model = model.into();
            }
        }
        let seen = self.world.observe(words.word(1));
        self.tell(seen);
    }

    pub(crate) fn change(&mut self, words: &Words<'_>) {
        let uuid = words.word(1);
        let name = self.home_of(uuid);
        let device = self.model(uuid);
        let facts = Arc::make_mut(&mut device.facts);
        facts.memory_limit_bytes = words.value("memory").map(bytes);
        if let Some(slots) = words.number("slots") {
            facts.slots = u32::try_from(slots).expect("few slots");
        }
        let seen = self.world.observe(&name);
        self.tell(seen);
    }

    pub(crate) fn frameworks(&mut self, words: &Words<'_>) {
        let uuid = words.word(1);
        let name = self.home_of(uuid);
        let facts = Arc::make_mut(&mut self.model(uuid).facts);
        facts.frameworks = words.word(2).split(',').map(Name::new).collect();
        let seen = self.world.observe(&name);
        self.tell(seen);
    }

    pub(crate) fn acquire(&mut self, words: &Words<'_>) {
        let alias = words.word(1);
        let request = request(alias, words);
        if let Some(process) = request.process {
            self.started_process(process.pid);
        }
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
    pub(crate) fn learn(&mut self, alias: &str, ticket: Ticket, effects: &[Effect]) {
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

    pub(crate) fn lease(&self, alias: &str) -> LeaseId {
        match self.leases.get(alias) {
            Some(lease) => *lease,
            None => LeaseId(alias.parse().expect("a lease's name or number")),
        }
    }

    pub(crate) fn hold(&mut self, words: &Words<'_>) {
        let alias = words.word(1);
        let lease = self.lease(alias);
        let own = self.world.scheduler.state().lease(lease).map_or(Token(0), |lease| lease.token);
        let token = words.number("token").map_or(own, Token);
        let holder = words.value("holder").map(holder);
        let ticket = Ticket(self.world.number());
        let caller = self.known_caller(words.value("caller").unwrap_or("someone"));
        self.tickets.insert(ticket, format!("{} {alias}", words.word(0)));
        let input = match words.word(0) {
            "renew" => Input::Renew { caller, ticket, lease, token, holder },
            "acknowledge" => {
                let notice = self.notice(lease, words);
                Input::Acknowledge { caller, ticket, lease, token, notice, holder }
            }
            "extend" => {
                let notice = self.notice(lease, words);
                let extension = span(words.value("by").expect("by how much"));
                Input::ExtendNotice { caller, ticket, lease, token, notice, extension, holder }
            }
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

    pub(crate) fn caller(&mut self, words: &Words<'_>) {
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

    pub(crate) fn device(&mut self, words: &Words<'_>) {
        let target = words.word(1);
        let name = self.home_of(target);
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

    pub(crate) fn node_model(&mut self, name: &str) -> &mut world::NodeModel {
        self.world.nodes.get_mut(name).unwrap_or_else(|| panic!("{name} is no node"))
    }

    pub(crate) fn model(&mut self, uuid: &str) -> &mut world::DeviceModel {
        let node = self.home_of(uuid);
        let node = self.node_model(&node);
        let mut devices = node.devices.iter_mut();
        devices
            .find(|device| device.facts.uuid.as_str() == uuid)
            .unwrap_or_else(|| panic!("{uuid} is no device"))
    }

    pub(crate) fn known_caller(&mut self, name: &str) -> Caller {
        let next = Caller::Call(self.world.number());
        *self.callers.entry(name.to_owned()).or_insert(next)
    }
}
