//! How `gpulease serve` can fail, and with which exit code.

use std::{error::Error, io, sync::Arc};

use tokio::task::JoinError;

use crate::{
    actor::recovery::RecoveryError,
    api::{ListenError, ServeError},
    backend::BackendError,
    config::ConfigError,
    journal::JournalError,
};

/// A failure of the coordinator as a process.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// There is no state to serve.
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    /// The backend cannot start.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// A gRPC listener cannot be had.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The HTTP listener cannot be had.
    #[error(
        "cannot listen on {address} for HTTP; stop what uses it, or choose another with --http, or none"
    )]
    Http {
        /// The address.
        address: std::net::SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The system gives no thread.
    #[error("cannot start the coordinator's threads; raise the limit on threads")]
    Thread(#[source] io::Error),
    /// Signals cannot be waited for.
    #[error("cannot wait for signals")]
    Signals(#[source] io::Error),
    /// Stdout cannot be written.
    #[error("cannot write to stdout")]
    Stdout(#[source] io::Error),
    /// The gRPC server failed.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The gRPC server panicked, or ended without being asked to.
    #[error("the gRPC server ended by itself, which is a defect: {0}")]
    ServerGone(String),
    /// A commit failed.
    #[error(
        "the journal failed, so nothing more is acknowledged; what was acknowledged is durable: {0}"
    )]
    JournalFailed(Arc<str>),
    /// A broken invariant.
    #[error("the coordinator stopped, nothing acknowledged is lost: {0}")]
    Defect(Arc<str>),
}

impl Failure {
    /// The exit code.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) => 2,
            Self::Backend(
                BackendError::Spec { .. }
                | BackendError::ScenarioUnreadable { .. }
                | BackendError::Scenario { .. },
            ) => 2,
            Self::Recovery(RecoveryError::Journal(JournalError::InUse { .. })) => 3,
            Self::Recovery(error) if error.is_corruption() => 4,
            Self::JournalFailed(_) => 5,
            Self::Recovery(_)
            | Self::Backend(_)
            | Self::Listen(_)
            | Self::Http { .. }
            | Self::Thread(_)
            | Self::Signals(_)
            | Self::Stdout(_)
            | Self::Serve(_)
            | Self::ServerGone(_)
            | Self::Defect(_) => 1,
        }
    }

    /// The message with its causes, each once.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            let said = error.to_string();
            if !text.contains(&said) {
                text.push_str(": ");
                text.push_str(&said);
            }
            cause = error.source();
        }
        text
    }

    /// Why the gRPC server is gone though nobody asked.
    pub(super) fn of_api(served: Result<Result<(), ServeError>, JoinError>) -> Self {
        match served {
            Ok(Ok(())) => Self::ServerGone("no reason was given".to_owned()),
            Ok(Err(error)) => error.into(),
            Err(error) => Self::ServerGone(error.to_string()),
        }
    }

    /// A server that failed while it was being stopped is worth a line, not an exit code.
    pub(super) fn log_api(served: Result<Result<(), ServeError>, JoinError>) {
        if !matches!(served, Ok(Ok(()))) {
            tracing::warn!("{}", Self::of_api(served).text());
        }
    }
}
