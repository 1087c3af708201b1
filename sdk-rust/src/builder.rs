//! How a client comes to be: where the coordinator is, who asks, and a first sign of life.
//!
//! An explicit argument wins over `GPULEASE_*`, which wins over the seeds' variables, which win over the default.

use std::{sync::Arc, time::Duration};

use rand::Rng as _;
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::{
    breaker::{Breaker, BreakerSettings},
    client::{Client, Conduct},
    clock::Clock,
    endpoint::{ENDPOINT_DEFAULT, Endpoint, cannot_keep},
    environment::{self, Environment},
    error::{Error, ErrorKind},
    request::WhileUnreachable,
    session::{Identity, Session, Setup},
    trace::TraceSource,
    unary::Unary,
};

/// How long connecting may take unless something else is said.
const CONNECT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
/// How long a request waits, and a call may take, unless something else is said: the seeds' request timeout.
const REQUEST_TIMEOUT_DEFAULT: Duration = Duration::from_secs(15);
/// The service unless something else is said.
const SERVICE_DEFAULT: &str = "default";

/// Makes a [`Client`].
///
/// | setting | variables, the first that is set | default |
/// |---|---|---|
/// | [`endpoint`](Self::endpoint) | `GPULEASE_ENDPOINT`, `GPU_COORDINATOR_URL` | [`ENDPOINT_DEFAULT`] |
/// | [`service`](Self::service) | `GPULEASE_SERVICE` | `default` |
/// | [`holder`](Self::holder) | `GPULEASE_HOLDER` | host, process and chance |
/// | [`enabled`](Self::enabled) | `GPULEASE_ENABLED`, `GPU_ENABLED` | true |
/// | [`fallback_to_cpu`](Self::fallback_to_cpu) | `GPULEASE_FALLBACK_TO_CPU`, `GPU_FALLBACK_TO_CPU` | true |
/// | [`request_timeout`](Self::request_timeout) | `GPULEASE_REQUEST_TIMEOUT`, `GPU_REQUEST_TIMEOUT` | 15 s |
/// | [`connect_timeout`](Self::connect_timeout) | `GPULEASE_CONNECT_TIMEOUT` | 5 s |
/// | [`while_unreachable`](Self::while_unreachable) | `GPULEASE_WHILE_UNREACHABLE` | stop |
/// | [`breaker`](Self::breaker) | `GPULEASE_BREAKER_FAILURES`, `_COOLDOWN`, `_SUCCESSES`, `_CALLS_MIN` | 15, 20 s, 3, 10 |
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
    enabled: Option<bool>,
    fallback_to_cpu: Option<bool>,
    request_timeout: Option<Duration>,
    connect_timeout: Option<Duration>,
    while_unreachable: Option<WhileUnreachable>,
    breaker: Option<BreakerSettings>,
    trace: TraceSource,
    environment: Option<Environment>,
    clock: Clock,
}

impl ClientBuilder {
    /// Where the coordinator is: `http://host:port` or `unix:///path`.
    pub fn endpoint(mut self, endpoint: impl Into<String>) -> Self {
        self.endpoint = Some(endpoint.into());
        self
    }

    /// The service that asks.
    pub fn service(mut self, service: impl Into<String>) -> Self {
        self.service = Some(service.into());
        self
    }

    /// The holder: this running client. Two clients with the same one replace each other.
    pub fn holder(mut self, holder: impl Into<String>) -> Self {
        self.holder = Some(holder.into());
        self
    }

    /// Whether GPUs are to be used at all. Without them [`Client::acquire_or_cpu`] always says CPU, and asks nobody;
    /// [`Client::acquire`] fails.
    pub fn enabled(mut self, enabled: bool) -> Self {
        self.enabled = Some(enabled);
        self
    }

    /// Whether [`Client::acquire_or_cpu`] says CPU where no GPU can be had; otherwise it says why not.
    pub fn fallback_to_cpu(mut self, fallback: bool) -> Self {
        self.fallback_to_cpu = Some(fallback);
        self
    }

    /// How long a request waits that does not say so itself; also the longest that a call's answer may take, up to 15 s.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = Some(timeout);
        self
    }

    /// How long connecting may take, the first sign of life included.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = Some(timeout);
        self
    }

    /// What becomes of leases while nobody is at the coordinator's endpoint. Keeping them is possible over the
    /// coordinator's own Unix socket alone.
    pub fn while_unreachable(mut self, policy: WhileUnreachable) -> Self {
        self.while_unreachable = Some(policy);
        self
    }

    /// When a coordinator that keeps failing is left alone.
    pub fn breaker(mut self, settings: BreakerSettings) -> Self {
        self.breaker = Some(settings);
        self
    }

    /// Where the trace context of each call comes from, as a W3C `traceparent`; asked in the task that makes the call.
    /// Default: with the feature `opentelemetry` the current span's, else none.
    pub fn trace_context(
        mut self,
        source: impl Fn() -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.trace = TraceSource::new(source);
        self
    }

    #[cfg(test)]
    pub(crate) fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    #[cfg(test)]
    pub(crate) fn environment(mut self, environment: Environment) -> Self {
        self.environment = Some(environment);
        self
    }

    /// Connects, and asks the coordinator's health service once whether it serves. Must be called within a tokio
    /// runtime, which then carries the client's background tasks.
    ///
    /// # Errors
    /// As [`Self::build`]; [`Unavailable`](ErrorKind::Unavailable) when nobody serves there within the time given.
    pub async fn connect(self) -> Result<Client, Error> {
        let client = self.build()?;
        client.check_health().await?;
        Ok(client)
    }

    /// Makes a client that connects when it is first used: whether anybody is there shows then. For programs that go on
    /// without GPUs ([`Client::acquire_or_cpu`]). Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for a setting that cannot be used: an endpoint, a variable's
    /// value, or keeping leases over TCP.
    pub fn build(self) -> Result<Client, Error> {
        let variables = self.environment.clone().unwrap_or_else(Environment::of_process);
        let settings = self.settled(&variables)?;
        let endpoint = settings.endpoint.parse::<Endpoint>()?;
        let is_socket = endpoint.is_socket();
        if settings.while_unreachable == WhileUnreachable::Keep && !is_socket {
            return Err(cannot_keep(&settings.endpoint));
        }
        let channel = endpoint.channel(settings.connect_timeout)?;
        let breaker = Arc::new(Breaker::new(settings.breaker));
        let unary = Unary::new(channel.clone(), settings.request_timeout, settings.trace.clone());
        let conduct = Conduct {
            endpoint: settings.endpoint,
            is_socket,
            enabled: settings.enabled,
            fallback_to_cpu: settings.fallback_to_cpu,
            request_timeout: settings.request_timeout,
            connect_timeout: settings.connect_timeout,
            while_unreachable: settings.while_unreachable,
            trace: settings.trace.clone(),
            breaker: Arc::clone(&breaker),
        };
        let setup = Setup {
            channel,
            identity: settings.identity,
            clock: self.clock,
            answer_grace: settings.request_timeout.min(REQUEST_TIMEOUT_DEFAULT),
            breaker,
            trace: settings.trace,
        };
        Ok(Client::new(conduct, unary, Session::new(setup)))
    }

    /// Every setting with its value.
    fn settled(&self, variables: &Environment) -> Result<Settings, Error> {
        let text = |given: &Option<String>, names| given.clone().or_else(|| variables.text(names));
        let flag = |given: Option<bool>, names| {
            given.map_or_else(|| variables.flag(names), |given| Ok(Some(given)))
        };
        let time = |given: Option<Duration>, names| {
            given.map_or_else(|| variables.time(names), |given| Ok(Some(given)))
        };
        let service = text(&self.service, environment::SERVICE);
        let identity = Identity {
            service: service.unwrap_or_else(|| SERVICE_DEFAULT.to_owned()),
            holder: text(&self.holder, environment::HOLDER).unwrap_or_else(own_name),
        };
        let while_unreachable = match self.while_unreachable {
            Some(policy) => Some(policy),
            None => variables.choice(environment::WHILE_UNREACHABLE, WhileUnreachable::NAMES)?,
        };
        Ok(Settings {
            endpoint: text(&self.endpoint, environment::ENDPOINT)
                .unwrap_or_else(|| ENDPOINT_DEFAULT.to_owned()),
            identity,
            enabled: flag(self.enabled, environment::ENABLED)?.unwrap_or(true),
            fallback_to_cpu: flag(self.fallback_to_cpu, environment::FALLBACK_TO_CPU)?
                .unwrap_or(true),
            request_timeout: time(self.request_timeout, environment::REQUEST_TIMEOUT)?
                .unwrap_or(REQUEST_TIMEOUT_DEFAULT),
            connect_timeout: time(self.connect_timeout, environment::CONNECT_TIMEOUT)?
                .unwrap_or(CONNECT_TIMEOUT_DEFAULT),
            while_unreachable: while_unreachable.unwrap_or_default(),
            breaker: self.breaker.map_or_else(|| breaker(variables), Ok)?,
            trace: self.trace.clone(),
        })
    }
}

/// Every setting of a client, with its value.
struct Settings {
    endpoint: String,
    identity: Identity,
    enabled: bool,
    fallback_to_cpu: bool,
    request_timeout: Duration,
    connect_timeout: Duration,
    while_unreachable: WhileUnreachable,
    breaker: BreakerSettings,
    trace: TraceSource,
}

fn breaker(variables: &Environment) -> Result<BreakerSettings, Error> {
    let default = BreakerSettings::default();
    Ok(BreakerSettings {
        failures: variables.number(environment::BREAKER_FAILURES)?.unwrap_or(default.failures),
        cooldown: variables.time(environment::BREAKER_COOLDOWN)?.unwrap_or(default.cooldown),
        successes: variables.number(environment::BREAKER_SUCCESSES)?.unwrap_or(default.successes),
        calls_min: variables.number(environment::BREAKER_CALLS_MIN)?.unwrap_or(default.calls_min),
    })
}

/// A holder that no other client has: host, process, and 32 bits of chance for several clients in one process.
fn own_name() -> String {
    // A host name has at most 64 bytes on Linux; a longer one is cut so that the wire's bound of 128 holds.
    let host: String =
        rustix::system::uname().nodename().to_string_lossy().chars().take(24).collect();
    format!("{host}-{}-{:08x}", std::process::id(), rand::rng().random::<u32>())
}

/// A lazy channel "succeeds" with nobody there; this does not.
pub(crate) async fn check_health(
    channel: Channel,
    endpoint: &str,
    deadline: Duration,
) -> Result<(), Error> {
    let unavailable = |why: &str| {
        let message = format!(
            "no coordinator can be reached at {endpoint}: {why}; start one with `gpulease serve`, or set \
             GPULEASE_ENDPOINT"
        );
        Error::new(ErrorKind::Unavailable, "UNREACHABLE", message)
    };
    let mut client = HealthClient::new(channel);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(builder: &ClientBuilder, variables: &[(&str, &str)]) -> Settings {
        builder.settled(&Environment::of(variables)).unwrap()
    }

    #[test]
    fn an_argument_wins_over_the_own_variable_which_wins_over_the_seeds() {
        let both = [("GPULEASE_ENDPOINT", "own:1"), ("GPU_COORDINATOR_URL", "seed:1")];
        assert_eq!(
            settled(&ClientBuilder::default().endpoint("given:1"), &both).endpoint,
            "given:1"
        );
        assert_eq!(settled(&ClientBuilder::default(), &both).endpoint, "own:1");
        assert_eq!(settled(&ClientBuilder::default(), &both[1..]).endpoint, "seed:1");
        assert_eq!(settled(&ClientBuilder::default(), &[]).endpoint, ENDPOINT_DEFAULT);
    }

    #[test]
    fn the_seeds_variables_are_read() {
        let variables =
            [("GPU_ENABLED", "false"), ("GPU_REQUEST_TIMEOUT", "7"), ("GPU_FALLBACK_TO_CPU", "0")];
        let read = settled(&ClientBuilder::default(), &variables);
        assert_eq!((read.enabled, read.fallback_to_cpu), (false, false));
        assert_eq!(read.request_timeout, Duration::from_secs(7));
        let default = settled(&ClientBuilder::default(), &[]);
        assert_eq!((default.enabled, default.fallback_to_cpu), (true, true));
        assert_eq!(default.request_timeout, Duration::from_secs(15));
    }

    #[tokio::test]
    async fn leases_are_kept_over_a_socket_alone() {
        let build = |endpoint: &str| {
            let variables = Environment::of(&[("GPULEASE_WHILE_UNREACHABLE", "keep")]);
            ClientBuilder::default().environment(variables).endpoint(endpoint).build()
        };
        build("unix:///run/gpulease.sock").unwrap();
        let error = build("http://127.0.0.1:1").unwrap_err();
        assert_eq!((error.kind(), error.reason()), (ErrorKind::InvalidArgument, "NEEDS_SOCKET"));
    }
}
