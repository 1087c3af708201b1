//! `gpulease journal`: check, export and import the journal of a coordinator that does not run.
//!
//! Promises: `check` and `export` change nothing in the data directory; `import` makes a journal that appears whole or
//! not at all, and that begins with what P2 asks for after an import. Whatever was lost is named, never guessed.
//! Beside `serve` this is the only place that names the store.

mod account;
mod args;
mod check;
mod error;
mod export;
mod import;
mod rehearsal;
mod report;
mod source;
#[cfg(test)]
mod tests;

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

pub use args::JournalArgs;

use args::{Place, Verb};
use error::{DAMAGED, OfflineError};

use crate::config::{Config, Environment, ServeArgs};

/// Runs one of the verbs to its end; `json` asks for one JSON object on stdout.
#[must_use]
pub fn run(args: &JournalArgs, json: bool) -> ExitCode {
    let told = match &args.verb {
        Verb::Check(place) => check::run(place, json),
        Verb::Export(args) => export::run(args, json),
        Verb::Import(args) => import::run(args, json),
    };
    match told.and_then(|told| say(&told.text).map(|()| told.exit_code())) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            // Nobody may read stderr any more.
            let _ = writeln!(io::stderr(), "gpulease: {}", error.text());
            ExitCode::from(error.exit_code())
        }
    }
}

/// What a verb has to say.
#[derive(Debug)]
struct Told {
    text: String,
    /// Nothing is damaged or lost.
    whole: bool,
}

impl Told {
    fn exit_code(&self) -> u8 {
        if self.whole { 0 } else { DAMAGED }
    }
}

/// The configuration that a coordinator would have, which says where its journal is.
fn configuration(place: &Place) -> Result<Config, OfflineError> {
    let data = place.data.as_ref().map(|path| path.to_string_lossy().into_owned());
    let args = ServeArgs { data, config: place.config.clone(), ..ServeArgs::default() };
    Ok(Config::load(&args, &Environment::of_process())?)
}

/// Writes to stdout. Whoever read it may be gone, which is no failure of what was done.
fn say(text: &str) -> Result<(), OfflineError> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(OfflineError::Stdout),
    }
}
