//! What an import does to the state, and what undoes it (P2).

use super::{State, apply::Fit};
use crate::{
    event::At,
    id::{DeviceId, LeaseId, Token},
    import::{LEASE_JUMP, TOKEN_JUMP},
    time::Time,
};

impl State {
    /// Until when the newest import closes devices; the first moment, where there was none.
    #[must_use]
    pub const fn closed_until(&self) -> Time {
        self.closed_until
    }

    pub(super) fn imported(&mut self, token: Token, closed_until: Time) -> Fit {
        let least = Token(self.last_token.0.saturating_add(TOKEN_JUMP));
        if token < least {
            return Err(format!("token {token} of an import is below {least}"));
        }
        self.last_token = token;
        self.last_lease = LeaseId(self.last_lease.0.saturating_add(LEASE_JUMP));
        self.closed_until = self.closed_until.max(closed_until);
        self.inventory.close_all(self.closed_until);
        Ok(())
    }

    /// A device that is seen for the first time while an import closes devices is closed as well.
    pub(super) fn close_if_imported(&mut self, at: At, id: DeviceId) -> Fit {
        let until = self.closed_until;
        if until > at.time {
            self.device(id)?.closed_until = Some(until);
        }
        Ok(())
    }

    pub(super) fn device_opened(&mut self, id: DeviceId) -> Fit {
        let device = self.device(id)?;
        match device.closed_until.take() {
            Some(_) => Ok(()),
            None => Err(format!("device {} is not closed by an import", device.facts.uuid)),
        }
    }
}
