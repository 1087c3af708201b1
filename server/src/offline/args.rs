//! The command line of `gpulease journal`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

macro_rules! with_exit_codes {
    ($text:literal) => {
        concat!(
            $text,
            "\n\nExit codes: 0 done, and nothing is damaged or lost; 1 failed; 2 bad usage or configuration;\n",
            "3 a coordinator is running on the data directory; 4 something is damaged or lost, see the output.",
        )
    };
}

/// How `gpulease journal` was called.
#[derive(Args, Clone, Debug)]
pub struct JournalArgs {
    #[command(subcommand)]
    pub(super) verb: Verb,
}

#[derive(Clone, Debug, Subcommand)]
pub(super) enum Verb {
    /// Say how a journal is, and what to do if it is damaged; changes nothing
    #[command(after_help = with_exit_codes!(
        "Checks every checksum, applies every batch, and starts a coordinator's recovery on a copy in the\n\
         directory for temporary files.\n\n\
         Examples:\n  gpulease journal check\n  gpulease journal check --data /var/lib/gpulease --json"
    ))]
    Check(Place),
    /// Write a journal, or what is left of a damaged one, to a plain file; changes nothing
    #[command(after_help = with_exit_codes!(
        "The file has one JSON object per line, each with a checksum. It holds fencing tokens, so only its\n\
         owner may read it. Exit code 4 says that the file was written and lacks something.\n\n\
         Examples:\n  gpulease journal export --data /var/lib/gpulease --to journal.export"
    ))]
    Export(ExportArgs),
    /// Make a journal in an empty data directory from an export
    #[command(after_help = with_exit_codes!(
        "Leases may live that the export does not know. So the import raises the fencing tokens by 2^32 and\n\
         closes every device for the longest TTL found (24 h if there is none to be found) plus the lock\n\
         delay, counted from the first start of a coordinator. A reboot of its node, or `gpulease open`,\n\
         opens a device earlier.\n\n\
         Examples:\n  gpulease journal import --from journal.export --data /var/lib/gpulease\n  \
         gpulease journal import --from journal.export --data /var/lib/gpulease --salvage"
    ))]
    Import(ImportArgs),
}

/// Where the journal is.
#[derive(Args, Clone, Debug)]
pub(super) struct Place {
    /// The data directory of the coordinator [default: the one that serve would use]
    #[arg(long, value_name = "DIRECTORY")]
    pub(super) data: Option<PathBuf>,
    /// The configuration file of the coordinator [environment: GPULEASE_CONFIG]
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

#[derive(Args, Clone, Debug)]
pub(super) struct ExportArgs {
    #[command(flatten)]
    pub(super) place: Place,
    /// The file to write; it must not be there yet
    #[arg(long, value_name = "FILE")]
    pub(super) to: PathBuf,
}

#[derive(Args, Clone, Debug)]
pub(super) struct ImportArgs {
    #[command(flatten)]
    pub(super) place: Place,
    /// The export to read
    #[arg(long, value_name = "FILE")]
    pub(super) from: PathBuf,
    /// Go on without what is damaged or lost; the output says what that is
    #[arg(long)]
    pub(super) salvage: bool,
}
