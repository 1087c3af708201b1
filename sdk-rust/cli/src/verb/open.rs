//! `gpulease open DEVICE`: opens what former leases closed, on the operator's word.

use clap::Args;

use crate::failure::Failure;
use crate::help::with_exit_codes;
use crate::options::Context;
use crate::{target, view};

pub(crate) const HELP: &str = with_exit_codes!(
    "Parts of a device stay closed while a former lease's processes may still use them, and all of\n",
    "it after an import of the journal. They open by themselves; this opens them now, on your word\n",
    "that nothing of those leases runs there. If you are wrong, two programs share memory that each\n",
    "takes for its own. `gpulease processes --device DEVICE` shows who is there.\n",
    "\nExamples:\n",
    "  gpulease open box/0 --reason 'rebooted the box by hand'\n",
    "  gpulease devices --json | jq -r 'select(.closed_by != []).uuid'\n",
);

/// The options of `open`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// The device, by UUID or as NODE/INDEX
    #[arg(value_name = "DEVICE")]
    device: String,

    /// Why it is safe: the device's history keeps it
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

pub(crate) async fn open(context: &Context, options: &Options) -> Result<(), Failure> {
    let client = context.connect().await?;
    let uuid = target::uuid(&options.device, &client.devices().await?.items);
    let lease_ids = client.open_device(&uuid, &options.reason).await?;
    let opened = view::Opened {
        device_uuid: uuid,
        lease_ids: lease_ids.iter().map(u64::to_string).collect(),
    };
    if context.output.json {
        return context.output.object(&opened);
    }
    let of = match opened.lease_ids.join(" ") {
        ids if ids.is_empty() => "no former lease had a part of it".to_owned(),
        ids => format!("parts of former leases: {ids}"),
    };
    context.output.text(&format!("device {} is open: {of}", opened.device_uuid))
}
