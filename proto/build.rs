//! Compiles the `.proto` files to Rust with protox, so that no `protoc` is needed, and keeps the
//! descriptor set beside the code for reflection.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

const FILES: [&str; 13] = [
    "acknowledge",
    "admin",
    "device",
    "error",
    "event",
    "explain",
    "lease",
    "lease_service",
    "metrics",
    "notice",
    "plan",
    "queue",
    "session",
];

fn main() -> Result<(), Box<dyn Error>> {
    let files = FILES.map(|name| format!("gpulease/v1/{name}.proto"));
    for file in &files {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(&files, ["."])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("gpulease_descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        // Rare, and eight times as large as all the rest of a renewal's outcome, of which a message has a thousand.
        .boxed("gpulease.v1.RenewResponse.resumed")
        .compile_fds(descriptors)?;
    Ok(())
}
