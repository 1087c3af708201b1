//! A transcription service: bursts of urgent clips, each burst on a GPU if one can be had soon, on the CPU otherwise.
//!
//! Start a coordinator first: `cargo run --release -- serve --simulate 1x24GiB`
//! Then: `cargo run --release -p gpulease --example transcription_owner`. It also runs without any coordinator, on the
//! CPU. Run `background_trainer` beside it and see it give way.
#![allow(clippy::print_stdout, reason = "an example speaks to its reader")]

use std::time::{Duration, Instant};

use gpulease::{Acquired, Error, LeaseRequest, Priority};

/// How many bursts there are, and how many clips in each.
const BURSTS: u32 = 3;
const CLIPS: u32 = 8;
/// What a model needs, in bytes.
const MEMORY_BYTES: u64 = 10 << 30;
/// How long a clip takes on a GPU.
const CLIP: Duration = Duration::from_millis(20);

#[tokio::main]
async fn main() -> Result<(), Error> {
    // Endpoint, timeouts and whether GPUs are to be used come from the environment.
    let client = gpulease::shared()?;
    for burst in 1..=BURSTS {
        let request = LeaseRequest::memory(MEMORY_BYTES)
            .priority(Priority::Immediate)
            .expected_duration(CLIP * CLIPS)
            .wait(Duration::from_secs(1));
        let acquired = client.acquire_or_cpu(request).await?;
        match &acquired {
            Acquired::Gpu(lease) => println!("burst {burst}: on {}", lease.devices()[0].uuid),
            Acquired::Cpu(reason) => println!("burst {burst}: on the CPU, because {reason}"),
            _ => {}
        }
        for _ in 0..CLIPS {
            // Before every side effect: is it still ours?
            acquired.check()?;
            let started = Instant::now();
            tokio::time::sleep(CLIP).await;
            acquired.record_operation(1, started.elapsed());
        }
        acquired.release().await?;
    }
    let counters = client.counters();
    let percent = |rate: Option<f64>| rate.map_or(0.0, |rate| rate * 100.0);
    println!(
        "{} requests: {:.0} % granted, {:.0} % on a GPU, {:.0} % fell back",
        counters.requests,
        percent(counters.success_rate()),
        percent(counters.gpu_rate()),
        percent(counters.fallback_rate()),
    );
    if let Some(latency) = counters.latency_p50 {
        println!("half of the grants came within {latency:?}");
    }
    client.close().await;
    Ok(())
}
