//! `gpulease drain`: a device or node gets no new grants, and its holders are asked to go.

use std::collections::BTreeSet;

use clap::Args;
use gpulease::{Client, Drained, Target};

use crate::failure::Failure;
use crate::help::with_exit_codes;
use crate::options::Context;
use crate::target::{self, Named};
use crate::{view, watching};

pub(crate) const HELP: &str = with_exit_codes!(
    "A cordon, and a notice to every holder that may be preempted: those of mode pause wait for\n",
    "devices elsewhere, those of mode end are over. Leases that may never be preempted stay until\n",
    "they end; `gpulease revoke ID --reason TEXT` ends them. A drain outlives restarts;\n",
    "`gpulease uncordon` takes it back. With --wait it returns when no lease holds anything there\n",
    "and nothing is closed there: then the card may be pulled. It waits for as long as that takes.\n",
    "\nExamples:\n",
    "  gpulease drain box/0 --reason 'replace the riser' --wait\n",
    "  gpulease drain box --reason 'driver 580.82'\n",
    "  timeout 300 gpulease drain box --wait && ssh box sudo reboot\n",
);

/// The options of `drain`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// A device, by UUID or as NODE/INDEX, or a whole node, by name
    #[arg(value_name = "DEVICE|NODE")]
    target: String,

    /// Why: `devices` shows it
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,

    /// Return when nobody holds anything there any more
    #[arg(long)]
    wait: bool,
}

pub(crate) async fn drain(context: &Context, options: &Options) -> Result<(), Failure> {
    let client = context.connect().await?;
    let named = Named::of(&client, &options.target).await?;
    let drained = client.drain(&named.target, &options.reason).await?;
    let drain = of(&options.target, &drained);
    if context.output.json {
        context.output.object(&drain)?;
    } else {
        context.output.text(&text(&named.target, &drain))?;
    }
    if options.wait {
        wait_until_empty(context, &client, &named.target).await?;
        context.output.note(&format!("{} is empty", named.target));
    }
    Ok(())
}

fn of(target: &str, drained: &Drained) -> view::Drain {
    let ids = |ids: &[u64]| ids.iter().map(u64::to_string).collect();
    view::Drain {
        target: target.to_owned(),
        drain: true,
        staying: ids(&drained.staying),
        noticed: ids(&drained.noticed),
        later: ids(&drained.later),
    }
}

fn text(target: &Target, drain: &view::Drain) -> String {
    let mut lines = vec![format!("{target} is drained: no new grants")];
    let mut add = |what: &str, ids: &[String]| {
        if !ids.is_empty() {
            lines.push(format!("  {what}: {}", ids.join(" ")));
        }
    };
    add("asked to go", &drain.noticed);
    add("asked once their minimum hold is over", &drain.later);
    add("staying, since they may never be preempted", &drain.staying);
    if [&drain.noticed, &drain.later, &drain.staying].iter().all(|ids| ids.is_empty()) {
        lines.push("  nothing is held there".to_owned());
    }
    lines.join("\n")
}

/// Waits until no lease holds or closes any of it, and says who still does when that changes.
async fn wait_until_empty(
    context: &Context,
    client: &Client,
    target: &Target,
) -> Result<(), Failure> {
    let mut events = client.watch(None).await?;
    let mut said = BTreeSet::new();
    loop {
        let devices = client.devices().await?.items;
        let busy = devices.iter().filter(|device| target::concerns(target, device));
        let left: BTreeSet<u64> = busy
            .flat_map(|device| device.lease_ids.iter().chain(&device.closed_by).copied())
            .collect();
        if left.is_empty() {
            return Ok(());
        }
        if left != said {
            let ids: Vec<String> = left.iter().map(u64::to_string).collect();
            context.output.note(&format!("waiting for leases: {}", ids.join(" ")));
            said = left;
        }
        watching::next(&mut events).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_names_who_goes_and_who_stays() {
        let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect();
        let target = Target::Node("box".to_owned());
        let empty = view::Drain { target: "box".to_owned(), drain: true, ..Default::default() };
        assert_eq!(
            text(&target, &empty),
            "node box is drained: no new grants\n  nothing is held there"
        );
        let held = view::Drain { noticed: ids(&["3", "4"]), staying: ids(&["9"]), ..empty.clone() };
        assert_eq!(
            text(&target, &held),
            "node box is drained: no new grants\n  asked to go: 3 4\
             \n  staying, since they may never be preempted: 9"
        );
    }
}
