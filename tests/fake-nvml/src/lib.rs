//! A `libnvidia-ml.so` without a GPU: what it says and does is what a test tells it.
//!
//! Cargo builds it beside the binary of every test that has this crate as a dependency. [`FakeNvml::copy_to`] copies it
//! to a fresh path, so each test has a library, and a state, of its own. The state is one JSON file beside the copy
//! ([`control`] writes it whole, in one step; the library looks at each call whether it is another), so a coordinator
//! that runs as a child process is steered in the same way as code in the test itself, and hangs end when the test
//! says so. What was called is in a second file.
//!
//! It promises the layouts of the driver's header and never to unwind or to hold a lock while a call waits. It is
//! loaded from an explicit path only. Symbols that it lacks are missing, as on an old driver.
//!
//! ```no_run
//! use gpulease_fake_nvml::{Code, Device, FakeNvml, uuid};
//!
//! let folder = tempfile::tempdir()?;
//! let fake = FakeNvml::copy_to(folder.path())?;
//! fake.add_device(Device::new(0))?;
//! fake.run_process(&uuid(0), 4_711, 3 << 30)?;
//! let nvml = nvml_wrapper::Nvml::builder().lib_path(fake.library().as_os_str()).init()?;
//! assert_eq!(nvml.device_by_index(0)?.memory_info()?.used, 3 << 30);
//! let fault = fake.hang(("nvmlDeviceGetPowerUsage", uuid(0).as_str()))?;
//! fake.lift(fault)?;
//! fake.fail("nvmlDeviceGetCount_v2", Code::DRIVER_NOT_LOADED)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod code;
pub mod control;
pub mod device;
mod entry;
mod files;
mod live;
mod path;
pub mod state;
mod symbols;
mod text;

pub use code::Code;
pub use control::{Calls, FakeNvml, FaultNumber};
pub use device::{Device, Memory, Presence, Process, ProcessKind, uuid};
pub use path::library_path;
pub use state::{FieldValue, State};
