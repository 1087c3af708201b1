//! Which frameworks' programs a device can run, by its vendor.
//!
//! The coordinator sees devices, not the Python environments of those who lease them: this is what a vendor's devices
//! are able to, so that a pipeline for CUDA is never sent to a device that has none.

use gpulease_core::id::Name;

/// By vendor, in lower case. A simulated device serves all of NVIDIA's, so that what is tried out on it works there.
const SERVED: [(&str, &[&str]); 3] = [
    ("nvidia", &["cuda", "cupy", "jax", "onnx", "tensorflow", "torch"]),
    ("simulated", &["cuda", "cupy", "jax", "onnx", "tensorflow", "torch"]),
    ("amd", &["cupy", "jax", "onnx", "rocm", "tensorflow", "torch"]),
];

/// The frameworks of a vendor's devices; none of a vendor that is not known.
pub(super) fn frameworks_of(vendor: &str) -> Vec<Name> {
    let known = SERVED.iter().find(|(name, _)| name.eq_ignore_ascii_case(vendor));
    known.map(|(_, served)| served.iter().map(|name| Name::new(name)).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vendor_is_known_without_regard_to_case() {
        assert!(frameworks_of("NVIDIA").contains(&"torch".into()));
        assert!(!frameworks_of("amd").contains(&"cuda".into()));
        assert!(frameworks_of("unheard of").is_empty());
    }
}
