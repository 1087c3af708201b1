//! What the scheduler decided and said, as the lines of a story.

use std::fmt::Write as _;

use gpulease_core::{
    event::Event,
    id::{Caller, DeviceId, LeaseId, NodeId},
    lease::{OpenCause, State as LeaseState},
    notice::{Cause, Target},
    output::{Answer, Effect, Rejection},
    time::Time,
    view::{DeviceName, LeaseView},
};

use super::Story;

impl Story {
    pub(crate) fn say(&mut self, line: &str) {
        self.told.push_str(line);
        self.told.push('\n');
    }

    pub(crate) fn tell_all(&mut self, seen: Vec<(Time, Vec<Event>, Vec<Effect>)>) {
        for (at, events, effects) in seen {
            // The time made durable now and then is no part of any story.
            if effects.is_empty() && events.iter().all(|event| *event == Event::Checkpoint) {
                continue;
            }
            self.say(&format!("at {at}"));
            self.tell((events, effects));
        }
    }

    pub(crate) fn tell(&mut self, (events, effects): (Vec<Event>, Vec<Effect>)) {
        for event in events {
            let line = self.event(&event);
            self.say(&format!("  {line}"));
        }
        for effect in effects {
            let line = self.effect(&effect);
            self.say(&format!("  -> {line}"));
        }
    }

    pub(crate) fn name(&self, id: LeaseId) -> String {
        self.names.get(&id).cloned().unwrap_or_else(|| format!("lease {id}"))
    }

    pub(crate) fn uuids(&self, devices: &[DeviceId]) -> String {
        let inventory = self.world.scheduler.state().inventory();
        let uuid =
            |id: &DeviceId| inventory.device(*id).map(|device| device.facts.uuid.to_string());
        devices.iter().filter_map(uuid).collect::<Vec<_>>().join(" ")
    }

    pub(crate) fn event(&self, event: &Event) -> String {
        match event {
            Event::NodeAdded { .. }
            | Event::NodeChanged { .. }
            | Event::NodeLost { .. }
            | Event::NodeRecovered { .. }
            | Event::NodeRenamed { .. } => self.node_event(event),
            Event::DeviceAdded { facts, .. } => format!("device {} added", facts.uuid),
            Event::DeviceChanged { facts, .. } => format!("device {} changed", facts.uuid),
            Event::DeviceLost { device, detail } => {
                format!("device {} lost: {detail}", self.uuids(&[*device]))
            }
            Event::DeviceRecovered { device } => {
                format!("device {} recovered", self.uuids(&[*device]))
            }
            Event::DeviceMoved { device, before, node } => {
                let (device, node) = (self.uuids(&[*device]), self.node_name(*node));
                format!("{device} moved from {before} to {node}")
            }
            Event::Requested { lease, .. } => format!("{} requested", self.name(*lease)),
            Event::Noticed { .. }
            | Event::NoticeChanged { .. }
            | Event::NoticeWithdrawn { .. }
            | Event::Paused { .. } => self.notice_event(event),
            Event::Cordoned { target, drain, .. } => {
                let what = if *drain { "drained" } else { "cordoned" };
                format!("{} {what}", self.target(*target))
            }
            Event::Uncordoned { target } => format!("{} uncordoned", self.target(*target)),
            Event::Granted { lease, token, devices, .. } => {
                format!("{} granted, token {token}: {}", self.name(*lease), self.uuids(devices))
            }
            Event::Kept { lease, devices, lapses_at, .. } => {
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
                let (device, cause) = (self.uuids(&[*device]), open_cause(*cause));
                format!("{device} opened after {}: {cause}", self.name(*lease))
            }
            Event::Ended { lease, reason, detail } => {
                format!("{} ended: {reason:?}{}", self.name(*lease), in_words(detail.as_deref()))
            }
            Event::Checkpoint => "checkpoint".to_owned(),
            Event::HalfLifeChanged { half_life } => format!("use halves in {half_life}"),
            Event::Imported { .. } => "imported".to_owned(),
            Event::DeviceOpened { device, cause, detail } => {
                let (device, cause) = (self.uuids(&[*device]), open_cause(*cause));
                format!("{device} opened: {cause}{}", in_words(detail.as_deref()))
            }
        }
    }

    fn node_name(&self, id: NodeId) -> String {
        let node = self.world.scheduler.state().inventory().node(id);
        node.map_or_else(String::new, |node| node.facts.name.to_string())
    }

    fn node_event(&self, event: &Event) -> String {
        match event {
            Event::NodeAdded { facts } => format!("node {} added", facts.name),
            Event::NodeChanged { node, facts, .. } => {
                format!("node {} changed, boot id {}", self.node_name(*node), facts.boot_id)
            }
            Event::NodeLost { node } => format!("node {} lost", self.node_name(*node)),
            Event::NodeRecovered { node } => format!("node {} recovered", self.node_name(*node)),
            Event::NodeRenamed { before, facts, .. } => {
                format!("node {before} is {} now", facts.name)
            }
            other => format!("{other:?}"),
        }
    }

    fn notice_event(&self, event: &Event) -> String {
        match event {
            Event::Noticed { lease, notice, causes, deadline } => format!(
                "{} has notice {notice} until {deadline}: {}",
                self.name(*lease),
                self.causes(causes)
            ),
            Event::NoticeChanged { lease, notice, causes, deadline, .. } => format!(
                "{} has notice {notice} until {deadline} now: {}",
                self.name(*lease),
                self.causes(causes)
            ),
            Event::NoticeWithdrawn { lease, notice } => {
                format!("{} has notice {notice} withdrawn", self.name(*lease))
            }
            Event::Paused { lease, lost } => {
                format!("{} paused{}", self.name(*lease), in_words(lost.as_deref()))
            }
            _ => unreachable!("it is no event of a notice"),
        }
    }

    pub(crate) fn effect(&self, effect: &Effect) -> String {
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
            Effect::Check { device, number, .. } => format!("check {number} of {device}"),
            Effect::Quiesce { node, quiesced } => {
                format!("driver of {node} {}", if *quiesced { "let go" } else { "taken up" })
            }
            Effect::Track { process } => format!("track process {}", process.pid),
            Effect::ClaimRefused { device, node, claimant } => {
                format!("{claimant} claims {device}, which stays on {node}")
            }
            Effect::SessionReplaced { caller } => {
                format!("{} hears: replaced", self.caller_name(*caller))
            }
        }
    }

    fn target(&self, target: Target) -> String {
        match target {
            Target::Device(device) => self.uuids(&[device]),
            Target::Node(node) => {
                let node = self.world.scheduler.state().inventory().node(node);
                node.map_or_else(String::new, |node| format!("node {}", node.facts.name))
            }
        }
    }

    fn causes(&self, causes: &[Cause]) -> String {
        let cause = |cause: &Cause| match cause {
            Cause::Preemption(lease) => format!("preempted by {}", self.name(*lease)),
            Cause::Drain(target) => format!("drain of {}", self.target(*target)),
        };
        causes.iter().map(cause).collect::<Vec<_>>().join(", ")
    }

    pub(crate) fn caller_name(&self, caller: Caller) -> String {
        let named = self.callers.iter().find(|(_, known)| **known == caller);
        named.map_or_else(|| "an older session".to_owned(), |(name, _)| name.clone())
    }

    pub(crate) fn answer(&self, answer: &Answer) -> String {
        match answer {
            Answer::Queued(view) | Answer::Lease(view) => self.view(view),
            Answer::Renewed { token, remaining, notice, resumed, .. } => {
                let mut line = format!("renewed, token {token}, for {remaining}");
                if let Some(notice) = notice {
                    let _ = write!(line, ", notice {} with {} left", notice.id, notice.remaining);
                }
                if let Some(view) = resumed {
                    let _ = write!(line, ", resumed: {}", self.view(view));
                }
                line
            }
            Answer::Acknowledged(view) => format!("acknowledged, {}", self.view(view)),
            Answer::NoticeExtended(view) => format!("extended, {}", self.view(view)),
            Answer::Cordoned(met) => {
                let names = |leases: &[LeaseId]| {
                    leases.iter().map(|id| self.name(*id)).collect::<Vec<_>>().join(" ")
                };
                format!(
                    "cordoned; holding [{}], noticed [{}], later [{}], staying [{}]",
                    names(&met.holding),
                    names(&met.noticed),
                    names(&met.later),
                    names(&met.staying)
                )
            }
            Answer::Uncordoned => "uncordoned".to_owned(),
            Answer::Planned(planned) => {
                let leases = planned.assignments.iter().filter_map(|it| it.lease.as_ref());
                let leases: Vec<String> = leases.map(|lease| self.view(lease)).collect();
                format!("reserved: {}", leases.join("; "))
            }
            Answer::Quiesced => "told".to_owned(),
            Answer::Released(view) => format!("released, {}", self.view(view)),
            Answer::Revoked(view) => format!("revoked, {}", self.view(view)),
            Answer::DeviceOpened { leases } => {
                let leases: Vec<String> = leases.iter().map(|id| self.name(*id)).collect();
                let after = if leases.is_empty() { "" } else { " after " };
                format!("open{after}{}", leases.join(" "))
            }
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

    pub(crate) fn view(&self, view: &LeaseView) -> String {
        let mut line = format!("{} is {}", self.name(view.id), state(view.state));
        let list = |names: &[DeviceName]| {
            names.iter().map(|name| name.facts.uuid.to_string()).collect::<Vec<_>>().join(" ")
        };
        if view.state.waits() {
            let _ = write!(line, " at {}", view.queue_position);
        }
        for (what, devices) in
            [("on", &view.devices), ("closing", &view.closed), ("kept", &view.kept)]
        {
            if !devices.is_empty() {
                let _ = write!(line, ", {what} {}", list(devices));
            }
        }
        if let Some(notice) = &view.notice {
            let _ = write!(line, ", notice {} with {} left", notice.id, notice.remaining);
        }
        if let Some(remaining) = view.remaining {
            let _ = write!(line, ", {remaining} left");
        }
        line
    }

    pub(crate) fn rejection(&self, rejection: &Rejection) -> String {
        match rejection {
            Rejection::Unsatisfiable(report) => format!("unsatisfiable: {report}"),
            Rejection::WaitOver { waited, held_back } => {
                let why = held_back.as_ref().map_or_else(String::new, |it| format!(": {it}"));
                format!("waited {waited}{why}")
            }
            Rejection::QuotaReached(reached) => reached.to_string(),
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
            Rejection::DevicesClosed { devices, remaining } => {
                format!("{devices} devices are closed for {remaining}")
            }
            Rejection::DeviceNotFound { uuid } => format!("no device {uuid}"),
            Rejection::NoticeOver { .. } => "that notice is over".to_owned(),
            Rejection::NoticeAtBound { max, .. } => {
                format!("the notice is as long as it may be, at most {max}")
            }
            Rejection::RequestIdTaken { lease } => format!("request id is {}'s", self.name(*lease)),
            Rejection::RequestIdReused { lease } => {
                format!("request id made {}", self.name(*lease))
            }
            Rejection::PlanIncomplete { name, unassigned, why, .. } => {
                let never = if why.never { ", and never will" } else { "" };
                format!("{unassigned} pipelines do not fit{never}; {name}: {}", why.reason)
            }
            Rejection::InvalidField(invalid) => format!("invalid: {invalid}"),
            other => format!("{other:?}"),
        }
    }

    pub(crate) fn show(&mut self) {
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
            let closed =
                view.closed_remaining.map_or_else(String::new, |span| format!(" for {span}"));
            let foreign = view.memory_foreign_bytes.filter(|bytes| *bytes > 0);
            let foreign =
                foreign.map_or_else(String::new, |bytes| format!(", {}MiB foreign", bytes >> 20));
            let closing: Vec<String> =
                device.closed.keys().map(|lease| self.name(*lease)).collect();
            let closing = if closing.is_empty() {
                String::new()
            } else {
                format!(", closed after {}", closing.join(" "))
            };
            lines.push(format!(
                "{}: {:?}{closed}, {free} free{foreign}, {} slots used{closing}{kept}",
                device.facts.uuid, view.condition, device.slots_used
            ));
        }
        for view in scheduler.leases(LeaseId(0), 100, |lease| lease.state.live()).leases {
            lines.push(self.view(&view));
        }
        for line in lines {
            self.say(&format!("  {line}"));
        }
    }
}

fn open_cause(cause: OpenCause) -> &'static str {
    match cause {
        OpenCause::LockDelay => "lock delay over",
        OpenCause::Reboot => "node rebooted",
        OpenCause::LateRelease => "released late",
        OpenCause::Checked => "nothing is left there",
        OpenCause::CheckOver => "checked for long enough",
        OpenCause::Exited => "its processes have exited",
        OpenCause::Operator => "an operator's word",
        OpenCause::Moved => "it is on another node now",
    }
}

fn state(state: LeaseState) -> String {
    match state {
        LeaseState::Queued => "QUEUED".to_owned(),
        LeaseState::Active => "ACTIVE".to_owned(),
        LeaseState::Pausing => "PAUSING".to_owned(),
        LeaseState::Paused => "PAUSED".to_owned(),
        LeaseState::Reclaiming(reason) => format!("RECLAIMING ({reason:?})"),
        LeaseState::Ended(reason) => format!("ENDED ({reason:?})"),
    }
}

fn in_words(detail: Option<&str>) -> String {
    detail.map(|detail| format!(", {detail}")).unwrap_or_default()
}
