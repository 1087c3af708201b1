//! Noise without state: the same seed, device and moment always give the same figure.
//!
//! The mixing function is splitmix64 (Steele, Lea, Flood 2014), fixed here so that a scenario plays the same under
//! every later version. It is no source of secrets.

/// The noise of one device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Noise(u64);

impl Noise {
    /// Of this device of a simulation with this seed.
    pub(super) fn new(seed: u64, device_uuid: &str) -> Self {
        // FNV-1a over the UUID, so that adding a node does not change the figures of the others.
        let hash = device_uuid.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        Self(mix(seed ^ hash))
    }

    /// A number below `bound` (0 for a bound of 0) for this use at this moment.
    pub(super) fn below(self, bound: u32, stream: u64, moment: u64) -> u32 {
        let drawn = mix(self.0 ^ mix(stream.wrapping_mul(0x9e37_79b9) ^ moment.rotate_left(32)));
        let product = u128::from(drawn) * u128::from(bound);
        // The product is below bound × 2⁶⁴, so its upper half is below the bound.
        u32::try_from(product >> 64).unwrap_or(0)
    }
}

fn mix(seed: u64) -> u64 {
    let seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let seed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let seed = (seed ^ (seed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    seed ^ (seed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_stays_below_its_bound_and_fills_it() {
        let noise = Noise::new(7, "SIM-alpha-0");
        let mut seen = [0; 10];
        for moment in 0..1_000 {
            seen[noise.below(10, 1, moment) as usize] += 1;
        }
        assert!(seen.iter().all(|count| (50..200).contains(count)), "{seen:?}");
        assert_eq!(noise.below(0, 1, 1), 0);
    }

    #[test]
    fn seed_device_stream_and_moment_all_matter() {
        let draw =
            |seed, uuid, stream, moment| Noise::new(seed, uuid).below(u32::MAX, stream, moment);
        let first = draw(1, "a", 1, 1);
        assert_eq!(first, draw(1, "a", 1, 1));
        for other in
            [draw(2, "a", 1, 1), draw(1, "b", 1, 1), draw(1, "a", 2, 1), draw(1, "a", 1, 2)]
        {
            assert_ne!(first, other);
        }
    }
}
