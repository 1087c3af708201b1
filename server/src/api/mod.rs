//! The gRPC face of the coordinator: one file per service, over the contract in `proto/gpulease/v1`.
//!
//! Promises: nothing invalid passes inwards ([`convert`]), every refusal has a code, a reason and a way on
//! ([`status`]), and every message, stream and list is bounded ([`limits`], P19). It knows the actor by its handle and
//! nothing behind it: no journal, no backend. Start with [`serve`].

mod admin;
mod connection;
mod convert;
mod device;
mod event;
mod flow;
mod health;
mod lease;
/// Every bound of the wire.
pub mod limits;
mod listen;
mod metrics;
mod operations;
mod peer;
mod plan;
mod refine;
mod serve;
mod session;
mod status;
#[cfg(test)]
mod tests;

pub(crate) use connection::{Counted, Places};
pub use listen::{ListenError, Listeners};
pub use serve::{Options, ServeError, serve};
