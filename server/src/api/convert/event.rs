//! Events, from what the actor published to the wire.
//!
//! An event of the journal names things by number; its subject says what they are called. A watch of one service
//! shows only events of its leases; whose an old event was can be forgotten, and then such a watch must not go on as if
//! nothing had been left out (P20).

use gpulease_core::{
    event::Event,
    id::{LeaseId, Name},
    lease::EndReason,
    notice::Target,
    request::{Request, Share},
    time::Time,
    view::DeviceName,
};
use gpulease_proto::v1;

use super::{
    lease::{ask, drop_cause, end_reason, leased_devices, open_cause, priority},
    notice::notice_cause,
    time::{from_span, timestamp},
};
use crate::actor::{Published, Subject};

/// Whose lease an event is about is no longer known.
#[derive(Debug)]
pub(in crate::api) struct Forgotten;

/// A batch as a watcher of `service` (`None`: of everything) sees it; `None`: it does not see it.
///
/// # Errors
/// Whether the watcher of a service sees it cannot be told any more.
pub(in crate::api) fn watch_response(
    published: &Published,
    service: Option<&Name>,
) -> Result<Option<v1::WatchResponse>, Forgotten> {
    let mut events = Vec::new();
    for (fact, subject) in published.batch.events.iter().zip(published.subjects.iter()) {
        if concerns(subject, service)? {
            events.extend(event(fact, subject, published.batch.time));
        }
    }
    Ok((!events.is_empty()).then(|| v1::WatchResponse {
        revision: published.batch.revision.0,
        time: Some(timestamp(published.at)),
        events,
    }))
}

fn concerns(subject: &Subject, service: Option<&Name>) -> Result<bool, Forgotten> {
    match (service, subject) {
        (None, _) => Ok(true),
        (Some(service), Subject::Lease { request: Some(request), .. }) => {
            Ok(request.holder.service == *service)
        }
        (Some(_), Subject::Lease { request: None, .. }) => Err(Forgotten),
        (Some(_), _) => Ok(false),
    }
}

fn event(event: &Event, subject: &Subject, at: Time) -> Option<v1::Event> {
    let body = match event {
        Event::Requested { .. }
        | Event::Granted { .. }
        | Event::Kept { .. }
        | Event::KeepDropped { .. }
        | Event::Noticed { .. }
        | Event::NoticeChanged { .. }
        | Event::NoticeWithdrawn { .. }
        | Event::Paused { .. }
        | Event::Reclaiming { .. }
        | Event::Ended { .. } => v1::event::Body::Lease(lease_event(event, subject, at)?),
        Event::DeviceAdded { .. }
        | Event::DeviceChanged { .. }
        | Event::DeviceLost { .. }
        | Event::DeviceRecovered { .. }
        | Event::Opened { .. }
        | Event::DeviceOpened { .. }
        | Event::DeviceMoved { .. } => v1::event::Body::Device(device_event(event, subject)?),
        Event::Cordoned { target, .. } | Event::Uncordoned { target } => match target {
            Target::Device(_) => v1::event::Body::Device(device_event(event, subject)?),
            Target::Node(_) => v1::event::Body::Node(node_event(event, subject)?),
        },
        Event::NodeAdded { .. }
        | Event::NodeChanged { .. }
        | Event::NodeLost { .. }
        | Event::NodeRecovered { .. }
        | Event::NodeRenamed { .. } => v1::event::Body::Node(node_event(event, subject)?),
        Event::Checkpoint | Event::HalfLifeChanged { .. } | Event::Imported { .. } => return None,
    };
    Some(v1::Event { body: Some(body) })
}

fn lease_event(event: &Event, subject: &Subject, at: Time) -> Option<v1::LeaseEvent> {
    use v1::LeaseEventKind as Kind;
    let Subject::Lease { request, devices, causes } = subject else { return None };
    let request = request.as_deref();
    let notice_causes = || causes.iter().map(notice_cause).collect();
    let about = |kind, lease| about_lease(kind, lease, request);
    let ending = |kind, lease, reason: EndReason, detail: &Option<_>| v1::LeaseEvent {
        end_reason: end_reason(Some(reason)).into(),
        detail: text_of(detail.as_deref()),
        ..about(kind, lease)
    };
    Some(match event {
        Event::Requested { lease, request } => v1::LeaseEvent {
            ask: Some(ask(request.ask)),
            ..about_lease(Kind::Requested, *lease, Some(request))
        },
        Event::Granted { lease, token, resumed, .. } => v1::LeaseEvent {
            fencing_token: token.0,
            devices: held_devices(devices, request),
            ..about(if *resumed { Kind::Resumed } else { Kind::Granted }, *lease)
        },
        Event::Noticed { lease, notice, deadline, .. } => v1::LeaseEvent {
            notice_id: notice.0,
            notice_remaining: Some(from_span(deadline.since(at))),
            notice_causes: notice_causes(),
            ..about(Kind::Noticed, *lease)
        },
        Event::NoticeChanged { lease, notice, deadline, .. } => v1::LeaseEvent {
            notice_id: notice.0,
            notice_remaining: Some(from_span(deadline.since(at))),
            notice_causes: notice_causes(),
            ..about(Kind::NoticeChanged, *lease)
        },
        Event::NoticeWithdrawn { lease, notice } => {
            v1::LeaseEvent { notice_id: notice.0, ..about(Kind::NoticeWithdrawn, *lease) }
        }
        Event::Paused { lease, lost } => {
            v1::LeaseEvent { detail: text_of(lost.as_deref()), ..about(Kind::Paused, *lease) }
        }
        Event::Kept { lease, .. } => v1::LeaseEvent {
            kept_devices: devices.iter().map(|device| device.facts.uuid.to_string()).collect(),
            ..about(Kind::Kept, *lease)
        },
        Event::KeepDropped { lease, cause, .. } => v1::LeaseEvent {
            detail: drop_cause(*cause).to_owned(),
            ..about(Kind::KeepDropped, *lease)
        },
        Event::Reclaiming { lease, reason, detail } => {
            ending(Kind::Reclaiming, *lease, *reason, detail)
        }
        Event::Ended { lease, reason, detail } => ending(Kind::Ended, *lease, *reason, detail),
        _ => return None,
    })
}

/// The devices of a grant; what is held of each goes unsaid where the lease is forgotten.
fn held_devices(devices: &[DeviceName], request: Option<&Request>) -> Vec<v1::LeasedDevice> {
    let nothing = Share::Part { slots: None, memory_bytes: None };
    leased_devices(devices, request.map_or(nothing, |request| request.ask.share))
}

fn text_of(detail: Option<&str>) -> String {
    detail.unwrap_or_default().to_owned()
}

fn about_lease(
    kind: v1::LeaseEventKind,
    lease: LeaseId,
    request: Option<&Request>,
) -> v1::LeaseEvent {
    let mut event =
        v1::LeaseEvent { kind: kind.into(), lease_id: lease.0, ..v1::LeaseEvent::default() };
    if let Some(request) = request {
        event.service = request.holder.service.to_string();
        event.holder = request.holder.name.to_string();
        event.request_id = request.request_id.to_string();
        event.name = request.name.as_ref().map(ToString::to_string).unwrap_or_default();
        event.priority = priority(request.priority).into();
    }
    event
}

fn device_event(event: &Event, subject: &Subject) -> Option<v1::DeviceEvent> {
    use v1::DeviceEventKind as Kind;
    let mut about = v1::DeviceEvent::default();
    if let Subject::Device(device) = subject {
        about.node = device.node.to_string();
        about.uuid = device.facts.uuid.to_string();
    }
    let kind = match event {
        Event::DeviceAdded { facts, .. } => {
            about.uuid = facts.uuid.to_string();
            about.detail = format!(
                "{}, {} bytes, {} slots",
                facts.model, facts.memory_total_bytes, facts.slots
            );
            Kind::Added
        }
        Event::DeviceChanged { facts, .. } => {
            about.uuid = facts.uuid.to_string();
            about.detail = format!(
                "{}, {} bytes, {} slots",
                facts.model, facts.memory_total_bytes, facts.slots
            );
            Kind::Changed
        }
        Event::DeviceLost { detail, .. } => {
            about.detail = detail.to_string();
            Kind::Lost
        }
        Event::DeviceRecovered { .. } => Kind::Recovered,
        Event::DeviceMoved { before, .. } => {
            about.detail = format!("it was on {before} before");
            Kind::Moved
        }
        Event::Cordoned { drain, reason, .. } => {
            about.detail = reason.to_string();
            if *drain { Kind::Draining } else { Kind::Cordoned }
        }
        Event::Uncordoned { .. } => Kind::Uncordoned,
        Event::Opened { lease, cause, .. } => {
            about.lease_id = lease.0;
            about.detail = open_cause(*cause).to_owned();
            Kind::Opened
        }
        Event::DeviceOpened { cause, detail, .. } => {
            about.detail = detail.as_ref().map_or_else(
                || open_cause(*cause).to_owned(),
                |detail| format!("{}: {detail}", open_cause(*cause)),
            );
            Kind::Opened
        }
        _ => return None,
    };
    about.kind = kind.into();
    Some(about)
}

fn node_event(event: &Event, subject: &Subject) -> Option<v1::NodeEvent> {
    use v1::NodeEventKind as Kind;
    let mut about = v1::NodeEvent::default();
    if let Subject::Node(facts) = subject {
        about.node = facts.name.to_string();
    }
    let kind = match event {
        Event::NodeAdded { facts } => {
            about.node = facts.name.to_string();
            about.detail = format!("boot {}", facts.boot_id);
            Kind::Added
        }
        Event::NodeChanged { facts, rebooted, .. } => {
            about.node = facts.name.to_string();
            about.detail = format!("boot {}", facts.boot_id);
            if *rebooted { Kind::Rebooted } else { Kind::Changed }
        }
        Event::NodeLost { .. } => Kind::Lost,
        Event::NodeRecovered { .. } => Kind::Recovered,
        Event::NodeRenamed { before, .. } => {
            about.detail = format!("it was {before} before");
            Kind::Renamed
        }
        Event::Cordoned { drain, reason, .. } => {
            about.detail = reason.to_string();
            if *drain { Kind::Draining } else { Kind::Cordoned }
        }
        Event::Uncordoned { .. } => Kind::Uncordoned,
        _ => return None,
    };
    about.kind = kind.into();
    Some(about)
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::SystemTime};

    use gpulease_core::{
        event::Batch,
        id::{NoticeId, Revision},
    };

    use super::*;

    #[test]
    fn a_forgotten_lease_is_shown_by_number_and_never_left_out_of_a_services_watch() {
        let withdrawn = Event::NoticeWithdrawn { lease: LeaseId(7), notice: NoticeId(2) };
        let batch = Batch { revision: Revision(3), time: Time::ZERO, events: vec![withdrawn] };
        let nobody = Subject::Lease { request: None, devices: Vec::new(), causes: Vec::new() };
        let published = Published {
            batch: Arc::new(batch),
            at: SystemTime::UNIX_EPOCH,
            subjects: Arc::new([nobody]),
        };
        let seen = watch_response(&published, None).unwrap().unwrap();
        let Some(v1::event::Body::Lease(lease)) = &seen.events[0].body else { panic!("{seen:?}") };
        assert_eq!((lease.lease_id, lease.notice_id), (7, 2));
        watch_response(&published, Some(&"service".into())).unwrap_err();
    }
}
