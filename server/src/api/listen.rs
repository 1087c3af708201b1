//! Where the coordinator listens: a TCP address, a Unix socket, or both.
//!
//! Promises: a socket file of a coordinator that lives is left alone, one that was left behind is replaced, and the
//! file stays when the listener goes. Connections are bounded: one over the bound is closed at once.

use std::{
    io,
    net::SocketAddr,
    os::unix::{fs::FileTypeExt as _, fs::PermissionsExt as _, net},
    path::{Path, PathBuf},
};

use tokio::net::{TcpListener, UnixListener};

/// Group members may connect as well as the owner; nobody else.
const SOCKET_MODE: u32 = 0o660;

/// Why a listener could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address cannot be had.
    #[error("cannot listen on {address}; stop what uses it, or choose another with --listen")]
    Tcp {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The socket cannot be had.
    #[error("cannot listen on the socket {}; choose another path with --socket, or none", path.display())]
    Unix {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another coordinator listens on the socket.
    #[error("another coordinator listens on {}; stop it, or choose another path with --socket", path.display())]
    SocketInUse {
        /// The path.
        path: PathBuf,
    },
    /// Something that is no socket has the path.
    #[error("{} is there and is no socket; remove it, or choose another path with --socket", path.display())]
    NoSocket {
        /// The path.
        path: PathBuf,
    },
}

/// The listeners, bound.
#[derive(Debug, Default)]
pub struct Listeners {
    pub(super) tcp: Option<TcpListener>,
    pub(super) unix: Option<UnixListener>,
    socket: Option<PathBuf>,
}

impl Listeners {
    /// Binds what is asked for; port 0 picks a free one.
    ///
    /// # Errors
    /// The address or path cannot be had.
    pub async fn bind(tcp: Option<SocketAddr>, socket: Option<&Path>) -> Result<Self, ListenError> {
        let tcp = match tcp {
            None => None,
            Some(address) => {
                let bound = TcpListener::bind(address).await;
                Some(bound.map_err(|source| ListenError::Tcp { address, source })?)
            }
        };
        let Some(path) = socket else { return Ok(Self { tcp, ..Self::default() }) };
        let unix = bind_socket(path)?;
        Ok(Self { tcp, unix: Some(unix), socket: Some(path.to_owned()) })
    }

    /// The TCP address, with the port that was picked.
    #[must_use]
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        self.tcp.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// The socket's path.
    #[must_use]
    pub fn socket_path(&self) -> Option<&Path> {
        self.socket.as_deref()
    }
}

/// The file stays when the listener is gone: that a connection to it is refused proves to holders that no coordinator
/// is there, which keeps their leases over an upgrade. A socket without a file proves nothing.
fn bind_socket(path: &Path) -> Result<UnixListener, ListenError> {
    let failed = |source| ListenError::Unix { path: path.to_owned(), source };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    clear(path)?;
    let listener = UnixListener::bind(path).map_err(failed)?;
    let mode = std::fs::Permissions::from_mode(SOCKET_MODE);
    std::fs::set_permissions(path, mode).map_err(failed)?;
    Ok(listener)
}

/// Makes room for a socket: only a socket that nobody listens on is removed.
fn clear(path: &Path) -> Result<(), ListenError> {
    let failed = |source| ListenError::Unix { path: path.to_owned(), source };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed(error)),
        Ok(found) if !found.file_type().is_socket() => {
            Err(ListenError::NoSocket { path: path.to_owned() })
        }
        Ok(_) if net::UnixStream::connect(path).is_ok() => {
            Err(ListenError::SocketInUse { path: path.to_owned() })
        }
        Ok(_) => std::fs::remove_file(path).map_err(failed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_left_behind_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/gpulease.sock");
        let first = Listeners::bind(None, Some(&path)).await.unwrap();
        let second = Listeners::bind(None, Some(&path)).await;
        assert!(matches!(second, Err(ListenError::SocketInUse { .. })));
        drop(first);
        let refused = net::UnixStream::connect(&path).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused, "the file stays");
        assert!(Listeners::bind(None, Some(&path)).await.is_ok());
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes.txt");
        std::fs::write(&path, "mine").unwrap();
        let refused = Listeners::bind(None, Some(&path)).await;
        assert!(matches!(refused, Err(ListenError::NoSocket { .. })));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
    }

    #[tokio::test]
    async fn a_port_in_use_is_named() {
        let any = Some("127.0.0.1:0".parse().unwrap());
        let first = Listeners::bind(any, None).await.unwrap();
        let address = first.tcp_address().unwrap();
        let second = Listeners::bind(Some(address), None).await.unwrap_err();
        assert!(second.to_string().contains(&address.to_string()), "{second}");
    }
}
