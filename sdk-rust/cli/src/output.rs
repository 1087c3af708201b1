//! Where words go: data to stdout; progress, hints and errors to stderr.
//!
//! Promises: one JSON object per line under `--json`; colour only where it is wanted and can be seen;
//! a reader that closes stdout early ends the program quietly, it is no failure.
//! Leaves to others: what is said.

use std::io::{self, ErrorKind, IsTerminal, Write};

use clap::ValueEnum;
use comfy_table::{Attribute, Color};
use serde::Serialize;

use crate::failure::Failure;

/// When to colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ColorChoice {
    /// On a terminal, unless NO_COLOR is set or TERM is "dumb".
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// The two streams, and how to write to them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    pub(crate) json: bool,
    /// Colour the tables on stdout.
    pub(crate) color: bool,
    /// A person watches stdout: tables fit its width, `--watch` redraws in place.
    pub(crate) stdout_is_terminal: bool,
    /// A person watches stderr: progress may spin.
    pub(crate) stderr_is_terminal: bool,
}

impl Output {
    pub(crate) fn new(json: bool, color: ColorChoice) -> Self {
        let stdout_is_terminal = io::stdout().is_terminal();
        Self {
            json,
            color: wants_color(color, stdout_is_terminal, |name| std::env::var_os(name)),
            stdout_is_terminal,
            stderr_is_terminal: io::stderr().is_terminal(),
        }
    }

    /// Writes text to stdout, ending it with a line break if it has none.
    pub(crate) fn text(&self, text: &str) -> Result<(), Failure> {
        let end = if text.ends_with('\n') || text.is_empty() { "" } else { "\n" };
        self.raw(&format!("{text}{end}"))
    }

    /// Writes to stdout what a terminal is to interpret, as it is.
    pub(crate) fn raw(&self, text: &str) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
        written.map_err(stdout_failure)
    }

    /// Writes one JSON object as one line to stdout.
    pub(crate) fn object(&self, object: &impl Serialize) -> Result<(), Failure> {
        self.text(&to_json(object)?)
    }

    /// Says something to the person at the other end, on stderr; under `--json` nothing.
    pub(crate) fn note(&self, text: &str) {
        if !self.json {
            stderr_line(text);
        }
    }

    /// Says something on stderr that may not go unsaid: under `--json` as `{"warning": …}`.
    pub(crate) fn warn(&self, text: &str) {
        if self.json {
            stderr_line(&serde_json::json!({ "warning": text }).to_string());
        } else {
            stderr_line(&format!("warning: {text}"));
        }
    }

    /// The width of the terminal that tables must fit, in columns; none: there is no terminal.
    pub(crate) fn width(&self) -> Option<u16> {
        self.window().map(|window| window.ws_col)
    }

    /// The lines that one screen holds; none: there is no terminal.
    pub(crate) fn height(&self) -> Option<u16> {
        self.window().map(|window| window.ws_row)
    }

    fn window(&self) -> Option<rustix::termios::Winsize> {
        let window = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
        // Some terminals (serial lines, Emacs) say 0 for "I do not know".
        (self.stdout_is_terminal && window.ws_col > 0 && window.ws_row > 0).then_some(window)
    }
}

/// How a word is coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Paint {
    Good,
    Waiting,
    Bad,
    Faint,
    Heading,
}

impl Paint {
    pub(crate) fn color(self) -> Option<Color> {
        match self {
            Self::Good => Some(Color::Green),
            Self::Waiting => Some(Color::Yellow),
            Self::Bad => Some(Color::Red),
            Self::Faint => Some(Color::DarkGrey),
            Self::Heading => None,
        }
    }

    pub(crate) fn attribute(self) -> Option<Attribute> {
        (self == Self::Heading).then_some(Attribute::Bold)
    }
}

/// Serialises a view, which cannot fail: its keys are names and its numbers finite.
pub(crate) fn to_json(object: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string(object)
        .map_err(|error| Failure::other(format!("cannot write the answer as JSON: {error}")))
}

/// Writes a line to stderr. That nobody reads stderr is no reason to fail.
pub(crate) fn stderr_line(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

fn stdout_failure(error: io::Error) -> Failure {
    if error.kind() == ErrorKind::BrokenPipe {
        return Failure::reader_gone();
    }
    Failure::other(format!("cannot write to stdout: {error}"))
}

fn wants_color(
    choice: ColorChoice,
    terminal: bool,
    variable: impl Fn(&str) -> Option<std::ffi::OsString>,
) -> bool {
    match choice {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto => {
            terminal
                && variable("NO_COLOR").is_none_or(|value| value.is_empty())
                && variable("TERM").is_none_or(|value| value != "dumb")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(choice: ColorChoice, terminal: bool, variable: Option<(&str, &str)>, expected: bool) {
        let colored = wants_color(choice, terminal, |name| {
            variable.filter(|(set, _)| *set == name).map(|(_, value)| value.into())
        });
        assert_eq!(colored, expected, "{choice:?}, terminal {terminal}, {variable:?}");
    }

    #[test]
    fn colour_needs_a_terminal_that_wants_it() {
        check(ColorChoice::Auto, true, None, true);
        check(ColorChoice::Auto, false, None, false);
        check(ColorChoice::Auto, true, Some(("NO_COLOR", "1")), false);
        check(ColorChoice::Auto, true, Some(("NO_COLOR", "")), true);
        check(ColorChoice::Auto, true, Some(("TERM", "dumb")), false);
        check(ColorChoice::Always, false, Some(("NO_COLOR", "1")), true);
        check(ColorChoice::Never, true, None, false);
    }
}
