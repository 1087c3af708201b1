//! What clients asked and were told: the other half of the evidence, kept apart from the events.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use gpulease::{LeaseInfo, LeasedDevice};

use super::host::HostShare;

/// A grant as a client was told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) request_id: String,
    pub(crate) fencing_token: u64,
    pub(crate) devices: Vec<LeasedDevice>,
}

/// Everything that clients asked and were told.
#[derive(Debug, Default)]
pub(crate) struct Book {
    /// By request id.
    pub(crate) asked: BTreeMap<String, HostShare>,
    pub(crate) refused: BTreeSet<String>,
    /// By lease.
    pub(crate) granted: BTreeMap<u64, Told>,
    pub(crate) releasing: BTreeSet<u64>,
    pub(crate) released: BTreeSet<u64>,
    /// What a client saw with its own eyes that must not be.
    pub(crate) complaints: Vec<String>,
}

/// A handle on the book; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Receipts(Arc<Mutex<Book>>);

impl Receipts {
    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A client is about to ask, under this request id, with this much of the host.
    pub fn asked(&self, request_id: &str, host: HostShare) {
        self.book().asked.insert(request_id.to_owned(), host);
    }

    /// A client was told that it holds a lease.
    pub fn granted(&self, lease: &LeaseInfo) {
        let told = Told {
            request_id: lease.request_id.clone(),
            fencing_token: lease.fencing_token,
            devices: lease.devices.clone(),
        };
        let mut book = self.book();
        if let Some(earlier) = book.granted.insert(lease.id, told) {
            let complaint = format!("lease {} was given to {} twice", lease.id, earlier.request_id);
            book.complaints.push(complaint);
        }
    }

    /// A client was told that its request cannot be granted, ever.
    pub fn refused(&self, request_id: &str) {
        self.book().refused.insert(request_id.to_owned());
    }

    /// A client is about to give a lease back.
    pub fn releasing(&self, lease_id: u64) {
        self.book().releasing.insert(lease_id);
    }

    /// A client was told that its lease is given back.
    pub fn released(&self, lease_id: u64) {
        self.book().released.insert(lease_id);
    }

    /// A client saw something that must not be, such as a lease that was lost while it held it.
    pub fn complain(&self, complaint: String) {
        self.book().complaints.push(complaint);
    }

    /// How many grants clients were told of.
    #[must_use]
    pub fn granted_count(&self) -> usize {
        self.book().granted.len()
    }

    /// How many releases clients were told of.
    #[must_use]
    pub fn released_count(&self) -> usize {
        self.book().released.len()
    }
}
