//! Puts the services behind listeners, with every limit, and takes them down again.
//!
//! A graceful stop: the actor stops first (sessions and watches end with the revision to resume from, health says
//! NOT_SERVING), then the listeners; what is still open after [`STOP_WAIT_MAX`] is cut off.

use std::{io, sync::Arc};

use gpulease_core::time::Span;
use gpulease_proto::{
    DESCRIPTORS,
    v1::{
        admin_service_server::{AdminServiceServer, SERVICE_NAME as ADMIN},
        device_service_server::{DeviceServiceServer, SERVICE_NAME as DEVICES},
        event_service_server::{EventServiceServer, SERVICE_NAME as EVENTS},
        lease_service_server::{LeaseServiceServer, SERVICE_NAME as LEASES},
        metrics_service_server::{MetricsServiceServer, SERVICE_NAME as METRICS},
    },
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
};
use tokio_stream::{Stream, wrappers::UnixListenerStream};
use tonic::{
    service::Routes,
    transport::{
        Server,
        server::{Connected, TcpIncoming},
    },
};
use tonic_health::server::health_reporter;
use tower::util::MapResponseLayer;

use super::{
    admin::Admin,
    connection::Places,
    device::Devices,
    event::Events,
    health,
    lease::Leases,
    limits::{
        CALLS_PER_CONNECTION_MAX, CONNECTION_WINDOW_BYTES, HEADERS_BYTES_MAX, KEEPALIVE_EVERY,
        KEEPALIVE_WAIT_MAX, MESSAGE_BYTES_MAX, STOP_WAIT_MAX, STREAM_WINDOW_BYTES,
        STREAMS_PER_CONNECTION_MAX,
    },
    listen::Listeners,
    metrics::Metrics,
    refine::refine,
    session,
};
use crate::{
    actor::Handle,
    telemetry::{hub::SampleHub, operations::Operations},
};

/// Services by name, for health.
const SERVICES: [&str; 5] = [LEASES, DEVICES, EVENTS, METRICS, ADMIN];

/// What the services answer with besides the actor's state.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where samples come from.
    pub hub: SampleHub,
    /// Where work that holders tell of is added up.
    pub operations: Operations,
    /// The configuration in force, in TOML.
    pub configuration: Arc<str>,
    /// How long a holder's place in the queue outlives its session; told in the welcome.
    pub session_grace: Span,
}

/// Why serving ended without being asked to.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The descriptors of the contract cannot be served.
    #[error("cannot serve reflection")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// A listener failed.
    #[error("cannot serve gRPC any more")]
    Transport(#[from] tonic::transport::Error),
}

/// Serves until `stop` completes; stop the actor first.
///
/// # Errors
/// A listener failed, or the descriptors are broken.
pub async fn serve(
    handle: Handle,
    mut listeners: Listeners,
    options: Options,
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let (mut reporter, health_service) = health_reporter();
    health::begin(&mut reporter, &SERVICES).await;
    let services = services(&handle, options)?.add_service(health_service);
    let reporting = tokio::spawn(health::report(handle, reporter, &SERVICES));
    let (stopper, stopped) = watch::channel(false);
    let places = Places::for_grpc();
    let tcp = listeners.tcp.take().map(|listener| {
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        run(services.clone(), places.admit(incoming), stopped.clone())
    });
    let unix = listeners.unix.take().map(|listener| {
        let incoming = places.admit(UnixListenerStream::new(listener));
        run(services, incoming, stopped.clone())
    });
    let serving = async { tokio::try_join!(optional(tcp), optional(unix)).map(|_| ()) };
    let ended = until_stopped(serving, stop, stopper).await;
    reporting.abort();
    ended
}

/// Nothing to serve waits for the stop like everything else.
async fn optional(
    serving: Option<impl Future<Output = Result<(), ServeError>>>,
) -> Result<(), ServeError> {
    match serving {
        Some(serving) => serving.await,
        None => Ok(()),
    }
}

async fn until_stopped(
    serving: impl Future<Output = Result<(), ServeError>>,
    stop: impl Future<Output = ()>,
    stopper: watch::Sender<bool>,
) -> Result<(), ServeError> {
    tokio::pin!(serving);
    tokio::pin!(stop);
    tokio::select! {
        ended = &mut serving => if ended.is_err() { return ended } else { stop.await; return Ok(()) },
        () = &mut stop => {}
    }
    stopper.send_replace(true);
    match tokio::time::timeout(STOP_WAIT_MAX, serving).await {
        Ok(ended) => ended,
        Err(_) => {
            tracing::warn!(
                "cut off the connections that were still open {STOP_WAIT_MAX:?} after the stop"
            );
            Ok(())
        }
    }
}

async fn run<C>(
    services: Routes,
    incoming: impl Stream<Item = io::Result<C>>,
    mut stopped: watch::Receiver<bool>,
) -> Result<(), ServeError>
where
    C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    let stopped = async move {
        // An error means that the stopper is gone, which is a stop too.
        let _ = stopped.wait_for(|stopped| *stopped).await;
    };
    let server = Server::builder()
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .concurrency_limit_per_connection(CALLS_PER_CONNECTION_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keepalive_interval(Some(KEEPALIVE_EVERY))
        .http2_keepalive_timeout(Some(KEEPALIVE_WAIT_MAX))
        .http2_max_header_list_size(HEADERS_BYTES_MAX)
        .layer(MapResponseLayer::new(refine))
        .add_routes(services);
    Ok(server.serve_with_incoming_shutdown(incoming, stopped).await?)
}

fn services(handle: &Handle, options: Options) -> Result<Routes, ServeError> {
    let settings = session::Settings::new(options.session_grace, options.operations.clone());
    let leases = Leases::new(handle.clone(), settings);
    let metrics = Metrics::new(handle.clone(), options.hub, options.operations);
    let admin = Admin::new(handle.clone(), options.configuration);
    let devices = Devices::new(handle.clone());
    let events = Events::new(handle.clone());
    let reflection = || {
        // Each version would list itself alone; a client of either must find both.
        tonic_reflection::server::Builder::configure()
            .include_reflection_service(false)
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            // So that tools can show the details of a refusal.
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(
                tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
            )
    };
    let max = MESSAGE_BYTES_MAX;
    Ok(Routes::new(LeaseServiceServer::new(leases).max_decoding_message_size(max))
        .add_service(DeviceServiceServer::new(devices).max_decoding_message_size(max))
        .add_service(EventServiceServer::new(events).max_decoding_message_size(max))
        .add_service(MetricsServiceServer::new(metrics).max_decoding_message_size(max))
        .add_service(AdminServiceServer::new(admin).max_decoding_message_size(max))
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?))
}
