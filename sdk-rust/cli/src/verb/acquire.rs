//! `gpulease acquire`: a lease, its token, its devices, and the environment that a program needs.
//!
//! Promises: what is printed on stdout can be given to a shell's `eval`; without `--hold` the token is kept
//! for `release` and `renew`; with it the lease is renewed until a signal, and then released.

use clap::Args;
use gpulease::{Change, Client, Lease, LeaseRequest, LostReason};

use crate::environment::{self, Grant, Variables};
use crate::failure::Failure;
use crate::grant;
use crate::help::with_exit_codes;
use crate::options::Context;
use crate::request::LeaseOptions;
use crate::signals::Stop;
use crate::token_file::{self, Entry};
use crate::told::{self, Teller};
use crate::{format, table, tokens, view};

pub(crate) const HELP: &str = with_exit_codes!(
    "A lease asks for exactly one of: whole devices (--devices N, or nothing at all) · slots on each\n",
    "device (--slots) · memory on each device (--memory) · both slots and memory on each device.\n",
    "Without --hold the lease lives for its TTL: `gpulease renew ID` extends it, `gpulease release ID`\n",
    "ends it. Sizes: 8GiB (2^30), 500MB (10^6), 24g (10^9). Durations: 30s, 10m, 1h30m.\n",
    "\nExamples:\n",
    "  gpulease acquire --memory 8GiB --ttl 10m\n",
    "  gpulease acquire --devices 2 --same-node --wait 1h --hold\n",
    "  gpulease acquire --slots 2 --memory 500MB --priority background --wait 0\n",
    "  eval \"$(gpulease acquire --memory 8GiB)\"; python infer.py; gpulease release $GPULEASE_LEASE_ID\n",
    "  gpulease acquire --exclusive --preemptible pause --minimum-hold 10m --hold\n",
    "  gpulease acquire --memory 8GiB --process $$   # this shell and what it starts\n",
    "  id=$(gpulease acquire --memory 8GiB --json | jq -r .id)\n",
);

/// The options of `acquire`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    #[command(flatten)]
    lease: Box<LeaseOptions>,

    /// Stay, and renew the lease until Ctrl-C or SIGTERM; then release it
    #[arg(long, help_heading = "What to do with it")]
    hold: bool,

    /// The process that will use the devices, itself and all that it starts: its memory is then told from
    /// others', and the devices are free once it is gone. Over the coordinator's Unix socket alone
    #[arg(long, value_name = "PID", help_heading = "What to do with it")]
    process: Option<u32>,
}

impl Options {
    /// This process is not the one that uses the devices: without `--process` nobody knows which is.
    fn request(&self) -> LeaseRequest {
        let request = self.lease.request();
        match self.process {
            Some(pid) => request.declare_process(pid),
            None => request.declare_no_process(),
        }
    }
}

pub(crate) async fn acquire(context: &Context, options: &Options) -> Result<(), Failure> {
    let mut stop = Stop::listen()
        .map_err(|error| Failure::other(format!("cannot listen for signals: {error}")))?;
    let client = context.connect_as(options.lease.identity()).await?;
    let outcome = acquire_with(context, options, &client, &mut stop).await;
    grant::close(client).await;
    outcome
}

async fn acquire_with(
    context: &Context,
    options: &Options,
    client: &Client,
    stop: &mut Stop,
) -> Result<(), Failure> {
    let asked = (options.request(), options.lease.wait());
    let lease = grant::acquire(client, asked, &context.output, stop).await?;
    let view = granted(context, &lease);
    tokens::keep(context, entry(context, &lease));
    if options.hold {
        print(context, &view)?;
        return hold(context, lease, stop).await;
    }
    let lease_ttl = lease.info().ttl;
    let (id, _) = lease.detach();
    print(context, &view)?;
    context.output.note(&format!(
        "The lease lives for {}. Extend it: gpulease renew {id}. End it: gpulease release {id}. \
         Keep it: --hold.",
        format::duration(lease_ttl)
    ));
    Ok(())
}

/// Renews until a signal comes or the lease is lost.
async fn hold(context: &Context, lease: Lease, stop: &mut Stop) -> Result<(), Failure> {
    let id = lease.id();
    context.output.note(&format!("Holding lease {id}: Ctrl-C releases it."));
    let lost = tokio::select! {
        _ = stop.next() => None,
        reason = follow(context, &lease) => Some(reason),
    };
    if let Some(reason) = lost {
        tokens::ended(context, id);
        return Err(Failure::other(format!("lease {id} is lost: {reason}")));
    }
    let released = lease.release().await?;
    tokens::ended(context, id);
    if context.output.json {
        return context.output.object(&view::Lease::from(&released));
    }
    context.output.note(&format!("Lease {id} released."));
    Ok(())
}

/// Tells every change until the lease is lost, and keeps the token of each new grant.
pub(crate) async fn follow(context: &Context, lease: &Lease) -> LostReason {
    let teller = Teller::of_data(context.output, lease.id());
    let mut changes = lease.changes();
    while let Some(change) = changes.next().await {
        told::told(&change).iter().for_each(|told| teller.tell(told));
        match change {
            Change::Resumed(_) => tokens::keep(context, entry(context, lease)),
            Change::Noticed(notice) => context.output.note(&format!(
                "Stop, then: gpulease acknowledge {} --notice {}",
                lease.id(),
                notice.id
            )),
            _ => {}
        }
    }
    lease.lost().await
}

/// The lease with its environment.
fn granted(context: &Context, lease: &Lease) -> view::Lease {
    let mut view = view::Lease::from(&lease.info());
    view.remaining_seconds = Some(lease.remaining().as_secs_f64());
    let grant = Grant {
        endpoint: &context.endpoint,
        lease_id: lease.id(),
        fencing_token: lease.fencing_token(),
        devices: &view.devices,
    };
    view.environment = Some(environment::variables(&grant, &environment::host_name()));
    view
}

/// What is kept of a lease.
pub(crate) fn entry(context: &Context, lease: &Lease) -> Entry {
    let now = std::time::SystemTime::now();
    let info = lease.info();
    Entry {
        endpoint: context.endpoint.clone(),
        lease_id: lease.id(),
        fencing_token: lease.fencing_token(),
        service: info.service,
        holder: info.holder,
        expires_unix_seconds: token_file::expires_unix_seconds(now, lease.remaining()),
        ended_unix_seconds: None,
    }
}

fn print(context: &Context, lease: &view::Lease) -> Result<(), Failure> {
    if context.output.json {
        return context.output.object(lease);
    }
    context.output.text(&text(lease))
}

/// The lease as a shell reads it: comments for people, `export` lines for both.
fn text(lease: &view::Lease) -> String {
    let mut lines = vec![
        format!("# lease   {}", lease.id),
        format!("# token   {}", lease.fencing_token),
        format!("# left    {}", table::time_left(lease)),
    ];
    lines.extend(
        lease.devices.iter().map(|device| format!("# device  {}", table::device_line(device))),
    );
    lines.extend(exports(lease.environment.as_ref()));
    lines.join("\n")
}

fn exports(variables: Option<&Variables>) -> Vec<String> {
    let export =
        |(name, value): (&String, &String)| format!("export {name}={}", format::shell_word(value));
    variables.into_iter().flatten().map(export).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::tests::active_lease;

    #[test]
    fn a_granted_lease_prints_as_a_shell_script() {
        let mut lease = active_lease();
        let grant = Grant {
            endpoint: "unix:///run/my socket",
            lease_id: 17,
            fencing_token: 42,
            devices: &lease.devices,
        };
        lease.environment = Some(environment::variables(&grant, "box"));
        let expected = "\
# lease   17
# token   42
# left    29s
# device  box/0  H100  8.0GiB  GPU-1
export CUDA_DEVICE_ORDER=PCI_BUS_ID
export CUDA_VISIBLE_DEVICES=GPU-1
export GPULEASE_ENDPOINT='unix:///run/my socket'
export GPULEASE_FENCING_TOKEN=42
export GPULEASE_LEASE_ID=17";
        assert_eq!(text(&lease), expected);
    }

    #[test]
    fn the_json_of_a_lease_has_what_scripts_rely_on() {
        let json = serde_json::to_value(active_lease()).expect("it serialises");
        assert_eq!(json["id"], "17");
        assert_eq!(json["state"], "ACTIVE");
        assert_eq!(json["fencing_token"], 42);
        assert_eq!(json["devices"][0]["uuid"], "GPU-1");
        assert_eq!(json["devices"][0]["memory_bytes"], 8_589_934_592_u64);
        assert_eq!(json["granted_at"], "1970-01-01T00:00:00.000Z");
        assert_eq!(json["ended_at"], serde_json::Value::Null);
        assert!(json.get("environment").is_none());
    }
}
