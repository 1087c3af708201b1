//! Where a coordinator is, and the channel to it: `http://host:port` or `unix:///path`.
//!
//! The channel connects when it is first used and again after every break; nothing here waits for it.

use std::{path::PathBuf, str::FromStr, time::Duration};

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint as Transport, Uri};
use tower::service_fn;

use crate::error::{Error, ErrorKind};

/// Where a coordinator is unless something else is said.
pub const ENDPOINT_DEFAULT: &str = "http://127.0.0.1:7475";

/// A quiet connection is asked for a sign of life this often …
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// … and is given up when none comes for so long.
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// The HTTP/2 window of one stream: 4,096 answers in flight of about 1 KiB each, so that the session never stalls.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// The HTTP/2 window of the connection: the session, and three streams like it beside it.
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// The port of plain gRPC where an endpoint names none.
const SCHEME_DEFAULT: &str = "http://";

/// A parsed endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// Plain HTTP/2 to a host and port.
    Tcp(String),
    /// A Unix socket on this host.
    Unix(PathBuf),
}

impl FromStr for Endpoint {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if let Some(path) = text.strip_prefix("unix://") {
            return unix(text, path);
        }
        match text.split_once("://") {
            Some(("http", _)) => Ok(Self::Tcp(text.to_owned())),
            Some((scheme, _)) => {
                let what = format!("scheme {scheme:?} is not supported, http and unix are");
                Err(invalid(text, &what))
            }
            None if text.contains(':') => Ok(Self::Tcp(format!("{SCHEME_DEFAULT}{text}"))),
            None => Err(invalid(text, "it has no port")),
        }
    }
}

fn unix(text: &str, path: &str) -> Result<Endpoint, Error> {
    if path.starts_with('/') {
        Ok(Endpoint::Unix(PathBuf::from(path)))
    } else {
        Err(invalid(text, "a socket's path must be absolute"))
    }
}

fn invalid(text: &str, what: &str) -> Error {
    let message = format!(
        "endpoint {text:?} cannot be used: {what}; write it like {ENDPOINT_DEFAULT} or \
         unix:///run/gpulease/gpulease.sock"
    );
    Error::new(ErrorKind::InvalidArgument, "INVALID_ENDPOINT", message)
}

/// Something that the coordinator's own Unix socket alone allows.
pub(crate) fn needs_socket(endpoint: &str, what: &str) -> Error {
    let message = format!("at {endpoint} {what}; use the coordinator's own socket (unix:///…)");
    Error::new(ErrorKind::InvalidArgument, "NEEDS_SOCKET", message)
}

/// Leases can be kept while nobody is there only where a refused connection proves that.
pub(crate) fn cannot_keep(endpoint: &str) -> Error {
    needs_socket(
        endpoint,
        "leases cannot be kept while the coordinator is unreachable: over TCP nobody can tell a dead coordinator from a \
         cut network, behind which others may get the devices",
    )
}

impl Endpoint {
    pub(crate) fn is_socket(&self) -> bool {
        matches!(self, Self::Unix(_))
    }

    /// A channel that connects when first used.
    pub(crate) fn channel(&self, connect_timeout: Duration) -> Result<Channel, Error> {
        match self {
            Self::Tcp(uri) => {
                let transport = Transport::from_shared(uri.clone())
                    .map_err(|error| invalid(uri, &error.to_string()))?;
                Ok(tuned(transport, connect_timeout).connect_lazy())
            }
            Self::Unix(path) => {
                let transport = tuned(Transport::from_static("http://localhost"), connect_timeout);
                let path = path.clone();
                let connector = service_fn(move |_: Uri| {
                    let path = path.clone();
                    async move { UnixStream::connect(path).await.map(TokioIo::new) }
                });
                Ok(transport.connect_with_connector_lazy(connector))
            }
        }
    }
}

fn tuned(transport: Transport, connect_timeout: Duration) -> Transport {
    transport
        .connect_timeout(connect_timeout)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<Endpoint>) {
        assert_eq!(text.parse::<Endpoint>().ok(), expected, "{text:?}");
    }

    #[test]
    fn endpoints_are_http_or_an_absolute_socket_path() {
        check("http://127.0.0.1:7475", Some(Endpoint::Tcp("http://127.0.0.1:7475".into())));
        check("localhost:7475", Some(Endpoint::Tcp("http://localhost:7475".into())));
        check("unix:///run/g.sock", Some(Endpoint::Unix("/run/g.sock".into())));
        check("unix://g.sock", None);
        check("https://example.org", None);
        check("localhost", None);
        check("", None);
    }
}
