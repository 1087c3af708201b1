//! The coordinator as a library; see ARCHITECTURE.md.

/// The durable record of every batch of events.
pub mod journal;
