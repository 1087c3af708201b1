//! What the coordinator measures and tells about itself and its devices.

/// The latest sample of every device.
pub mod hub;
/// Log lines.
pub mod logs;
/// Work that holders tell of.
pub mod operations;
