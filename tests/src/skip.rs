//! Tests that cannot run here say so loudly, and `tests/run` counts them as skipped instead of passed.

use std::{env, fs::File, io::Write as _};

/// Names the file that collects what was skipped; `tests/run` sets it.
const LIST: &str = "GPULEASE_TESTS_SKIPPED";

/// A test that cannot run here, and what it lacks. Where CI runs, `tests/run` counts it as failed.
pub fn skipped(test: &str, lacks: &str) {
    note(&format!("{test}: {lacks}"));
}

/// A test that even CI may do without: what it lacks is no program that could be installed, but a right.
pub fn skipped_optional(test: &str, lacks: &str) {
    note(&format!("optional: {test}: {lacks}"));
}

#[allow(clippy::print_stderr, reason = "a skipped test must not look like a passed one")]
fn note(line: &str) {
    eprintln!("skipped: {line}");
    let Some(path) = env::var_os(LIST) else { return };
    let list = File::options().create(true).append(true).open(path);
    // One write, so that lines of parallel tests do not mix.
    if let Err(error) = list.and_then(|mut list| list.write_all(format!("{line}\n").as_bytes())) {
        eprintln!("cannot note the skipped test: {error}");
    }
}
