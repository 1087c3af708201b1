//! Where cargo put the library.
//!
//! It promises the one that belongs to the running test, or an error that says how to get it.

use std::io;
use std::path::{Path, PathBuf};

/// The name that cargo gives the library.
const FILE_NAME: &str = "libgpulease_fake_nvml.so";

/// The library that was built with the running binary: a test, example or benchmark whose crate depends on this one.
///
/// # Errors
/// When it is not there, with the places looked at.
pub fn library_path() -> io::Result<PathBuf> {
    let binary = std::env::current_exe()?;
    let folder = binary.parent().unwrap_or(Path::new("/"));
    // Tests lie in `deps`, as the library does; binaries above it, examples beside it.
    let places = [folder.to_owned(), folder.join("deps"), folder.join("../deps")];
    places.iter().map(|place| place.join(FILE_NAME)).find(|path| path.is_file()).ok_or_else(|| {
        let why = format!(
            "no {FILE_NAME} beside {}, nor in ./deps or ../deps of it: run this through `cargo test` or \
             `cargo run`, in a crate that has gpulease-fake-nvml as a dependency (not only `cargo check`)",
            binary.display()
        );
        io::Error::new(io::ErrorKind::NotFound, why)
    })
}
