//! `gpulease renew ID`: the lease lives for its whole TTL again.

use clap::Args;

use crate::failure::Failure;
use crate::help::with_exit_codes;
use crate::options::Context;
use crate::{format, tokens, view};

pub(crate) const HELP: &str = with_exit_codes!(
    "The fencing token is found by itself for leases that this user acquired on this machine\n",
    "($XDG_STATE_HOME/gpulease/tokens.json).\n",
    "\nExamples:\n",
    "  gpulease renew 17\n",
    "  gpulease renew 17 --token 42\n",
);

/// The options of `renew`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// The lease's number
    #[arg(value_name = "ID")]
    id: u64,

    /// The fencing token of its grant [default: the one that was kept when it was acquired]
    #[arg(long, value_name = "TOKEN")]
    token: Option<u64>,
}

pub(crate) async fn renew(context: &Context, options: &Options) -> Result<(), Failure> {
    let known = tokens::find(context, options.id, options.token);
    let Some(fencing_token) = known.fencing_token else {
        return Err(tokens::missing(context, options.id));
    };
    let client = context.connect().await?;
    let renewed = client.renew(options.id, fencing_token).await?;
    tokens::renewed(context, known, renewed.fencing_token, renewed.remaining);
    if context.output.json {
        return context.output.object(&view::Renewal {
            id: renewed.lease_id.to_string(),
            fencing_token: renewed.fencing_token,
            remaining_seconds: renewed.remaining.as_secs_f64(),
        });
    }
    let left = format::duration(renewed.remaining);
    context.output.text(&format!("lease {} renewed, {left} left", renewed.lease_id))
}
