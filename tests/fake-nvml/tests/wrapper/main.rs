//! The fake library as nvml-wrapper sees it: what it says, how it fails, and that it does so for one copy only.
//!
//! Every test loads a copy of its own.
#![allow(clippy::unwrap_used, reason = "these are tests, their shared functions included")]

mod basics;

use std::path::Path;

use gpulease_fake_nvml::{Device, FakeNvml, uuid};
use nvml_wrapper::Nvml;
use tempfile::TempDir;

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
