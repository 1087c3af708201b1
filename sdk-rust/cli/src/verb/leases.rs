//! `gpulease leases`: state, holder, devices, time left.

use std::collections::BTreeSet;

use clap::Args;
use gpulease::{Client, Event, EventBatch, LeaseFilter};

use crate::failure::{Exit, Failure};
use crate::help::with_exit_codes;
use crate::options::Context;
use crate::table::{self, Style};
use crate::{view, watching};

pub(crate) const HELP: &str = with_exit_codes!(
    "States:\n",
    "  QUEUED #N   waits for devices, N is its place\n",
    "  ACTIVE      holds its devices\n",
    "  PAUSING 12s holds its devices and is to give them back within that time: it has a notice\n",
    "  PAUSED      gave its devices back and keeps the lease: it gets devices again in its turn\n",
    "  RECLAIMING  ended uncleanly: its part of each device stays closed until it is safe\n",
    "  ENDED       over, with the reason (RELEASED, EXPIRED, REVOKED, CANCELLED, WAIT_OVER, …)\n",
    "LEFT is how long a lease lives without a renewal, or how long a queued one still waits.\n",
    "PREEMPTIBLE is there where some lease may be: never, pause or end.\n",
    "\nExamples:\n",
    "  gpulease leases\n",
    "  gpulease leases --all --service train\n",
    "  gpulease leases --watch --json | jq -c '{id, state}'\n",
);

/// The options of `leases`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Ended leases as well, as long as their records are kept (1 h, the newest 100,000)
    #[arg(long)]
    all: bool,

    /// Only this service's
    #[arg(long, value_name = "NAME")]
    service: Option<String>,

    /// Keep showing them, as they change; with --json: each lease again when it changed
    #[arg(long)]
    watch: bool,
}

pub(crate) async fn leases(context: &Context, options: &Options) -> Result<(), Failure> {
    let client = context.connect().await?;
    match (options.watch, context.output.json) {
        (true, true) => watch_objects(context, &client, options).await,
        (true, false) => {
            watching::redraw(context, &client, async || text(context, &client, options).await).await
        }
        (false, true) => {
            let (leases, _) = list(&client, options).await?;
            leases.iter().try_for_each(|lease| context.output.object(lease))
        }
        (false, false) => context.output.text(&text(context, &client, options).await?),
    }
}

async fn list(client: &Client, options: &Options) -> Result<(Vec<view::Lease>, u64), Failure> {
    let mut filter = if options.all { LeaseFilter::all() } else { LeaseFilter::default() };
    if let Some(service) = &options.service {
        filter = filter.service(service);
    }
    let listing = client.leases(filter).await?;
    Ok((listing.items.iter().map(Into::into).collect(), listing.revision))
}

async fn text(context: &Context, client: &Client, options: &Options) -> Result<String, Failure> {
    let (leases, _) = list(client, options).await?;
    Ok(table::leases(&leases, Style::of(&context.output)))
}

/// Each lease once, then each that an event is about, as it is then.
async fn watch_objects(
    context: &Context,
    client: &Client,
    options: &Options,
) -> Result<(), Failure> {
    let (leases, revision) = list(client, options).await?;
    leases.iter().try_for_each(|lease| context.output.object(lease))?;
    let mut events = client.watch(Some(revision)).await?;
    loop {
        for lease_id in changed(&watching::next(&mut events).await?, options) {
            match client.lease(lease_id).await.map_err(Failure::from) {
                Ok(detail) => context.output.object(&view::Lease::from(&detail.lease))?,
                // Its record was dropped since.
                Err(failure) if failure.is(Exit::NotFound) => {}
                Err(failure) => return Err(failure),
            }
        }
    }
}

/// The leases that a batch is about, and that the options ask for.
fn changed(batch: &EventBatch, options: &Options) -> BTreeSet<u64> {
    let wanted = |service: &str| options.service.as_ref().is_none_or(|only| only == service);
    let lease_id = |event: &Event| match event {
        Event::Lease(event) if wanted(&event.service) => Some(event.lease_id),
        _ => None,
    };
    batch.events.iter().filter_map(lease_id).collect()
}
