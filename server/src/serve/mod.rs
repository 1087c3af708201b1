//! `gpulease serve`: the wiring. The only place that names concrete adapters (sled, the machine's clock, a backend).
//!
//! Promises: nothing is served before the state is whole and the first inventory is in; a stop is graceful and takes
//! at most [`STOP_MAX`]; every way to end has an exit code and, where it is a failure, a reason on stderr.

mod errands;
mod failure;
mod http;
mod inventory;
mod open_files;
mod ready;
mod signals;
mod systemd;

use std::{io::Write as _, process::ExitCode, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, timeout_at},
};

pub use failure::Failure;

use crate::{
    actor::{self, Exit, Handle, Running, Setup, recovery},
    api::{self, Listeners, ServeError},
    backend::{self, Attribution, BackendConfig, Choice, Chosen, DeviceDefaults, Host, NvmlConfig},
    clock::SystemClock,
    config::{self, Config, DeviceDriver, Environment, ServeArgs},
    journal::{HistoryBound, Journal as _, sled},
    telemetry::{hub::SampleHub, logs, operations::Operations},
};
use ready::Ready;

/// The longest graceful stop: what the contract of the command line says.
pub const STOP_MAX: Duration = Duration::from_secs(5);

/// Runs `gpulease serve` to its end; `json` asks for a machine-readable ready line.
pub async fn run(args: &ServeArgs, json: bool) -> ExitCode {
    match try_run(args, json).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Nobody may read stderr any more.
            let _ = writeln!(std::io::stderr(), "gpulease: {}", failure.text());
            ExitCode::from(failure.exit_code())
        }
    }
}

async fn try_run(args: &ServeArgs, json: bool) -> Result<(), Failure> {
    let environment = Environment::of_process();
    let config = Config::load(args, &environment)?;
    let toml = config.to_toml(&environment);
    if args.print_config {
        return ready::print(&toml);
    }
    logs::start(&config.log_level, config.log_format);
    open_files::raise();
    let stop = signals::stop().map_err(Failure::Signals)?;
    let coordinator = Coordinator::start(&config, toml.into()).await?;
    ready::print(&coordinator.ready.text(json))?;
    systemd::notify("READY=1");
    coordinator.until(stop).await
}

/// A coordinator at work.
struct Coordinator {
    handle: Handle,
    actor: Running,
    backend: backend::Running,
    api: JoinHandle<Result<(), ServeError>>,
    http: Option<JoinHandle<()>>,
    stop_serving: watch::Sender<bool>,
    ready: Ready,
}

impl Coordinator {
    async fn start(config: &Config, toml: Arc<str>) -> Result<Self, Failure> {
        let chosen = choose_backend(config).await?;
        let summary = chosen.backend.summary();
        let asks = backend::Handle::default();
        let (handle, actor) = start_actor(config, summary.name, asks.clone())?;
        let listeners = Listeners::bind(config.listen, config.socket.as_deref()).await?;
        let http = http::Bound::bind(config.http).await?;
        let ready = Ready {
            grpc: listeners.tcp_address(),
            http: http.as_ref().map(http::Bound::address),
            socket: listeners.socket_path().map(ToOwned::to_owned),
            data: config.data.clone(),
            backend: summary.name,
            devices: summary.devices,
            reason: chosen.reason,
            revision: handle.facts().revision,
        };
        let hub = SampleHub::default();
        let (sink, first_pass) =
            inventory::ActorSink::new(handle.clone(), hub.clone(), summary.nodes);
        let backend = backend::start(chosen.backend, Box::new(sink), &asks)?;
        inventory::wait(first_pass, &handle).await;
        let (stop_serving, stopped) = watch::channel(false);
        let session_grace = config.policy.session_grace;
        let operations = Operations::default();
        let options = api::Options { hub, operations, configuration: toml, session_grace };
        let api =
            tokio::spawn(api::serve(handle.clone(), listeners, options, told(stopped.clone())));
        let http = http.map(|bound| tokio::spawn(bound.serve(handle.clone(), told(stopped))));
        let revision = handle.facts().revision;
        let ready = Ready { revision, ..ready };
        Ok(Self { handle, actor, backend, api, http, stop_serving, ready })
    }

    /// Serves until asked to stop, or until it cannot go on.
    async fn until(self, stop: impl Future<Output = &'static str>) -> Result<(), Failure> {
        let Self { handle, actor, backend, mut api, http, stop_serving, .. } = self;
        let ended = actor.ended();
        tokio::pin!(ended);
        let early = tokio::select! {
            exit = &mut ended => Some(Ok(exit)),
            served = &mut api => Some(Err(Failure::of_api(served))),
            signal = stop => {
                tracing::info!(signal, "stopping");
                None
            }
        };
        systemd::notify("STOPPING=1");
        let deadline = Instant::now() + STOP_MAX;
        // First of all nothing more is taken, and health says so; then sessions and watchers get their last words.
        handle.stop();
        drop(backend);
        let outcome = match early {
            Some(early) => early.and_then(outcome),
            None => timeout_at(deadline, ended).await.map_or(Ok(()), outcome),
        };
        stop_serving.send_replace(true);
        if timeout_at(deadline, close(api, http)).await.is_err() {
            tracing::warn!(
                "the stop took longer than {STOP_MAX:?}; what was still open is cut off"
            );
        }
        outcome
    }
}

/// Waits until the listeners are closed.
async fn close(api: JoinHandle<Result<(), ServeError>>, http: Option<JoinHandle<()>>) {
    if !api.is_finished() {
        Failure::log_api(api.await);
    }
    if let Some(http) = http {
        // It ends by itself; a panic in it was logged where it happened.
        let _ = http.await;
    }
}

fn outcome(exit: Exit) -> Result<(), Failure> {
    match exit {
        Exit::Stopped { revision } => {
            tracing::info!(%revision, "stopped");
            Ok(())
        }
        Exit::JournalFailed(reason) => Err(Failure::JournalFailed(reason)),
        Exit::Defect(reason) => Err(Failure::Defect(reason)),
    }
}

/// Opens the journal, makes the state of it, and starts the actor on both.
fn start_actor(
    config: &Config,
    backend: &str,
    asks: backend::Handle,
) -> Result<(Handle, Running), Failure> {
    let opened = sled::open_guarded(&config.data, recovery::revision_of)
        .map_err(recovery::RecoveryError::from)?;
    let oldest = opened.journal.archive().oldest_revision();
    let recovered = recovery::recover(opened, config.policy.clone())?;
    let scheduler = recovered.scheduler();
    let (revision, leases) = (scheduler.revision(), scheduler.state().tally().live());
    tracing::info!(%revision, %oldest, leases, data = %config.data.display(), "recovered");
    let clock = Arc::new(SystemClock::starting_at(scheduler.state().time()));
    let history = HistoryBound {
        batches_max: config.history_batches_max as u64,
        bytes_max: config.history_bytes_max,
    };
    let setup = Setup {
        recovered,
        clock,
        history,
        data_directory: Some(config.data.clone()),
        backend: backend.to_owned(),
        errands: Arc::new(errands::ToBackend(asks)),
    };
    actor::start(setup).map_err(Failure::Thread)
}

/// Which may wait for a driver, on a thread where waiting is allowed.
async fn choose_backend(config: &Config) -> Result<Chosen, Failure> {
    let config = backend_config(config);
    let chosen = tokio::task::spawn_blocking(move || backend::choose(&config)).await;
    chosen.map_err(|panic| Failure::Defect(panic.to_string().into()))?.map_err(Failure::from)
}

fn backend_config(config: &Config) -> BackendConfig {
    let slots = config.device_slots.map(|slots| u32::try_from(slots).unwrap_or(u32::MAX));
    let devices = DeviceDefaults {
        slots,
        memory_reserve_bytes: config.device_memory_reserve_bytes,
        memory_limit_bytes: config.device_memory_limit_bytes,
    };
    let mut nvml = NvmlConfig {
        attribution: match config.attribution {
            config::Attribution::Auto => Attribution::Auto,
            config::Attribution::On => Attribution::On,
            config::Attribution::Off => Attribution::Off,
        },
        ..NvmlConfig::default()
    };
    nvml.driver.library.clone_from(&config.nvml_library);
    let choice = match config.device_driver {
        DeviceDriver::Auto => Choice::Auto,
        DeviceDriver::Nvml => Choice::Nvml,
        DeviceDriver::None => Choice::None,
    };
    let simulate = config.simulate.clone();
    BackendConfig { simulate, choice, nvml, host: Host::default(), devices }
}

/// Completes once the sender says so, or is gone.
async fn told(mut stopped: watch::Receiver<bool>) {
    // An error means that the sender is gone, which is a stop too.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}
