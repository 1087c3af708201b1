//! What a naive reader of the events believes of every lease, and what may never happen to one.
//!
//! It keeps its own clock of minimum holds, shields, notices and closed parts, on the scheduler's own time, and shares
//! no code with the rules.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use gpulease_core::{
    event::Event,
    id::{DeviceId, LeaseId, NoticeId, Token},
    lease::{EndReason, OpenCause, Why},
    notice::Cause,
    order::Class,
    request::{Preemptible, Request, Share},
    time::{Span, Time},
};

use super::machine::{self, Part};
use crate::world::World;

/// Where a lease stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stand {
    Active,
    Pausing,
    Paused,
    Over,
}

/// A standing notice.
struct Notice {
    given_at: Time,
    /// As the last event said.
    deadline: Time,
    /// When it were over for each cause alone.
    causes: BTreeMap<Cause, Time>,
    extended: bool,
}

impl Notice {
    fn over(&self) -> Time {
        self.causes.values().copied().min().expect("a notice has a cause")
    }

    fn preempts(&self) -> bool {
        self.causes.keys().any(|cause| matches!(cause, Cause::Preemption(_)))
    }
}

/// What is believed of one lease that was granted.
pub(crate) struct Believed {
    pub(crate) stand: Stand,
    pub(crate) token: Token,
    pub(crate) previous: Token,
    /// Whether its newest token was used; unknown after a restart.
    pub(crate) adopted: Option<bool>,
    /// It may not expire before this time.
    pub(crate) safe_until: Time,
    request: Arc<Request>,
    devices: Vec<DeviceId>,
    granted_at: Time,
    class: Class,
    /// It was let in on devices kept for another.
    guest: bool,
    notice: Option<Notice>,
    preempted_at: Vec<Time>,
    shielded_until: Time,
}

/// A part of a device that a former lease may still use.
struct Closed {
    since: Time,
    /// By an unclean end or a loss.
    unclean: bool,
}

/// What callers asked for in the batch at hand.
#[derive(Default)]
pub(crate) struct Asked {
    pub(crate) acknowledged: BTreeSet<LeaseId>,
    pub(crate) extended: BTreeSet<LeaseId>,
    pub(crate) released: BTreeSet<LeaseId>,
    pub(crate) revoked: BTreeSet<LeaseId>,
}

/// See the head of this file.
#[derive(Default)]
pub(crate) struct Model {
    pub(crate) leases: BTreeMap<LeaseId, Believed>,
    closed: BTreeMap<(DeviceId, LeaseId), Closed>,
    /// Trees of unclean ends that outlived the lock delay, by device, as long as passes show them.
    lingering: BTreeSet<(DeviceId, u32)>,
    newest_token: Token,
    newest_notice: NoticeId,
}

impl Model {
    /// Takes in one event of the scheduler's own time `now`. The last full pass over the node with a driver shows what is
    /// there, if `fresh`.
    pub(crate) fn take(
        &mut self,
        now: Time,
        event: &Event,
        (world, asked, fresh): (&World, &Asked, bool),
    ) {
        match event {
            Event::Granted { lease, token, devices, class, basis, .. } => {
                self.granted(now, (*lease, *token, *class), devices, (world, fresh));
                self.believed(*lease).guest = basis.why == Why::Backfilled;
            }
            Event::Noticed { lease, notice, causes, deadline } => {
                assert!(*notice > self.newest_notice, "notice {notice} was given before");
                self.newest_notice = *notice;
                let over = now.after(world.policy.notice);
                assert_eq!((causes.len(), *deadline), (1, over), "a new notice of lease {lease}");
                assert_eq!(self.stand(*lease), Stand::Active);
                self.may_be_noticed(now, *lease, causes[0], world);
                let believed = self.believed(*lease);
                believed.stand = Stand::Pausing;
                let causes = causes.iter().map(|cause| (*cause, over)).collect();
                let notice = Notice { given_at: now, deadline: *deadline, causes, extended: false };
                believed.notice = Some(notice);
            }
            Event::NoticeChanged { lease, causes, deadline, extended, .. } => {
                self.notice_changed(now, *lease, (causes, *deadline, *extended), (world, asked));
            }
            Event::NoticeWithdrawn { lease, .. } => {
                assert_eq!(self.stand(*lease), Stand::Pausing);
                let believed = self.believed(*lease);
                (believed.stand, believed.notice) = (Stand::Active, None);
                let token = world.scheduler.state().lease(*lease).map(|lease| lease.token);
                assert!(token >= Some(believed.token), "a withdrawn notice keeps the token");
            }
            Event::Paused { lease, lost } => {
                let acknowledged = asked.acknowledged.contains(lease);
                assert!(lost.is_some() || acknowledged, "lease {lease} was paused unasked");
                let believed = self.believed(*lease);
                assert_eq!(believed.request.preemptible, Preemptible::Pause);
                if lost.is_none() {
                    assert_eq!(believed.stand, Stand::Pausing);
                    believed.preempted(now);
                }
                self.give_back(now, *lease, lost.is_some(), world);
                self.believed(*lease).stand = Stand::Paused;
            }
            Event::Reclaiming { lease, reason, .. } => {
                self.reclaimed(now, *lease, *reason, asked);
                self.give_back(now, *lease, true, world);
            }
            Event::Opened { device, lease, cause } => {
                self.opened(now, (*device, *lease, *cause), (world, fresh));
            }
            Event::Ended { lease, reason, .. } => {
                self.ended(now, *lease, *reason, (world, asked));
            }
            _ => {}
        }
    }

    /// A restart: every lease has its full TTL again, every notice and every closed part its full time.
    pub(crate) fn restarted(&mut self, now: Time) {
        for believed in self.leases.values_mut() {
            believed.safe_until = now.after(believed.request.ttl);
            believed.adopted = None;
            if let Some(notice) = &mut believed.notice {
                let whole = notice.deadline.since(notice.given_at);
                let over = notice.deadline.max(now.after(whole));
                notice.causes.values_mut().for_each(|at| *at = over);
            }
        }
        self.closed.values_mut().for_each(|closed| closed.since = now);
    }

    /// A full pass over the node with a driver came in.
    pub(crate) fn passed(&mut self, world: &World) {
        self.lingering.retain(|(device, root)| machine::shows(world, *device, *root));
    }

    pub(crate) fn believed(&mut self, lease: LeaseId) -> &mut Believed {
        self.leases.get_mut(&lease).expect("only what was granted can be held")
    }

    fn stand(&self, lease: LeaseId) -> Stand {
        self.leases.get(&lease).map_or(Stand::Over, |believed| believed.stand)
    }

    fn granted(
        &mut self,
        now: Time,
        (id, token, class): (LeaseId, Token, Class),
        devices: &[DeviceId],
        (world, fresh): (&World, bool),
    ) {
        assert!(token > self.newest_token, "token {token} after {}", self.newest_token);
        self.newest_token = token;
        let before = self.leases.remove(&id);
        assert!(before.as_ref().is_none_or(|before| before.stand == Stand::Paused));
        let request = world.scheduler.state().lease(id).expect("just granted").request.clone();
        let share = request.ask.share;
        for device in devices {
            self.fits(id, share, *device, world);
            if fresh {
                self.memory_is_there(&request, *device, (world, before.is_some()));
            }
        }
        let safe_until = now.after(request.ttl);
        let (previous, preempted_at, shielded_until) = before
            .map(|before| (before.token, before.preempted_at, before.shielded_until))
            .unwrap_or_default();
        let believed = Believed {
            stand: Stand::Active,
            token,
            previous,
            adopted: Some(false),
            safe_until,
            request,
            devices: devices.to_vec(),
            granted_at: now,
            class,
            guest: false,
            notice: None,
            preempted_at,
            shielded_until,
        };
        self.leases.insert(id, believed);
    }

    /// P1: beside what others hold, and what former leases may still use.
    fn fits(&self, id: LeaseId, share: Share, device: DeviceId, world: &World) {
        let shares = self.shares_on(device);
        let facts = &world.scheduler.state().inventory().device(device).expect("granted").facts;
        if share == Share::Exclusive {
            assert!(shares.is_empty(), "lease {id} gets {device:?} whole, beside {shares:?}");
            return;
        }
        assert!(!shares.contains(&Share::Exclusive), "{device:?} is held or closed whole");
        let slots: u64 = shares.iter().map(|other| u64::from(other.slots())).sum();
        let bytes: u64 = shares.iter().map(|other| other.memory_bytes()).sum();
        let (slots, bytes) = (slots + u64::from(share.slots()), bytes + share.memory_bytes());
        assert!(share.slots() == 0 || slots <= u64::from(facts.slots));
        assert!(share.memory_bytes() == 0 || bytes <= facts.memory_total_bytes);
    }

    fn shares_on(&self, device: DeviceId) -> Vec<Share> {
        self.parts_on(device).into_iter().map(|part| part.share).collect()
    }

    fn parts_on(&self, device: DeviceId) -> Vec<Part> {
        let part = |believed: &Believed| Part {
            process: believed.request.process,
            share: believed.request.ask.share,
        };
        let holds = |believed: &&Believed| {
            matches!(believed.stand, Stand::Active | Stand::Pausing)
                && believed.devices.contains(&device)
        };
        let held = self.leases.values().filter(holds).map(part);
        let closed = self.closed.keys().filter(|(other, _)| *other == device);
        let closed = closed.map(|(_, lease)| part(&self.leases[lease]));
        held.chain(closed).collect()
    }

    /// P8 on the node with a driver: what is leased, closed and foreign fits together; P1: a whole device is empty but for
    /// a gibibyte, and nothing of an unclean end is seen there.
    fn memory_is_there(
        &self,
        request: &Arc<Request>,
        device: DeviceId,
        (world, resumed): (&World, bool),
    ) {
        let facts = &world.scheduler.state().inventory().device(device).expect("granted").facts;
        if facts.answers_at_once || !machine::is_attributed(world, device) {
            return;
        }
        let mut parts = self.parts_on(device);
        if request.ask.share == Share::Exclusive {
            // What a paused lease kept there is its own.
            let own = request.process.filter(|_| resumed);
            parts.extend(
                own.map(|process| Part { process: Some(process), share: Share::Exclusive }),
            );
            let foreign = machine::foreign_bytes(world, device, &parts);
            assert!(foreign <= 1 << 30, "{device:?} is granted whole with {foreign} in use");
            let left = self
                .lingering
                .iter()
                .filter(|(_, root)| own.is_none_or(|own| own.pid != *root))
                .find(|(other, root)| *other == device && machine::shows(world, device, *root));
            assert_eq!(left, None, "a former lease is still on a device granted whole");
        } else if request.ask.share.memory_bytes() > 0 {
            // Its own process may be there before.
            parts.push(Part { process: request.process, share: request.ask.share });
            let foreign = machine::foreign_bytes(world, device, &parts);
            let taken: u64 = parts.iter().map(|part| part.share.memory_bytes()).sum();
            assert!(
                taken + foreign <= facts.memory_total_bytes,
                "{device:?}: {taken} taken and {foreign} foreign"
            );
        }
    }

    /// P14: whom a cause may hit.
    fn may_be_noticed(&self, now: Time, id: LeaseId, cause: Cause, world: &World) {
        let victim = &self.leases[&id];
        let request = &victim.request;
        assert_ne!(request.preemptible, Preemptible::Never, "lease {id} may never be preempted");
        let held = victim.granted_at.after(request.minimum_hold);
        assert!(held <= now, "lease {id} has its minimum hold until {held}, now is {now}");
        let Cause::Preemption(preemptor) = cause else { return };
        let state = world.scheduler.state();
        let preemptor = &state.lease(preemptor).expect("it waits").request;
        let inventory = state.inventory();
        let owned = victim.devices.iter().any(|device| {
            let device = inventory.device(*device).expect("it is held");
            let node = inventory.node(device.node).expect("a device has a node");
            world.policy.owner_of(&device.facts, &node.facts) == Some(&preemptor.holder.service)
        });
        let borrowed = owned && preemptor.holder.service != request.holder.service;
        assert!(
            Class::own(preemptor.priority) > victim.class || borrowed || victim.guest,
            "lease {id} of {:?} is hit by {:?}",
            victim.class,
            preemptor.priority
        );
        let already = victim.notice.as_ref().is_some_and(Notice::preempts);
        assert!(already || victim.shielded_until <= now, "lease {id} is shielded");
    }

    fn notice_changed(
        &mut self,
        now: Time,
        id: LeaseId,
        (causes, deadline, extended): (&[Cause], Time, bool),
        (world, asked): (&World, &Asked),
    ) {
        assert_eq!(self.stand(id), Stand::Pausing);
        let known = self.leases[&id].notice.as_ref().expect("it is PAUSING");
        let new = |cause: &&Cause| !known.causes.contains_key(*cause);
        for cause in causes.iter().filter(new).copied().collect::<Vec<_>>() {
            self.may_be_noticed(now, id, cause, world);
        }
        let notice = self.believed(id).notice.as_mut().expect("it is PAUSING");
        let before = notice.over();
        let over = now.after(world.policy.notice);
        notice.causes.retain(|cause, _| causes.contains(cause));
        for cause in causes {
            notice.causes.entry(*cause).or_insert(over);
        }
        if extended && !notice.extended {
            assert!(asked.extended.contains(&id), "lease {id} has an extension unasked");
            let whole = notice.deadline.since(notice.given_at);
            let longest = notice.given_at.after(world.policy.notice_max).max(before);
            assert!(deadline >= before && deadline <= before.after(whole).min(longest));
            notice.causes.values_mut().for_each(|at| *at = deadline.max(*at));
        }
        assert_eq!(deadline, notice.over(), "the notice of lease {id}");
        (notice.deadline, notice.extended) = (deadline, extended);
    }

    fn reclaimed(&mut self, now: Time, id: LeaseId, reason: EndReason, asked: &Asked) {
        let believed = self.believed(id);
        match reason {
            EndReason::Expired => {
                assert!(now >= believed.safe_until, "lease {id} expired before its TTL");
            }
            EndReason::Revoked if !asked.revoked.contains(&id) => {
                let over = believed.notice.as_ref().map(Notice::over);
                assert!(
                    believed.stand == Stand::Pausing && over.is_some_and(|over| over <= now),
                    "lease {id} is revoked at {now}, its notice is over at {over:?}"
                );
            }
            EndReason::Revoked => {}
            EndReason::DeviceLost => {
                assert_ne!(believed.request.preemptible, Preemptible::Pause);
            }
            other => panic!("lease {id} is reclaiming: {other:?}"),
        }
    }

    /// What a lease held is free at once, or closed.
    fn give_back(&mut self, now: Time, id: LeaseId, unclean: bool, world: &World) {
        let inventory = world.scheduler.state().inventory();
        let believed = self.believed(id);
        assert!(matches!(believed.stand, Stand::Active | Stand::Pausing));
        (believed.stand, believed.notice) = (Stand::Over, None);
        for device in believed.devices.clone() {
            let exact = inventory.device(device).is_some_and(|it| it.facts.answers_at_once);
            if unclean || !exact {
                self.closed.insert((device, id), Closed { since: now, unclean });
            }
        }
    }

    fn opened(
        &mut self,
        now: Time,
        (device, lease, cause): (DeviceId, LeaseId, OpenCause),
        (world, fresh): (&World, bool),
    ) {
        let closed = self.closed.remove(&(device, lease)).expect("it was closed");
        let process = self.leases[&lease].request.process;
        let waited = now.since(closed.since);
        match cause {
            OpenCause::LockDelay => {
                assert!(closed.unclean && waited >= Span::from_secs(15), "open after {waited}");
                let facts =
                    &world.scheduler.state().inventory().device(device).expect("known").facts;
                if let Some(process) = process.filter(|_| !facts.answers_at_once) {
                    self.lingering.insert((device, process.pid));
                }
            }
            OpenCause::CheckOver => {
                assert!(!closed.unclean && waited >= Span::from_secs(2), "open after {waited}");
            }
            OpenCause::Exited => {
                let process = process.expect("a declared tree has exited");
                let node = &world.nodes[machine::REAL];
                assert!(!fresh || !node.alive.contains(&process.pid), "{process:?} lives");
                assert!(closed.unclean && machine::is_attributed(world, device));
            }
            OpenCause::Checked => {
                assert!(!closed.unclean);
                if let (true, true, Some(process)) =
                    (fresh, machine::is_attributed(world, device), process)
                {
                    let own = self.parts_on(device);
                    let own = own.iter().filter(|part| part.process == Some(process));
                    let room: u64 = own.map(|part| part.share.memory_bytes()).sum();
                    let uses = machine::uses(world, device);
                    let uses = uses.iter().filter(|(root, _)| *root == Some(process.pid));
                    let used: u64 = uses.map(|(_, used)| used).sum();
                    assert!(used <= room || self.unsized_part(device, process.pid));
                }
            }
            OpenCause::LateRelease => assert!(closed.unclean),
            OpenCause::Reboot | OpenCause::Operator | OpenCause::Moved => {}
        }
    }

    fn unsized_part(&self, device: DeviceId, pid: u32) -> bool {
        let own = self.parts_on(device);
        let mut own = own.iter().filter(|part| part.process.is_some_and(|it| it.pid == pid));
        own.any(|part| part.share.memory_bytes() == 0)
    }

    fn ended(
        &mut self,
        now: Time,
        id: LeaseId,
        reason: EndReason,
        (world, asked): (&World, &Asked),
    ) {
        let Some(believed) = self.leases.get_mut(&id) else { return };
        match believed.stand {
            Stand::Active | Stand::Pausing => {
                if reason == EndReason::Revoked {
                    assert!(asked.acknowledged.contains(&id) && believed.stand == Stand::Pausing);
                    assert_eq!(believed.request.preemptible, Preemptible::End);
                } else {
                    assert!(reason == EndReason::Released && asked.released.contains(&id));
                }
                self.give_back(now, id, false, world);
            }
            Stand::Paused => {
                if reason == EndReason::Expired {
                    assert!(now >= believed.safe_until, "lease {id} expired before its TTL");
                }
                believed.stand = Stand::Over;
            }
            Stand::Over => {
                let devices = &believed.devices;
                let open = |device: &DeviceId| !self.closed.contains_key(&(*device, id));
                assert!(devices.iter().all(open), "lease {id} ended, and closes a device");
            }
        }
    }
}

impl Believed {
    /// It gave way: the third time within an hour shields it.
    fn preempted(&mut self, now: Time) {
        if !self.notice.as_ref().is_some_and(Notice::preempts) {
            return;
        }
        self.preempted_at.retain(|at| now.since(*at) <= Span::from_minutes(60));
        self.preempted_at.push(now);
        if self.preempted_at.len() == 3 {
            self.preempted_at.clear();
            self.shielded_until = now.after(Span::from_minutes(10));
        }
    }
}
