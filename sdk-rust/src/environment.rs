//! Settings from the environment: `GPULEASE_*` first, then the names of older systems (`GPU_COORDINATOR_URL`,
//! `GPU_ENABLED`, `GPU_REQUEST_TIMEOUT`, `GPU_FALLBACK_TO_CPU`), then the default. An explicit argument wins over all.
//!
//! A value that cannot be used is an error that names the variable, the value and what would do. An empty one counts as
//! not set. A `GPULEASE_*` variable that nothing of gpulease reads gets a warning, once for each process.

use std::{collections::BTreeMap, env, sync::Once, time::Duration};

use crate::error::{Error, ErrorKind};

pub(crate) const ENDPOINT: &[&str] = &["GPULEASE_ENDPOINT", "GPU_COORDINATOR_URL"];
pub(crate) const SERVICE: &[&str] = &["GPULEASE_SERVICE"];
pub(crate) const HOLDER: &[&str] = &["GPULEASE_HOLDER"];
pub(crate) const ENABLED: &[&str] = &["GPULEASE_ENABLED", "GPU_ENABLED"];
pub(crate) const FALLBACK_TO_CPU: &[&str] = &["GPULEASE_FALLBACK_TO_CPU", "GPU_FALLBACK_TO_CPU"];
pub(crate) const REQUEST_TIMEOUT: &[&str] = &["GPULEASE_REQUEST_TIMEOUT", "GPU_REQUEST_TIMEOUT"];
pub(crate) const CONNECT_TIMEOUT: &[&str] = &["GPULEASE_CONNECT_TIMEOUT"];
pub(crate) const WHILE_UNREACHABLE: &[&str] = &["GPULEASE_WHILE_UNREACHABLE"];
pub(crate) const BREAKER_FAILURES: &[&str] = &["GPULEASE_BREAKER_FAILURES"];
pub(crate) const BREAKER_COOLDOWN: &[&str] = &["GPULEASE_BREAKER_COOLDOWN"];
pub(crate) const BREAKER_SUCCESSES: &[&str] = &["GPULEASE_BREAKER_SUCCESSES"];
pub(crate) const BREAKER_CALLS_MIN: &[&str] = &["GPULEASE_BREAKER_CALLS_MIN"];

/// All of them.
const OWN: &[&[&str]] = &[
    ENDPOINT,
    SERVICE,
    HOLDER,
    ENABLED,
    FALLBACK_TO_CPU,
    REQUEST_TIMEOUT,
    CONNECT_TIMEOUT,
    WHILE_UNREACHABLE,
    BREAKER_FAILURES,
    BREAKER_COOLDOWN,
    BREAKER_SUCCESSES,
    BREAKER_CALLS_MIN,
];

/// What the command line sets for the programs it runs.
const TOLD_TO_PROGRAMS: &[&str] = &[
    "GPULEASE_LEASE_ID",
    "GPULEASE_FENCING_TOKEN",
    "GPULEASE_CHILD_PID",
    "GPULEASE_NOTICE_ID",
    "GPULEASE_NOTICE_SECONDS",
];

/// What only tests read.
const OF_TESTS: &[&str] = &[
    "GPULEASE_BINARY",
    "GPULEASE_FAKE_NVML",
    "GPULEASE_POWER_CUT",
    "GPULEASE_TEST",
    "GPULEASE_TRACES",
];

/// How the variables of the coordinator's own configuration begin; it checks them itself.
const OF_THE_COORDINATOR: &[&str] = &[
    "GPULEASE_CONFIG",
    "GPULEASE_DATA",
    "GPULEASE_DEVICES_",
    "GPULEASE_HTTP",
    "GPULEASE_JOURNAL_",
    "GPULEASE_LEASES_",
    "GPULEASE_LISTEN",
    "GPULEASE_LOG_",
    "GPULEASE_NODES_",
    "GPULEASE_OWNERS",
    "GPULEASE_SERVICES_",
    "GPULEASE_SIMULATE",
    "GPULEASE_SOCKET",
    "GPULEASE_BACKEND",
    "GPULEASE_NVML_",
];

/// The longest time that a setting may have: the longest wait of a request.
const TIME_MAX: Duration = Duration::from_secs(30 * 24 * 3_600);

/// The environment as it was when it was read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Environment(BTreeMap<String, String>);

impl Environment {
    /// The process's own. Texts that are no UTF-8 count as not set.
    pub(crate) fn of_process() -> Self {
        let texts = env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        let environment = Self(texts.filter(|(name, _)| name.starts_with("GPU")).collect());
        static WARNED: Once = Once::new();
        WARNED.call_once(|| environment.warn_of_unknown());
        environment
    }

    fn warn_of_unknown(&self) {
        for name in self.unknown() {
            tracing::warn!(
                variable = name,
                "no part of gpulease reads this variable: is it misspelt?"
            );
        }
    }

    fn unknown(&self) -> impl Iterator<Item = &str> {
        let is_known = |name: &str| {
            OWN.iter().any(|names| names.contains(&name))
                || TOLD_TO_PROGRAMS.contains(&name)
                || OF_THE_COORDINATOR.iter().chain(OF_TESTS).any(|start| name.starts_with(start))
        };
        let names = self.0.keys().map(String::as_str);
        names.filter(move |name| name.starts_with("GPULEASE_") && !is_known(name))
    }

    /// The first of these variables that is set, with its value.
    fn first(&self, names: &'static [&'static str]) -> Option<(&'static str, &str)> {
        names.iter().find_map(|name| {
            let value = self.0.get(*name)?.trim();
            (!value.is_empty()).then_some((*name, value))
        })
    }

    pub(crate) fn text(&self, names: &'static [&'static str]) -> Option<String> {
        self.first(names).map(|(_, value)| value.to_owned())
    }

    pub(crate) fn flag(&self, names: &'static [&'static str]) -> Result<Option<bool>, Error> {
        let expected = "true, false, 1, 0, yes, no, on or off";
        self.parse(names, expected, |value| match value.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Some(true),
            "false" | "0" | "no" | "off" => Some(false),
            _ => None,
        })
    }

    pub(crate) fn number(&self, names: &'static [&'static str]) -> Result<Option<u32>, Error> {
        let expected = "a whole number from 1 to 1000000";
        let within = |number: &u32| (1..=1_000_000).contains(number);
        self.parse(names, expected, |value| value.parse().ok().filter(within))
    }

    /// A time: seconds, or a number with `ms`, `s`, `m` or `h`.
    pub(crate) fn time(&self, names: &'static [&'static str]) -> Result<Option<Duration>, Error> {
        let expected =
            "seconds such as 15 or 0.5, or a time such as 500ms, 15s, 2m or 1h, from 1ms to 720h";
        let within = |time: &Duration| (Duration::from_millis(1)..=TIME_MAX).contains(time);
        self.parse(names, expected, |value| time(value).filter(within))
    }

    /// One of the values that have these names.
    pub(crate) fn choice<T: Copy>(
        &self,
        names: &'static [&'static str],
        choices: &[(&str, T)],
    ) -> Result<Option<T>, Error> {
        let expected: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        self.parse(names, &expected.join(" or "), |value| {
            let is_meant = |(name, _): &&(&str, T)| name.eq_ignore_ascii_case(value);
            choices.iter().find(is_meant).map(|(_, choice)| *choice)
        })
    }

    fn parse<T>(
        &self,
        names: &'static [&'static str],
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let Some((name, value)) = self.first(names) else { return Ok(None) };
        let invalid = || {
            let message = format!("the variable {name} is {value:?}; it must be {expected}");
            Error::new(ErrorKind::InvalidArgument, "INVALID_SETTING", message)
                .with_field(Some(name.to_owned()))
        };
        parse(value).map(Some).ok_or_else(invalid)
    }
}

fn time(text: &str) -> Option<Duration> {
    let split = text.find(|letter: char| letter.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let seconds = match unit.trim() {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        _ => return None,
    };
    let number: f64 = number.trim().parse().ok()?;
    Duration::try_from_secs_f64(number * seconds).ok()
}

#[cfg(test)]
impl Environment {
    pub(crate) fn of(variables: &[(&str, &str)]) -> Self {
        Self(variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_time(text: &str, expected_milliseconds: Option<u64>) {
        let environment = Environment::of(&[("GPU_REQUEST_TIMEOUT", text)]);
        let read = environment.time(REQUEST_TIMEOUT);
        assert_eq!(
            read.ok().flatten(),
            expected_milliseconds.map(Duration::from_millis),
            "{text:?}"
        );
    }

    #[test]
    fn times_are_seconds_or_have_a_unit() {
        check_time("15", Some(15_000));
        check_time("0.5", Some(500));
        check_time("250ms", Some(250));
        check_time("2 m", Some(120_000));
        check_time("1h", Some(3_600_000));
        for bad in ["soon", "-1", "1d", "0", "721h", "nan", "inf"] {
            check_time(bad, None);
        }
    }

    #[test]
    fn a_bad_value_names_variable_value_and_bound() {
        let environment = Environment::of(&[("GPU_ENABLED", "maybe")]);
        let error = environment.flag(ENABLED).unwrap_err();
        assert_eq!(
            (error.kind(), error.field()),
            (ErrorKind::InvalidArgument, Some("GPU_ENABLED"))
        );
        let expected = "the variable GPU_ENABLED is \"maybe\"; it must be true, false, 1, 0, yes, no, on or off";
        assert_eq!(error.message(), expected);
    }

    #[test]
    fn the_newer_name_wins_and_an_empty_value_counts_as_not_set() {
        let both = [("GPULEASE_ENABLED", "false"), ("GPU_ENABLED", "true")];
        assert_eq!(Environment::of(&both).flag(ENABLED).unwrap(), Some(false));
        let empty = [("GPULEASE_ENABLED", " "), ("GPU_ENABLED", "on")];
        assert_eq!(Environment::of(&empty).flag(ENABLED).unwrap(), Some(true));
        assert_eq!(Environment::default().flag(ENABLED).unwrap(), None);
    }

    #[test]
    fn a_variable_that_nothing_reads_is_named() {
        let environment = Environment::of(&[
            ("GPULEASE_ENDPONT", "x"),
            ("GPULEASE_ENDPOINT", "x"),
            ("GPULEASE_LEASES_LOCK_DELAY", "1s"),
            ("GPULEASE_LEASE_ID", "1"),
            ("GPULEASE_CHILD_PID", "1"),
            ("GPULEASE_NOTICE_ID", "1"),
            ("GPULEASE_NOTICE_SECONDS", "1"),
            ("GPU_WHATEVER", "x"),
        ]);
        assert_eq!(environment.unknown().collect::<Vec<_>>(), ["GPULEASE_ENDPONT"]);
    }
}
