//! `gpulease renew ID`: the lease lives for its whole TTL again; what is asked of its holder is shown.

use clap::Args;

use crate::failure::Failure;
use crate::help::with_exit_codes;
use crate::options::Context;
use crate::{convert, format, table, tokens, view};

pub(crate) const HELP: &str = with_exit_codes!(
    "The fencing token is found by itself for leases that this user acquired on this machine\n",
    "($XDG_STATE_HOME/gpulease/tokens.json); a resumed lease's new token is kept there.\n",
    "A PAUSING lease has a notice: stop, give the memory back, then `gpulease acknowledge`.\n",
    "\nExamples:\n",
    "  gpulease renew 17\n",
    "  gpulease renew 17 --token 42\n",
    "  gpulease renew 17 --json | jq -r 'select(.notice).notice.id'\n",
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
    let renewal = convert::renewal(&renewed);
    if context.output.json {
        return context.output.object(&renewal);
    }
    context.output.text(&text(&renewal))
}

/// The renewal in words, and what it brought.
fn text(renewal: &view::Renewal) -> String {
    let id = &renewal.id;
    let left = table::seconds(renewal.remaining_seconds).unwrap_or_default();
    let mut lines = vec![format!("lease {id} renewed, {} left", format::duration(left))];
    if let Some(lease) = &renewal.resumed {
        lines.push(format!("lease {id} was resumed: its token is now {}", renewal.fencing_token));
        lines.extend(lease.devices.iter().map(table::device_line));
    }
    if let Some(notice) = &renewal.notice {
        lines.push(format!(
            "lease {id} is to give its devices back: notice {}",
            table::notice(notice)
        ));
        lines.push(format!("stop, then: gpulease acknowledge {id} --notice {}", notice.id));
    }
    if renewal.state.as_deref() == Some("PAUSED") {
        lines.push(format!("lease {id} is paused and holds no devices now"));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::tests::{active_lease, standing_notice};

    fn check(state: &str, change: impl FnOnce(&mut view::Renewal), expected: &str) {
        let mut renewal = view::Renewal {
            id: "17".to_owned(),
            fencing_token: 42,
            remaining_seconds: 30.0,
            state: Some(state.to_owned()),
            notice: None,
            resumed: None,
        };
        change(&mut renewal);
        assert_eq!(text(&renewal), format!("lease 17 renewed, 30s left{expected}"));
    }

    #[test]
    fn a_renewal_tells_what_it_brought() {
        check("ACTIVE", |_| (), "");
        check("PAUSED", |_| (), "\nlease 17 is paused and holds no devices now");
        check(
            "PAUSING",
            |renewal| renewal.notice = Some(standing_notice()),
            "\nlease 17 is to give its devices back: notice 3, 12s left: lease 20 needs the devices\
             \nstop, then: gpulease acknowledge 17 --notice 3",
        );
        check(
            "ACTIVE",
            |renewal| renewal.resumed = Some(Box::new(active_lease())),
            "\nlease 17 was resumed: its token is now 42\nbox/0  H100  8.0GiB  GPU-1",
        );
    }
}
