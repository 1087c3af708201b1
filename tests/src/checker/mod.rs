//! An independent checker: it sees only the stream of events and what clients were told, and knows no type of the
//! core. It promises to find an acknowledged grant that is gone, two grants that overlap, and a stream that breaks
//! the contract; it says nothing about speed.
//!
//! [`Ledger`] folds the events, [`Receipts`] collects what clients were told, [`Watcher`] reads the stream across
//! kills, and [`judge`] lays the one beside the other.

mod device;
mod host;
mod ledger;
mod receipts;
#[cfg(test)]
mod tests;
mod verdict;
mod watcher;

pub use device::{Capacity, DeviceCapacity};
pub use host::HostShare;
pub use ledger::{Ledger, Phase};
pub use receipts::Receipts;
pub use verdict::{Fault, Verdict, judge};
pub use watcher::Watcher;
