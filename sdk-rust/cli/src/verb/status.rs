//! `gpulease status`: how the coordinator is, in figures.

use std::time::Duration;

use clap::Args;

use crate::failure::Failure;
use crate::help::with_exit_codes;
use crate::options::Context;
use crate::table::{self, Style};
use crate::{convert, format, view};

pub(crate) const HELP: &str =
    with_exit_codes!("Examples:\n", "  gpulease status\n", "  gpulease status --config\n",);

/// The options of `status`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Print the configuration in force instead, defaults included, as TOML
    #[arg(long)]
    config: bool,
}

pub(crate) async fn status(context: &Context, options: &Options) -> Result<(), Failure> {
    let client = context.connect().await?;
    if options.config {
        let toml = client.configuration().await?;
        if context.output.json {
            return context.output.object(&serde_json::json!({ "toml": toml }));
        }
        return context.output.text(&toml);
    }
    let status = convert::status(&context.endpoint, &client.status().await?);
    if context.output.json {
        return context.output.object(&status);
    }
    context.output.text(&table::pairs(&figures(&status), Style::of(&context.output)))
}

fn figures(status: &view::Status) -> Vec<(&'static str, String)> {
    let uptime = Duration::try_from_secs_f64(status.uptime_seconds).unwrap_or_default();
    let data = status.data_directory.as_deref().unwrap_or("in memory only");
    vec![
        ("coordinator", format!("{}, version {}", status.endpoint, status.version)),
        ("up", format::duration(uptime)),
        ("data", data.to_owned()),
        ("revision", format!("{} (kept from {})", status.revision, status.revision_oldest)),
        ("backend", status.backend.clone()),
        ("nodes", status.nodes.to_string()),
        ("devices", format!("{}, {} available", status.devices, status.devices_available)),
        (
            "leases",
            format!(
                "{} active, {} pausing, {} paused, {} queued, {} reclaiming, {} ended",
                status.leases_active,
                status.leases_pausing,
                status.leases_paused,
                status.leases_queued,
                status.leases_reclaiming,
                status.leases_ended
            ),
        ),
        ("sessions", status.sessions.to_string()),
        ("grants", status.grants_total.to_string()),
        ("newest token", status.fencing_token.to_string()),
    ]
}
