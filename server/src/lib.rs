//! The coordinator as a library; see ARCHITECTURE.md.

/// One thread that owns the state: the commit gate, the way in, the way out.
pub mod actor;
/// The gRPC services.
pub mod api;
/// Where observations of nodes and devices come from.
pub mod backend;
/// Coordinator time and wall time.
pub mod clock;
/// Flags, environment, file: raw texts to valid values.
pub mod config;
/// The durable record of every batch of events.
pub mod journal;
/// `gpulease journal`: a journal that no coordinator uses.
pub mod offline;
/// `gpulease serve`: the wiring.
pub mod serve;
/// What is measured, and told to whoever asks.
pub mod telemetry;
