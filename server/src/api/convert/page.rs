//! Page sizes and page tokens (P18).
//!
//! A token is a position and a checksum over it and the filter it was made for: opaque to callers, and refused when it
//! was made up, cut, or carried over to another list or filter.

use gpulease_core::request::InvalidField;

use crate::api::{
    limits::{PAGE_DEFAULT, PAGE_MAX, PAGE_TOKEN_BYTES},
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
        let size = match size {
            0 => PAGE_DEFAULT,
            1..=PAGE_MAX => size,
            _ => {
                let bound = format!("1 to {PAGE_MAX}, or 0 for {PAGE_DEFAULT}");
                return Err(InvalidField::new("page_size", size, bound).into());
            }
        };
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
