//! Notices, their causes, and renewals that bring them.

use gpulease::{LeaseEvent, NoticeCause, Renewed};

use crate::view;

impl From<&gpulease::Notice> for view::Notice {
    fn from(notice: &gpulease::Notice) -> Self {
        Self {
            id: notice.id.to_string(),
            remaining_seconds: notice.remaining.as_secs_f64(),
            extension_max_seconds: notice.extension_max.map(|max| max.as_secs_f64()),
            causes: notice.causes.iter().map(Into::into).collect(),
        }
    }
}

impl From<&NoticeCause> for view::Cause {
    fn from(cause: &NoticeCause) -> Self {
        let description = cause.to_string();
        match cause {
            NoticeCause::Preemption { lease_id } => Self {
                kind: "PREEMPTION",
                lease_id: Some(lease_id.to_string()),
                description,
                ..Self::default()
            },
            NoticeCause::Drain { node, device_uuid } => Self {
                kind: "DRAIN",
                node: Some(node.clone()),
                device_uuid: device_uuid.clone(),
                description,
                ..Self::default()
            },
            _ => Self { kind: "OTHER", description, ..Self::default() },
        }
    }
}

impl From<gpulease::Process> for view::Process {
    fn from(process: gpulease::Process) -> Self {
        Self { pid: process.pid, started_ticks: process.started_ticks }
    }
}

/// The notice that an event is about.
pub(super) fn told(event: &LeaseEvent) -> Option<view::NoticeTold> {
    Some(view::NoticeTold {
        id: event.notice_id?.to_string(),
        remaining_seconds: event.notice_remaining.map(|left| left.as_secs_f64()),
        causes: event.notice_causes.iter().map(Into::into).collect(),
    })
}

/// What a renewal was answered with.
pub(crate) fn renewal(renewed: &Renewed) -> view::Renewal {
    view::Renewal {
        id: renewed.lease_id.to_string(),
        fencing_token: renewed.fencing_token,
        remaining_seconds: renewed.remaining.as_secs_f64(),
        state: renewed.state.map(|state| state.to_string()),
        notice: renewed.notice.as_ref().map(Into::into),
        resumed: renewed.resumed.as_deref().map(|lease| Box::new(lease.into())),
    }
}
