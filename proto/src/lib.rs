//! The contract of gpulease on the wire, and the only place where code is generated from it.
//!
//! [`v1`] holds the messages, clients and servers of package `gpulease.v1`; [`DESCRIPTORS`] is the encoded
//! `FileDescriptorSet` that reflection serves. No rule lives here: validation is the server's, convenience the SDK's.
#![forbid(unsafe_code)]

/// Package `gpulease.v1`. The comments are those of the `.proto` files.
#[allow(
    missing_docs,
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::too_many_lines,
    unreachable_pub,
    reason = "generated code"
)]
pub mod v1 {
    tonic::include_proto!("gpulease.v1");
}

/// The `.proto` files as an encoded `FileDescriptorSet`, their imports included.
pub const DESCRIPTORS: &[u8] =
    include_bytes!(concat!(env!("OUT_DIR"), "/gpulease_descriptors.bin"));
