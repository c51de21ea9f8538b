//! The block formats of GGML that this crate reads, and their values as f32.
//!
//! Each value is one product (and one sum) in f32 in the reference's order, so that results equal
//! those of llama.cpp and of the Python package gguf bit for bit. Nothing is quantised here.

use half::{bf16, f16};

/// How a tensor's values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(non_camel_case_types)] // The names of the formats.
pub enum BlockType {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of a single.
    BF16,
    /// 32 values of 4 bits, one scale.
    Q4_0,
    /// 32 values of 4 bits, scale and minimum.
    Q4_1,
    /// 32 values of 5 bits, one scale.
    Q5_0,
    /// 32 values of 5 bits, scale and minimum.
    Q5_1,
    /// 32 values of 8 bits, one scale.
    Q8_0,
    /// 256 values of 2 bits in 16 groups, each with scale and minimum of 4 bits.
    Q2_K,
    /// 256 values of 3 bits in 16 groups, each with a scale of 6 bits.
    Q3_K,
    /// 256 values of 4 bits in 8 groups, each with scale and minimum of 6 bits.
    Q4_K,
    /// 256 values of 5 bits in 8 groups, each with scale and minimum of 6 bits.
    Q5_K,
    /// 256 values of 6 bits in 16 groups, each with a scale of 8 bits.
    Q6_K,
}

/// The types by their numbers in GGML.
const IDS: [(u32, BlockType); 13] = [
    (0, BlockType::F32),
    (1, BlockType::F16),
    (30, BlockType::BF16),
    (2, BlockType::Q4_0),
    (3, BlockType::Q4_1),
    (6, BlockType::Q5_0),
    (7, BlockType::Q5_1),
    (8, BlockType::Q8_0),
    (10, BlockType::Q2_K),
    (11, BlockType::Q3_K),
    (12, BlockType::Q4_K),
    (13, BlockType::Q5_K),
    (14, BlockType::Q6_K),
];

impl BlockType {
    /// The type with GGML's number `id`, if it is supported.
    pub fn from_id(id: u32) -> Option<Self> {
        IDS.into_iter().find(|(own, _)| *own == id).map(|(_, kind)| kind)
    }

    /// The names of all types, divided by commas.
    pub fn names() -> String {
        IDS.map(|(_, kind)| format!("{kind:?}")).join(", ")
    }

    /// Values in a block and bytes of a block.
    pub fn block(self) -> (usize, usize) {
        match self {
            Self::F32 => (1, 4),
            Self::F16 | Self::BF16 => (1, 2),
            Self::Q4_0 => (32, 18),
            Self::Q4_1 => (32, 20),
            Self::Q5_0 => (32, 22),
            Self::Q5_1 => (32, 24),
            Self::Q8_0 => (32, 34),
            Self::Q2_K => (256, 84),
            Self::Q3_K => (256, 110),
            Self::Q4_K => (256, 144),
            Self::Q5_K => (256, 176),
            Self::Q6_K => (256, 210),
        }
    }

    /// The values of whole blocks.
    ///
    /// # Panics
    /// When `bytes` is not a whole number of blocks.
    pub fn dequantize(self, bytes: &[u8]) -> Vec<f32> {
        let (values, size) = self.block();
        assert!(bytes.len().is_multiple_of(size), "{} bytes are no whole number of {self:?} blocks", bytes.len());
        let mut out = Vec::with_capacity(bytes.len() / size * values);
        for block in bytes.chunks_exact(size) {
            match self {
                Self::F32 => out.push(f32::from_le_bytes([block[0], block[1], block[2], block[3]])),
                Self::F16 => out.push(half(block)),
                Self::BF16 => out.push(bf16::from_le_bytes([block[0], block[1]]).to_f32()),
                Self::Q4_0 => q4_0(block, &mut out),
                Self::Q4_1 => q4_1(block, &mut out),
                Self::Q5_0 => q5_0(block, &mut out),
                Self::Q5_1 => q5_1(block, &mut out),
                Self::Q8_0 => q8_0(block, &mut out),
                Self::Q2_K => q2_k(block, &mut out),
                Self::Q3_K => q3_k(block, &mut out),
                Self::Q4_K => k_groups(block, None, &block[16..], &mut out),
                Self::Q5_K => k_groups(block, Some(&block[16..48]), &block[48..], &mut out),
                Self::Q6_K => q6_k(block, &mut out),
            }
        }
        out
    }
}

/// The half-precision number at the start of `bytes`.
fn half(bytes: &[u8]) -> f32 {
    f16::from_le_bytes([bytes[0], bytes[1]]).to_f32()
}

/// 4-bit values: the low halves of all bytes, then the high halves.
fn nibbles(bytes: &[u8]) -> impl Iterator<Item = u8> + '_ {
    bytes.iter().map(|byte| byte & 15).chain(bytes.iter().map(|byte| byte >> 4))
}

fn q4_0(block: &[u8], out: &mut Vec<f32>) {
    let scale = half(block);
    out.extend(nibbles(&block[2..]).map(|q| scale * (f32::from(q) - 8.0)));
}

fn q4_1(block: &[u8], out: &mut Vec<f32>) {
    let (scale, minimum) = (half(block), half(&block[2..]));
    out.extend(nibbles(&block[4..]).map(|q| scale * f32::from(q) + minimum));
}

fn q8_0(block: &[u8], out: &mut Vec<f32>) {
    let scale = half(block);
    out.extend(block[2..].iter().map(|&q| scale * f32::from(q as i8)));
}

/// 5-bit values: [`nibbles`] with a fifth bit each from `high`.
fn five_bits<'a>(high: &'a [u8], low: &'a [u8]) -> impl Iterator<Item = u8> + 'a {
    nibbles(low).enumerate().map(|(index, q)| q | (high[index / 8] >> (index % 8) & 1) << 4)
}

fn q5_0(block: &[u8], out: &mut Vec<f32>) {
    let scale = half(block);
    out.extend(five_bits(&block[2..6], &block[6..]).map(|q| scale * (f32::from(q) - 16.0)));
}

fn q5_1(block: &[u8], out: &mut Vec<f32>) {
    let (scale, minimum) = (half(block), half(&block[2..]));
    out.extend(five_bits(&block[4..8], &block[8..]).map(|q| scale * f32::from(q) + minimum));
}

/// 2-bit values: of each 32 bytes the lowest two bits of all, then the next two.
fn pairs(bytes: &[u8]) -> impl Iterator<Item = u8> + '_ {
    bytes.chunks_exact(32).flat_map(|part| (0..4).flat_map(move |at| part.iter().map(move |byte| byte >> (2 * at) & 3)))
}

fn q2_k(block: &[u8], out: &mut Vec<f32>) {
    let (scale, minimum) = (half(&block[80..]), half(&block[82..]));
    out.extend(pairs(&block[16..80]).enumerate().map(|(index, q)| {
        let group = block[index / 16];
        scale * f32::from(group & 15) * f32::from(q) - minimum * f32::from(group >> 4)
    }));
}

/// A value is 4 less where its bit in the first 32 bytes is 0. The scales' low 4 bits come first, then the high 2.
fn q3_k(block: &[u8], out: &mut Vec<f32>) {
    let (high, scales, scale) = (&block[..32], &block[96..108], half(&block[108..]));
    let of_group = |group: usize| {
        let low = scales[group % 8] >> (4 * (group / 8)) & 15;
        let upper = scales[8 + group % 4] >> (2 * (group / 4)) & 3;
        f32::from(low | upper << 4) - 32.0
    };
    out.extend(pairs(&block[32..96]).enumerate().map(|(index, q)| {
        let offset = if high[index % 32] >> (index / 32) & 1 == 1 { 0.0 } else { 4.0 };
        scale * of_group(index / 16) * (f32::from(q) - offset)
    }));
}

/// Q4_K and Q5_K: 8 groups of 32, the fifth bits of group g at bit g of `high`.
fn k_groups(block: &[u8], high: Option<&[u8]>, quants: &[u8], out: &mut Vec<f32>) {
    let (scale, minimum) = (half(block), half(&block[2..]));
    let packed = &block[4..16];
    for (pair, quants) in quants.chunks_exact(32).enumerate() {
        let groups: [(f32, f32); 2] = [2 * pair, 2 * pair + 1].map(|group| {
            let (s, m) = six_bits(packed, group);
            (scale * f32::from(s), minimum * f32::from(m))
        });
        out.extend(nibbles(quants).enumerate().map(|(index, q)| {
            let (scale, minimum) = groups[index / 32];
            let fifth = high.map_or(0, |high| high[index % 32] >> (2 * pair + index / 32) & 1);
            scale * f32::from(q | fifth << 4) - minimum
        }));
    }
}

/// Scale and minimum of a group of Q4_K and Q5_K: those of groups 4 to 7 keep their upper two bits in the
/// spare bits of groups 0 to 3.
fn six_bits(packed: &[u8], group: usize) -> (u8, u8) {
    if group < 4 {
        (packed[group] & 63, packed[group + 4] & 63)
    } else {
        let low = packed[group + 4];
        ((low & 15) | (packed[group - 4] >> 6) << 4, (low >> 4) | (packed[group] >> 6) << 4)
    }
}

fn q6_k(block: &[u8], out: &mut Vec<f32>) {
    let scale = half(&block[208..]);
    for part in 0..2 {
        let low = &block[64 * part..64 * (part + 1)];
        let high = &block[128 + 32 * part..128 + 32 * (part + 1)];
        let scales = &block[192 + 8 * part..192 + 8 * (part + 1)];
        for (index, q) in nibbles(low).enumerate() {
            let upper = (high[index % 32] >> (2 * (index / 32))) & 3;
            let q = f32::from(q | upper << 4) - 32.0;
            out.push(scale * f32::from(scales[index / 16] as i8) * q);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A block whose scales are 0.5 and 0.25 and whose other bytes are `bytes`.
    fn block(halves: &[f32], bytes: &[u8]) -> Vec<u8> {
        let mut block: Vec<u8> = halves.iter().flat_map(|&value| f16::from_f32(value).to_le_bytes()).collect();
        block.extend(bytes);
        block
    }

    #[test]
    fn values_of_small_blocks_are_scale_times_quant() {
        let mut quants = [0x80; 16];
        quants[1] = 0xf3;
        let q4_0 = BlockType::Q4_0.dequantize(&block(&[0.5], &quants));
        assert_eq!((q4_0[0], q4_0[1], q4_0[16], q4_0[17]), (-4.0, -2.5, 0.0, 3.5));
        let q4_1 = BlockType::Q4_1.dequantize(&block(&[0.5, 0.25], &quants));
        assert_eq!((q4_1[0], q4_1[1], q4_1[16], q4_1[17]), (0.25, 1.75, 4.25, 7.75));
        let mut quants = [0; 32];
        (quants[0], quants[31]) = (0x81, 0x7f);
        let q8_0 = BlockType::Q8_0.dequantize(&block(&[0.5], &quants));
        assert_eq!((q8_0[0], q8_0[1], q8_0[31]), (-63.5, 0.0, 63.5));
        assert_eq!(BlockType::BF16.dequantize(&[0x80, 0x3f]), [1.0]);
    }

    #[test]
    fn groups_of_q4_k_have_their_own_scale_and_minimum() {
        let mut bytes = [0u8; 140];
        // Group 0: scale 3, minimum 2; group 7: scale 0b10_0101, minimum 0b01_0110.
        (bytes[0], bytes[4]) = (3, 2);
        (bytes[3], bytes[7], bytes[11]) = (0b1000_0000, 0b0100_0000, 0b0110_0101);
        bytes[12] = 0x05;
        bytes[12 + 127] = 0x40;
        let values = BlockType::Q4_K.dequantize(&block(&[0.5, 0.25], &bytes));
        assert_eq!((values.len(), values[0], values[1]), (256, 0.5 * 3.0 * 5.0 - 0.25 * 2.0, -0.5));
        assert_eq!(values[255], 0.5 * 37.0 * 4.0 - 0.25 * 22.0);
    }

    #[test]
    fn values_of_q6_k_join_low_and_high_bits() {
        let mut bytes = vec![0u8; 208];
        bytes[64 + 33] = 0x90; // Part 1, low bits of values 33 (0) and 97 (9).
        bytes[128 + 32 + 1] = 0b1000_0000; // High bits of value 97 of part 1: 2.
        bytes[192 + 8 + 6] = 0xfd; // Scale of values 96 to 111 of part 1: -3.
        bytes.extend(f16::from_f32(0.5).to_le_bytes());
        let values = BlockType::Q6_K.dequantize(&bytes);
        assert_eq!(values.len(), 256);
        assert_eq!(values[128 + 97], 0.5 * -3.0 * (41.0 - 32.0));
        assert_eq!(values[128 + 96], 0.5 * -3.0 * -32.0);
        assert_eq!(values[0], 0.0);
    }
}
