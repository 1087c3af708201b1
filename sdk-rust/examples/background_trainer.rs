//! A background trainer that gives way to an urgent service in the middle of its work, and goes on where it stopped.
//!
//! Start a coordinator first: `cargo run --release -- serve --simulate 1x24GiB`
//! Then: `cargo run --release -p gpulease --example background_trainer`
#![allow(clippy::print_stdout, reason = "an example speaks to its reader")]

use std::time::Duration;

use gpulease::{Change, Client, Error, Lease, LeaseRequest, Preemptible, Priority};
use tokio::sync::oneshot;

/// Steps of training in all; at a third of them the urgent service comes.
const STEPS: u32 = 60;
/// How long one step takes.
const STEP: Duration = Duration::from_millis(50);

#[tokio::main]
async fn main() -> Result<(), Error> {
    let client = Client::builder().service("trainer").connect().await?;
    let request = LeaseRequest::exclusive()
        .priority(Priority::Background)
        .preemptible(Preemptible::Pause)
        .wait(Duration::from_secs(60));
    let lease = client.acquire(request).await?;
    lease.on_change(|change| match change {
        Change::Noticed(notice) => println!("trainer: {notice}"),
        Change::Paused => println!("trainer: paused"),
        Change::Resumed(grant) => println!("trainer: resumed with token {}", grant.fencing_token),
        other => println!("trainer: {other:?}"),
    });

    let (call, called) = oneshot::channel();
    let urgent = tokio::spawn(async move {
        // An error would mean that the training failed before it came so far.
        if called.await.is_ok() { transcribe().await } else { Ok(()) }
    });
    train(&lease, call).await?;
    lease.release().await?;
    urgent.await.expect("the urgent service does not panic")?;
    client.close().await;
    Ok(())
}

/// Trains turn by turn: `turn` waits for devices that nobody asks for, and answers notices.
async fn train(lease: &Lease, call: oneshot::Sender<()>) -> Result<(), Error> {
    let mut call = Some(call);
    let mut step = 0;
    while step < STEPS {
        let turn = lease.turn().await?;
        println!("trainer: step {step} on {}", turn.devices()[0].uuid);
        while step < STEPS && !turn.must_stop() {
            tokio::time::sleep(STEP).await;
            lease.record_operation(1, STEP);
            step += 1;
            if let Some(call) = call.take_if(|_| step == STEPS / 3) {
                // Nobody listens only where the urgent service failed, which is said at the end.
                let _ = call.send(());
            }
        }
        println!("trainer: saved at step {step}");
    }
    Ok(())
}

/// Another program, in truth: it needs the whole device, now.
async fn transcribe() -> Result<(), Error> {
    let client = Client::builder().service("transcription").connect().await?;
    println!("transcription: needs the device");
    let request =
        LeaseRequest::exclusive().priority(Priority::Immediate).wait(Duration::from_secs(60));
    let lease = client.acquire(request).await?;
    println!("transcription: has it, with token {}", lease.fencing_token());
    tokio::time::sleep(STEP * 10).await;
    lease.release().await?;
    println!("transcription: done");
    client.close().await;
    Ok(())
}
