//! Acquires a lease on 8 GiB of one device, shows it, and gives it back.
//!
//! Start a coordinator first: `cargo run --release -- serve --simulate 2x24GiB`
//! Then: `cargo run --release -p gpulease --example acquire_release`
#![allow(clippy::print_stdout, reason = "an example speaks to its reader")]

use std::time::Duration;

use gpulease::{Client, Error, LeaseRequest, Priority};

const MEMORY_BYTES: u64 = 8 << 30;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let client = Client::builder().service("example").connect().await?;
    let request =
        LeaseRequest::memory(MEMORY_BYTES).priority(Priority::Normal).wait(Duration::from_secs(60));
    let lease = client
        .acquire_with(request, |waiting| {
            println!("lease {} waits behind {} others", waiting.id, waiting.queue_position);
        })
        .await?;
    println!("lease {}, fencing token {}", lease.id(), lease.fencing_token());
    for device in lease.devices() {
        println!("on {} {} ({})", device.node, device.uuid, device.model);
    }

    // The work goes here. It stops when the lease can no longer be proved.
    tokio::select! {
        reason = lease.lost() => println!("lost: {reason}"),
        () = tokio::time::sleep(Duration::from_millis(200)) => {
            lease.check()?;
            println!("still held, {:.1} s left", lease.remaining().as_secs_f64());
        }
    }

    let ended = lease.release().await?;
    println!("lease {} is {}", ended.id, ended.state);
    client.close().await;
    Ok(())
}
