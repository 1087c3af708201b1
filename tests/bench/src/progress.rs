//! One line on stderr that moves while something takes long. Where stderr is no terminal, indicatif draws nothing:
//! then every step is a line of its own, at most one every few seconds.

use std::{
    io::IsTerminal as _,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

/// Apart by so much, lines in a log file show life and do not fill it.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// A bar, or lines where there is no terminal.
pub(crate) struct Progress {
    bar: ProgressBar,
    plain: Option<Mutex<Instant>>,
}

impl Progress {
    pub(crate) fn new(length: u64, what: &'static str) -> Self {
        let bar = ProgressBar::new(length);
        let template = "{prefix} [{elapsed_precise}] {wide_bar} {pos}/{len} {msg}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_prefix(what);
        let plain = (!std::io::stderr().is_terminal()).then(|| Mutex::new(Instant::now()));
        Self { bar, plain }
    }

    /// Stands at `position`, with more to say.
    pub(crate) fn at(&self, position: u64, message: String) {
        self.bar.set_position(position);
        let Some(plain) = &self.plain else {
            self.bar.set_message(message);
            return;
        };
        let mut last = plain.lock().unwrap_or_else(PoisonError::into_inner);
        if last.elapsed() >= LINE_EVERY {
            *last = Instant::now();
            let length = self.bar.length().unwrap_or(0);
            eprintln!("{}: {position}/{length} {message}", self.bar.prefix());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
