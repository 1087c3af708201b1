//! `gpulease devices`: what there is, how much of it is leased, by whom.

use clap::Args;
use gpulease::Client;

use crate::failure::Failure;
use crate::help::with_exit_codes;
use crate::options::Context;
use crate::table::{self, Style};
use crate::{view, watching};

pub(crate) const HELP: &str = with_exit_codes!(
    "Columns (sizes in binary units: 1GiB = 2^30 bytes):\n",
    "  TOTAL    all memory of the device\n",
    "  LEASED   memory that leases hold; \"whole\" where one lease holds the device whole\n",
    "  FOREIGN  memory in use that no lease explains; - where it is unknown, ≥ where it is a lower\n",
    "           bound: memory is not attributed to processes there, and the reason stands below\n",
    "  FREE     memory that could be granted now; - where it is unknown\n",
    "  SLOTS    slots leased / slots there are\n",
    "  OWNER    the service that owns the device, where any has an owner\n",
    "  STATE    AVAILABLE; CORDONED, no new grants; DRAINING, and holders were given notice; CLOSED,\n",
    "           after an import of the journal; STALE, UNREACHABLE, UNAVAILABLE: trouble\n",
    "  LEASES   ids of the leases on it; closed:ID, a part that a former lease may still use;\n",
    "           kept:ID, kept for a waiting request\n",
    "\nExamples:\n",
    "  gpulease devices\n",
    "  gpulease devices --watch\n",
    "  gpulease devices --json | jq -r 'select(.state == \"AVAILABLE\").uuid'\n",
);

/// The options of `devices`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Keep showing them, as they change; with --json: each device again when it changed
    #[arg(long)]
    watch: bool,
}

pub(crate) async fn devices(context: &Context, options: &Options) -> Result<(), Failure> {
    let client = context.connect().await?;
    match (options.watch, context.output.json) {
        (true, true) => watch_objects(context, &client).await,
        (true, false) => {
            watching::redraw(context, &client, async || text(context, &client).await).await
        }
        (false, true) => {
            let (devices, _) = list(&client).await?;
            devices.iter().try_for_each(|device| context.output.object(device))
        }
        (false, false) => context.output.text(&text(context, &client).await?),
    }
}

async fn list(client: &Client) -> Result<(Vec<view::Device>, u64), Failure> {
    let listing = client.devices().await?;
    Ok((listing.items.iter().map(Into::into).collect(), listing.revision))
}

async fn text(context: &Context, client: &Client) -> Result<String, Failure> {
    let (devices, _) = list(client).await?;
    if devices.is_empty() {
        context.output.note(
            "The coordinator knows no devices: no usable driver was found on its host.\nTo try it \
             with simulated ones: gpulease serve --simulate 2x24GiB",
        );
    }
    Ok(table::devices(&devices, Style::of(&context.output)))
}

/// Each device once, then each that an event changed.
async fn watch_objects(context: &Context, client: &Client) -> Result<(), Failure> {
    let (mut shown, revision) = list(client).await?;
    shown.iter().try_for_each(|device| context.output.object(device))?;
    let mut events = client.watch(Some(revision)).await?;
    loop {
        watching::next(&mut events).await?;
        let (devices, _) = list(client).await?;
        for device in &devices {
            if !shown.iter().any(|before| lasting(before) == lasting(device)) {
                context.output.object(device)?;
            }
        }
        shown = devices;
    }
}

/// The device without what every measurement changes.
fn lasting(device: &view::Device) -> view::Device {
    view::Device { memory_used_bytes: None, sample_age_seconds: None, ..device.clone() }
}
