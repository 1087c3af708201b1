//! Looks at this host's NVIDIA devices once, and says how long each kind of pass takes:
//! `cargo run --release -p gpulease-nvml --example look [LIBRARY]`.

#![allow(clippy::print_stdout, reason = "an example prints what it finds")]

use std::error::Error;
use std::time::{Duration, Instant};

use gpulease_nvml::{Driver, Options, Trouble};

/// The middle one of so many passes is told, and the slowest.
const PASSES: usize = 51;

fn main() -> Result<(), Box<dyn Error>> {
    let library = std::env::args_os().nth(1).map(Into::into);
    let begun = Instant::now();
    let mut driver = Driver::open(Options { library, ..Options::default() })?;
    println!("opened in {:?}", begun.elapsed());
    let begun = Instant::now();
    let inventory = driver.inventory()?;
    println!("{inventory:#?}\nread in {:?}", begun.elapsed());
    for device in &inventory.devices {
        println!("{}: {:#?}", device.uuid, driver.sample(&device.uuid)?);
        println!("processes: {:?}", driver.processes(&device.uuid)?);
        tell("sample", || driver.sample(&device.uuid).map(drop))?;
        tell("memory", || driver.memory(&device.uuid).map(drop))?;
        tell("processes", || driver.processes(&device.uuid).map(drop))?;
    }
    println!("{:#?}", driver.take_remarks());
    Ok(())
}

fn tell(what: &str, mut pass: impl FnMut() -> Result<(), Trouble>) -> Result<(), Trouble> {
    let mut times = Vec::with_capacity(PASSES);
    for _ in 0..PASSES {
        let begun = Instant::now();
        pass()?;
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    let slowest = times.last().copied().unwrap_or(Duration::ZERO);
    println!("{what}: {:?} in the middle, {slowest:?} at most", times[PASSES / 2]);
    Ok(())
}
