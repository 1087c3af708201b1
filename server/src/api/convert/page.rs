//! Page sizes and page tokens (P18).
//!
//! A token is a position and a checksum over it and the filter it was made for: opaque to callers, and refused when it
//! was made up, cut, or carried over to another list or filter.

use gpulease_core::request::InvalidField;

use crate::api::{
    limits::{
        PAGE_DEFAULT, PAGE_MAX, PAGE_TOKEN_BYTES, PROCESS_DEVICES_DEFAULT, PROCESS_DEVICES_MAX,
    },
    status::EdgeError,
};

/// What is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::api) enum PageKind {
    /// Leases.
    Leases,
    /// Devices.
    Devices,
    /// Processes, by device.
    Processes,
}

/// Which part of a list is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::api) struct Page {
    /// How many entries at the most.
    pub(in crate::api) size: usize,
    /// The last entry of the page before.
    pub(in crate::api) after: Option<u64>,
    kind: PageKind,
    filter_checksum: u32,
}

impl PageKind {
    /// The size where none is asked for, and the largest.
    const fn sizes(self) -> (u32, u32) {
        match self {
            Self::Leases | Self::Devices => (PAGE_DEFAULT, PAGE_MAX),
            Self::Processes => (PROCESS_DEVICES_DEFAULT, PROCESS_DEVICES_MAX),
        }
    }
}

impl Page {
    /// Checks what a caller asks for. `filter` is any text that says what the list leaves out.
    ///
    /// # Errors
    /// The size is out of bounds, or the token is none of ours.
    pub(in crate::api) fn parse(
        kind: PageKind,
        size: u32,
        token: &str,
        filter: &str,
    ) -> Result<Self, EdgeError> {
        let (default, max) = kind.sizes();
        if size > max {
            let bound = format!("1 to {max}, or 0 for {default}");
            return Err(InvalidField::new("page_size", size, bound).into());
        }
        let size = if size == 0 { default } else { size };
        let page = Self {
            size: size as usize,
            after: None,
            kind,
            filter_checksum: crc32fast::hash(filter.as_bytes()),
        };
        if token.is_empty() {
            return Ok(page);
        }
        let after = page.read(token).ok_or(EdgeError::InvalidPageToken)?;
        Ok(Self { after: Some(after), ..page })
    }

    /// The token of the page behind the entry of this number.
    pub(in crate::api) fn token_after(&self, position: u64) -> String {
        let letter = match self.kind {
            PageKind::Leases => 'l',
            PageKind::Devices => 'd',
            PageKind::Processes => 'p',
        };
        let body = format!("{letter}{position:016x}");
        let checksum = crc32fast::hash(body.as_bytes()) ^ self.filter_checksum;
        format!("{body}{checksum:08x}")
    }

    fn read(&self, token: &str) -> Option<u64> {
        if token.len() != PAGE_TOKEN_BYTES {
            return None;
        }
        let position = u64::from_str_radix(token.get(1..17)?, 16).ok()?;
        (self.token_after(position) == token).then_some(position)
    }
}
