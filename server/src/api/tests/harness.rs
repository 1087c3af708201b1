//! A coordinator in this process, and what the tests say to it.

use std::{collections::BTreeMap, sync::Arc};

use gpulease_core::{
    id::Name,
    input::{DeviceReport, DeviceSample, Input, MemoryReading, MemoryReport},
    inventory::{DeviceFacts, NodeFacts},
    policy::Policy,
    time::Span,
};
use gpulease_proto::v1::{
    self, admin_service_client::AdminServiceClient, device_service_client::DeviceServiceClient,
    event_service_client::EventServiceClient, lease_service_client::LeaseServiceClient,
    metrics_service_client::MetricsServiceClient, session_request::Body as Ask,
    session_response::Body as Say,
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Code, Status, Streaming, transport::Channel};
use tonic_types::StatusExt as _;

use crate::{
    actor::{self, Handle, Running, Setup},
    api::{Listeners, Options, ServeError, serve},
    clock::SystemClock,
    journal::{HistoryBound, memory::Disk},
    telemetry::hub::SampleHub,
};

pub(super) const GIB: u64 = 1 << 30;

/// A coordinator that serves two devices of 24 GiB and 8 slots.
pub(super) struct Coordinator {
    pub(super) disk: Disk,
    pub(super) handle: Handle,
    pub(super) hub: SampleHub,
    pub(super) channel: Channel,
    running: Running,
    stop: oneshot::Sender<()>,
    served: JoinHandle<Result<(), ServeError>>,
}

impl Coordinator {
    pub(super) async fn start() -> Self {
        Self::start_on(Disk::new()).await
    }

    pub(super) async fn start_on(disk: Disk) -> Self {
        let recovered = actor::recovery::recover(disk.open().unwrap(), policy()).unwrap();
        let clock = SystemClock::starting_at(recovered.scheduler().state().time());
        let (handle, running) = actor::start(Setup {
            recovered,
            clock: Arc::new(clock),
            history: HistoryBound::DEFAULT,
            data_directory: None,
            backend: "simulated".to_owned(),
            errands: Arc::new(actor::NoErrands),
        })
        .unwrap();
        observe(&handle, None);
        let any = Some("127.0.0.1:0".parse().unwrap());
        let listeners = Listeners::bind(any, None).await.unwrap();
        let address = listeners.tcp_address().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let hub = SampleHub::default();
        let options = Options {
            hub: hub.clone(),
            configuration: "listen = \"127.0.0.1:0\"\n".into(),
            session_grace: Span::from_secs(10),
        };
        let stopped = async move {
            let _ = stopped.await;
        };
        let served = tokio::spawn(serve(handle.clone(), listeners, options, stopped));
        let endpoint = format!("http://{address}");
        let channel = Channel::from_shared(endpoint).unwrap().connect().await.unwrap();
        Self { disk, handle, hub, channel, running, stop, served }
    }

    /// Stops gracefully; answers the disk.
    pub(super) async fn stop(self) -> Disk {
        self.handle.stop();
        self.running.ended().await;
        drop(self.channel);
        self.stop.send(()).unwrap();
        self.served.await.unwrap().unwrap();
        self.disk
    }

    pub(super) fn leases(&self) -> LeaseServiceClient<Channel> {
        LeaseServiceClient::new(self.channel.clone())
    }

    pub(super) fn devices(&self) -> DeviceServiceClient<Channel> {
        DeviceServiceClient::new(self.channel.clone())
    }

    pub(super) fn events(&self) -> EventServiceClient<Channel> {
        EventServiceClient::new(self.channel.clone())
    }

    pub(super) fn metrics(&self) -> MetricsServiceClient<Channel> {
        MetricsServiceClient::new(self.channel.clone())
    }

    pub(super) fn admin(&self) -> AdminServiceClient<Channel> {
        AdminServiceClient::new(self.channel.clone())
    }

    /// A session without a hello yet.
    pub(super) async fn stream(&self) -> Session {
        let (sender, messages) = mpsc::unbounded_channel();
        let outbound = UnboundedReceiverStream::new(messages);
        let inbound = self.leases().session(outbound).await.unwrap().into_inner();
        Session { sender, inbound }
    }

    /// A session with its welcome.
    pub(super) async fn session(&self, service: &str, holder: &str) -> Session {
        let mut session = self.stream().await;
        session.send(1, hello(service, holder));
        let welcome = session.next().await;
        assert!(matches!(welcome.body, Some(Say::Welcome(_))), "{welcome:?}");
        session
    }

    pub(super) async fn acquire(&self, id: &str, memory_gib: u64) -> v1::Lease {
        let request = v1::AcquireRequest {
            service: "training".to_owned(),
            holder: "worker-1".to_owned(),
            ..request(id, memory_gib)
        };
        self.leases().acquire(request).await.unwrap().into_inner().lease.unwrap()
    }
}

/// Decisions by capacity alone: what was measured once stays fresh.
fn policy() -> Policy {
    let forever = Span::from_minutes(60);
    Policy {
        sample_age_max: forever,
        node_unreachable_after: forever,
        node_silent_max: forever,
        ..Policy::default()
    }
}

/// Reports the node; its first device may be lost.
pub(super) fn observe(handle: &Handle, first_lost: Option<&str>) {
    let node = NodeFacts {
        name: "node-0".into(),
        boot_id: "boot-1".into(),
        labels: BTreeMap::new(),
        host_cpu_millis: 64_000,
        host_memory_bytes: 256 * GIB,
    };
    let uuids: Vec<Name> = vec!["SIM-node-0-0".into(), "SIM-node-0-1".into()];
    let device = |(index, uuid): (usize, &Name)| DeviceFacts {
        uuid: uuid.clone(),
        index: u32::try_from(index).unwrap(),
        pci_address: None,
        vendor: "simulated".into(),
        model: "H100".into(),
        compute_capability: Some((9, 0)),
        memory_total_bytes: 24 * GIB,
        memory_driver_bytes: 0,
        memory_limit_bytes: None,
        memory_reserve_bytes: 0,
        slots: 8,
        answers_at_once: true,
    };
    let report = |facts: DeviceFacts| {
        let lost = first_lost.filter(|_| facts.index == 0).map(Name::new);
        DeviceReport { facts: Arc::new(facts), lost }
    };
    let devices = uuids.iter().enumerate().map(device).map(report).collect();
    handle.tell(Input::Observed { node: Arc::new(node), devices });
    let sample = |uuid| DeviceSample {
        uuid,
        memory: Some(MemoryReport::Exact(MemoryReading::default())),
        check: 0,
    };
    let samples = uuids.into_iter().map(sample).collect();
    handle.tell(Input::Sampled { node: "node-0".into(), samples, trees: None });
}

/// Both ends of a session.
pub(super) struct Session {
    sender: mpsc::UnboundedSender<v1::SessionRequest>,
    inbound: Streaming<v1::SessionResponse>,
}

impl Session {
    pub(super) fn send(&self, sequence: u64, body: Ask) {
        self.sender.send(v1::SessionRequest { sequence, body: Some(body) }).unwrap();
    }

    pub(super) fn send_nothing(&self, sequence: u64) {
        self.sender.send(v1::SessionRequest { sequence, body: None }).unwrap();
    }

    pub(super) async fn next(&mut self) -> v1::SessionResponse {
        self.inbound.message().await.unwrap().unwrap()
    }

    /// The end of the stream: its status, or OK.
    pub(super) async fn end(&mut self) -> Result<(), Status> {
        while self.inbound.message().await?.is_some() {}
        Ok(())
    }

    pub(super) async fn granted(&mut self) -> v1::Lease {
        match self.next().await.body {
            Some(Say::Granted(granted)) => granted.lease.unwrap(),
            other => panic!("not granted: {other:?}"),
        }
    }

    pub(super) async fn error(&mut self) -> v1::Error {
        match self.next().await.body {
            Some(Say::Error(error)) => error,
            other => panic!("not refused: {other:?}"),
        }
    }

    /// Half-closes; what is in flight is still answered.
    pub(super) fn close(self) -> Streaming<v1::SessionResponse> {
        self.inbound
    }
}

pub(super) fn hello(service: &str, holder: &str) -> Ask {
    let (service, holder) = (service.to_owned(), holder.to_owned());
    Ask::Hello(v1::SessionHello { service, holder, revision_seen: 0 })
}

/// A request for so much memory of one device, without a holder.
pub(super) fn request(id: &str, memory_gib: u64) -> v1::AcquireRequest {
    v1::AcquireRequest {
        request_id: id.to_owned(),
        ask: Some(v1::Ask { memory_bytes: Some(memory_gib * GIB), ..v1::Ask::default() }),
        ..v1::AcquireRequest::default()
    }
}

pub(super) fn waiting(id: &str, memory_gib: u64, secs: i64) -> v1::AcquireRequest {
    let wait = Some(prost_types::Duration { seconds: secs, nanos: 0 });
    v1::AcquireRequest { wait, ..request(id, memory_gib) }
}

pub(super) fn release(lease: &v1::Lease) -> Ask {
    Ask::Release(v1::ReleaseRequest {
        lease_id: lease.id,
        fencing_token: Some(lease.fencing_token),
        ..v1::ReleaseRequest::default()
    })
}

/// Checks a status and its details against code, reason and field.
pub(super) fn check(status: &Status, code: Code, reason: &str, field: &str) {
    assert_eq!(status.code(), code, "{status:?}");
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("no ErrorInfo: {status:?}"));
    assert_eq!((info.reason.as_str(), info.domain.as_str()), (reason, "gpulease"));
    let named = details.bad_request().map(|bad| bad.field_violations[0].field.clone());
    assert_eq!(named.unwrap_or_default(), field, "{status:?}");
}
