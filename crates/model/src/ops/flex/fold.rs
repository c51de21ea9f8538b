//! Sums and maxima of rows, sixteen values side by side: the order is the same for vectors of every width, and so are the bits.

/// Values that are folded side by side.
const SIDE: usize = 16;

/// The sum of `term` over the places of rows of one length.
#[inline(always)] // into code with the processor's vectors
pub fn sum<const N: usize>(rows: [&[f32]; N], term: impl Fn([f32; N]) -> f32) -> f32 {
    fold(rows, 0.0, |sum, values| sum + term(values), |a, b| a + b)
}

/// The largest value; NaN is none.
#[inline(always)]
pub fn max(row: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    fold([row], f32::NEG_INFINITY, |max, [value]| larger(max, value), larger)
}

#[inline(always)]
fn fold<const N: usize>(
    rows: [&[f32]; N],
    start: f32,
    add: impl Fn(f32, [f32; N]) -> f32,
    join: impl Fn(f32, f32) -> f32,
) -> f32 {
    let mut side = [start; SIDE];
    let parts = rows.map(|row| row.as_chunks::<SIDE>());
    for part in 0..parts.iter().map(|(full, _)| full.len()).min().unwrap_or(0) {
        let part = parts.map(|(full, _)| full[part]);
        for (lane, folded) in side.iter_mut().enumerate() {
            *folded = add(*folded, part.map(|values| values[lane]));
        }
    }
    for place in 0..parts.iter().map(|(_, rest)| rest.len()).min().unwrap_or(0) {
        side[place] = add(side[place], parts.map(|(_, rest)| rest[place]));
    }
    let mut width = SIDE / 2;
    while width > 0 {
        for lane in 0..width {
            side[lane] = join(side[lane], side[lane + width]);
        }
        width /= 2;
    }
    side[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_every_length_are_folded_whole() {
        for len in 0..70u16 {
            let row: Vec<f32> = (0..len).map(f32::from).collect();
            let last = f32::from(len.saturating_sub(1));
            assert_eq!(sum([&row], |[x]| x), last * f32::from(len) / 2.0);
            assert_eq!(sum([&row, &row], |[x, y]| x - y), 0.0);
            assert_eq!(max(&row), if len == 0 { f32::NEG_INFINITY } else { last });
        }
    }
}
