//! What the coordinator says on stdout once it is ready: some lines for people, or one line of JSON.

use std::{
    fmt::Write as _,
    io::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
};

use gpulease_core::id::Revision;

use super::Failure;

/// The SDKs' default address: where nothing needs to be said to reach the coordinator.
const ADDRESS_DEFAULT: &str = "http://127.0.0.1:7475";

/// What is ready.
#[derive(Clone, Debug)]
pub(super) struct Ready {
    pub(super) grpc: Option<SocketAddr>,
    pub(super) http: Option<SocketAddr>,
    pub(super) socket: Option<PathBuf>,
    pub(super) data: PathBuf,
    pub(super) backend: &'static str,
    pub(super) devices: usize,
    /// Why there are none, or not yet.
    pub(super) reason: Option<String>,
    pub(super) revision: Revision,
}

impl Ready {
    pub(super) fn text(&self, json: bool) -> String {
        if json { self.json() } else { self.lines() }
    }

    /// What clients connect to: TCP where it is served, else the socket.
    fn endpoint(&self) -> Option<String> {
        let socket = || self.socket.as_ref().map(|path| format!("unix://{}", path.display()));
        self.grpc.map(url).or_else(socket)
    }

    fn json(&self) -> String {
        let ready = serde_json::json!({
            "event": "ready",
            "endpoint": self.endpoint(),
            "http": self.http.map(url),
            "socket": self.socket,
            "data": self.data,
            "backend": self.backend,
            "devices": self.devices,
            "reason": self.reason,
            "revision": self.revision.0,
        });
        format!("{ready}\n")
    }

    fn lines(&self) -> String {
        let mut text = format!("gpulease {} is ready\n", env!("CARGO_PKG_VERSION"));
        let mut line = |name: &str, value: String| {
            writeln!(text, "  {name:<9}{value}").expect("writing to a string cannot fail");
        };
        line("gRPC", self.grpc.map_or_else(|| "off".to_owned(), url));
        line(
            "socket",
            self.socket.as_ref().map_or("off".into(), |path| path.display().to_string()),
        );
        line(
            "HTTP",
            self.http.map_or_else(
                || "off".to_owned(),
                |http| format!("{} (/livez /readyz /status)", url(http)),
            ),
        );
        line("data", format!("{} at revision {}", self.data.display(), self.revision));
        line("devices", self.device_line());
        line("next", self.next_line());
        text
    }

    fn device_line(&self) -> String {
        if self.backend == "none" {
            let reason = self.reason.as_deref().unwrap_or("no usable driver was found");
            return format!(
                "none: {reason}; every request is refused; to try gpulease without a GPU: \
                gpulease serve --simulate 2x24GiB"
            );
        }
        let reason = self.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        format!("{} ({}){reason}", self.devices, self.backend)
    }

    fn next_line(&self) -> String {
        let endpoint = self.endpoint().unwrap_or_default();
        let option = if endpoint == ADDRESS_DEFAULT {
            String::new()
        } else {
            format!(" --endpoint {endpoint}")
        };
        format!("gpulease{option} devices; gpulease{option} run --memory 8GiB -- COMMAND")
    }
}

/// An address as clients on this host reach it.
fn url(address: SocketAddr) -> String {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    format!("http://{}", SocketAddr::new(ip, address.port()))
}

/// Writes to stdout at once: whoever started the coordinator waits for it.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(Failure::Stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready() -> Ready {
        Ready {
            grpc: Some("127.0.0.1:4242".parse().unwrap()),
            http: None,
            socket: Some("/run/g.sock".into()),
            data: "/data".into(),
            backend: "simulated",
            devices: 2,
            reason: None,
            revision: Revision(17),
        }
    }

    #[test]
    fn the_ready_line_is_one_json_object_with_nulls_for_what_is_off() {
        let text = ready().text(true);
        assert_eq!(text.matches('\n').count(), 1);
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        let expected = serde_json::json!({
            "event": "ready", "endpoint": "http://127.0.0.1:4242", "http": null, "socket": "/run/g.sock",
            "data": "/data", "backend": "simulated", "devices": 2, "reason": null,
            "revision": 17,
        });
        assert_eq!(line, expected);
    }

    #[test]
    fn without_tcp_the_socket_is_the_endpoint() {
        let ready = Ready { grpc: None, ..ready() };
        assert_eq!(ready.endpoint().as_deref(), Some("unix:///run/g.sock"));
    }

    #[test]
    fn an_address_of_any_interface_is_shown_as_this_host_reaches_it() {
        assert_eq!(url("0.0.0.0:1".parse().unwrap()), "http://127.0.0.1:1");
        assert_eq!(url("[::]:1".parse().unwrap()), "http://[::1]:1");
    }

    #[test]
    fn people_read_what_to_try_next_and_that_no_device_is_invented() {
        let text = ready().text(false);
        assert!(text.contains("gpulease --endpoint http://127.0.0.1:4242 devices"), "{text}");
        assert!(text.contains("devices  2 (simulated)"), "{text}");
        let none = Ready { backend: "none", devices: 0, ..ready() };
        assert!(none.text(false).contains("every request is refused"), "{}", none.text(false));
    }
}
