//! Shows what devices do, as it is measured, for three batches of samples.
//!
//! Start a coordinator first: `cargo run --release -- serve --simulate 1x24GiB`
//! Then: `cargo run --release -p gpulease --example metrics_subscriber`
#![allow(clippy::print_stdout, reason = "an example speaks to its reader")]

use std::time::Duration;

use gpulease::{Client, Error, Sample};
use tokio_stream::StreamExt as _;

/// How many batches it shows.
const BATCHES: usize = 3;
/// At least so long between two of them.
const INTERVAL: Duration = Duration::from_millis(500);

#[tokio::main]
async fn main() -> Result<(), Error> {
    let client = Client::from_env().await?;
    for device in client.devices().await?.items {
        println!("{} is {}, {} bytes", device.uuid, device.state, device.memory_total_bytes);
    }
    let mut batches = client.subscribe(&[], INTERVAL).await?.take(BATCHES);
    while let Some(batch) = batches.next().await {
        let batch = batch?;
        for sample in &batch.samples {
            println!("{}", line(sample));
        }
        if batch.skipped > 0 {
            println!("({} samples were skipped: only the latest count)", batch.skipped);
        }
    }
    Ok(())
}

/// One line. What is unknown is shown as a dash, never as 0.
fn line(sample: &Sample) -> String {
    let used = sample.memory_used_bytes.map(|bytes| format!("{} MiB", bytes >> 20));
    let busy = sample.utilization_permille.map(|share| format!("{} %", share / 10));
    let heat = sample.temperature_celsius.map(|degrees| format!("{degrees} °C"));
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let [used, busy, heat] = [used, busy, heat].map(or_dash);
    format!("{}: {used} used, {busy} busy, {heat}", sample.device_uuid)
}
