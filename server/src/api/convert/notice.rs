//! Notices and renewals, from the core's views to the wire.

use gpulease_core::{
    output::Answer,
    request::Process,
    time::Time,
    view::{CauseView, NoticeView},
};
use gpulease_proto::v1;

use super::{
    lease::{lease, state},
    time::{Display, from_span},
};

/// A notice as its holder sees it.
pub(in crate::api) fn notice(
    view: &NoticeView,
    deadline_time: prost_types::Timestamp,
) -> v1::Notice {
    v1::Notice {
        id: view.id.0,
        remaining: Some(from_span(view.remaining)),
        deadline_time: Some(deadline_time),
        causes: view.causes.iter().map(notice_cause).collect(),
        extension_max: view.extension_max.map(from_span),
    }
}

/// A cause of a notice.
pub(super) fn notice_cause(view: &CauseView) -> v1::NoticeCause {
    use v1::NoticeCauseKind as Kind;
    match view {
        CauseView::Preemption(lease) => v1::NoticeCause {
            kind: Kind::Preemption.into(),
            lease_id: lease.0,
            ..Default::default()
        },
        CauseView::DrainDevice { node, uuid } => v1::NoticeCause {
            kind: Kind::Drain.into(),
            device_uuid: uuid.to_string(),
            node: node.to_string(),
            ..Default::default()
        },
        CauseView::DrainNode(node) => v1::NoticeCause {
            kind: Kind::Drain.into(),
            node: node.to_string(),
            ..Default::default()
        },
    }
}

/// A process.
pub(in crate::api) const fn process(process: Process) -> v1::Process {
    v1::Process { pid: process.pid, started_ticks: Some(process.started_ticks) }
}

/// The answer to a renewal; `None`: it is the answer to something else.
pub(in crate::api) fn renewed(answer: &Answer, now: Time) -> Option<v1::RenewResponse> {
    let Answer::Renewed { lease: id, token, remaining, state: stands, notice: told, resumed } =
        answer
    else {
        return None;
    };
    let display = Display::at(now);
    let deadline = |view: &NoticeView| display.timestamp(now.after(view.remaining));
    Some(v1::RenewResponse {
        lease_id: id.0,
        fencing_token: token.0,
        remaining: Some(from_span(*remaining)),
        state: state(*stands).into(),
        notice: told.as_deref().map(|view| notice(view, deadline(view))),
        resumed: resumed.as_deref().map(|view| Box::new(lease(view, &display))),
    })
}
