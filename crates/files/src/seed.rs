//! Seeds made from a seed.

/// A seed for the `number`-th use of `seed`: the finaliser of SplitMix64, the same everywhere.
#[must_use]
pub fn derived_seed(seed: u64, number: u64) -> u64 {
    let mut z = seed.wrapping_add(number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The `number`-th of a seed's numbers from 0 up to 1, which itself is not one of them.
#[must_use]
pub fn uniform(seed: u64, number: u64) -> f64 {
    (derived_seed(seed, number) >> 11) as f64 / (1u64 << 53) as f64
}
