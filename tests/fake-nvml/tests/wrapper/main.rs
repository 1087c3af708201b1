//! The fake library as nvml-wrapper sees it: what it says, how it fails, and that it does so for one copy only.
//!
//! Every test loads a copy of its own.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, and what tests share with it")]

mod basics;
mod events;
mod faults;
mod fields;
mod health;
mod losses;
mod mig;
mod outside;
mod processes;

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use gpulease_fake_nvml::{Device, FakeNvml, uuid};
use nvml_wrapper::Nvml;
use tempfile::TempDir;

/// How long a test waits for what must happen: a loaded machine needs a second, and this is ample.
const PATIENCE: Duration = Duration::from_secs(30);

/// A copy with some devices, loaded.
struct Loaded {
    /// Dropped first: it is in the folder.
    nvml: Nvml,
    fake: FakeNvml,
    _folder: TempDir,
}

impl Loaded {
    fn with_devices(count: u32) -> Loaded {
        Loaded::after(count, |_| ())
    }

    /// Loaded after something was done to the copy.
    fn after(count: u32, prepare: impl FnOnce(&FakeNvml)) -> Loaded {
        let folder = tempfile::tempdir().unwrap();
        let fake = FakeNvml::copy_to(folder.path()).unwrap();
        for number in 0..count {
            fake.add_device(Device::new(number)).unwrap();
        }
        prepare(&fake);
        Loaded { nvml: load(fake.library()), fake, _folder: folder }
    }

    fn device(&self, index: u32) -> nvml_wrapper::Device<'_> {
        self.nvml.device_by_uuid(uuid(index)).unwrap()
    }
}

fn load(library: &Path) -> Nvml {
    Nvml::builder().lib_path(library.as_os_str()).init().unwrap()
}

/// Waits until something is so.
fn until(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        thread::yield_now();
    }
}
