//! Identifiers and short texts.
//!
//! Promises: every identifier is a type of its own, and a [`Name`] is never longer than [`NAME_BYTES_MAX`].
//! Numbers are given out by the state (leases, tokens, nodes, devices) or by the shell (callers, tickets).

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

/// The longest name, in bytes: 256 holds any host name (253), UUID (36) or path-like service name.
pub const NAME_BYTES_MAX: usize = 256;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($raw:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub $raw);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// A node, in the order of first sight.
    NodeId(u32)
);
number!(
    /// A device, in the order of first sight; its UUID is what the world knows it by.
    DeviceId(u32)
);
number!(
    /// A lease; never used again. 0 is none.
    LeaseId(u64)
);
number!(
    /// A fencing token: every grant has a greater one than all before (P2). 0 is none.
    Token(u64)
);
number!(
    /// A notice; never used again. 0 is none.
    NoticeId(u64)
);
number!(
    /// The number of a durable batch; the first is 1.
    Revision(u64)
);
number!(
    /// Names one request in its replies; given by the shell, opaque here.
    Ticket(u64)
);

/// Whoever waits for an answer: a session, or one unary call. Numbers come from the shell and are never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Caller {
    /// A session (P22): may send much, and is replaced by a newer one of its holder.
    Session(u64),
    /// One unary call.
    Call(u64),
}

/// A short text, cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Name(Arc<str>);

impl Name {
    /// Makes a name of a text of at most [`NAME_BYTES_MAX`] bytes; a longer one is cut at a character.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let mut end = text.len().min(NAME_BYTES_MAX);
        while !text.is_char_boundary(end) {
            end = end.saturating_sub(1);
        }
        Self(text.get(..end).unwrap_or_default().into())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Name {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl std::borrow::Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// A running client of a service: what leases belong to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Holder {
    /// The service.
    pub service: Name,
    /// The client's own name.
    pub name: Name,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.service, self.name)
    }
}
