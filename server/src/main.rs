//! The gpulease binary.
fn main() {}
