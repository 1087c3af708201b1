//! `gpulease processes`: who uses the devices, and which lease explains it.

use clap::Args;
use gpulease::{DeviceInfo, ProcessFilter};

use crate::failure::{Exit, Failure};
use crate::help::with_exit_codes;
use crate::options::Context;
use crate::table::{self, Style};
use crate::{convert, target, view};

pub(crate) const HELP: &str = with_exit_codes!(
    "MEMORY is device memory. LEASE is the lease that explains it: the process is one that the\n",
    "lease's holder declared, or was started by one; \"foreign\" where no lease does. Holders declare\n",
    "processes over the coordinator's Unix socket alone (--endpoint unix:///PATH); of one that came\n",
    "over TCP, memory is counted for its lease up to the size of the lease.\n",
    "Where processes cannot be told apart, that is said on stderr with the reason.\n",
    "\nExamples:\n",
    "  gpulease processes\n",
    "  gpulease processes --device box/0\n",
    "  gpulease processes --json | jq -c 'select(.lease_id == null) | {pid, user, memory_bytes}'\n",
);

/// The options of `processes`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Only those on this device, by UUID or as NODE/INDEX
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,

    /// Only those on the devices of this node
    #[arg(long, value_name = "NAME", conflicts_with = "device")]
    node: Option<String>,
}

pub(crate) async fn processes(context: &Context, options: &Options) -> Result<(), Failure> {
    let client = context.connect().await?;
    let devices = client.devices().await?.items;
    let device = options.device.as_ref().map(|word| target::uuid(word, &devices));
    check_known(device.as_deref(), options.node.as_deref(), &devices)?;
    let mut filter = ProcessFilter::default();
    if let Some(uuid) = &device {
        filter = filter.device(uuid);
    }
    if let Some(node) = &options.node {
        filter = filter.node(node);
    }
    let found = client.processes(filter).await?;
    let found: Vec<_> = found.iter().map(|process| convert::process(process, &devices)).collect();
    let shown: Vec<view::Device> = devices
        .iter()
        .filter(|known| device.as_ref().is_none_or(|uuid| known.uuid == *uuid))
        .filter(|known| options.node.as_ref().is_none_or(|node| known.node == *node))
        .map(Into::into)
        .collect();
    for line in table::attribution_off(&shown) {
        context.output.warn(&line);
    }
    if context.output.json {
        return found.iter().try_for_each(|process| context.output.object(process));
    }
    if found.is_empty() {
        context.output.note("No process is known to use these devices.");
        return Ok(());
    }
    context.output.text(&table::processes(&found, Style::of(&context.output)))
}

/// An answer without processes would read as if nobody were there.
fn check_known(
    device: Option<&str>,
    node: Option<&str>,
    devices: &[DeviceInfo],
) -> Result<(), Failure> {
    let unknown = |what: &str, name: &str| {
        let message =
            format!("cannot list the processes of {what} {name}: there is no such {what}");
        Err(Failure::new(Exit::NotFound, message).hint("gpulease devices lists what there is."))
    };
    match (device, node) {
        (Some(uuid), _) if !devices.iter().any(|known| known.uuid == uuid) => {
            unknown("device", uuid)
        }
        (_, Some(name)) if !devices.iter().any(|known| known.node == name) => unknown("node", name),
        _ => Ok(()),
    }
}
