//! Kinds of values: how each is read, bounded and shown.
//!
//! Durations read `30s`, `250ms` or `1h 30m`, sizes `8GiB`, `500MB` or a number of bytes. What is shown reads back as
//! the same value.

use std::{fmt, net::SocketAddr, path::PathBuf};

use gpulease_core::{
    policy::{Owner, VictimRule},
    request::PlacementPolicy,
    time::Span,
};

use super::{Attribution, Config, DeviceDriver, LogFormat, owners};

/// The longest value shown in an error, in characters.
const SHOWN_MAX: usize = 64;

/// A value as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Raw {
    /// From a flag, a variable, or a string in a file.
    Text(String),
    /// From a file.
    Integer(i64),
    /// From a file.
    Boolean(bool),
    /// Anything else that TOML knows, by its name.
    Other(&'static str),
}

impl fmt::Display for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) if text.chars().count() > SHOWN_MAX => {
                let cut: String = text.chars().take(SHOWN_MAX).collect();
                write!(f, "{cut:?}…")
            }
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Integer(number) => write!(f, "{number}"),
            Self::Boolean(value) => write!(f, "{value}"),
            Self::Other(name) => write!(f, "{name}"),
        }
    }
}

/// What a key holds, and where.
pub(super) enum Kind {
    /// A duration within bounds.
    Span { min: Span, max: Span, at: fn(&mut Config) -> &mut Span },
    /// A number of bytes within bounds.
    Size { min: u64, max: u64, at: fn(&mut Config) -> &mut u64 },
    /// The same, or `none`.
    OptionalSize { min: u64, max: u64, at: fn(&mut Config) -> &mut Option<u64> },
    /// A number within bounds.
    Count { min: usize, max: usize, at: fn(&mut Config) -> &mut usize },
    /// The same, or `auto`.
    OptionalCount { min: u64, max: u64, at: fn(&mut Config) -> &mut Option<u64> },
    /// Yes or no.
    Boolean { at: fn(&mut Config) -> &mut bool },
    /// An address and port, or `none`.
    Address { at: fn(&mut Config) -> &mut Option<SocketAddr> },
    /// A path.
    Path { at: fn(&mut Config) -> &mut PathBuf },
    /// A path, or `none`.
    OptionalPath { at: fn(&mut Config) -> &mut Option<PathBuf> },
    /// A text, or `none`.
    OptionalText { form: &'static str, at: fn(&mut Config) -> &mut Option<String> },
    /// Who owns which devices, or `none`.
    Owners { at: fn(&mut Config) -> &mut Vec<Owner> },
    /// A log level.
    Level { at: fn(&mut Config) -> &mut String },
    /// A log format.
    Format { at: fn(&mut Config) -> &mut LogFormat },
    /// A driver.
    Driver { at: fn(&mut Config) -> &mut DeviceDriver },
    /// Who goes first.
    Victims { at: fn(&mut Config) -> &mut VictimRule },
    /// How devices are chosen.
    Placement { at: fn(&mut Config) -> &mut PlacementPolicy },
    /// Whether memory is attributed.
    Attribution { at: fn(&mut Config) -> &mut Attribution },
}

impl Kind {
    /// Reads a value into its place; the error says what would do.
    pub(super) fn set(&self, config: &mut Config, raw: &Raw) -> Result<(), String> {
        self.try_set(config, raw).ok_or_else(|| self.form())
    }

    fn try_set(&self, config: &mut Config, raw: &Raw) -> Option<()> {
        match self {
            Self::Span { min, max, at } => *at(config) = within(span(raw)?, *min, *max)?,
            Self::Size { min, max, at } => *at(config) = within(size(raw)?, *min, *max)?,
            Self::OptionalSize { min, max, at } => {
                *at(config) = unless("none", raw, |raw| within(size(raw)?, *min, *max))?;
            }
            Self::Count { min, max, at } => {
                *at(config) = within(usize::try_from(count(raw)?).ok()?, *min, *max)?;
            }
            Self::OptionalCount { min, max, at } => {
                *at(config) = unless("auto", raw, |raw| within(count(raw)?, *min, *max))?;
            }
            Self::Boolean { at } => *at(config) = boolean(raw)?,
            Self::Address { at } => {
                *at(config) = unless("none", raw, |raw| text(raw)?.parse().ok())?;
            }
            Self::Path { at } => *at(config) = text(raw)?.into(),
            Self::OptionalPath { at } => {
                *at(config) = unless("none", raw, |raw| Some(text(raw)?.into()))?;
            }
            Self::OptionalText { at, .. } => {
                *at(config) = unless("none", raw, |raw| Some(text(raw)?.to_owned()))?;
            }
            Self::Owners { at } => {
                *at(config) =
                    unless("none", raw, |raw| owners::parse(text(raw)?))?.unwrap_or_default();
            }
            Self::Level { at } => *at(config) = level(raw)?,
            Self::Format { at } => *at(config) = one_of(FORMATS, raw)?,
            Self::Driver { at } => *at(config) = one_of(DRIVERS, raw)?,
            Self::Victims { at } => *at(config) = one_of(VICTIMS, raw)?,
            Self::Placement { at } => *at(config) = one_of(PLACEMENTS, raw)?,
            Self::Attribution { at } => *at(config) = one_of(ATTRIBUTIONS, raw)?,
        }
        Some(())
    }

    /// What would do, in words.
    pub(super) fn form(&self) -> String {
        match self {
            Self::Span { min, max, .. } => {
                format!("a duration such as 30s, from {} to {}", show_span(*min), show_span(*max))
            }
            Self::Size { min, max, .. } => {
                format!("a size such as 8GiB, from {} to {}", show_size(*min), show_size(*max))
            }
            Self::OptionalSize { min, max, .. } => {
                let (min, max) = (show_size(*min), show_size(*max));
                format!("a size such as 8GiB, from {min} to {max}, or none")
            }
            Self::Count { min, max, .. } => format!("a number from {min} to {max}"),
            Self::OptionalCount { min, max, .. } => {
                format!("a number from {min} to {max}, or auto")
            }
            Self::Boolean { .. } => "true or false".to_owned(),
            Self::Address { .. } => {
                "an address and port such as 127.0.0.1:7475 or [::1]:7475, or none".to_owned()
            }
            Self::Path { .. } => "a path".to_owned(),
            Self::OptionalPath { .. } => "a path, or none".to_owned(),
            Self::OptionalText { form, .. } => format!("{form}, or none"),
            Self::Owners { .. } => format!("{}, or none", owners::FORM),
            Self::Level { .. } => {
                "error, warn, info, debug, trace or off, or a list such as info,gpulease_server=debug"
                    .to_owned()
            }
            Self::Format { .. } => "text or json".to_owned(),
            Self::Driver { .. } => "auto, nvml or none".to_owned(),
            Self::Victims { .. } => VICTIMS.map(|(name, _)| name).join(", "),
            Self::Placement { .. } => PLACEMENTS.map(|(name, _)| name).join(", "),
            Self::Attribution { .. } => "auto, on or off".to_owned(),
        }
    }

    /// The value as TOML.
    pub(super) fn show(&self, config: &Config) -> String {
        // The accessors serve reading and writing; a copy keeps this one read-only.
        let config = &mut config.clone();
        match self {
            Self::Span { at, .. } => quoted(&show_span(*at(config))),
            Self::Size { at, .. } => quoted(&show_size(*at(config))),
            Self::OptionalSize { at, .. } => {
                quoted(&at(config).map_or_else(|| "none".to_owned(), show_size))
            }
            Self::Count { at, .. } => at(config).to_string(),
            Self::OptionalCount { at, .. } => {
                at(config).map_or_else(|| quoted("auto"), |number| number.to_string())
            }
            Self::Boolean { at } => at(config).to_string(),
            Self::Address { at } => {
                quoted(&at(config).map_or_else(|| "none".to_owned(), |address| address.to_string()))
            }
            Self::Path { at } => quoted(&at(config).to_string_lossy()),
            Self::OptionalPath { at } => {
                quoted(&at(config).as_ref().map_or("none".into(), |path| path.to_string_lossy()))
            }
            Self::OptionalText { at, .. } => quoted(at(config).as_deref().unwrap_or("none")),
            Self::Owners { at } => match owners::show(at(config)).as_str() {
                "" => quoted("none"),
                shown => quoted(shown),
            },
            Self::Level { at } => quoted(at(config)),
            Self::Format { at } => quoted(word(FORMATS, *at(config))),
            Self::Driver { at } => quoted(word(DRIVERS, *at(config))),
            Self::Victims { at } => quoted(at(config).name()),
            Self::Placement { at } => quoted(at(config).name()),
            Self::Attribution { at } => quoted(word(ATTRIBUTIONS, *at(config))),
        }
    }
}

pub(super) fn within<T: PartialOrd>(value: T, min: T, max: T) -> Option<T> {
    (min <= value && value <= max).then_some(value)
}

/// Nothing where the text is `word`, else what `read` makes of it.
pub(super) fn unless<T>(
    word: &str,
    raw: &Raw,
    read: impl FnOnce(&Raw) -> Option<T>,
) -> Option<Option<T>> {
    if matches!(raw, Raw::Text(text) if text == word) {
        return Some(None);
    }
    read(raw).map(Some)
}

pub(super) fn text(raw: &Raw) -> Option<&str> {
    match raw {
        Raw::Text(text) if !text.is_empty() => Some(text),
        _ => None,
    }
}

fn span(raw: &Raw) -> Option<Span> {
    humantime::parse_duration(text(raw)?).ok().map(Span::from)
}

pub(super) fn size(raw: &Raw) -> Option<u64> {
    match raw {
        Raw::Text(text) => text.parse::<bytesize::ByteSize>().ok().map(|size| size.as_u64()),
        _ => count(raw),
    }
}

pub(super) fn count(raw: &Raw) -> Option<u64> {
    match raw {
        Raw::Text(text) => text.parse().ok(),
        Raw::Integer(number) => u64::try_from(*number).ok(),
        _ => None,
    }
}

fn boolean(raw: &Raw) -> Option<bool> {
    match raw {
        Raw::Text(text) => text.parse().ok(),
        Raw::Boolean(value) => Some(*value),
        _ => None,
    }
}

fn level(raw: &Raw) -> Option<String> {
    let text = text(raw)?;
    let filter = text.parse::<tracing_subscriber::filter::Targets>();
    // A lone word that is no level would be taken for the name of a target.
    let plausible =
        text.contains('=') || text.parse::<tracing_subscriber::filter::LevelFilter>().is_ok();
    (filter.is_ok() && plausible).then(|| text.to_owned())
}

/// Values that are words.
type Words<T> = &'static [(&'static str, T)];

const FORMATS: Words<LogFormat> = &[("text", LogFormat::Text), ("json", LogFormat::Json)];
const DRIVERS: Words<DeviceDriver> =
    &[("auto", DeviceDriver::Auto), ("nvml", DeviceDriver::Nvml), ("none", DeviceDriver::None)];
const VICTIMS: &[(&str, VictimRule); 3] = &[
    (VictimRule::LeastLost.name(), VictimRule::LeastLost),
    (VictimRule::Fewest.name(), VictimRule::Fewest),
    (VictimRule::Youngest.name(), VictimRule::Youngest),
];
const PLACEMENTS: &[(&str, PlacementPolicy); 6] = &[
    (PlacementPolicy::BestFit.name(), PlacementPolicy::BestFit),
    (PlacementPolicy::MostFreeMemory.name(), PlacementPolicy::MostFreeMemory),
    (PlacementPolicy::LeastLoaded.name(), PlacementPolicy::LeastLoaded),
    (PlacementPolicy::RoundRobin.name(), PlacementPolicy::RoundRobin),
    (PlacementPolicy::Fragmentation.name(), PlacementPolicy::Fragmentation),
    (PlacementPolicy::Pack.name(), PlacementPolicy::Pack),
];
const ATTRIBUTIONS: Words<Attribution> =
    &[("auto", Attribution::Auto), ("on", Attribution::On), ("off", Attribution::Off)];

fn one_of<T: Copy>(words: Words<T>, raw: &Raw) -> Option<T> {
    let text = text(raw)?;
    words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value)
}

/// Every value has a word: the tables are next to each other, and a test looks.
fn word<T: PartialEq>(words: Words<T>, value: T) -> &'static str {
    words.iter().find(|(_, known)| *known == value).map_or("", |(word, _)| word)
}

/// The shortest of d, h, m, s, ms that loses nothing.
fn show_span(span: Span) -> String {
    let millis = span.as_millis();
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    let whole = units.into_iter().find(|(unit, _)| millis > 0 && millis.is_multiple_of(*unit));
    whole.map_or_else(
        || if millis == 0 { "0s".to_owned() } else { format!("{millis}ms") },
        |(unit, name)| format!("{}{name}", millis / unit),
    )
}

pub(super) fn show_size(bytes: u64) -> String {
    let units =
        [(1 << 50, "PiB"), (1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let whole = units.into_iter().find(|(unit, _)| bytes > 0 && bytes.is_multiple_of(*unit));
    whole.map_or_else(|| format!("{bytes}B"), |(unit, name)| format!("{}{name}", bytes / unit))
}

/// As a TOML string.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}
