//! The options that say how work gives way, and what they come to.
//!
//! | `--preemptible` | what happens on a notice |
//! |---|---|
//! | `never` | there is none |
//! | `pause` | `--on-pause` runs, then `--pause-signal` is sent; exit status 0 answers. Without a hook the process is to handle the signal by freeing its device memory and stopping itself: that it has stopped answers |
//! | `end` | the command gets SIGTERM, and the lease ends |
//!
//! Promises: a way that frees no memory is refused by name: stopping a process leaves its device memory as it is.

use clap::Args;
use gpulease::Preemptible;
use nix::sys::signal::Signal;

use crate::failure::Failure;
use crate::parse;
use crate::request::PreemptibleOption;

/// How the work gives way.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "How it gives way to others")]
pub(crate) struct PauseOptions {
    /// On a notice run this by `sh -c`; it makes the work give its device memory back. Exit status 0 answers the
    /// notice, anything else leaves it unanswered
    #[arg(long, value_name = "CMD")]
    on_pause: Option<String>,

    /// When devices are there again run this by `sh -c`; exit status 0 says that the work goes on with them
    #[arg(long, value_name = "CMD")]
    on_resume: Option<String>,

    /// On a notice send this signal, like USR1 or TSTP: after --on-pause where that is given; alone, the process
    /// must handle it by freeing its device memory and stopping itself (raise SIGSTOP), which answers the notice
    #[arg(long, value_name = "SIG", value_parser = parse::signal)]
    pause_signal: Option<Signal>,

    /// When devices are there again send this signal, before --on-resume [default: CONT with --pause-signal, else
    /// none]
    #[arg(long, value_name = "SIG", value_parser = parse::signal)]
    resume_signal: Option<Signal>,
}

/// How work gives way to a notice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Never,
    End,
    Pause(Pauses),
}

/// How work pauses and goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pauses {
    pub(super) on_pause: Option<String>,
    pub(super) on_resume: Option<String>,
    pub(super) pause_signal: Option<Signal>,
    pub(super) resume_signal: Option<Signal>,
}

impl Way {
    pub(crate) fn preemptible(&self) -> Preemptible {
        match self {
            Self::Never => Preemptible::Never,
            Self::End => Preemptible::End,
            Self::Pause(_) => Preemptible::Pause,
        }
    }
}

impl PauseOptions {
    /// What the options come to, together with `--preemptible`.
    pub(crate) fn way(&self, asked: Option<PreemptibleOption>) -> Result<Way, Failure> {
        let pauses = self.on_pause.is_some() || self.pause_signal.is_some();
        match asked {
            Some(PreemptibleOption::Pause) => self.pauses(),
            None if pauses => self.pauses(),
            None | Some(PreemptibleOption::Never) => self.unused("never").map(|()| Way::Never),
            Some(PreemptibleOption::End) => self.unused("end").map(|()| Way::End),
        }
    }

    fn pauses(&self) -> Result<Way, Failure> {
        let way = "say how it gives its device memory back: --on-pause CMD, a command that frees it \
                   (cuda-checkpoint, a call to an engine's sleep endpoint); or --pause-signal SIG, for a process \
                   that handles SIG by freeing it and stopping itself; or let it end: --preemptible end";
        if self.on_pause.is_none() {
            match self.pause_signal {
                None => {
                    let what =
                        "--preemptible pause needs more: stopping a process frees no device memory";
                    return Err(Failure::usage(what).hint(way));
                }
                Some(signal) if matches!(signal, Signal::SIGSTOP | Signal::SIGKILL) => {
                    let what = format!(
                        "--pause-signal {signal} alone cannot work: no process can handle it, and stopping one \
                         frees no device memory"
                    );
                    return Err(Failure::usage(what).hint(way));
                }
                Some(_) => {}
            }
        }
        let go_on = self.pause_signal.map(|_| Signal::SIGCONT);
        Ok(Way::Pause(Pauses {
            on_pause: self.on_pause.clone(),
            on_resume: self.on_resume.clone(),
            pause_signal: self.pause_signal,
            resume_signal: self.resume_signal.or(go_on),
        }))
    }

    /// Refuses options that could never come into play.
    fn unused(&self, preemptible: &str) -> Result<(), Failure> {
        let given = [
            (self.on_pause.is_some(), "--on-pause"),
            (self.pause_signal.is_some(), "--pause-signal"),
            (self.on_resume.is_some(), "--on-resume"),
            (self.resume_signal.is_some(), "--resume-signal"),
        ];
        match given.into_iter().find(|(given, _)| *given) {
            None => Ok(()),
            Some((_, name)) => {
                let what = format!("{name} has no effect with --preemptible {preemptible}");
                Err(Failure::usage(what).hint("It goes with --preemptible pause."))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[arg(long, value_enum)]
        preemptible: Option<PreemptibleOption>,
        #[command(flatten)]
        pauses: PauseOptions,
    }

    fn way(line: &str) -> Result<Way, String> {
        let words = std::iter::once("run").chain(line.split_whitespace());
        let line = Line::try_parse_from(words).map_err(|error| error.to_string())?;
        line.pauses.way(line.preemptible).map_err(|failure| failure.message().to_owned())
    }

    fn refused(line: &str, word: &str) {
        let refusal = way(line).expect_err(line);
        assert!(refusal.contains(word), "{line}: {refusal}");
    }

    #[test]
    fn saying_how_it_pauses_is_enough() {
        let pauses = Pauses { on_pause: Some("sync".to_owned()), ..Pauses::default() };
        assert_eq!(way("--on-pause sync"), Ok(Way::Pause(pauses.clone())));
        assert_eq!(way("--preemptible pause --on-pause sync"), Ok(Way::Pause(pauses)));
        assert_eq!(way(""), Ok(Way::Never));
        assert_eq!(way("--preemptible end"), Ok(Way::End));
    }

    #[test]
    fn a_signal_comes_with_one_to_go_on() {
        let signals = |pause, resume| {
            let (pause_signal, resume_signal) = (Some(pause), Some(resume));
            Ok(Way::Pause(Pauses { pause_signal, resume_signal, ..Pauses::default() }))
        };
        assert_eq!(way("--pause-signal USR1"), signals(Signal::SIGUSR1, Signal::SIGCONT));
        assert_eq!(
            way("--pause-signal sigtstp --resume-signal 12"),
            signals(Signal::SIGTSTP, Signal::SIGUSR2)
        );
    }

    #[test]
    fn what_frees_no_memory_is_refused() {
        refused("--preemptible pause", "frees no device memory");
        refused("--pause-signal STOP", "no process can handle it");
        refused("--preemptible pause --on-resume sync", "frees no device memory");
        assert!(way("--on-pause sync --pause-signal STOP").is_ok());
    }

    #[test]
    fn what_cannot_come_into_play_is_refused() {
        refused("--on-resume sync", "--on-resume has no effect with --preemptible never");
        refused("--preemptible never --on-pause sync", "--on-pause has no effect");
        refused("--preemptible end --pause-signal USR1", "--pause-signal has no effect");
        refused("--pause-signal PAUSE", "not a signal");
    }
}
