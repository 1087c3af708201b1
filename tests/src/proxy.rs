//! A TCP proxy between a holder and its coordinator, that a test can cut, stall and heal.
//!
//! Cut: connections break and new ones are refused at once, as when a machine is gone. Stalled: nothing passes and
//! nobody is told, as when a cable is pulled; what was sent meanwhile passes once it is healed.

use std::net::SocketAddr;

use anyhow::Context as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinSet,
};

/// What passes at once: more than any message of a test.
const CHUNK_BYTES: usize = 16 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cable {
    Whole,
    Stalled,
    Cut,
}

/// A proxy. It ends, with all connections through it, when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    endpoint: String,
    cable: watch::Sender<Cable>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// A proxy to a coordinator's endpoint, whole at first.
    ///
    /// # Errors
    /// The endpoint is no `http://address:port`, or there is no free port.
    pub async fn to(endpoint: &str) -> anyhow::Result<Self> {
        let target = endpoint.trim_start_matches("http://").parse::<SocketAddr>();
        let target = target.with_context(|| format!("{endpoint} is no address and port"))?;
        let listener = TcpListener::bind("127.0.0.1:0").await.context("bind a proxy")?;
        let endpoint = format!("http://{}", listener.local_addr().context("the proxy's address")?);
        let (cable, seen) = watch::channel(Cable::Whole);
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, target, seen));
        Ok(Self { endpoint, cable, _tasks: tasks })
    }

    /// Where holders connect.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Breaks every connection, and every new one.
    pub fn cut(&self) {
        self.cable.send_replace(Cable::Cut);
    }

    /// Lets nothing pass, and tells nobody.
    pub fn stall(&self) {
        self.cable.send_replace(Cable::Stalled);
    }

    /// Lets everything pass again.
    pub fn heal(&self) {
        self.cable.send_replace(Cable::Whole);
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, cable: watch::Receiver<Cable>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((near, _)) = accepted else { continue };
                // While it is cut, dropping it is the answer.
                if *cable.borrow() != Cable::Cut {
                    connections.spawn(connect(near, target, cable.clone()));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// One connection, until either end or the cable breaks it.
async fn connect(near: TcpStream, target: SocketAddr, cable: watch::Receiver<Cable>) {
    let Ok(far) = TcpStream::connect(target).await else { return };
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    let mut broken = cable.clone();
    tokio::select! {
        () = pass(near_in, far_out, cable.clone()) => {}
        () = pass(far_in, near_out, cable) => {}
        _ = broken.wait_for(|cable| *cable == Cable::Cut) => {}
    }
}

/// Passes bytes on in one direction while the cable is whole.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut cable: watch::Receiver<Cable>) {
    let mut chunk = vec![0; CHUNK_BYTES];
    while let Ok(count @ 1..) = from.read(&mut chunk).await {
        let whole = cable.wait_for(|cable| *cable == Cable::Whole).await.is_ok();
        if !whole || to.write_all(&chunk[..count]).await.is_err() {
            return;
        }
    }
}
