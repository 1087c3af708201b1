//! `gpulease plan FILE`: where many pipelines would go, and their leases, all of them or none.

use std::{path::PathBuf, pin::pin, sync::Arc, time::Duration};

use clap::Args;
use gpulease::{Client, Lease, Pipeline, Reservation, ReservedPlan};
use tokio::task::JoinSet;

use crate::failure::{Exit, Failure};
use crate::help::with_exit_codes;
use crate::options::{Context, Identity};
use crate::request::{PreemptibleOption, PriorityOption};
use crate::signals::Stop;
use crate::table::{self, Style};
use crate::verb::acquire::{entry, follow};
use crate::{format, grant, parse, plan_file, tokens, view};

pub(crate) const HELP: &str = with_exit_codes!(
    "Each pipeline gets one device (or one node, with scope = \"node\") for all its steps, the largest\n",
    "first, each where the load is least after it. Steps one after the other need the largest of each\n",
    "figure, steps_overlap = true their sum. Steps on the CPU (numpy, cpu) take no device. Nothing is\n",
    "changed without --reserve. A file, in TOML, or in JSON by the same names:\n",
    "\n",
    "  [[pipelines]]\n",
    "  name = \"well-1\"\n",
    "  constraints = { models = [\"H100\"] }\n",
    "  steps = [\n",
    "    { name = \"load\", input_memory_type = \"numpy\" },\n",
    "    { name = \"segment\", output_memory_type = \"torch\", memory = \"2GiB\" },\n",
    "  ]\n",
    "\nExamples:\n",
    "  gpulease plan plate.toml\n",
    "  gpulease plan plate.json --json | jq '.assignments[] | {pipeline, node}'\n",
    "  gpulease plan plate.toml --reserve --service wells --hold\n",
    "  gpulease plan plate.toml --reserve --service wells --holder w1 --request-id plate-17 --ttl 10m\n",
    "  gpulease acquire --service wells --near plate-17/well-1 --memory 1GiB   # beside well-1\n",
);

/// The options of `plan`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// The file with the pipelines, TOML or .json; -: standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Lease what is assigned: all of it, or nothing
    #[arg(long)]
    reserve: bool,

    /// Stay, and renew the leases until a signal, or the loss of one; then release them
    #[arg(long, requires = "reserve", help_heading = "With --reserve")]
    hold: bool,

    /// Who asks: the service that the leases are for
    #[arg(long, value_name = "NAME", env = "GPULEASE_SERVICE", default_value = "cli")]
    #[arg(help_heading = "With --reserve")]
    service: String,

    /// This client's identity [default: a new one for each call]
    #[arg(long, value_name = "ID", requires = "reserve", help_heading = "With --reserve")]
    holder: Option<String>,

    /// A name for this very plan, 1 to 64 bytes: repeating it, with the same --holder, gives the same leases
    #[arg(long, value_name = "ID", requires = "reserve", help_heading = "With --reserve")]
    request_id: Option<String>,

    /// What the leases' affinity keys begin with [default: the request id]
    #[arg(long, value_name = "KEY", requires = "reserve", help_heading = "With --reserve")]
    key: Option<String>,

    /// How urgent the leases are
    #[arg(long, value_enum, requires = "reserve", help_heading = "With --reserve")]
    priority: Option<PriorityOption>,

    /// How long each lease lives without a renewal, 2s to 24h [default: 30s]
    #[arg(long, value_name = "DURATION", value_parser = parse::duration, requires = "reserve")]
    #[arg(help_heading = "With --reserve")]
    ttl: Option<Duration>,

    /// How long you expect to hold them: a hint for forecasts
    #[arg(long, value_name = "DURATION", value_parser = parse::duration, requires = "reserve")]
    #[arg(help_heading = "With --reserve")]
    expected_duration: Option<Duration>,

    /// How they may be taken back before you are done [default: never]
    #[arg(long, value_enum, value_name = "HOW", requires = "reserve")]
    #[arg(help_heading = "With --reserve")]
    preemptible: Option<PreemptibleOption>,
}

impl Options {
    fn reservation(&self) -> Reservation {
        let mut reservation = match &self.request_id {
            Some(id) => Reservation::new(id),
            None => Reservation::default(),
        };
        if let Some(key) = &self.key {
            reservation = reservation.affinity_key(key);
        }
        if let Some(priority) = self.priority {
            reservation = reservation.priority(priority.into());
        }
        if let Some(ttl) = self.ttl {
            reservation = reservation.ttl(ttl);
        }
        if let Some(expected) = self.expected_duration {
            reservation = reservation.expected_duration(expected);
        }
        if let Some(how) = self.preemptible {
            reservation = reservation.preemptible(how.into());
        }
        reservation
    }
}

pub(crate) async fn plan(context: &Context, options: &Options) -> Result<(), Failure> {
    let pipelines = plan_file::read(&options.file)?;
    if options.reserve {
        let mut stop = Stop::listen()
            .map_err(|error| Failure::other(format!("cannot listen for signals: {error}")))?;
        let identity =
            Identity { service: Some(options.service.clone()), holder: options.holder.clone() };
        let client = context.connect_as(identity).await?;
        let outcome = match reserve(&client, pipelines, options, &mut stop).await {
            Ok(reserved) => reserved_plan(context, options, reserved, &mut stop).await,
            Err(failure) => Err(failure),
        };
        grant::close(client).await;
        return outcome;
    }
    let client: Client = context.connect().await?;
    let plan = view::Plan::from(&client.plan(pipelines).await?);
    print(context, &plan)?;
    let without = plan.assignments.iter().filter(|it| it.unassigned_reason.is_some()).count();
    if without > 0 {
        let all = plan.assignments.len();
        let message = format!("{without} of {all} pipelines have no device now");
        return Err(Failure::new(Exit::NoCapacity, message));
    }
    Ok(())
}

/// Reserves; after a signal what is granted all the same is given back.
async fn reserve(
    client: &Client,
    pipelines: Vec<Pipeline>,
    options: &Options,
    stop: &mut Stop,
) -> Result<ReservedPlan, Failure> {
    let mut reserving = pin!(client.reserve(pipelines, options.reservation()));
    tokio::select! {
        reserved = &mut reserving => Ok(reserved?),
        signal = stop.next() => {
            // Dropping the leases releases them; closing the client carries that.
            drop(tokio::time::timeout(grant::CLOSE_MAX, reserving).await);
            Err(Failure::interrupted(signal))
        }
    }
}

/// Prints it with its leases, and holds them until a signal, or leaves them to their TTL.
async fn reserved_plan(
    context: &Context,
    options: &Options,
    reserved: ReservedPlan,
    stop: &mut Stop,
) -> Result<(), Failure> {
    let entries = reserved.leases.iter().map(|(_, lease)| entry(context, lease));
    tokens::keep_all(context, entries.collect());
    print(context, &view::Plan::from(&reserved.plan))?;
    let over: Vec<String> = (reserved.plan.assignments.iter())
        .filter(|it| it.unassigned_reason.is_some() && reserved.lease(&it.pipeline).is_none())
        .map(|it| it.pipeline.clone())
        .collect();
    if let Some(first) = over.first() {
        context.output.warn(&format!(
            "this plan was reserved before, and the leases of {} of its pipelines are over, such as that of {first}: \
             reserve them under a new --request-id",
            over.len()
        ));
    }
    if options.hold {
        return hold(context, reserved.leases, stop).await;
    }
    let ttl = reserved.leases.iter().map(|(_, lease)| lease.info().ttl).min();
    reserved.leases.into_iter().for_each(|(_, lease)| {
        let _ = lease.detach();
    });
    context.output.note(&format!(
        "Each lease lives for {}. Extend it: gpulease renew ID. End it: gpulease release ID. Keep all: --hold.",
        ttl.map_or_else(|| "its TTL".to_owned(), format::duration)
    ));
    Ok(())
}

/// Renews all until a signal comes or one of them is lost, and tells what changes; then releases them.
async fn hold(
    context: &Context,
    leases: Vec<(String, Lease)>,
    stop: &mut Stop,
) -> Result<(), Failure> {
    let count = leases.len();
    context.output.note(&format!("Holding {count} leases: Ctrl-C releases them."));
    let mut following = JoinSet::new();
    let mut held = Vec::new();
    for (pipeline, lease) in leases {
        let (context, lease) = (context.clone(), Arc::new(lease));
        held.push(Arc::clone(&lease));
        following.spawn(async move {
            let reason = follow(&context, &lease).await;
            (pipeline, lease.id(), reason)
        });
    }
    let lost = tokio::select! {
        _ = stop.next() => None,
        Some(lost) = following.join_next() => lost.ok(),
    };
    following.shutdown().await;
    release(context, held).await;
    match lost {
        None => Ok(()),
        Some((pipeline, id, reason)) => Err(Failure::other(format!(
            "lease {id} of pipeline {pipeline} is lost: {reason}; the others of the plan are released"
        ))),
    }
}

async fn release(context: &Context, held: Vec<Arc<Lease>>) {
    let ids: Vec<u64> = held.iter().map(|lease| lease.id()).collect();
    for lease in held.into_iter().filter_map(Arc::into_inner) {
        let id = lease.id();
        if lease.is_lost() {
            continue;
        }
        if let Err(error) = lease.release().await {
            context.output.warn(&format!("lease {id} was not released: {error}"));
        }
    }
    tokens::all_ended(context, &ids);
}

fn print(context: &Context, plan: &view::Plan) -> Result<(), Failure> {
    if context.output.json {
        return context.output.object(plan);
    }
    context.output.text(&text(plan, Style::of(&context.output)))
}

fn text(plan: &view::Plan, style: Style) -> String {
    let mut text = table::assignments(plan, style);
    if !plan.loads.is_empty() {
        text += &format!("\n\nDevices of the plan:\n{}", table::loads(plan, style));
    }
    let without: Vec<String> = (plan.assignments.iter())
        .filter_map(|it| Some(format!("  {}: {}", it.pipeline, it.unassigned_reason.as_ref()?)))
        .collect();
    if !without.is_empty() {
        text += &format!("\n\nWithout a device:\n{}", without.join("\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::{DeviceLoad, DeviceShare, Plan, PlanAssignment};

    #[test]
    fn a_plan_reads_as_tables_with_what_does_not_fit_below() {
        let device = DeviceShare {
            uuid: "GPU-1".to_owned(),
            node: "box".to_owned(),
            index: 0,
            pci_address: None,
            vendor: "nvidia".to_owned(),
            model: "H100".to_owned(),
            exclusive: false,
            slots: Some(1),
            memory_bytes: Some(2 << 30),
        };
        let on = |pipeline: &str, devices: Vec<DeviceShare>, reason: Option<&str>| PlanAssignment {
            pipeline: pipeline.to_owned(),
            node: devices.first().map(|device| device.node.clone()),
            devices,
            steps: Vec::new(),
            unassigned_reason: reason.map(str::to_owned),
            lease: None,
            affinity_key: None,
        };
        let plan = Plan {
            assignments: vec![
                on("well-1", vec![device], None),
                on("report", Vec::new(), None),
                on("well-2", Vec::new(), Some("1 device wanted, 1 of 1 known would do when empty")),
            ],
            loads: vec![DeviceLoad {
                node: "box".to_owned(),
                uuid: "GPU-1".to_owned(),
                load_before_permille: 0,
                load_after_permille: 125,
                pipelines: 1,
            }],
            complete: false,
            reserved: false,
            revision: 7,
        };
        let expected = "\
PIPELINE  DEVICES       TAKES OF EACH
well-1    box/0         1 slot + 2.0GiB
report    needs none    -
well-2    does not fit  -

Devices of the plan:
DEVICE  UUID   LOAD NOW  WITH PLAN  PIPELINES
box/0   GPU-1      0.0%      12.5%          1

Without a device:
  well-2: 1 device wanted, 1 of 1 known would do when empty";
        assert_eq!(text(&plan, Style { width: None, color: false }), expected);
    }
}
