//! What is publicly known of some models, so that a simulated H100 satisfies what an H100 does.
//!
//! Compute capabilities are NVIDIA's table of GPUs; powers are the board powers of the data sheets (SXM where there
//! are several). A model that is not listed has no compute capability and draws 300 W.

/// What is known of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) compute_capability: Option<(u32, u32)>,
    pub(super) power_max_watts: u32,
}

const UNKNOWN: Known = Known { compute_capability: None, power_max_watts: 300 };

/// Model, compute capability, watts.
const MODELS: [(&str, (u32, u32), u32); 15] = [
    ("P100", (6, 0), 300),
    ("V100", (7, 0), 300),
    ("V100M16", (7, 0), 300),
    ("V100M32", (7, 0), 300),
    ("T4", (7, 5), 70),
    ("A100", (8, 0), 400),
    ("A10", (8, 6), 150),
    ("A40", (8, 6), 300),
    ("RTX3090", (8, 6), 350),
    ("L4", (8, 9), 72),
    ("L40S", (8, 9), 350),
    ("RTX4090", (8, 9), 450),
    ("H100", (9, 0), 700),
    ("H200", (9, 0), 700),
    ("B200", (10, 0), 1_000),
];

/// What is known of the model of this name.
pub(super) fn known(model: &str) -> Known {
    // Constraints compare models without regard to case; so does this.
    let found = MODELS.iter().find(|(name, ..)| name.eq_ignore_ascii_case(model));
    found.map_or(UNKNOWN, |&(_, capability, watts)| Known {
        compute_capability: Some(capability),
        power_max_watts: watts,
    })
}
