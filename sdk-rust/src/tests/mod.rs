//! The client against a coordinator that a test plays by hand, over real loopback sockets. Time on the client's
//! clock is moved by the test; nothing sleeps to pass.

mod calls;
mod coordinator;
mod events;
mod fallback;
mod holding;
mod pausing;
mod plans;
mod session;
mod turns;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use coordinator::{Coordinator, FakeSession};

use crate::{Client, LeaseRequest, clock::Clock};

const TTL: Duration = Duration::from_secs(30);

/// A coordinator, a client of it, and the client's clock.
struct Scene {
    coordinator: Coordinator,
    client: Client,
    now: Arc<Mutex<Duration>>,
}

impl Scene {
    async fn new() -> Self {
        Self::at(Coordinator::start()).await
    }

    async fn at(coordinator: Coordinator) -> Self {
        let now = Arc::new(Mutex::new(Duration::from_secs(1_000)));
        let client = Client::builder()
            .endpoint(coordinator.endpoint())
            .service("tests")
            .holder("holder-1")
            .clock(Clock::Manual(Arc::clone(&now)))
            .connect()
            .await
            .unwrap();
        Self { coordinator, client, now }
    }

    /// Moves the client's clock, and calls the keep-alive as its timer would.
    fn advance(&self, duration: Duration) {
        *self.now.lock().unwrap() += duration;
        self.client.session_for_tests().0.attention.notify_one();
    }
}

/// Runs an acquire in a task of its own.
fn acquire(
    client: &Client,
    request: crate::LeaseRequest,
) -> tokio::task::JoinHandle<Result<crate::Lease, crate::Error>> {
    let client = client.clone();
    tokio::spawn(async move { client.acquire(request).await })
}

/// A request and its refusal: once it is back, the client has read everything said before.
async fn settle(scene: &Scene, session: &mut FakeSession) {
    let call = acquire(&scene.client, LeaseRequest::slots(1));
    let (sequence, _) = session.acquire().await;
    session.refuse(sequence, tonic::Code::ResourceExhausted, "NO_CAPACITY").await;
    call.await.unwrap().unwrap_err();
}
