//! `gpulease completions SHELL`: the completion script.

use clap::Args;
use clap_complete::Shell;

use crate::failure::Failure;
use crate::help::with_exit_codes;
use crate::options::Context;

pub(crate) const HELP: &str = with_exit_codes!(
    "Examples:\n",
    "  source <(gpulease completions bash)\n",
    "  gpulease completions zsh > ~/.zfunc/_gpulease\n",
    "  gpulease completions fish > ~/.config/fish/completions/gpulease.fish\n",
);

/// The options of `completions`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// The shell
    #[arg(value_enum, value_name = "SHELL")]
    shell: Shell,
}

pub(crate) fn completions(context: &Context, options: &Options) -> Result<(), Failure> {
    let mut script = Vec::new();
    let mut command = context.program.command().clone();
    let name = command.get_name().to_owned();
    clap_complete::generate(options.shell, &mut command, name, &mut script);
    context.output.text(&String::from_utf8_lossy(&script))
}
