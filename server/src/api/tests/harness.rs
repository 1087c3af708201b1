//! A coordinator in this process, and what the tests say to it.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

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
use tonic::{
    Code, Status, Streaming,
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt as _;

use crate::{
    actor::{self, Handle, Running, Setup},
    api::{Listeners, Options, ServeError, serve},
    clock::SystemClock,
    journal::{HistoryBound, memory::Disk},
    telemetry::{hub::SampleHub, operations::Operations},
};

pub(super) const GIB: u64 = 1 << 30;

/// A coordinator that serves two devices of 24 GiB and 8 slots.
pub(super) struct Coordinator {
    pub(super) disk: Disk,
    pub(super) handle: Handle,
    pub(super) hub: SampleHub,
    pub(super) channel: Channel,
    /// The way in over the Unix socket, where there is one.
    pub(super) socket: Option<Channel>,
    running: Running,
    stop: oneshot::Sender<()>,
    served: JoinHandle<Result<(), ServeError>>,
}

impl Coordinator {
    pub(super) async fn start() -> Self {
        Self::start_on(Disk::new()).await
    }

    pub(super) async fn start_on(disk: Disk) -> Self {
        Self::start_with(disk, policy(), None).await
    }

    pub(super) async fn start_with(disk: Disk, policy: Policy, socket: Option<&Path>) -> Self {
        let recovered = actor::recovery::recover(disk.open().unwrap(), policy).unwrap();
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
        let listeners = Listeners::bind(any, socket).await.unwrap();
        let address = listeners.tcp_address().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let hub = SampleHub::default();
        let options = Options {
            hub: hub.clone(),
            operations: Operations::default(),
            configuration: "listen = \"127.0.0.1:0\"\n".into(),
            session_grace: Span::from_secs(10),
        };
        let stopped = async move {
            let _ = stopped.await;
        };
        let served = tokio::spawn(serve(handle.clone(), listeners, options, stopped));
        let endpoint = format!("http://{address}");
        let channel = connect(endpoint).await;
        let socket = match socket {
            Some(path) => Some(connect(format!("unix://{}", path.display())).await),
            None => None,
        };
        Self { disk, handle, hub, channel, socket, running, stop, served }
    }

    /// Stops gracefully; answers the disk.
    pub(super) async fn stop(self) -> Disk {
        self.handle.stop();
        self.running.ended().await;
        drop((self.channel, self.socket));
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
        Session::over(self.channel.clone()).await
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
        self.grant(of("training", "worker-1", request(id, memory_gib))).await
    }

    /// A unary acquire that is granted at once.
    pub(super) async fn grant(&self, wire: v1::AcquireRequest) -> v1::Lease {
        self.leases().acquire(wire).await.unwrap().into_inner().lease.unwrap()
    }

    /// A unary acquire that waits.
    pub(super) fn wait(&self, wire: v1::AcquireRequest) -> JoinHandle<v1::Lease> {
        let mut leases = self.leases();
        tokio::spawn(async move { leases.acquire(wire).await.unwrap().into_inner().lease.unwrap() })
    }

    pub(super) async fn lease(&self, id: u64) -> v1::Lease {
        let get = v1::LeaseServiceGetRequest { lease_id: id };
        self.leases().get(get).await.unwrap().into_inner().lease.unwrap()
    }

    /// Polls until a lease is as it should be.
    pub(super) async fn lease_when(&self, id: u64, is: impl Fn(&v1::Lease) -> bool) -> v1::Lease {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let lease = self.lease(id).await;
            if is(&lease) {
                return lease;
            }
            assert!(Instant::now() < deadline, "it never came: {lease:?}");
            tokio::task::yield_now().await;
        }
    }
}

/// How long a test waits for what has to come.
const PATIENCE: Duration = Duration::from_secs(20);

async fn connect(endpoint: String) -> Channel {
    Endpoint::new(endpoint).unwrap().connect().await.unwrap()
}

/// Decisions by capacity alone: what was measured once stays fresh.
pub(super) fn policy() -> Policy {
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
        frameworks: vec!["cuda".into(), "torch".into()],
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
    pub(super) async fn over(channel: Channel) -> Self {
        let (sender, messages) = mpsc::unbounded_channel();
        let outbound = UnboundedReceiverStream::new(messages);
        let mut leases = LeaseServiceClient::new(channel);
        let inbound = leases.session(outbound).await.unwrap().into_inner();
        Self { sender, inbound }
    }

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

    /// A lease that changed without the holder's asking.
    pub(super) async fn changed(&mut self) -> v1::Lease {
        let said = self.next().await;
        match said.body {
            Some(Say::Changed(lease)) if said.sequence == 0 => lease,
            other => panic!("nothing changed: {other:?}"),
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

/// The same for a holder.
pub(super) fn of(service: &str, holder: &str, wire: v1::AcquireRequest) -> v1::AcquireRequest {
    v1::AcquireRequest { service: service.to_owned(), holder: holder.to_owned(), ..wire }
}

/// On the first device alone, and to be paused for others.
pub(super) fn pausable(id: &str, memory_gib: u64) -> v1::AcquireRequest {
    let first = vec!["SIM-node-0-0".to_owned()];
    let constraints = v1::Constraints { device_allow: first, ..v1::Constraints::default() };
    v1::AcquireRequest {
        preemptible: v1::Preemptible::Pause.into(),
        priority: v1::Priority::Background.into(),
        constraints: Some(constraints),
        ..request(id, memory_gib)
    }
}

/// On the first device alone, and more urgent than that; it waits.
pub(super) fn urgent(id: &str, memory_gib: u64) -> v1::AcquireRequest {
    v1::AcquireRequest {
        preemptible: v1::Preemptible::Never.into(),
        priority: v1::Priority::Immediate.into(),
        wait: Some(prost_types::Duration { seconds: 600, nanos: 0 }),
        ..of("serving", "front", pausable(id, memory_gib))
    }
}

pub(super) fn renew(lease: &v1::Lease) -> v1::RenewRequest {
    v1::RenewRequest {
        lease_id: lease.id,
        fencing_token: lease.fencing_token,
        ..v1::RenewRequest::default()
    }
}

/// The answer to the notice that a lease has.
pub(super) fn acknowledge(lease: &v1::Lease) -> v1::AcknowledgeRequest {
    v1::AcknowledgeRequest {
        lease_id: lease.id,
        fencing_token: lease.fencing_token,
        notice_id: lease.notice.as_ref().map_or(0, |notice| notice.id),
        ..v1::AcknowledgeRequest::default()
    }
}

pub(super) fn device(uuid: &str) -> Option<v1::Target> {
    Some(v1::Target { target: Some(v1::target::Target::DeviceUuid(uuid.to_owned())) })
}

pub(super) fn node(name: &str) -> Option<v1::Target> {
    Some(v1::Target { target: Some(v1::target::Target::Node(name.to_owned())) })
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
