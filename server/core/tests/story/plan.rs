//! Plans in a story.

use std::sync::Arc;

use gpulease_core::{
    id::{Holder, Name, Ticket},
    input::Input,
    output::{Answer, Effect},
    plan::{PipelineFields, PlanFields, Planned, Reservation, StepFields},
    request::{AffinityScope, Ask, Constraints, Share},
};

use super::{
    Story,
    words::{Words, bytes, request},
};

impl Story {
    /// `pipeline NAME [scope=node] [overlap] steps=NAME:IN-OUT[:ASK],… [constraints]`: adds one to the plan that is told
    /// next; the first after a plan begins another. An ask is `whole`, or `[2x][1s][8GiB]`.
    pub(super) fn pipeline(&mut self, words: &Words<'_>) {
        if std::mem::take(&mut self.plan_told) {
            self.pipelines.clear();
        }
        let steps = words.value("steps").unwrap_or("s:torch-torch").split(',').map(step).collect();
        let scope = match words.value("scope") {
            Some("node") => AffinityScope::Node,
            _ => AffinityScope::Device,
        };
        let constraints =
            Constraints { same_node: false, ..request(words.word(1), words).constraints };
        self.pipelines.push(PipelineFields {
            name: words.word(1).into(),
            steps,
            scope,
            steps_overlap: words.has("overlap"),
            constraints,
        });
    }

    /// `plan [reserve=ID] [key=KEY] [service= holder= priority= ttl= expect= preemptible=]`: asks where they go.
    pub(super) fn plan(&mut self, words: &Words<'_>) {
        self.plan_told = true;
        let reserve = words.value("reserve").map(|id| {
            let asked = request(id, words);
            Reservation {
                holder: Holder { ..asked.holder },
                request_id: id.into(),
                affinity_key: words.value("key").map(Name::new),
                priority: asked.priority,
                ttl: asked.ttl,
                expected_duration: asked.expected_duration,
                preemptible: asked.preemptible,
            }
        });
        let reserves = reserve.is_some();
        let plan = match (PlanFields { pipelines: self.pipelines.clone(), reserve }).validate() {
            Ok(plan) => Arc::new(plan),
            Err(invalid) => return self.say(&format!("plan: invalid: {invalid}")),
        };
        let names: Vec<String> = plan.names().map(ToString::to_string).collect();
        if !reserves {
            return match self.world.scheduler.plan(&plan) {
                Ok(planned) => self.planned(&names, &planned),
                Err(rejection) => {
                    let line = format!("  plan: no: {}", self.rejection(&rejection));
                    self.say(&line);
                }
            };
        }
        let ticket = Ticket(self.world.number());
        self.tickets.insert(ticket, "plan".to_owned());
        let (events, effects) = self.world.feed(Input::Reserve { ticket, plan });
        let planned = effects.iter().find_map(|effect| match effect {
            Effect::Reply { reply: Ok(Answer::Planned(planned)), .. } => Some(planned.clone()),
            _ => None,
        });
        for (name, assignment) in names.iter().zip(planned.iter().flat_map(|it| &it.assignments)) {
            if let Some(lease) = &assignment.lease {
                self.leases.insert(name.clone(), lease.id);
                self.names.insert(lease.id, name.clone());
            }
        }
        self.tell((events, effects));
        if let Some(planned) = planned {
            self.planned(&names, &planned);
        }
    }

    /// `queue [service=]`: shows it from its front.
    pub(super) fn queue(&mut self, words: &Words<'_>) {
        let service = words.value("service").map(Name::new);
        let queue = self.world.scheduler.queue(100, service.as_ref());
        for entry in &queue.entries {
            let forecast = entry.forecast.map_or_else(String::new, |it| format!(", in {it}"));
            let held_back =
                entry.held_back.as_ref().map_or_else(String::new, |it| format!(", {it}"));
            let line = format!(
                "  {} {}: {:?}{}{}, used {}{forecast}{held_back}",
                entry.position,
                self.name(entry.lease.id),
                entry.class,
                if entry.resumed { ", resumes" } else { "" },
                if entry.away { ", away" } else { "" },
                entry.share_byte_seconds,
            );
            self.say(&line);
        }
        for share in &queue.services {
            let line = format!(
                "  {}: {} of 1000, leases {}, devices {}, waiting {}",
                share.service,
                share.used_permille,
                share.leases.in_use,
                share.devices.in_use,
                share.waiting.in_use
            );
            self.say(&line);
        }
    }

    fn planned(&mut self, names: &[String], planned: &Planned) {
        for (name, assignment) in names.iter().zip(&planned.assignments) {
            let uuids: Vec<&str> =
                assignment.devices.iter().map(|device| device.facts.uuid.as_str()).collect();
            let steps = assignment.steps.iter().map(|step| format!("{step:?}"));
            let steps: Vec<String> = steps.collect();
            let line = match &assignment.unassigned {
                Some(why) => format!("{name}: none: {}", why.reason),
                None if uuids.is_empty() => format!("{name}: needs none"),
                None => format!("{name}: {}, steps {}", uuids.join(" "), steps.join(" ")),
            };
            self.say(&format!("  {line}"));
        }
        for load in &planned.loads {
            let line = format!(
                "  {}: {} -> {} of 1000, pipelines {}",
                load.device.facts.uuid, load.before_permille, load.after_permille, load.pipelines
            );
            self.say(&line);
        }
        if !planned.complete {
            self.say("  incomplete");
        }
    }
}

fn step(text: &str) -> StepFields {
    let mut parts = text.split(':');
    let name = parts.next().unwrap_or_default();
    let (input, output) = parts.next().and_then(|it| it.split_once('-')).unwrap_or(("", ""));
    StepFields {
        name: name.into(),
        input_memory_type: input.into(),
        output_memory_type: output.into(),
        ask: parts.next().map(ask),
    }
}

fn ask(text: &str) -> Ask {
    let (devices, text) = text.split_once('x').unwrap_or(("1", text));
    let devices = devices.parse().expect("a count of devices");
    if text == "whole" {
        return Ask { devices, share: Share::Exclusive };
    }
    let (slots, memory) = match text.split_once('s') {
        Some((slots, memory)) => (Some(slots.parse().expect("a count of slots")), memory),
        None => (None, text),
    };
    let memory_bytes = (!memory.is_empty()).then(|| bytes(memory));
    Ask { devices, share: Share::Part { slots, memory_bytes } }
}
