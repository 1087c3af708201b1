//! Texts and lists of the wire, checked before a [`Name`] is made of them, since a `Name` cuts what is too long.

use gpulease_core::{
    id::{Holder, NAME_BYTES_MAX, Name},
    request::{InvalidField, LABEL_BYTES_MAX},
};

/// A text that names something of the caller's own: 1 to [`LABEL_BYTES_MAX`] bytes.
pub(super) fn label(field: &'static str, text: &str) -> Result<Name, InvalidField> {
    text_within(field, text, LABEL_BYTES_MAX)
}

/// A text that names something known elsewhere, such as a UUID: 1 to [`NAME_BYTES_MAX`] bytes.
pub(in crate::api) fn known_text(field: &'static str, text: &str) -> Result<Name, InvalidField> {
    text_within(field, text, NAME_BYTES_MAX)
}

fn text_within(field: &'static str, text: &str, max: usize) -> Result<Name, InvalidField> {
    let refuse = |value: String| {
        let bound = format!("1 to {max} bytes without control characters");
        Err(InvalidField::new(field, value, bound))
    };
    if text.is_empty() {
        return refuse("empty".to_owned());
    }
    if text.len() > max {
        return refuse(format!("{} bytes long", text.len()));
    }
    if text.bytes().any(|byte| !(b' '..0x7f).contains(&byte)) && text.chars().any(char::is_control)
    {
        return refuse(format!("{text:?}"));
    }
    Ok(Name::new(text))
}

/// A text where the empty one means none.
pub(super) fn optional<T>(
    text: &str,
    check: impl FnOnce(&str) -> Result<T, InvalidField>,
) -> Result<Option<T>, InvalidField> {
    if text.is_empty() { Ok(None) } else { check(text).map(Some) }
}

/// A list of texts: at most `max` of at most [`NAME_BYTES_MAX`] bytes.
pub(super) fn texts(
    field: &'static str,
    list: &[String],
    max: usize,
) -> Result<Vec<Name>, InvalidField> {
    at_most(field, list.len(), max)?;
    list.iter().map(|text| known_text(field, text)).collect()
}

/// A list's length.
pub(in crate::api) fn at_most(
    field: &'static str,
    length: usize,
    max: usize,
) -> Result<(), InvalidField> {
    if length <= max {
        return Ok(());
    }
    Err(InvalidField::new(field, format!("{length} entries"), format!("at most {max} entries")))
}

/// The holder that a message names.
pub(in crate::api) fn holder_of(service: &str, holder: &str) -> Result<Holder, InvalidField> {
    Ok(Holder { service: label("service", service)?, name: label("holder", holder)? })
}

/// The holder of a hello.
pub(in crate::api) fn holder_named(service: &str, holder: &str) -> Result<Holder, InvalidField> {
    Ok(Holder { service: label("hello.service", service)?, name: label("hello.holder", holder)? })
}

/// The holder that a message may name: both parts or neither.
pub(in crate::api) fn optional_holder(
    service: &str,
    holder: &str,
) -> Result<Option<Holder>, InvalidField> {
    let missing =
        |field| InvalidField::new(field, "empty", "given where the other of service and holder is");
    match (service.is_empty(), holder.is_empty()) {
        (true, true) => Ok(None),
        (true, false) => Err(missing("service")),
        (false, true) => Err(missing("holder")),
        (false, false) => holder_of(service, holder).map(Some),
    }
}
