//! What operators do in a story: policies, owners, cordons, explanations.

use std::sync::Arc;

use gpulease_core::{
    id::{LeaseId, Name, NoticeId, Ticket},
    input::{Input, TargetName},
    policy::{Owner, ServicePolicy, VictimRule},
    time::Span,
    view::{Explanation, QuotaUse, Waiting},
};

use super::{
    Story,
    words::{Words, bytes, names, span},
};

impl Story {
    pub(super) fn policy(&mut self, words: &Words<'_>) {
        let policy = &mut self.world.policy;
        for (key, target) in [
            ("lock_delay", &mut policy.lock_delay),
            ("session_grace", &mut policy.session_grace),
            ("keep_max", &mut policy.keep_max),
            ("aging_step", &mut policy.aging_step),
            ("notice", &mut policy.notice),
            ("notice_max", &mut policy.notice_max),
            ("release_check_max", &mut policy.release_check_max),
            ("node_silent_max", &mut policy.node_silent_max),
            ("half_life", &mut policy.half_life),
        ] {
            if let Some(value) = words.value(key) {
                *target = span(value);
            }
        }
        if let Some(max) = words.number("queued_max") {
            policy.queued_max = usize::try_from(max).expect("a small bound");
        }
        if let Some(rule) = words.value("victims") {
            let rules = [VictimRule::LeastLost, VictimRule::Fewest, VictimRule::Youngest];
            let named = rules.into_iter().find(|known| known.name() == rule);
            policy.victims = named.expect("a rule for victims");
        }
        if let Some(backfill) = words.value("backfill") {
            policy.backfill = backfill == "on";
        }
        if let Some(name) = words.value("placement") {
            policy.placement = super::words::placement(name);
        }
        if words.has("unfair") {
            policy.fairness = false;
        }
        if words.has("grant_unmeasured") {
            policy.grant_unmeasured = true;
        }
        self.world.restart(Span::ZERO);
    }

    /// What a service may have; that is a matter of the configuration, so that changing it is a restart.
    pub(super) fn service(&mut self, words: &Words<'_>) {
        let size = |key: &str| words.value(key).map(bytes);
        let settings = ServicePolicy {
            weight: words.number("weight").map_or(1, |it| u32::try_from(it).expect("small")),
            leases_max: words.number("leases"),
            devices_max: words.number("devices"),
            memory_max_bytes: size("memory"),
            waiting_max: words.number("waiting"),
            lease_memory_min_bytes: size("least"),
            lease_memory_max_bytes: size("most"),
            preferred_device: words.value("prefer").map(Name::new),
        };
        match words.word(1) {
            "*" => self.world.policy.services_default = settings,
            name => drop(self.world.policy.services.insert(name.into(), settings)),
        }
        self.world.restart(Span::ZERO);
    }

    /// What services used, in hours of a whole GiB, and of their quotas.
    pub(super) fn shares(&mut self) {
        for share in self.world.scheduler.service_shares(None, usize::MAX) {
            let of = |it: QuotaUse| {
                let limit = it.limit.map_or_else(String::new, |limit| format!(" of {limit}"));
                format!("{}{limit}", it.in_use)
            };
            let gib_seconds = share.used_byte_seconds >> 30;
            let line = format!(
                "  {} used {gib_seconds} GiB s ({} permille), weight {}, {} leases, {} devices, {} MiB, {} waiting",
                share.service,
                share.used_permille,
                share.weight,
                of(share.leases),
                of(share.devices),
                of(QuotaUse {
                    in_use: share.memory_bytes.in_use >> 20,
                    limit: share.memory_bytes.limit.map(|limit| limit >> 20)
                }),
                of(share.waiting)
            );
            self.told.push_str(&line);
            self.told.push('\n');
        }
    }

    /// Owners are a matter of the configuration, so that changing them is a restart.
    pub(super) fn own(&mut self, words: &Words<'_>) {
        self.world.policy.owners.push(Owner {
            service: words.word(1).into(),
            devices: names(words, "devices"),
            models: names(words, "models"),
            nodes: names(words, "nodes"),
        });
        self.world.restart(Span::ZERO);
    }

    pub(super) fn open(&mut self, words: &Words<'_>) {
        let (uuid, detail) = (words.word(1), words.value("why").unwrap_or(""));
        let ticket = Ticket(self.world.number());
        self.tickets.insert(ticket, format!("open {uuid}"));
        let input = Input::OpenDevice { ticket, uuid: uuid.into(), detail: Arc::from(detail) };
        let seen = self.world.feed(input);
        self.tell(seen);
    }

    pub(super) fn cordon(&mut self, words: &Words<'_>) {
        let (what, named) = (words.word(0), words.word(1));
        let target = if named.contains('/') {
            TargetName::Device(named.into())
        } else {
            TargetName::Node(named.into())
        };
        let ticket = Ticket(self.world.number());
        self.tickets.insert(ticket, format!("{what} {named}"));
        let reason = Arc::from(words.value("why").unwrap_or(""));
        let drain = what == "drain";
        let input = if what == "uncordon" {
            Input::Uncordon { ticket, target }
        } else {
            Input::Cordon { ticket, target, drain, reason }
        };
        let seen = self.world.feed(input);
        self.tell(seen);
    }

    /// The notice that is named, or the lease's newest.
    pub(super) fn notice(&self, lease: LeaseId, words: &Words<'_>) -> NoticeId {
        let newest = self.world.scheduler.state().lease(lease).and_then(|it| it.notice.as_ref());
        words.number("notice").map_or(newest.map_or(NoticeId(0), |notice| notice.id), NoticeId)
    }

    pub(super) fn explain(&mut self, words: &Words<'_>) {
        let id = self.lease(words.word(1));
        let Some(explanation) = self.world.scheduler.explain(id) else {
            return self.say("  nothing is known of it");
        };
        let Explanation { lease, waiting, basis } = explanation;
        let line = self.view(&lease);
        self.say(&format!("  {line}"));
        if let Some(waiting) = waiting {
            self.waiting(&waiting);
        }
        if let Some(basis) = basis {
            self.say(&format!("  {:?}, {} devices would have done", basis.why, basis.fitting));
        }
    }

    fn waiting(&mut self, waiting: &Waiting) {
        let Waiting { known, suitable, fitting, .. } = waiting;
        self.say(&format!("  of {known} devices {suitable} would do, {fitting} now"));
        for (what, count) in &waiting.excluded {
            self.say(&format!("  {count}: {what}"));
        }
        for blocking in &waiting.blocking {
            let gone =
                blocking.forecast.map_or_else(String::new, |span| format!(", gone in {span}"));
            let line = format!(
                "  {} on {}: {}{gone}",
                self.name(blocking.lease),
                blocking.device,
                blocking.preemption
            );
            self.say(&line);
        }
        let forecast =
            waiting.forecast.map_or_else(|| "unknown".to_owned(), |it| format!("in {it}"));
        self.say(&format!("  forecast {forecast}: {}", waiting.forecast_basis));
    }
}
