//! Sizes and durations as people write them: `24GiB`, `500MB`, `10s`, `1m 30s`.
//!
//! It promises that a size without a unit is refused (a bare 0 aside), and that a message repeats only the start of
//! a long text. Fractions of a byte are dropped; whether a size may be nothing is the caller's to say.

use std::fmt;

use bytesize::ByteSize;
use gpulease_core::time::Span;
use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// A size in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size(pub(super) u64);

/// A length of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Length(pub(super) Span);

/// What a size looks like, for messages.
const SIZE_FORM: &str = "a size such as \"24GiB\" or \"500MB\"";
/// What a duration looks like, for messages.
const LENGTH_FORM: &str = "a duration such as \"10s\", \"250ms\" or \"1m 30s\"";

/// How much of a bad text a message repeats, in characters.
const SHOWN_CHARS_MAX: usize = 80;

/// As much of a text as a message repeats.
pub(super) fn shown(text: &str) -> String {
    text.chars().take(SHOWN_CHARS_MAX).collect()
}

impl std::str::FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{:?} is not {SIZE_FORM}", shown(text));
        if text == "0" {
            return Ok(Self(0));
        }
        let starts_with_digit = text.starts_with(|c: char| c.is_ascii_digit());
        let ends_with_unit = text.ends_with(|c: char| c.is_ascii_alphabetic());
        if !starts_with_digit || !ends_with_unit {
            return Err(wrong());
        }
        // Saturates at 2⁶⁴ − 1, which every user of a size refuses as too large.
        text.parse::<ByteSize>().map(|size| Self(size.as_u64())).map_err(|_| wrong())
    }
}

impl std::str::FromStr for Length {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let length = humantime::parse_duration(text)
            .map_err(|_| format!("{:?} is not {LENGTH_FORM}", shown(text)))?;
        Ok(Self(length.into()))
    }
}

/// Reads a text and parses it; what is no text is told what the text should be.
struct Parsed<T> {
    form: &'static str,
    parse: fn(&str) -> Result<T, String>,
}

impl<T> Visitor<'_> for Parsed<T> {
    type Value = T;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.form)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.parse)(text).map_err(E::custom)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Parsed { form: SIZE_FORM, parse: str::parse })
    }
}

impl<'de> Deserialize<'de> for Length {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Parsed { form: LENGTH_FORM, parse: str::parse })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_need_a_number_and_a_unit() {
        for (text, expected) in [
            ("24GiB", Some(24 << 30)),
            ("500MB", Some(500_000_000)),
            ("1 TiB", Some(1 << 40)),
            ("0", Some(0)),
            ("0GiB", Some(0)),
            ("99999999999PiB", Some(u64::MAX)),
            ("24", None),
            ("1.5GiB", Some(3 << 29)),
            ("1.5.5GiB", None),
            ("-1GiB", None),
            ("GiB", None),
            ("24GiBs", None),
            ("", None),
            ("２GiB", None),
            ("99999999999999999999999GiB", Some(u64::MAX)),
        ] {
            assert_eq!(text.parse::<Size>().ok(), expected.map(Size), "{text}");
        }
    }

    #[test]
    fn durations_are_texts_with_units() {
        assert_eq!("1m 30s".parse(), Ok(Length(Span::from_secs(90))));
        for text in ["10", "-1s", "soon", ""] {
            let message = text.parse::<Length>().unwrap_err();
            assert!(message.contains(text) && message.contains("10s"), "{message}");
        }
    }
}
