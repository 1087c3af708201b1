//! `gpulease queue`: who waits, in which order, held back by what, and what every service uses.

use clap::Args;
use gpulease::Client;

use crate::failure::Failure;
use crate::help::with_exit_codes;
use crate::options::Context;
use crate::table::{self, Style};
use crate::{view, watching};

pub(crate) const HELP: &str = with_exit_codes!(
    "CLASS is the priority, or what waiting raised it to; owners on their own devices go first. Within\n",
    "a class resumed leases go first, then the service that used less of late by its weight, then who\n",
    "came first. KEPT: devices are set aside for it. FORECAST: when it should get them, at the\n",
    "earliest; `gpulease explain ID` says on what that rests. HELD BACK: a quota of its service.\n",
    "\nExamples:\n",
    "  gpulease queue\n",
    "  gpulease queue --service train --limit 10\n",
    "  gpulease queue --watch\n",
    "  gpulease queue --json | jq '.services[] | {service, usage_gib_hours}'\n",
);

/// The options of `queue`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// At most so many from the front
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,

    /// Only this service's, with their places among all
    #[arg(long, value_name = "NAME")]
    service: Option<String>,

    /// Keep showing it, as it changes
    #[arg(long, conflicts_with = "json")]
    watch: bool,
}

pub(crate) async fn queue(context: &Context, options: &Options) -> Result<(), Failure> {
    let client = context.connect().await?;
    if options.watch {
        let draw =
            async || read(&client, options).await.map(|queue| text(context, options, &queue));
        return watching::redraw(context, &client, draw).await;
    }
    let queue = read(&client, options).await?;
    if context.output.json {
        return context.output.object(&queue);
    }
    context.output.text(&text(context, options, &queue))
}

async fn read(client: &Client, options: &Options) -> Result<view::Queue, Failure> {
    let queue = client.queue(options.limit, options.service.as_deref()).await?;
    Ok(view::Queue::from(&queue))
}

fn text(context: &Context, options: &Options, queue: &view::Queue) -> String {
    let style = Style::of(&context.output);
    let shown = queue.entries.len() as u64;
    let mut parts = Vec::new();
    if queue.entries.is_empty() {
        parts.push(match queue.waiting {
            0 => "Nobody waits.".to_owned(),
            waiting => format!("{waiting} wait, none of them here."),
        });
    } else {
        parts.push(table::queue(queue, style));
    }
    // Of one service, those of others are not missing.
    let waiting = match &options.service {
        Some(only) => (queue.services.iter())
            .find(|share| share.service == *only)
            .map_or(shown, |share| share.waiting.used),
        None => queue.waiting,
    };
    if shown > 0 && waiting > shown {
        parts.push(format!("{shown} of {waiting} that wait."));
    }
    if !queue.services.is_empty() {
        parts.push(table::services(queue, style));
    }
    parts.join("\n\n")
}
