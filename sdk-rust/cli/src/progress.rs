//! What is said on stderr while a request waits for devices.
//!
//! Promises: a spinner on a terminal only; elsewhere one line when the place changes and one every
//! `REPEAT` at most; under `--json` the same lines as objects. Nothing of it reaches stdout.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::format;
use crate::output::{Output, stderr_line};

/// How often a line repeats that says nothing new: often enough to see that it lives, and 360 lines in an
/// hour's log.
const REPEAT: Duration = Duration::from_secs(10);

/// How often the spinner turns.
const TURN: Duration = Duration::from_millis(120);

/// A request's place in the queue.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Place {
    pub(crate) event: &'static str,
    pub(crate) id: String,
    /// How many requests stand before it.
    pub(crate) queue_position: u64,
    pub(crate) kept_devices: Vec<String>,
    pub(crate) waited_seconds: f64,
    pub(crate) wait_max_seconds: f64,
}

/// The progress of one request.
pub(crate) struct Progress {
    output: Output,
    spinner: Option<ProgressBar>,
    shown: Option<Place>,
}

impl Progress {
    pub(crate) fn new(output: Output) -> Self {
        Self { output, spinner: None, shown: None }
    }

    /// Shows where the request stands.
    pub(crate) fn show(&mut self, place: Place) {
        if self.output.stderr_is_terminal && !self.output.json {
            self.spinner.get_or_insert_with(spinner).set_message(sentence(&place));
        } else if is_news(self.shown.as_ref(), &place) {
            self.say(&place);
            self.shown = Some(place);
        }
    }

    fn say(&self, place: &Place) {
        if self.output.json {
            if let Ok(line) = serde_json::to_string(place) {
                stderr_line(&line);
            }
        } else {
            stderr_line(&sentence(place));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
    }
}

fn spinner() -> ProgressBar {
    // `ProgressBar` draws on stderr.
    let spinner = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
        spinner.set_style(style);
    }
    spinner.enable_steady_tick(TURN);
    spinner
}

fn is_news(shown: Option<&Place>, place: &Place) -> bool {
    shown.is_none_or(|shown| {
        shown.queue_position != place.queue_position
            || shown.kept_devices != place.kept_devices
            || place.waited_seconds - shown.waited_seconds >= REPEAT.as_secs_f64()
    })
}

fn sentence(place: &Place) -> String {
    let time = |seconds: f64| {
        format::duration(Duration::from_secs_f64(seconds.clamp(0.0, f64::from(u32::MAX)).floor()))
    };
    let before = match place.queue_position {
        0 => "next in line".to_owned(),
        1 => "1 request before it".to_owned(),
        before => format!("{before} requests before it"),
    };
    let kept = match place.kept_devices.len() {
        0 => String::new(),
        1 => ", 1 device kept for it".to_owned(),
        kept => format!(", {kept} devices kept for it"),
    };
    format!(
        "lease {} waits for devices: {before}{kept}, {} of at most {}",
        place.id,
        time(place.waited_seconds),
        time(place.wait_max_seconds)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(queue_position: u64, kept: usize, waited_seconds: f64) -> Place {
        Place {
            event: "queued",
            id: "7".to_owned(),
            queue_position,
            kept_devices: vec!["GPU".to_owned(); kept],
            waited_seconds,
            wait_max_seconds: 600.0,
        }
    }

    #[test]
    fn the_place_is_said_in_words() {
        let rows = [
            (place(0, 0, 0.2), "next in line, 0s of at most 10m"),
            (place(1, 1, 65.9), "1 request before it, 1 device kept for it, 1m05s of at most 10m"),
            (place(3, 2, 5.0), "3 requests before it, 2 devices kept for it, 5s of at most 10m"),
        ];
        for (place, expected) in rows {
            assert_eq!(sentence(&place), format!("lease 7 waits for devices: {expected}"));
        }
    }

    #[test]
    fn a_line_is_news_when_the_place_changed_or_ten_seconds_went_by() {
        let shown = place(2, 0, 1.0);
        assert!(is_news(None, &shown));
        for (place, news) in [
            (place(2, 0, 2.0), false),
            (place(1, 0, 2.0), true),
            (place(2, 1, 2.0), true),
            (place(2, 0, 11.0), true),
        ] {
            assert_eq!(is_news(Some(&shown), &place), news, "{place:?}");
        }
    }
}
