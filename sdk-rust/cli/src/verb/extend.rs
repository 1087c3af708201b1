//! `gpulease extend ID --notice N`: more time to answer a notice.

use std::time::Duration;

use clap::Args;

use crate::failure::Failure;
use crate::help::with_exit_codes;
use crate::options::Context;
use crate::{parse, table, tokens, view};

pub(crate) const HELP: &str = with_exit_codes!(
    "Once for each notice, at most doubling it, never past the coordinator's leases.notice_max:\n",
    "less is given where more was asked for. A hook of `gpulease run --on-pause` may call it.\n",
    "\nExamples:\n",
    "  gpulease extend 17 --notice 3 --by 20s\n",
    "  gpulease extend $GPULEASE_LEASE_ID --notice $GPULEASE_NOTICE_ID\n",
);

/// The options of `extend`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// The lease's number
    #[arg(value_name = "ID")]
    id: u64,

    /// The notice's number
    #[arg(long, value_name = "N")]
    notice: u64,

    /// How much longer, like 20s
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = parse::duration)]
    by: Duration,

    /// The fencing token of its grant [default: the one that was kept when it was acquired]
    #[arg(long, value_name = "TOKEN")]
    token: Option<u64>,
}

pub(crate) async fn extend(context: &Context, options: &Options) -> Result<(), Failure> {
    let known = tokens::find(context, options.id, options.token);
    let Some(fencing_token) = known.fencing_token else {
        return Err(tokens::missing(context, options.id));
    };
    let client = context.connect().await?;
    let answer =
        client.extend_notice(options.id, fencing_token, options.notice, options.by).await?;
    let lease = view::Lease::from(&answer);
    if context.output.json {
        return context.output.object(&lease);
    }
    let notice = lease.notice.as_ref().map(table::notice);
    let text =
        notice.map_or_else(|| table::lease_state(&lease), |notice| format!("notice {notice}"));
    context.output.text(&format!("lease {}: {text}", lease.id))
}
