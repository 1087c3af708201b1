//! What must hold after every step. Each is a named function; [`check`] calls them all, and so does every test layer.
//!
//! They recompute from the leases what the indexes claim, so that a booking mistake shows at once. Cost: linear in
//! the state; for tests and offline checks, not for the running coordinator.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    event::Event,
    fairness::entry_charge,
    id::{DeviceId, LeaseId, Name, Token},
    inventory::{Device, Node, Sums},
    lease::{Lease, State as LeaseState, Why},
    order::Lane,
    request::{Preemptible, Share},
    state::{Held, State, Tally},
};

/// What does not hold, in words.
pub type Violation = String;

/// Checks every invariant of a state.
///
/// # Errors
/// The first that does not hold.
pub fn check(state: &State) -> Result<(), Violation> {
    devices_are_on_their_nodes(state)?;
    devices_hold_what_leases_say(state)?;
    whole_devices_are_alone(state)?;
    imports_close_until_their_time(state)?;
    reclaiming_leases_close_something(state)?;
    notices_stand_for_pausing_leases(state)?;
    hosts_carry_what_leases_say(state)?;
    tokens_are_unique_and_below_the_newest(state)?;
    names_are_unique_among_holders(state)?;
    request_ids_name_their_leases(state)?;
    services_count_what_their_leases_hold(state)?;
    keeps_are_one_per_priority_and_disjoint(state)?;
    the_tally_counts_the_leases(state)?;
    states_and_times_agree(state)
}

/// P1, before a grant is applied: it fits what the leases leave. Foreign memory, which the state does not know, comes
/// on top of that.
///
/// # Errors
/// How the grant does not fit.
pub fn grant_fits(state: &State, event: &Event) -> Result<(), Violation> {
    let Event::Granted { lease, token, devices, basis, .. } = event else { return Ok(()) };
    let guest = basis.why == Why::Backfilled;
    let Some(lease) = state.lease(*lease) else { return Err(format!("lease {lease} is unknown")) };
    let ask = lease.request.ask;
    if devices.len() != ask.devices as usize || !devices.is_sorted_by(|a, b| a < b) {
        return Err(format!(
            "lease {} asked for {} devices and gets {devices:?}",
            lease.id, ask.devices
        ));
    }
    for id in devices {
        let Some(device) = state.inventory().device(*id) else {
            return Err(format!("device {id} is unknown"));
        };
        if *token <= device.token {
            return Err(format!(
                "token {token} is not above {} on {}",
                device.token, device.facts.uuid
            ));
        }
        if device.lost.is_some() {
            return Err(format!(
                "lease {} is granted the lost device {}",
                lease.id, device.facts.uuid
            ));
        }
        if device.closed_until.is_some() {
            return Err(format!(
                "lease {} is granted {}, which an import closed",
                lease.id, device.facts.uuid
            ));
        }
        let node = state.inventory().node(device.node);
        if device.cordon.is_some() || node.is_none_or(|node| node.cordon.is_some() || node.lost) {
            return Err(format!(
                "lease {} is granted {}, which is cordoned or on a lost node",
                lease.id, device.facts.uuid
            ));
        }
        if !guest && device.kept_for.is_some_and(|kept| kept != lease.id) {
            return Err(format!(
                "lease {} is granted {}, kept for another",
                lease.id, device.facts.uuid
            ));
        }
        share_fits(lease, device, ask.share)?;
    }
    host_fits(state, lease, devices)
}

fn share_fits(lease: &Lease, device: &Device, share: Share) -> Result<(), Violation> {
    let facts = &device.facts;
    let fits = match share {
        Share::Exclusive => device.idle(),
        Share::Part { .. } => {
            let slots = u64::from(share.slots())
                .saturating_add(device.slots_used)
                .saturating_add(device.slots_closed());
            let bytes = (share.memory_bytes())
                .saturating_add(device.memory_used_bytes)
                .saturating_add(device.memory_closed_bytes());
            let bytes_max = facts.memory_ceiling_bytes().saturating_sub(facts.memory_reserve_bytes);
            device.exclusive == 0
                && (share.slots() == 0 || slots <= u64::from(facts.slots))
                && (share.memory_bytes() == 0 || bytes <= bytes_max)
        }
    };
    if fits {
        Ok(())
    } else {
        Err(format!("lease {} does not fit on {}: {device:?}", lease.id, facts.uuid))
    }
}

fn host_fits(state: &State, lease: &Lease, devices: &[DeviceId]) -> Result<(), Violation> {
    let constraints = &lease.request.constraints;
    for node in nodes_of(state, devices) {
        let cpu = node.host_cpu_used_millis.saturating_add(constraints.host_cpu_millis);
        let memory = node.host_memory_used_bytes.saturating_add(constraints.host_memory_bytes);
        let cpu_over = constraints.host_cpu_millis > 0 && cpu > node.facts.host_cpu_millis;
        let memory_over =
            constraints.host_memory_bytes > 0 && memory > node.facts.host_memory_bytes;
        if cpu_over || memory_over {
            return Err(format!(
                "lease {} asks too much of the host of {}",
                lease.id, node.facts.name
            ));
        }
    }
    Ok(())
}

fn nodes_of<'a>(state: &'a State, devices: &[DeviceId]) -> Vec<&'a Node> {
    let node = |id: &DeviceId| state.inventory().device(*id).map(|device| device.node);
    let nodes: BTreeSet<_> = devices.iter().filter_map(node).collect();
    nodes.into_iter().filter_map(|id| state.inventory().node(id)).collect()
}

fn devices_are_on_their_nodes(state: &State) -> Result<(), Violation> {
    let inventory = state.inventory();
    for (id, node) in inventory.nodes() {
        let is_here = |device: &DeviceId| inventory.device(*device).is_some_and(|it| it.node == id);
        if !node.devices.is_sorted_by(|a, b| a < b) || !node.devices.iter().all(is_here) {
            return Err(format!("{} lists {:?}, not its devices", node.facts.name, node.devices));
        }
        if inventory.node_named(node.facts.name.as_str()) != Some(id) {
            return Err(format!("{} is not known by its name", node.facts.name));
        }
    }
    let listed: usize = inventory.nodes().map(|(_, node)| node.devices.len()).sum();
    if listed == inventory.devices().len() {
        Ok(())
    } else {
        Err(format!("nodes list {listed} of {} devices", inventory.devices().len()))
    }
}

fn devices_hold_what_leases_say(state: &State) -> Result<(), Violation> {
    let mut said: BTreeMap<DeviceId, BTreeMap<LeaseId, Share>> = BTreeMap::new();
    for lease in state.leases().values().filter(|lease| lease.state.holds()) {
        for device in &lease.devices {
            said.entry(*device).or_default().insert(lease.id, lease.request.ask.share);
        }
    }
    for (id, device) in state.inventory().devices() {
        let leases = said.remove(&id).unwrap_or_default();
        if leases != device.holding {
            return Err(format!(
                "{} is held by {:?}, leases say {leases:?}",
                device.facts.uuid, device.holding
            ));
        }
        if !sums_are_right(device) {
            return Err(format!("{} counts its use wrong: {device:?}", device.facts.uuid));
        }
    }
    if said.is_empty() { Ok(()) } else { Err(format!("leases hold unknown devices: {said:?}")) }
}

fn sums_are_right(device: &Device) -> bool {
    let sum = |of: fn(&Share) -> u64| device.holding.values().map(of).fold(0, u64::saturating_add);
    device.slots_used == sum(|share| u64::from(share.slots()))
        && device.memory_used_bytes == sum(|share| share.memory_bytes())
        && device.exclusive == sum(|share| u64::from(*share == Share::Exclusive))
        && device.slots_without_bytes
            == sum(|share| match share {
                Share::Part { memory_bytes: None, .. } => u64::from(share.slots()),
                _ => 0,
            })
}

fn whole_devices_are_alone(state: &State) -> Result<(), Violation> {
    for (_, device) in state.inventory().devices() {
        let whole = device.holding.values().any(|share| *share == Share::Exclusive);
        if whole && (device.holding.len() > 1 || !device.closed.is_empty()) {
            return Err(format!("{} is held whole, and not alone", device.facts.uuid));
        }
    }
    Ok(())
}

fn reclaiming_leases_close_something(state: &State) -> Result<(), Violation> {
    let mut closing: BTreeSet<LeaseId> = BTreeSet::new();
    for (_, device) in state.inventory().devices() {
        if device.closed_sums != Sums::of(device.closed.values().map(|closed| &closed.share)) {
            return Err(format!("{} counts what is closed wrong: {device:?}", device.facts.uuid));
        }
        for closed in device.closed.keys() {
            if device.holding.contains_key(closed) {
                return Err(format!("{} is held and closed by {closed}", device.facts.uuid));
            }
            closing.insert(*closed);
        }
    }
    let reclaiming = |lease: &&Lease| matches!(lease.state, LeaseState::Reclaiming(_));
    match state.leases().values().filter(reclaiming).find(|lease| !closing.contains(&lease.id)) {
        Some(lease) => Err(format!("lease {} is reclaiming and closes nothing", lease.id)),
        None => Ok(()),
    }
}

fn imports_close_until_their_time(state: &State) -> Result<(), Violation> {
    let longer = |device: &Device| device.closed_until.is_some_and(|at| at > state.closed_until());
    match state.inventory().devices().find(|(_, device)| longer(device)) {
        Some((_, device)) => Err(format!(
            "{} is closed until {:?}, which is after {}",
            device.facts.uuid,
            device.closed_until,
            state.closed_until()
        )),
        None => Ok(()),
    }
}

fn notices_stand_for_pausing_leases(state: &State) -> Result<(), Violation> {
    for lease in state.leases().values() {
        let stands = lease.notice.as_ref().is_some_and(|notice| !notice.causes.is_empty());
        if lease.state == LeaseState::Pausing && !stands {
            return Err(format!("lease {} is pausing for nothing", lease.id));
        }
        if lease.notice.as_ref().is_some_and(|notice| notice.id > state.last_notice()) {
            return Err(format!("the notice of lease {} was never given", lease.id));
        }
    }
    Ok(())
}

fn hosts_carry_what_leases_say(state: &State) -> Result<(), Violation> {
    let mut said: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for lease in state.leases().values().filter(|lease| lease.state.holds()) {
        for node in nodes_of(state, &lease.devices) {
            let (cpu, memory) = said.entry(node.facts.name.as_str()).or_default();
            *cpu = cpu.saturating_add(lease.request.constraints.host_cpu_millis);
            *memory = memory.saturating_add(lease.request.constraints.host_memory_bytes);
        }
    }
    for (_, node) in state.inventory().nodes() {
        let used = (node.host_cpu_used_millis, node.host_memory_used_bytes);
        let said = said.get(node.facts.name.as_str()).copied().unwrap_or_default();
        if used != said {
            return Err(format!("host {} carries {used:?}, leases say {said:?}", node.facts.name));
        }
    }
    Ok(())
}

fn tokens_are_unique_and_below_the_newest(state: &State) -> Result<(), Violation> {
    let mut seen = BTreeSet::new();
    for lease in state.leases().values().filter(|lease| lease.token > Token(0)) {
        if lease.token > state.token() || !seen.insert(lease.token) {
            return Err(format!("token {} of lease {} is not its own", lease.token, lease.id));
        }
    }
    let above = |device: &Device| device.token > state.token();
    match state.inventory().devices().find(|(_, device)| above(device)) {
        Some((_, device)) => {
            Err(format!("token {} of {} was never given", device.token, device.facts.uuid))
        }
        None => Ok(()),
    }
}

fn names_are_unique_among_holders(state: &State) -> Result<(), Violation> {
    let mut names = BTreeMap::new();
    let named = |lease: &&Lease| lease.state.waits() || lease.state.holds();
    for lease in state.leases().values().filter(named) {
        let Some(name) = lease.name() else { continue };
        let service = &lease.request.holder.service;
        if names.insert((service, name), lease.id).is_some() {
            return Err(format!("name {name} of {service} is taken twice"));
        }
        let indexed = state.services().get(service).and_then(|service| service.names.get(name));
        if indexed != Some(&lease.id) {
            return Err(format!(
                "name {name} of {service} points to {indexed:?}, not to lease {}",
                lease.id
            ));
        }
    }
    Ok(())
}

fn request_ids_name_their_leases(state: &State) -> Result<(), Violation> {
    for lease in state.leases().values().filter(|lease| lease.state.live()) {
        let holder = &lease.request.holder;
        let service = state.services().get(&holder.service);
        let by_id = service.and_then(|service| service.requests.get(&lease.request.request_id));
        if by_id != Some(&lease.id) {
            return Err(format!(
                "request {} points to {by_id:?}, not to lease {}",
                lease.request.request_id, lease.id
            ));
        }
        let held = service.and_then(|service| service.holders.get(&holder.name));
        if !held.is_some_and(|leases| leases.contains(&lease.id)) {
            return Err(format!("lease {} is missing among those of {holder}", lease.id));
        }
    }
    Ok(())
}

fn services_count_what_their_leases_hold(state: &State) -> Result<(), Violation> {
    let mut counted: BTreeMap<&Name, (Held, u64, u128)> = BTreeMap::new();
    for lease in state.leases().values() {
        let (held, bytes, entry) = counted.entry(&lease.request.holder.service).or_default();
        if lease.state == LeaseState::Queued {
            held.queued = held.queued.saturating_add(1);
        }
        if !lease.state.holds() {
            continue;
        }
        held.leases = held.leases.saturating_add(1);
        held.devices = held.devices.saturating_add(lease.devices.len() as u64);
        *bytes = bytes.saturating_add(lease.counted_bytes);
        *entry = entry.saturating_add(entry_charge(lease.counted_bytes));
    }
    for (name, service) in state.services() {
        let expected = counted.remove(name).unwrap_or_default();
        let said = (service.held, service.usage.held_bytes(), service.usage.deposits());
        if said != expected {
            return Err(format!("service {name} counts {said:?}, its leases {expected:?}"));
        }
    }
    let unknown = counted.into_iter().find(|(_, counted)| *counted != <_>::default());
    unknown.map_or(Ok(()), |(name, _)| Err(format!("service {name} holds and is unknown")))
}

fn keeps_are_one_per_priority_and_disjoint(state: &State) -> Result<(), Violation> {
    let mut kept: BTreeMap<DeviceId, LeaseId> = BTreeMap::new();
    let mut keeping = BTreeSet::new();
    for (lane, keep) in state.keeps() {
        let lease = state.lease(keep.lease).filter(|lease| lease.state.waits());
        let in_lane = |lease: &Lease| match lane {
            Lane::Of(priority) => lease.request.priority == *priority,
            Lane::Owner(service) => lease.request.holder.service == *service,
        };
        if !lease.is_some_and(in_lane) || !keeping.insert(keep.lease) {
            return Err(format!("{keep:?} is not for one waiting lease of lane {lane:?}"));
        }
        for device in &keep.devices {
            if kept.insert(*device, keep.lease).is_some() {
                return Err(format!("device {device} is kept twice"));
            }
        }
    }
    match state.inventory().devices().find(|(id, device)| kept.get(id).copied() != device.kept_for)
    {
        Some((_, device)) => {
            Err(format!("{} is kept for {:?}", device.facts.uuid, device.kept_for))
        }
        None => Ok(()),
    }
}

fn the_tally_counts_the_leases(state: &State) -> Result<(), Violation> {
    let count = |wanted: fn(LeaseState) -> bool| {
        state.leases().values().filter(|lease| wanted(lease.state)).count()
    };
    let counted = Tally {
        queued: count(|state| state == LeaseState::Queued),
        active: count(|state| state == LeaseState::Active),
        pausing: count(|state| state == LeaseState::Pausing),
        paused: count(|state| state == LeaseState::Paused),
        reclaiming: count(|state| matches!(state, LeaseState::Reclaiming(_))),
        preemptible: (state.leases().values())
            .filter(|lease| lease.state.holds())
            .filter(|lease| lease.request.preemptible != Preemptible::Never)
            .count(),
    };
    if counted == *state.tally() {
        Ok(())
    } else {
        Err(format!("{:?} leases counted, {:?} said", counted, state.tally()))
    }
}

fn states_and_times_agree(state: &State) -> Result<(), Violation> {
    for lease in state.leases().values() {
        let granted = lease.granted_at.is_some();
        let agree = match lease.state {
            LeaseState::Queued => !granted && lease.ended_at.is_none() && lease.devices.is_empty(),
            LeaseState::Paused => granted && lease.paused_at.is_some() && lease.ended_at.is_none(),
            LeaseState::Active | LeaseState::Pausing | LeaseState::Reclaiming(_) => {
                granted && lease.ended_at.is_none()
            }
            LeaseState::Ended(_) => lease.ended_at.is_some(),
        };
        if !agree || granted != (lease.token > Token(0)) {
            return Err(format!("lease {} is {:?}, which its times deny", lease.id, lease.state));
        }
    }
    Ok(())
}
