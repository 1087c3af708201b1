//! Writes sizes, durations and times for people.
//!
//! Promises: a size is short and never rounds up past what is there by more than a twentieth of its unit;
//! a duration shows its two greatest units; a time is RFC 3339 in UTC. Programs read `--json` instead,
//! which carries bytes and seconds.

use std::time::{Duration, SystemTime};

/// What stands where a figure is unknown, or does not apply.
pub(crate) const UNKNOWN: &str = "-";

/// The binary units, greatest first, with the power of two that each is.
const UNITS: [(&str, u32); 5] = [("PiB", 50), ("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];

/// Bytes in the greatest binary unit that they reach, with one decimal: `8.0GiB`.
pub(crate) fn size(bytes: u64) -> String {
    for (unit, power) in UNITS {
        if bytes >> power > 0 {
            let tenths = (u128::from(bytes) * 10) >> power;
            return format!("{}.{}{unit}", tenths / 10, tenths % 10);
        }
    }
    format!("{bytes}B")
}

/// A size, or a dash where it is unknown.
pub(crate) fn size_or_unknown(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| UNKNOWN.to_owned(), size)
}

/// A duration in its two greatest units, cut off below: `29s`, `5m`, `1m05s`, `2h03m`, `4d02h`, `350ms`.
pub(crate) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    if days > 0 {
        two_units((days, "d"), (hours % 24, "h"))
    } else if hours > 0 {
        two_units((hours, "h"), (minutes % 60, "m"))
    } else if minutes > 0 {
        two_units((minutes, "m"), (seconds % 60, "s"))
    } else if seconds > 0 || duration.is_zero() {
        format!("{seconds}s")
    } else {
        format!("{}ms", duration.as_millis())
    }
}

/// As `duration`, with tenths of a second where seconds are its greatest unit: `1.2s`.
pub(crate) fn tenths(length: Duration) -> String {
    let tenths = length.as_millis() / 100;
    if tenths < 600 { format!("{}.{}s", tenths / 10, tenths % 10) } else { duration(length) }
}

fn two_units((greater, unit): (u64, &str), (lesser, lesser_unit): (u64, &str)) -> String {
    match lesser {
        0 => format!("{greater}{unit}"),
        _ => format!("{greater}{unit}{lesser:02}{lesser_unit}"),
    }
}

/// A time in UTC to the millisecond.
pub(crate) fn time(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}

/// A word for a shell: quoted only where it must be.
pub(crate) fn shell_word(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./:,@%+=".contains(&byte);
    if !text.is_empty() && text.bytes().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T: Copy + std::fmt::Debug>(write: impl Fn(T) -> String, rows: &[(T, &str)]) {
        for (value, expected) in rows {
            assert_eq!(&write(*value), expected, "{value:?}");
        }
    }

    #[test]
    fn sizes_have_one_decimal_and_a_binary_unit() {
        check(
            size,
            &[
                (0, "0B"),
                (1_023, "1023B"),
                (1 << 10, "1.0KiB"),
                (500_000_000, "476.8MiB"),
                (8 << 30, "8.0GiB"),
                ((8 << 30) - 1, "7.9GiB"),
                (24 << 30, "24.0GiB"),
                (3 << 39, "1.5TiB"),
                (u64::MAX, "16383.9PiB"),
            ],
        );
    }

    #[test]
    fn durations_show_two_units_at_most() {
        check(
            |millis| duration(Duration::from_millis(millis)),
            &[
                (0, "0s"),
                (350, "350ms"),
                (29_900, "29s"),
                (65_000, "1m05s"),
                (600_000, "10m"),
                (7_200_000, "2h"),
                (7_380_000, "2h03m"),
                (352_800_000, "4d02h"),
            ],
        );
    }

    #[test]
    fn a_pause_is_told_to_the_tenth() {
        check(
            |millis| tenths(Duration::from_millis(millis)),
            &[(0, "0.0s"), (1_250, "1.2s"), (59_990, "59.9s"), (75_000, "1m15s")],
        );
    }

    #[test]
    fn a_shell_word_survives_a_shell() {
        check(
            shell_word,
            &[
                ("GPU-1,GPU-2", "GPU-1,GPU-2"),
                ("", "''"),
                ("two words", "'two words'"),
                ("it's", r"'it'\''s'"),
                ("$HOME", "'$HOME'"),
            ],
        );
    }
}
