//! How a client comes to be: where the coordinator is, who asks, and a first sign of life.
//!
//! An explicit argument wins over `GPULEASE_*`, which wins over the default.

use std::{env, time::Duration};

use rand::Rng as _;
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::{
    client::Client,
    clock::Clock,
    endpoint::{ENDPOINT_DEFAULT, Endpoint},
    error::{Error, ErrorKind},
    session::{Identity, Session},
    unary::Unary,
};

/// How long connecting may take unless something else is said.
const CONNECT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
/// The service unless something else is said.
const SERVICE_DEFAULT: &str = "default";

/// Makes a [`Client`].
///
/// ```no_run
/// # async fn example() -> Result<(), gpulease::Error> {
/// let client = gpulease::Client::builder()
///     .endpoint("unix:///run/gpulease/gpulease.sock")
///     .service("training")
///     .connect()
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "a builder does nothing until connect is called"]
pub struct ClientBuilder {
    endpoint: Option<String>,
    service: Option<String>,
    holder: Option<String>,
    connect_timeout: Option<Duration>,
    clock: Clock,
}

impl ClientBuilder {
    /// Where the coordinator is: `http://host:port` or `unix:///path`. Default: `GPULEASE_ENDPOINT`, else
    /// `GPU_COORDINATOR_URL`, else [`ENDPOINT_DEFAULT`].
    pub fn endpoint(mut self, endpoint: impl Into<String>) -> Self {
        self.endpoint = Some(endpoint.into());
        self
    }

    /// The service that asks. Default: `GPULEASE_SERVICE`, else `default`.
    pub fn service(mut self, service: impl Into<String>) -> Self {
        self.service = Some(service.into());
        self
    }

    /// The holder: this running client. Two clients with the same one replace each other. Default:
    /// `GPULEASE_HOLDER`, else a name of its own from host, process and chance.
    pub fn holder(mut self, holder: impl Into<String>) -> Self {
        self.holder = Some(holder.into());
        self
    }

    /// How long connecting may take, the first sign of life included. Default: 5 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = Some(timeout);
        self
    }

    #[cfg(test)]
    pub(crate) fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Connects, and asks the coordinator's health service once whether it serves. Must be called within a tokio
    /// runtime, which then carries the client's background tasks.
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for an endpoint that cannot be used,
    /// [`Unavailable`](ErrorKind::Unavailable) when nobody serves there within the time given.
    pub async fn connect(self) -> Result<Client, Error> {
        let setting = |given: Option<String>, name| given.or_else(|| from_environment(name));
        let endpoint = setting(self.endpoint, "GPULEASE_ENDPOINT")
            .or_else(|| from_environment("GPU_COORDINATOR_URL"))
            .unwrap_or_else(|| ENDPOINT_DEFAULT.to_owned());
        let service = setting(self.service, "GPULEASE_SERVICE");
        let identity = Identity {
            service: service.unwrap_or_else(|| SERVICE_DEFAULT.to_owned()),
            holder: setting(self.holder, "GPULEASE_HOLDER").unwrap_or_else(own_name),
        };
        let connect_timeout = self.connect_timeout.unwrap_or(CONNECT_TIMEOUT_DEFAULT);
        let channel = endpoint.parse::<Endpoint>()?.channel(connect_timeout)?;
        check_health(&channel, &endpoint, connect_timeout).await?;
        let unary = Unary::new(channel.clone());
        Ok(Client::new(endpoint, unary, Session::new(channel, identity, self.clock)))
    }
}

fn from_environment(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// A holder that no other client has: host, process, and 32 bits of chance for several clients in one process.
fn own_name() -> String {
    // A host name has at most 64 bytes on Linux; a longer one is cut so that the wire's bound of 128 holds.
    let host: String =
        rustix::system::uname().nodename().to_string_lossy().chars().take(24).collect();
    format!("{host}-{}-{:08x}", std::process::id(), rand::rng().random::<u32>())
}

/// A lazy channel "succeeds" with nobody there; this does not.
async fn check_health(channel: &Channel, endpoint: &str, deadline: Duration) -> Result<(), Error> {
    let unavailable = |why: &str| {
        let message = format!(
            "no coordinator can be reached at {endpoint}: {why}; start one with `gpulease serve`, or set \
             GPULEASE_ENDPOINT"
        );
        Error::new(ErrorKind::Unavailable, "UNREACHABLE", message)
    };
    let mut client = HealthClient::new(channel.clone());
    let check = client.check(HealthCheckRequest { service: String::new() });
    match timeout(deadline, check).await {
        Err(_) => Err(unavailable(&format!("no answer within {deadline:?}"))),
        Ok(Err(status)) => Err(unavailable(Error::from(status).cause())),
        Ok(Ok(answer)) if answer.get_ref().status() != ServingStatus::Serving => {
            Err(unavailable("it answers, but does not serve now"))
        }
        Ok(Ok(_)) => Ok(()),
    }
}
