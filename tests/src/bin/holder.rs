//! A holder in a process of its own, for tests that stop or kill it: acquires one whole device, then answers each line on
//! stdin with one on stdout: `check` with how its lease is, `child` with the id of a child that it starts. It is driven
//! by `gpulease_tests::holder`.
//!
//! Arguments: endpoint, holder's name, TTL in seconds.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "stdout is how its test hears of it")]

use std::{
    env,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::Context as _;
use gpulease::{Client, LeaseRequest};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = env::args().skip(1);
    let mut next = |what| arguments.next().with_context(|| format!("no {what} is given"));
    let (endpoint, name) = (next("endpoint")?, next("name")?);
    let ttl = Duration::from_secs(next("TTL")?.parse().context("the TTL is no number")?);
    let client = Client::builder().endpoint(endpoint).holder(name).connect().await?;
    let lease = client.acquire(LeaseRequest::exclusive().ttl(ttl)).await?;
    println!("{} {}", lease.id(), lease.fencing_token());
    // This thread may block: the client's tasks run on others.
    for line in std::io::stdin().lines() {
        if line? == "child" {
            println!("{}", Command::new("sleep").arg("600").stdout(Stdio::null()).spawn()?.id());
            continue;
        }
        match lease.check() {
            Ok(()) => println!("held"),
            Err(error) => println!("{}", error.reason()),
        }
    }
    Ok(())
}
