//! `gpulease release ID`: ends a lease, or leaves the queue.

use clap::Args;

use crate::failure::{Exit, Failure};
use crate::help::with_exit_codes;
use crate::options::Context;
use crate::{tokens, view};

pub(crate) const HELP: &str = with_exit_codes!(
    "The fencing token is found by itself for leases that this user acquired on this machine\n",
    "($XDG_STATE_HOME/gpulease/tokens.json); a queued lease needs none.\n",
    "\nExamples:\n",
    "  gpulease release 17\n",
    "  gpulease release 17 --token 42\n",
);

/// The options of `release`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// The lease's number
    #[arg(value_name = "ID")]
    id: u64,

    /// The fencing token of its grant [default: the one that was kept when it was acquired]
    #[arg(long, value_name = "TOKEN")]
    token: Option<u64>,
}

pub(crate) async fn release(context: &Context, options: &Options) -> Result<(), Failure> {
    let known = tokens::find(context, options.id, options.token);
    let client = context.connect().await?;
    let released = client.release(options.id, known.fencing_token).await;
    let lease = view::Lease::from(&released.map_err(|error| {
        let failure = Failure::from(error);
        match known.fencing_token {
            None if !failure.is(Exit::NotFound) => failure.hint(tokens::MISSING_HINT),
            _ => failure,
        }
    })?);
    tokens::ended(context, options.id);
    if context.output.json {
        return context.output.object(&lease);
    }
    let reason = lease.end_reason.as_deref().unwrap_or(&lease.state).to_lowercase();
    context.output.text(&format!("lease {} {reason}", lease.id))
}
