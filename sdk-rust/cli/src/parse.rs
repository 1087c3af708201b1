//! Reads what people type: sizes, durations, labels, compute capabilities, cores.
//!
//! Promises: every refusal names the value and the forms that are accepted, and nothing that the
//! contract's bounds would refuse for its unit alone (a zero size, a size over 2^50 bytes) gets through.
//! Leaves to others: whether the combination of options makes sense (`request`), and every bound that
//! only the coordinator knows.

use std::time::Duration;

use bytesize::ByteSize;
use nix::sys::signal::Signal;

/// The most bytes that one device of a lease may be asked for: 2^50, the bound of `Ask.memory_bytes`.
const SIZE_BYTES_MAX: u64 = 1 << 50;

/// The longest duration the contract knows is a lifetime of 365 days.
const DURATION_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// A number of bytes: `8GiB` (2^30), `500MB` (10^6), `24g` (10^9), or plain bytes.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let forms = "write it like 8GiB, 1.5GiB, 500MB or 24g (g = GB = 10^9 bytes, GiB = 2^30 bytes)";
    let bytes = text
        .trim()
        .parse::<ByteSize>()
        .map_err(|_| format!("{text:?} is not a size: {forms}"))?
        .as_u64();
    match bytes {
        0 => Err(format!("{text:?} is no memory at all: {forms}")),
        1..=SIZE_BYTES_MAX => Ok(bytes),
        _ => Err(format!("{text:?} is more than 1PiB, the most that a lease can ask for: {forms}")),
    }
}

/// A length of time: `30s`, `10m`, `1h30m`, `250ms`, `0s` or `0`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let forms = "write it with its unit, like 30s, 10m, 1h30m, 2days or 250ms";
    let duration = humantime::parse_duration(text.trim())
        .map_err(|_| format!("{text:?} is not a duration: {forms}"))?;
    if duration > DURATION_MAX {
        return Err(format!("{text:?} is longer than 365 days: {forms}"));
    }
    Ok(duration)
}

/// A node label, `key=value`; the value may be empty or hold further `=`.
pub(crate) fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is not a label: write it like zone=west")),
    }
}

/// A signal by name or number: `USR1`, `SIGUSR1`, `10`.
pub(crate) fn signal(text: &str) -> Result<Signal, String> {
    let upper = text.trim().to_ascii_uppercase();
    let number = upper.parse::<i32>().ok().and_then(|number| Signal::try_from(number).ok());
    let named = || format!("SIG{}", upper.trim_start_matches("SIG")).parse::<Signal>().ok();
    number
        .or_else(named)
        .ok_or_else(|| format!("{text:?} is not a signal: write it like USR1, SIGTSTP or 10"))
}

/// A compute capability, `8.9`, or `9` for `9.0`.
pub(crate) fn compute_capability(text: &str) -> Result<(u32, u32), String> {
    let (major, minor) = text.split_once('.').unwrap_or((text, "0"));
    match (major.parse(), minor.parse()) {
        (Ok(major), Ok(minor)) => Ok((major, minor)),
        _ => Err(format!("{text:?} is not a compute capability: write it like 8.9 or 9.0")),
    }
}

/// Host cores in thousandths: `4`, `1.5` (at most three places), or `1500m`.
pub(crate) fn cpu_millis(text: &str) -> Result<u64, String> {
    let refusal = || {
        format!("{text:?} is not a number of cores: write it like 4, 1.5 or 1500m (thousandths)")
    };
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if let Some(millis) = text.strip_suffix('m') {
        return millis.parse().map_err(|_| refusal());
    }
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    if fraction.is_empty() || fraction.len() > 3 || !digits(fraction) || !digits(whole) {
        return Err(refusal());
    }
    let whole: u64 = whole.parse().map_err(|_| refusal())?;
    let fraction: u64 = format!("{fraction:0<3}").parse().map_err(|_| refusal())?;
    whole.checked_mul(1_000).and_then(|millis| millis.checked_add(fraction)).ok_or_else(refusal)
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use super::*;

    /// One row: what is typed, and what it means (`Err` holds a word that the refusal must contain).
    fn check<T: PartialEq + Debug>(
        parser: fn(&str) -> Result<T, String>,
        rows: &[(&str, Result<T, &str>)],
    ) {
        for (text, expected) in rows {
            match (parser(text), expected) {
                (Ok(value), Ok(wanted)) => assert_eq!(&value, wanted, "{text:?}"),
                (Err(message), Err(word)) => {
                    assert!(message.contains(word), "{text:?}: {message:?} lacks {word:?}");
                    assert!(message.contains(text), "{message:?} does not name {text:?}");
                    assert!(message.contains("write it"), "{message:?} names no accepted form");
                }
                (outcome, wanted) => panic!("{text:?}: {outcome:?}, expected {wanted:?}"),
            }
        }
    }

    #[test]
    fn sizes_are_read_in_binary_and_decimal_units() {
        check(
            size,
            &[
                ("8GiB", Ok(8 << 30)),
                ("8 GiB", Ok(8 << 30)),
                ("1.5GiB", Ok(3 << 29)),
                ("500MB", Ok(500_000_000)),
                ("24g", Ok(24_000_000_000)),
                ("512MiB", Ok(512 << 20)),
                ("1073741824", Ok(1 << 30)),
                ("1PiB", Ok(1 << 50)),
                ("2PiB", Err("more than 1PiB")),
                ("99999999999999999999TiB", Err("more than 1PiB")),
                ("0", Err("no memory")),
                ("0GiB", Err("no memory")),
                ("-1GiB", Err("not a size")),
                ("8 gigs", Err("not a size")),
                ("GiB", Err("not a size")),
                ("", Err("not a size")),
                ("NaN", Err("not a size")),
            ],
        );
    }

    #[test]
    fn durations_need_a_unit() {
        check(
            duration,
            &[
                ("30s", Ok(Duration::from_secs(30))),
                ("10m", Ok(Duration::from_secs(600))),
                ("1h30m", Ok(Duration::from_secs(5_400))),
                ("250ms", Ok(Duration::from_millis(250))),
                ("0", Ok(Duration::ZERO)),
                ("0s", Ok(Duration::ZERO)),
                ("365days", Ok(DURATION_MAX)),
                ("366days", Err("longer than 365 days")),
                ("30", Err("not a duration")),
                ("-5s", Err("not a duration")),
                ("soon", Err("not a duration")),
                ("inf", Err("not a duration")),
                ("99999999999999999999s", Err("not a duration")),
                ("", Err("not a duration")),
            ],
        );
    }

    #[test]
    fn signals_have_names_and_numbers() {
        check(
            signal,
            &[
                ("USR1", Ok(Signal::SIGUSR1)),
                ("sigtstp", Ok(Signal::SIGTSTP)),
                ("18", Ok(Signal::SIGCONT)),
                ("0", Err("not a signal")),
                ("99", Err("not a signal")),
                ("PAUSE", Err("not a signal")),
                ("", Err("not a signal")),
            ],
        );
    }

    #[test]
    fn labels_split_at_the_first_equals_sign() {
        let pair = |key: &str, value: &str| Ok((key.to_owned(), value.to_owned()));
        check(
            label,
            &[
                ("zone=west", pair("zone", "west")),
                ("zone=", pair("zone", "")),
                ("path=a=b", pair("path", "a=b")),
                ("zone", Err("not a label")),
                ("=west", Err("not a label")),
            ],
        );
    }

    #[test]
    fn compute_capabilities_are_major_and_minor() {
        check(
            compute_capability,
            &[
                ("8.9", Ok((8, 9))),
                ("9", Ok((9, 0))),
                ("12.1", Ok((12, 1))),
                ("8.", Err("not a compute")),
                ("sm_89", Err("not a compute")),
                ("-8.0", Err("not a compute")),
            ],
        );
    }

    #[test]
    fn cores_are_read_to_the_thousandth() {
        check(
            cpu_millis,
            &[
                ("4", Ok(4_000)),
                ("1.5", Ok(1_500)),
                ("0.125", Ok(125)),
                ("1500m", Ok(1_500)),
                ("1.2345", Err("not a number of cores")),
                ("1.", Err("not a number of cores")),
                ("+1", Err("not a number of cores")),
                ("many", Err("not a number of cores")),
                ("18446744073709551615", Err("not a number of cores")),
            ],
        );
    }
}
