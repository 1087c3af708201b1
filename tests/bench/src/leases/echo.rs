//! The floor of a round trip: a gRPC service that answers each session message at once, in a process of its own.
//!
//! It speaks the session's own messages through the same tonic, so the difference to a coordinator is what the
//! coordinator does.

use std::{pin::Pin, process::Stdio, time::Duration};

use anyhow::Context as _;
use gpulease_proto::v1::{
    self,
    lease_service_client::LeaseServiceClient,
    lease_service_server::{LeaseService, LeaseServiceServer},
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::TcpListener,
    process::{Child, Command},
    sync::mpsc,
    time::{Instant, timeout},
};
use tokio_stream::{
    Stream, StreamExt as _,
    wrappers::{ReceiverStream, TcpListenerStream},
};
use tonic::{Request, Response, Status, Streaming};

/// One message is in flight at a time.
const CHANNEL: usize = 4;
/// The echo process binds a port and prints it.
const READY_MAX: Duration = Duration::from_secs(10);

struct Echo;

type Answer<T> = Result<Response<T>, Status>;

fn not_here<T>() -> Answer<T> {
    Err(Status::unimplemented("this process only echoes sessions"))
}

#[tonic::async_trait]
impl LeaseService for Echo {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<v1::SessionResponse, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<v1::SessionRequest>>,
    ) -> Answer<Self::SessionStream> {
        let answers = request.into_inner().map(|message| {
            message.map(|message| v1::SessionResponse {
                sequence: message.sequence,
                ..Default::default()
            })
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn acquire(&self, _: Request<v1::AcquireRequest>) -> Answer<v1::AcquireResponse> {
        not_here()
    }

    async fn renew(&self, _: Request<v1::RenewRequest>) -> Answer<v1::RenewResponse> {
        not_here()
    }

    async fn release(&self, _: Request<v1::ReleaseRequest>) -> Answer<v1::ReleaseResponse> {
        not_here()
    }

    async fn revoke(&self, _: Request<v1::RevokeRequest>) -> Answer<v1::RevokeResponse> {
        not_here()
    }

    async fn acknowledge(
        &self,
        _: Request<v1::AcknowledgeRequest>,
    ) -> Answer<v1::AcknowledgeResponse> {
        not_here()
    }

    async fn extend_notice(
        &self,
        _: Request<v1::ExtendNoticeRequest>,
    ) -> Answer<v1::ExtendNoticeResponse> {
        not_here()
    }

    async fn queue(&self, _: Request<v1::QueueRequest>) -> Answer<v1::QueueResponse> {
        not_here()
    }

    async fn plan(&self, _: Request<v1::PlanRequest>) -> Answer<v1::PlanResponse> {
        not_here()
    }

    async fn explain(&self, _: Request<v1::ExplainRequest>) -> Answer<v1::ExplainResponse> {
        not_here()
    }

    async fn get(
        &self,
        _: Request<v1::LeaseServiceGetRequest>,
    ) -> Answer<v1::LeaseServiceGetResponse> {
        not_here()
    }

    async fn list(
        &self,
        _: Request<v1::LeaseServiceListRequest>,
    ) -> Answer<v1::LeaseServiceListResponse> {
        not_here()
    }
}

/// The echo process: prints its address and serves until it is killed.
pub(crate) async fn serve() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await.context("bind a port for the echo")?;
    println!("http://{}", listener.local_addr().context("ask for the echo's port")?);
    let server = tonic::transport::Server::builder().tcp_nodelay(true);
    let mut server = server;
    let router = server.add_service(LeaseServiceServer::new(Echo));
    router.serve_with_incoming(TcpListenerStream::new(listener)).await.context("serve the echo")
}

/// The other end: one open stream to an echo process, which dies with it.
pub(super) struct EchoClient {
    _process: Child,
    requests: mpsc::Sender<v1::SessionRequest>,
    answers: Streaming<v1::SessionResponse>,
    sequence: u64,
}

impl EchoClient {
    pub(super) async fn start() -> anyhow::Result<Self> {
        let executable = std::env::current_exe().context("find the running executable")?;
        let mut command = Command::new(executable);
        command.arg("echo").stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn().context("start the echo process")?;
        let stdout = process.stdout.take().context("the echo's stdout was piped")?;
        let mut lines = BufReader::new(stdout).lines();
        let line = timeout(READY_MAX, lines.next_line()).await.context("the echo is silent")??;
        let endpoint = line.context("the echo process ended")?;
        let mut client =
            LeaseServiceClient::connect(endpoint).await.context("connect to the echo")?;
        let (requests, outgoing) = mpsc::channel(CHANNEL);
        let answers = client.session(ReceiverStream::new(outgoing)).await?.into_inner();
        Ok(Self { _process: process, requests, answers, sequence: 0 })
    }

    /// The time of one message there and back, so many times.
    pub(super) async fn round_trips(&mut self, count: usize) -> anyhow::Result<Vec<Duration>> {
        let mut times = Vec::with_capacity(count);
        for _ in 0..count {
            self.sequence += 1;
            let begun = Instant::now();
            let message = v1::SessionRequest { sequence: self.sequence, body: None };
            self.requests.send(message).await.context("send to the echo")?;
            let answer = self.answers.message().await?.context("the echo ended")?;
            times.push(begun.elapsed());
            anyhow::ensure!(answer.sequence == self.sequence, "the echo answered another message");
        }
        Ok(times)
    }
}
