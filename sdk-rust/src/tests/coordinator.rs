//! A coordinator that does nothing by itself: it hands every stream to the test, which reads and answers.

use std::{path::Path, pin::Pin};

use gpulease_proto::v1::{
    self,
    admin_service_server::{AdminService, AdminServiceServer},
    device_service_server::{DeviceService, DeviceServiceServer},
    event_service_server::{EventService, EventServiceServer},
    lease_service_server::{LeaseService, LeaseServiceServer},
    session_request, session_response,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    runtime::{Builder, Runtime},
    sync::mpsc,
};
use tokio_stream::{
    Stream,
    wrappers::{ReceiverStream, UnixListenerStream},
};
use tonic::{
    Request, Response, Status, Streaming,
    transport::{
        Server,
        server::{Connected, TcpIncoming},
    },
};

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type Answered<T> = Result<Response<T>, Status>;

/// Room for the answers of one test; none sends more without reading.
const ROOM: usize = 64;

pub(super) struct Coordinator {
    endpoint: String,
    streams: mpsc::Receiver<FakeSession>,
    watches: mpsc::Receiver<FakeWatch>,
    /// Of its own, so that ending it ends its connections too, as a crash does.
    runtime: Option<Runtime>,
}

/// One session, played by the test.
pub(super) struct FakeSession {
    requests: Streaming<v1::SessionRequest>,
    answers: mpsc::Sender<Result<v1::SessionResponse, Status>>,
    pub(super) hello: v1::SessionHello,
    pub(super) trace_parent: Option<String>,
}

/// One stream of events, played by the test.
pub(super) struct FakeWatch {
    pub(super) request: v1::WatchRequest,
    pub(super) answers: mpsc::Sender<Result<v1::WatchResponse, Status>>,
}

struct Service {
    streams: mpsc::Sender<FakeSession>,
    watches: mpsc::Sender<FakeWatch>,
}

impl Coordinator {
    pub(super) fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        Self::serve(endpoint, move || TcpIncoming::from(TcpListener::from_std(listener).unwrap()))
    }

    pub(super) fn start_on_socket(path: &Path) -> Self {
        let endpoint = format!("unix://{}", path.display());
        let path = path.to_owned();
        Self::serve(endpoint, move || UnixListenerStream::new(UnixListener::bind(path).unwrap()))
    }

    fn serve<C, I>(endpoint: String, listen: impl FnOnce() -> I) -> Self
    where
        C: AsyncRead
            + AsyncWrite
            + Connected<ConnectInfo: Clone + Send + Sync>
            + Unpin
            + Send
            + 'static,
        I: Stream<Item = std::io::Result<C>> + Send + 'static,
    {
        let (streams_in, streams) = mpsc::channel(ROOM);
        let (watches_in, watches) = mpsc::channel(ROOM);
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let entered = runtime.enter();
        let (_, health) = tonic_health::server::health_reporter();
        let service = || Service { streams: streams_in.clone(), watches: watches_in.clone() };
        let serving = Server::builder()
            .add_service(health)
            .add_service(LeaseServiceServer::new(service()))
            .add_service(EventServiceServer::new(service()))
            .add_service(AdminServiceServer::new(service()))
            .add_service(DeviceServiceServer::new(service()))
            .serve_with_incoming(listen());
        runtime.spawn(async move { serving.await.unwrap() });
        drop(entered);
        Self { endpoint, streams, watches, runtime: Some(runtime) }
    }

    pub(super) fn endpoint(&self) -> String {
        self.endpoint.clone()
    }

    /// The next session, welcomed with these leases.
    pub(super) async fn welcome(&mut self, leases: Vec<v1::Lease>) -> FakeSession {
        let session = self.streams.recv().await.unwrap();
        let welcome = v1::SessionWelcome { leases, ..v1::SessionWelcome::default() };
        session.answer(0, session_response::Body::Welcome(welcome)).await;
        session
    }

    /// The next session, not welcomed yet.
    pub(super) async fn session(&mut self) -> FakeSession {
        self.streams.recv().await.unwrap()
    }

    pub(super) fn has_another_session(&mut self) -> bool {
        self.streams.try_recv().is_ok()
    }

    pub(super) async fn watch(&mut self) -> FakeWatch {
        self.watches.recv().await.unwrap()
    }

    /// Ends it as a crash does: nobody is told.
    pub(super) fn kill(self) {
        drop(self);
    }

    /// The same, for one that is part of something.
    pub(super) fn end(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        self.end();
    }
}

impl FakeSession {
    pub(super) async fn next(&mut self) -> (u64, session_request::Body) {
        let message = self.requests.message().await.unwrap().expect("the client is still there");
        (message.sequence, message.body.unwrap())
    }

    /// Whether the client ended its half of the stream.
    pub(super) async fn is_over(&mut self) -> bool {
        !matches!(self.requests.message().await, Ok(Some(_)))
    }

    pub(super) async fn acquire(&mut self) -> (u64, v1::AcquireRequest) {
        match self.next().await {
            (sequence, session_request::Body::Acquire(acquire)) => (sequence, acquire),
            other => panic!("expected an acquire, got {other:?}"),
        }
    }

    pub(super) async fn acknowledge(&mut self) -> (u64, v1::AcknowledgeRequest) {
        match self.next().await {
            (sequence, session_request::Body::Acknowledge(acknowledge)) => (sequence, acknowledge),
            other => panic!("expected an acknowledgement, got {other:?}"),
        }
    }

    pub(super) async fn release(&mut self) -> (u64, v1::ReleaseRequest) {
        match self.next().await {
            (sequence, session_request::Body::Release(release)) => (sequence, release),
            other => panic!("expected a release, got {other:?}"),
        }
    }

    pub(super) async fn renewal(&mut self) -> (u64, Vec<v1::RenewRequest>) {
        match self.next().await {
            (sequence, session_request::Body::Renew(renewal)) => (sequence, renewal.leases),
            other => panic!("expected a renewal, got {other:?}"),
        }
    }

    pub(super) async fn answer(&self, sequence: u64, body: session_response::Body) {
        self.answer_at(sequence, 0, body).await;
    }

    pub(super) async fn answer_at(
        &self,
        sequence: u64,
        revision: u64,
        body: session_response::Body,
    ) {
        let message = v1::SessionResponse { sequence, revision, body: Some(body) };
        // The client may be gone already: then nobody misses the answer.
        let _ = self.answers.send(Ok(message)).await;
    }

    pub(super) async fn grant(&self, sequence: u64, lease: v1::Lease) {
        let granted = v1::AcquireResponse { lease: Some(lease), revision: 0 };
        self.answer(sequence, session_response::Body::Granted(granted)).await;
    }

    pub(super) async fn queue(&self, sequence: u64, lease: v1::Lease) {
        let queued = v1::SessionQueued { lease: Some(lease) };
        self.answer(sequence, session_response::Body::Queued(queued)).await;
    }

    pub(super) async fn refuse(&self, sequence: u64, code: tonic::Code, reason: &str) {
        self.answer(sequence, session_response::Body::Error(refusal(code, reason))).await;
    }

    /// Answers a message of renewals.
    pub(super) async fn renewed(
        &self,
        sequence: u64,
        outcomes: Vec<v1::session_renewal_outcome::Outcome>,
    ) {
        let outcomes = outcomes
            .into_iter()
            .map(|outcome| v1::SessionRenewalOutcome { outcome: Some(outcome) })
            .collect();
        let body = session_response::Body::Renewed(v1::SessionRenewed { outcomes });
        self.answer(sequence, body).await;
    }

    pub(super) async fn fail(self, status: Status) {
        self.answers.send(Err(status)).await.unwrap();
    }
}

pub(super) fn refusal(code: tonic::Code, reason: &str) -> v1::Error {
    v1::Error { code: code as i32, reason: reason.to_owned(), ..v1::Error::default() }
}

/// An active lease that lives for 30 s.
pub(super) fn active(id: u64, fencing_token: u64) -> v1::Lease {
    let ttl = Some(prost_types::Duration { seconds: 30, nanos: 0 });
    v1::Lease {
        id,
        fencing_token,
        state: v1::LeaseState::Active as i32,
        ttl,
        remaining: ttl,
        ..v1::Lease::default()
    }
}

#[tonic::async_trait]
impl LeaseService for Service {
    type SessionStream = Answers<v1::SessionResponse>;

    async fn session(
        &self,
        request: Request<Streaming<v1::SessionRequest>>,
    ) -> Answered<Self::SessionStream> {
        let trace_parent = request.metadata().get("traceparent");
        let trace_parent = trace_parent.map(|text| text.to_str().unwrap().to_owned());
        let mut requests = request.into_inner();
        let first = requests.message().await?.and_then(|message| message.body);
        let Some(session_request::Body::Hello(hello)) = first else {
            return Err(Status::invalid_argument("the first message is no hello"));
        };
        let (answers, answers_out) = mpsc::channel(ROOM);
        let session = FakeSession { requests, answers, hello, trace_parent };
        self.streams.send(session).await.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(Box::pin(ReceiverStream::new(answers_out))))
    }

    async fn acquire(&self, _: Request<v1::AcquireRequest>) -> Answered<v1::AcquireResponse> {
        Err(Status::unimplemented("acquire"))
    }

    async fn renew(&self, request: Request<v1::RenewRequest>) -> Answered<v1::RenewResponse> {
        let v1::RenewRequest { lease_id, fencing_token, .. } = request.into_inner();
        let remaining = Some(prost_types::Duration { seconds: 30, nanos: 0 });
        let renewed =
            v1::RenewResponse { lease_id, fencing_token, remaining, ..Default::default() };
        Ok(Response::new(renewed))
    }

    async fn release(&self, _: Request<v1::ReleaseRequest>) -> Answered<v1::ReleaseResponse> {
        Err(Status::unimplemented("release"))
    }

    /// Any lease is paused by it.
    async fn acknowledge(
        &self,
        request: Request<v1::AcknowledgeRequest>,
    ) -> Answered<v1::AcknowledgeResponse> {
        let v1::AcknowledgeRequest { lease_id, fencing_token, .. } = request.into_inner();
        let state = v1::LeaseState::Paused as i32;
        let lease = Some(v1::Lease { state, ..active(lease_id, fencing_token) });
        Ok(Response::new(v1::AcknowledgeResponse { lease }))
    }

    /// Whatever is asked for is what is left.
    async fn extend_notice(
        &self,
        request: Request<v1::ExtendNoticeRequest>,
    ) -> Answered<v1::ExtendNoticeResponse> {
        let asked = request.into_inner();
        let remaining = asked.extension;
        let notice = v1::Notice { id: asked.notice_id, remaining, ..v1::Notice::default() };
        let state = v1::LeaseState::Pausing as i32;
        let lease = active(asked.lease_id, asked.fencing_token);
        let lease = Some(v1::Lease { state, notice: Some(notice), ..lease });
        Ok(Response::new(v1::ExtendNoticeResponse { lease }))
    }

    /// One lease waits, of the service asked for.
    async fn queue(&self, request: Request<v1::QueueRequest>) -> Answered<v1::QueueResponse> {
        let service = request.into_inner().service;
        let lease = v1::Lease { state: v1::LeaseState::Queued as i32, ..active(3, 0) };
        let entry = v1::QueueEntry {
            lease: Some(lease),
            position: 7,
            class: v1::OrderClass::Aged as i32,
            fair_share_usage: 1.5,
            ..Default::default()
        };
        let share = v1::ServiceShare { service, weight: 2, usage: 3.0, ..Default::default() };
        let (entries, services) = (vec![entry], vec![share]);
        Ok(Response::new(v1::QueueResponse { entries, waiting: 9, services, revision: 4 }))
    }

    /// Every pipeline goes to one device; reserved, its leases are numbered from 100. Those of pipelines whose names begin
    /// with "over" are over.
    async fn plan(&self, request: Request<v1::PlanRequest>) -> Answered<v1::PlanResponse> {
        let asked = request.into_inner();
        let reserved = asked.reserve.is_some();
        let assignment = |(number, pipeline): (u64, v1::Pipeline)| v1::PipelineAssignment {
            node: "node-a".to_owned(),
            devices: vec![v1::LeasedDevice { uuid: "GPU-1".to_owned(), ..Default::default() }],
            lease: reserved.then(|| {
                let lease = active(number, number);
                let ended = v1::LeaseState::Ended as i32;
                let over = pipeline.name.starts_with("over");
                v1::Lease { state: if over { ended } else { lease.state }, ..lease }
            }),
            affinity_key: format!("key/{}", pipeline.name),
            pipeline: pipeline.name,
            ..Default::default()
        };
        Ok(Response::new(v1::PlanResponse {
            assignments: (100..).zip(asked.pipelines).map(assignment).collect(),
            complete: true,
            reserved,
            ..Default::default()
        }))
    }

    /// Any lease is queued behind lease 1, which stands in its way on one device.
    async fn explain(&self, request: Request<v1::ExplainRequest>) -> Answered<v1::ExplainResponse> {
        let blocking = v1::BlockingLease { lease_id: 1, ..v1::BlockingLease::default() };
        let waiting = v1::WaitingExplanation {
            blocking: vec![blocking],
            ..v1::WaitingExplanation::default()
        };
        let lease = v1::Lease {
            state: v1::LeaseState::Queued as i32,
            ..active(request.into_inner().lease_id, 0)
        };
        Ok(Response::new(v1::ExplainResponse {
            lease: Some(lease),
            waiting: Some(waiting),
            ..v1::ExplainResponse::default()
        }))
    }

    async fn get(
        &self,
        _: Request<v1::LeaseServiceGetRequest>,
    ) -> Answered<v1::LeaseServiceGetResponse> {
        Err(Status::not_found("no such lease"))
    }

    /// Three pages of one lease each; the revision grows from page to page.
    async fn list(
        &self,
        request: Request<v1::LeaseServiceListRequest>,
    ) -> Answered<v1::LeaseServiceListResponse> {
        let page: u64 = request.into_inner().page_token.parse().unwrap_or(1);
        let next_page_token = if page < 3 { (page + 1).to_string() } else { String::new() };
        let leases = vec![active(page, page)];
        let revision = 100 + page;
        Ok(Response::new(v1::LeaseServiceListResponse { leases, next_page_token, revision }))
    }

    async fn revoke(&self, _: Request<v1::RevokeRequest>) -> Answered<v1::RevokeResponse> {
        Err(Status::unimplemented("revoke"))
    }
}

#[tonic::async_trait]
impl EventService for Service {
    type WatchStream = Answers<v1::WatchResponse>;

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Answered<Self::WatchStream> {
        let (answers, answers_out) = mpsc::channel(ROOM);
        let watch = FakeWatch { request: request.into_inner(), answers };
        self.watches.send(watch).await.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(Box::pin(ReceiverStream::new(answers_out))))
    }
}

#[tonic::async_trait]
impl AdminService for Service {
    async fn status(&self, _: Request<v1::StatusRequest>) -> Answered<v1::StatusResponse> {
        Ok(Response::new(v1::StatusResponse { revision: 17, ..v1::StatusResponse::default() }))
    }

    async fn configuration(
        &self,
        _: Request<v1::ConfigurationRequest>,
    ) -> Answered<v1::ConfigurationResponse> {
        Ok(Response::new(v1::ConfigurationResponse::default()))
    }

    async fn cordon(&self, _: Request<v1::CordonRequest>) -> Answered<v1::CordonResponse> {
        Ok(Response::new(v1::CordonResponse { lease_ids: vec![4] }))
    }

    async fn uncordon(&self, _: Request<v1::UncordonRequest>) -> Answered<v1::UncordonResponse> {
        Ok(Response::new(v1::UncordonResponse {}))
    }

    /// Notices go to whatever is on the named node, or to nobody.
    async fn drain(&self, request: Request<v1::DrainRequest>) -> Answered<v1::DrainResponse> {
        let target = request.into_inner().target.and_then(|target| target.target);
        let noticed = matches!(target, Some(v1::target::Target::Node(_))).then_some(5);
        Ok(Response::new(v1::DrainResponse {
            noticed_lease_ids: noticed.into_iter().collect(),
            staying_lease_ids: vec![6],
            ..v1::DrainResponse::default()
        }))
    }

    async fn quiesce_driver(
        &self,
        _: Request<v1::QuiesceDriverRequest>,
    ) -> Answered<v1::QuiesceDriverResponse> {
        Ok(Response::new(v1::QuiesceDriverResponse {}))
    }

    async fn resume_driver(
        &self,
        _: Request<v1::ResumeDriverRequest>,
    ) -> Answered<v1::ResumeDriverResponse> {
        Ok(Response::new(v1::ResumeDriverResponse {}))
    }

    async fn open_device(
        &self,
        _: Request<v1::OpenDeviceRequest>,
    ) -> Answered<v1::OpenDeviceResponse> {
        Ok(Response::new(v1::OpenDeviceResponse { lease_ids: vec![7] }))
    }
}

#[tonic::async_trait]
impl DeviceService for Service {
    async fn list(
        &self,
        _: Request<v1::DeviceServiceListRequest>,
    ) -> Answered<v1::DeviceServiceListResponse> {
        Ok(Response::new(v1::DeviceServiceListResponse::default()))
    }

    async fn get(
        &self,
        _: Request<v1::DeviceServiceGetRequest>,
    ) -> Answered<v1::DeviceServiceGetResponse> {
        Err(Status::not_found("no such device"))
    }

    /// Two devices with one process each, a page for each; the second process belongs to no lease.
    async fn list_processes(
        &self,
        request: Request<v1::ListProcessesRequest>,
    ) -> Answered<v1::ListProcessesResponse> {
        let asked = request.into_inner();
        let second = asked.page_token == "2" || asked.device_uuid == "GPU-2";
        let (pid, lease_id) = if second { (102, 0) } else { (101, 1) };
        let process = Some(v1::Process { pid, started_ticks: Some(5) });
        Ok(Response::new(v1::ListProcessesResponse {
            processes: vec![v1::DeviceProcess { process, lease_id, ..Default::default() }],
            next_page_token: if second { String::new() } else { "2".to_owned() },
        }))
    }
}
