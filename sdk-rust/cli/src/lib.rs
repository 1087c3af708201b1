//! The client verbs of the `gpulease` command line: everything but `serve`.
//!
//! One file per verb in `verb/`; each connects, does one thing with the public SDK, and prints it as a
//! table or as JSON. Data goes to stdout, everything else to stderr; exit codes are listed in every
//! `--help` (`help`, `failure`).
//!
//! The binary flattens [`GlobalOptions`] and [`Verb`] into its own command line and calls [`execute`].
#![forbid(unsafe_code)]

mod convert;
mod environment;
mod failure;
mod format;
mod grant;
mod help;
mod options;
mod output;
mod parse;
mod pausing;
mod plan_file;
mod progress;
mod request;
mod run;
mod signals;
mod table;
mod target;
mod token_file;
mod tokens;
mod told;
mod verb;
mod view;
mod watching;

pub use options::{GlobalOptions, Program};
pub use output::ColorChoice;
pub use verb::Verb;

use std::process::ExitCode;

/// Does what the command line asks for and reports how it went.
///
/// `program` is what `run` starts again (for `--local`, and to tie its command's life to its own) and what
/// `completions` describes. Needs a tokio runtime with I/O and time, and must be polled by a thread that
/// lives as long as the process (`block_on` of the main thread does): a command that `run` started dies
/// with the thread that started it.
pub async fn execute(program: Program, globals: GlobalOptions, verb: Verb) -> ExitCode {
    let context = options::Context::new(program, globals);
    let output = context.output;
    match verb::dispatch(&context, verb).await {
        Ok(code) => code,
        Err(failure) => failure.report(&output),
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    /// The command line as the binary makes it, without `serve`.
    #[derive(Parser)]
    #[command(name = "gpulease")]
    struct Line {
        #[command(flatten)]
        globals: GlobalOptions,
        #[command(subcommand)]
        verb: Verb,
    }

    fn check(line: &str, accepted: bool) {
        let parsed = Line::try_parse_from(line.split_whitespace());
        assert_eq!(
            parsed.is_ok(),
            accepted,
            "{line}: {:?}",
            parsed.err().map(|error| error.to_string())
        );
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Line::command().debug_assert();
    }

    #[test]
    fn global_options_stand_before_or_after_the_verb() {
        for line in ["gpulease --json leases", "gpulease leases --json"] {
            let line = Line::try_parse_from(line.split_whitespace()).expect("it parses");
            assert!(line.globals.json);
            assert!(matches!(line.verb, Verb::Leases(_)));
        }
        let line = "gpulease leases --endpoint http://box:1 --color never";
        let line = Line::try_parse_from(line.split_whitespace()).expect("it parses");
        assert_eq!(line.globals.endpoint, "http://box:1");
        assert_eq!(line.globals.color, ColorChoice::Never);
    }

    #[test]
    fn verbs_take_what_the_table_of_commands_says() {
        check("gpulease devices --watch", true);
        check(
            "gpulease acquire --memory 8GiB --priority background --service s --name n --wait 10m --ttl 300s --hold",
            true,
        );
        check("gpulease acquire --devices 2 --slots 3", true);
        check("gpulease acquire --exclusive", true);
        check("gpulease release 17 --token 42", true);
        check("gpulease release", false);
        check("gpulease release seventeen", false);
        check("gpulease renew 17", true);
        check("gpulease acknowledge 17 --notice 3", true);
        check("gpulease acknowledge 17", false);
        check("gpulease extend 17 --notice 3 --by 20s --token 42", true);
        check("gpulease explain 17", true);
        check("gpulease queue --service train --limit 10", true);
        check("gpulease queue --limit 0", false);
        check("gpulease plan plate.toml", true);
        check("gpulease plan - --reserve --service wells --holder w1 --ttl 10m --hold", true);
        check("gpulease plan plate.toml --ttl 10m", false);
        check("gpulease plan", false);
        check("gpulease processes --device box/0", true);
        check("gpulease processes --device box/0 --node box", false);
        check("gpulease cordon box --reason noise", true);
        check("gpulease uncordon box", true);
        check("gpulease drain box/0 --reason noise --wait", true);
        check("gpulease drain", false);
        check("gpulease open box/0 --reason rebooted", true);
        check("gpulease open box/0", false);
        check("gpulease revoke 17 --reason maintenance", true);
        check("gpulease revoke 17", false);
        check("gpulease leases --all --watch", true);
        check("gpulease show 17", true);
        check("gpulease events --after 12", true);
        check("gpulease run --memory 8GiB -- python train.py --memory 9", true);
        check("gpulease run --local -- env", true);
        check("gpulease run", false);
        check("gpulease run --preemptible pause --on-pause sync --on-resume sync -- env", true);
        check("gpulease run --pause-signal USR1 --resume-signal CONT -- env", true);
        check("gpulease run --pause-signal HELLO -- env", false);
        check("gpulease adopt --pid 4711 --memory 8GiB", true);
        check("gpulease adopt --memory 8GiB", false);
        check("gpulease adopt --pid 0 --memory 8GiB", false);
        check("gpulease acquire --preemptible end --minimum-hold 10m --process 4711", true);
        check("gpulease run --local --local-simulate 2x24GiB -- env", false);
        check("gpulease status", true);
        check("gpulease completions bash", true);
    }

    #[test]
    fn every_help_has_examples_and_exit_codes_and_fits_a_terminal() {
        for verb in Line::command().get_subcommands().filter(|verb| !verb.is_hide_set()) {
            let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
            for part in ["Examples:", "Exit codes:"] {
                assert!(help.contains(part), "{} has no {part}", verb.get_name());
            }
            let widest = help.lines().map(|line| line.chars().count()).max();
            assert!(widest <= Some(100), "{}: {widest:?}", verb.get_name());
        }
    }

    #[test]
    fn every_shell_gets_a_completion_script() {
        use clap::ValueEnum;
        for shell in clap_complete::Shell::value_variants() {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Line::command(), "gpulease", &mut script);
            assert!(String::from_utf8_lossy(&script).contains("acquire"), "{shell}");
        }
    }
}
