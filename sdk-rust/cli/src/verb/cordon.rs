//! `gpulease cordon` and `gpulease uncordon`: a device or node gets no new grants, and gets them again.

use clap::Args;

use crate::failure::Failure;
use crate::help::with_exit_codes;
use crate::options::Context;
use crate::target::Named;
use crate::view;

pub(crate) const HELP: &str = with_exit_codes!(
    "Holders keep what they have; `gpulease drain` asks them to go as well. A cordon outlives\n",
    "restarts; `gpulease uncordon` takes it back.\n",
    "\nExamples:\n",
    "  gpulease cordon box/0 --reason 'fan is loud'\n",
    "  gpulease cordon GPU-8d1f6cf6-0e1c-4d0f-9a35-2f6ac1d3c0aa\n",
    "  gpulease cordon box --json | jq -r '.staying[]'\n",
);

pub(crate) const UNCORDON_HELP: &str = with_exit_codes!(
    "Takes a drain back too: its notices are withdrawn, and holders that have not answered go on.\n",
    "\nExamples:\n",
    "  gpulease uncordon box/0\n",
    "  gpulease uncordon box\n",
);

/// The options of `cordon`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// A device, by UUID or as NODE/INDEX, or a whole node, by name
    #[arg(value_name = "DEVICE|NODE")]
    target: String,

    /// Why: `devices` shows it
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
}

/// The options of `uncordon`.
#[derive(Args, Clone, Debug)]
pub struct UncordonOptions {
    /// A device, by UUID or as NODE/INDEX, or a whole node, by name
    #[arg(value_name = "DEVICE|NODE")]
    target: String,
}

pub(crate) async fn cordon(context: &Context, options: &Options) -> Result<(), Failure> {
    let client = context.connect().await?;
    let named = Named::of(&client, &options.target).await?;
    let holders = client.cordon(&named.target, &options.reason).await?;
    let cordoned = view::Drain {
        target: options.target.clone(),
        staying: holders.iter().map(u64::to_string).collect(),
        ..view::Drain::default()
    };
    if context.output.json {
        return context.output.object(&cordoned);
    }
    let held = match cordoned.staying.join(" ") {
        ids if ids.is_empty() => "nothing is held there".to_owned(),
        ids => format!("held there until they end: {ids}"),
    };
    context.output.text(&format!("{} is cordoned: no new grants; {held}", named.target))
}

pub(crate) async fn uncordon(context: &Context, options: &UncordonOptions) -> Result<(), Failure> {
    let client = context.connect().await?;
    let named = Named::of(&client, &options.target).await?;
    client.uncordon(&named.target).await?;
    let now = Named::of(&client, &options.target).await?;
    let still = now.own_devices().filter(|device| device.cordon.is_some()).count();
    if context.output.json {
        return context.output.object(&serde_json::json!({
            "target": options.target,
            "devices_still_cordoned": still,
        }));
    }
    context.output.text(&format!("{} is no longer cordoned", named.target))?;
    if still > 0 {
        context.output.note(&format!(
            "{still} of its devices still are, by a cordon of their own or of their node: see \
             `gpulease devices`"
        ));
    }
    Ok(())
}
