//! `gpulease acknowledge ID --notice N`: the work has stopped, the devices are given back.

use clap::Args;

use crate::failure::Failure;
use crate::help::with_exit_codes;
use crate::options::Context;
use crate::{table, tokens, view};

pub(crate) const HELP: &str = with_exit_codes!(
    "For scripts that hold a lease by its number; `gpulease run` answers notices by its hooks.\n",
    "First stop the work and free its device memory: the devices are somebody else's right after.\n",
    "What comes back: PAUSED, keep renewing it, it resumes by itself; ENDED, where it may only end;\n",
    "ACTIVE, the notice was withdrawn, go on; PAUSING, a newer notice stands, answer that one.\n",
    "\nExamples:\n",
    "  gpulease acknowledge 17 --notice 3\n",
    "  gpulease acknowledge 17 --notice 3 --json | jq -r .state\n",
);

/// The options of `acknowledge`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// The lease's number
    #[arg(value_name = "ID")]
    id: u64,

    /// The notice's number, as `renew`, `show` and `leases --json` tell it
    #[arg(long, value_name = "N")]
    notice: u64,

    /// The fencing token of its grant [default: the one that was kept when it was acquired]
    #[arg(long, value_name = "TOKEN")]
    token: Option<u64>,
}

pub(crate) async fn acknowledge(context: &Context, options: &Options) -> Result<(), Failure> {
    let known = tokens::find(context, options.id, options.token);
    let Some(fencing_token) = known.fencing_token else {
        return Err(tokens::missing(context, options.id));
    };
    let client = context.connect().await?;
    let answer = client.acknowledge(options.id, fencing_token, options.notice).await?;
    let lease = view::Lease::from(&answer);
    if lease.state == "ENDED" {
        tokens::ended(context, options.id);
    }
    if context.output.json {
        return context.output.object(&lease);
    }
    context.output.text(&text(&lease, options.notice))
}

fn text(lease: &view::Lease, notice_id: u64) -> String {
    let id = &lease.id;
    match (lease.state.as_str(), &lease.notice) {
        ("PAUSED", _) => format!("lease {id} PAUSED: renew it, it gets devices again in its turn"),
        ("ACTIVE", _) => format!("lease {id} ACTIVE: notice {notice_id} was withdrawn, go on"),
        (_, Some(newer)) => {
            format!("lease {id} PAUSING: a newer notice stands: {}", table::notice(newer))
        }
        _ => format!("lease {id} {}", table::lease_state(lease)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::tests::{active_lease, standing_notice};

    #[test]
    fn an_answer_says_what_to_do_next() {
        let rows = [
            ("PAUSED", None, "lease 17 PAUSED: renew it, it gets devices again in its turn"),
            ("ACTIVE", None, "lease 17 ACTIVE: notice 2 was withdrawn, go on"),
            ("ENDED", None, "lease 17 ENDED"),
            (
                "PAUSING",
                Some(standing_notice()),
                "lease 17 PAUSING: a newer notice stands: 3, 12s left: lease 20 needs the devices",
            ),
        ];
        for (state, notice, expected) in rows {
            let lease = view::Lease { state: state.to_owned(), notice, ..active_lease() };
            assert_eq!(text(&lease, 2), expected);
        }
    }
}
