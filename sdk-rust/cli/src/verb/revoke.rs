//! `gpulease revoke ID --reason …`: ends anybody's lease.

use clap::Args;

use crate::failure::Failure;
use crate::help::with_exit_codes;
use crate::options::Context;
use crate::{table, tokens, view};

pub(crate) const HELP: &str = with_exit_codes!(
    "For operators: the holder is told at once and has lost the lease. What it held stays closed\n",
    "(RECLAIMING) until it is safe to give to somebody else: about 15 s, unless its processes are\n",
    "seen to have ended before.\n",
    "\nExamples:\n",
    "  gpulease revoke 17 --reason 'the node goes into maintenance at 18:00'\n",
);

/// The options of `revoke`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// The lease's number
    #[arg(value_name = "ID")]
    id: u64,

    /// Why: the holder and the lease's history get to read it
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

pub(crate) async fn revoke(context: &Context, options: &Options) -> Result<(), Failure> {
    let client = context.connect().await?;
    let lease = view::Lease::from(&client.revoke(options.id, &options.reason).await?);
    tokens::ended(context, options.id);
    if context.output.json {
        return context.output.object(&lease);
    }
    context.output.text(&format!("lease {} {}", lease.id, table::lease_state(&lease)))
}
