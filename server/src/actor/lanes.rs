//! The order of work: urgent inputs before acquires, and yet nothing before what its own caller asked for earlier.
//!
//! Two lanes. Acquires wait in the ordinary one. A renewal, a release and the like goes to the urgent one, unless its
//! caller has inputs in the ordinary lane: then it waits behind them (P22). Both lanes are first in, first out.
//! A tick must not overtake renewals that were here before it was due (P4): [`Lanes::urgent_done_until`] tells.
//! An acquire whose caller is gone is dropped unstepped; what the caller gave back or renewed is not.

use std::collections::{HashMap, HashSet, VecDeque};

use gpulease_core::{
    id::{Caller, Ticket},
    input::Input,
};

use super::{intake::Class, message::ReplyTo};

/// An input on its way, with the way back of its replies.
pub(super) struct Queued {
    pub(super) class: Class,
    pub(super) input: Input,
    pub(super) answer: Option<(Ticket, ReplyTo)>,
    arrival: Arrival,
}

/// A place in the order of arrival.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Arrival(u64);

/// Permits of inputs that were taken out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Permits {
    pub(super) ordinary: usize,
    pub(super) urgent: usize,
}

#[derive(Default)]
pub(super) struct Lanes {
    urgent: VecDeque<Queued>,
    ordinary: VecDeque<Queued>,
    /// How many inputs each caller has in the ordinary lane.
    behind: HashMap<Caller, usize>,
    /// When the urgent inputs in the ordinary lane arrived.
    urgent_behind: VecDeque<Arrival>,
    /// Callers with inputs in the ordinary lane that are gone.
    gone: HashSet<Caller>,
    arrived: Arrival,
    freed: Permits,
}

impl Lanes {
    /// Puts an input into its lane.
    pub(super) fn push(&mut self, input: Input, answer: Option<(Ticket, ReplyTo)>) {
        self.arrived.0 += 1;
        let class = Class::of(&input);
        let caller = caller_of(&input);
        let waits = class == Class::Ordinary
            || caller.is_some_and(|caller| self.behind.contains_key(&caller));
        let queued = Queued { class, input, answer, arrival: self.arrived };
        if !waits {
            self.urgent.push_back(queued);
            return;
        }
        if let Some(caller) = caller {
            *self.behind.entry(caller).or_default() += 1;
            if matches!(queued.input, Input::CallerGone { .. }) {
                self.gone.insert(caller);
            }
        }
        if class == Class::Urgent {
            self.urgent_behind.push_back(queued.arrival);
        }
        self.ordinary.push_back(queued);
    }

    /// The next of the urgent lane.
    pub(super) fn take_urgent(&mut self) -> Option<Queued> {
        let queued = self.urgent.pop_front()?;
        self.free(queued.class);
        Some(queued)
    }

    /// The next of the ordinary lane that is still wanted.
    pub(super) fn take_ordinary(&mut self) -> Option<Queued> {
        loop {
            let queued = self.ordinary.pop_front()?;
            self.free(queued.class);
            if queued.class == Class::Urgent {
                self.urgent_behind.pop_front();
            }
            let unwanted = self.leave(&queued) && queued.class == Class::Ordinary;
            if !unwanted {
                return Some(queued);
            }
        }
    }

    /// Drops every acquire: the coordinator stops.
    pub(super) fn drop_acquires(&mut self) {
        self.gone.extend(self.behind.keys().copied());
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.urgent.is_empty() && self.ordinary.is_empty()
    }

    /// The place of the newest input.
    pub(super) fn newest(&self) -> Arrival {
        self.arrived
    }

    /// Whether every urgent input that arrived up to `arrival` was taken.
    pub(super) fn urgent_done_until(&self, arrival: Arrival) -> bool {
        self.urgent.front().is_none_or(|queued| queued.arrival > arrival)
            && self.urgent_behind.front().is_none_or(|first| *first > arrival)
    }

    /// The permits of all that was taken since the last call.
    pub(super) fn take_freed(&mut self) -> Permits {
        std::mem::take(&mut self.freed)
    }

    fn free(&mut self, class: Class) {
        match class {
            Class::Ordinary => self.freed.ordinary += 1,
            Class::Urgent => self.freed.urgent += 1,
            Class::Told => {}
        }
    }

    /// Takes an input of the ordinary lane off its caller's count; answers whether the caller is gone.
    fn leave(&mut self, queued: &Queued) -> bool {
        let Some(caller) = caller_of(&queued.input) else { return false };
        let gone = self.gone.contains(&caller);
        if let Some(count) = self.behind.get_mut(&caller) {
            *count -= 1;
            if *count == 0 {
                self.behind.remove(&caller);
                self.gone.remove(&caller);
            }
        }
        gone
    }
}

/// Whose input it is.
pub(super) fn caller_of(input: &Input) -> Option<Caller> {
    match input {
        Input::Acquire { caller, .. }
        | Input::Renew { caller, .. }
        | Input::Release { caller, .. }
        | Input::Acknowledge { caller, .. }
        | Input::ExtendNotice { caller, .. }
        | Input::SessionOpened { caller, .. }
        | Input::CallerGone { caller } => Some(*caller),
        Input::Revoke { .. }
        | Input::Reserve { .. }
        | Input::Cordon { .. }
        | Input::Uncordon { .. }
        | Input::Quiesce { .. }
        | Input::OpenDevice { .. }
        | Input::Observed { .. }
        | Input::Sampled { .. }
        | Input::Tick => None,
    }
}
