//! Norm, rotation and gate: one pass over the rows each way.

use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

use super::super::Activation;
use super::{Fused, contiguous, dims, fold, rows_per_task, tensor, values, widely, zeros};

/// See [`super::super::rms_norm`]; inputs: x, weight.
#[derive(Debug, Clone)]
pub struct RmsNorm {
    /// Added to the mean square.
    pub epsilon: f64,
}

impl Fused<2> for RmsNorm {
    /// x, weight and the inverse root mean square of each row.
    type Saved = (FlexTensor, FlexTensor, Vec<f32>);

    fn forward(&self, [x, weight]: [FlexTensor; 2]) -> (FlexTensor, Self::Saved) {
        let (x, weight) = (contiguous(x), contiguous(weight));
        let [rows, width] = dims(&x);
        let mut output = zeros(rows * width);
        let mut inverse = vec![0f32; rows];
        let scale = values(&weight);
        output
            .par_chunks_mut(width)
            .zip(values(&x).par_chunks(width))
            .zip(inverse.par_iter_mut())
            .with_min_len(rows_per_task(width))
            .for_each(|((output, x), inverse)| {
                *inverse = widely(
                    #[inline(always)]
                    || norm_row(output, x, scale, self.epsilon as f32),
                );
            });
        (tensor(output, [rows, width]), (x, weight, inverse))
    }

    fn backward(
        &self,
        (x, weight, inverse): Self::Saved,
        grad: FlexTensor,
        wanted: [bool; 2],
    ) -> [Option<FlexTensor>; 2] {
        let [rows, width] = dims(&x);
        let (scale, source, upstream) = (values(&weight), values(&x), values(&grad));
        let for_weight = wanted[1].then(|| {
            let mut sum = vec![0f32; width];
            for ((x, grad), inverse) in source.chunks(width).zip(upstream.chunks(width)).zip(&inverse) {
                for ((sum, x), grad) in sum.iter_mut().zip(x).zip(grad) {
                    *sum += grad * x * inverse;
                }
            }
            tensor(sum, [width])
        });
        let for_x = wanted[0].then(|| {
            let mut output = zeros(rows * width);
            output
                .par_chunks_mut(width)
                .zip(source.par_chunks(width))
                .zip(upstream.par_chunks(width))
                .zip(inverse.par_iter())
                .with_min_len(rows_per_task(width))
                .for_each(|(((output, x), grad), &inverse)| {
                    widely(
                        #[inline(always)]
                        || norm_row_backward(output, [x, grad, scale], inverse),
                    );
                });
            tensor(output, [rows, width])
        });
        [for_x, for_weight]
    }
}

/// The normed row, and the inverse of its root mean square.
#[inline(always)] // into code with the processor's vectors, as all functions of rows here
fn norm_row(output: &mut [f32], x: &[f32], scale: &[f32], epsilon: f32) -> f32 {
    let mean_square = fold::sum([x], |[x]| x * x) / x.len() as f32;
    let inverse = 1.0 / (mean_square + epsilon).sqrt();
    for ((output, x), scale) in output.iter_mut().zip(x).zip(scale) {
        *output = x * inverse * scale;
    }
    inverse
}

#[inline(always)]
fn norm_row_backward(output: &mut [f32], [x, grad, scale]: [&[f32]; 3], inverse: f32) {
    let dot = fold::sum([x, grad, scale], |[x, grad, scale]| x * grad * scale);
    let pull = dot * inverse * inverse * inverse / x.len() as f32;
    for (((output, x), grad), scale) in output.iter_mut().zip(x).zip(grad).zip(scale) {
        *output = grad * scale * inverse - x * pull;
    }
}

/// See [`super::super::rotate`]; input: x. The tables are `[rows, head_dim / 2]`.
#[derive(Debug, Clone)]
pub struct Rotate {
    /// Cosines.
    pub cos: FlexTensor,
    /// Sines.
    pub sin: FlexTensor,
}

impl Rotate {
    /// Rotates by the angles, or back by them.
    fn turn(&self, x: FlexTensor, sign: f32) -> FlexTensor {
        let [rows, heads, head_dim] = dims(&x);
        let half = head_dim / 2;
        let mut output = zeros(rows * heads * head_dim);
        output
            .par_chunks_mut(heads * head_dim)
            .zip(values(&x).par_chunks(heads * head_dim))
            .zip(values(&self.cos).par_chunks(half).zip(values(&self.sin).par_chunks(half)))
            .with_min_len(rows_per_task(heads * head_dim))
            .for_each(|((output, x), (cos, sin))| {
                widely(
                    #[inline(always)]
                    || {
                        for (output, x) in output.chunks_mut(head_dim).zip(x.chunks(head_dim)) {
                            turn_head(output, x, [cos, sin], sign);
                        }
                    },
                );
            });
        tensor(output, [rows, heads, head_dim])
    }
}

#[inline(always)]
fn turn_head(output: &mut [f32], x: &[f32], [cos, sin]: [&[f32]; 2], sign: f32) {
    let half = cos.len();
    let ((first, second), (a, b)) = (output.split_at_mut(half), x.split_at(half));
    let outputs = first.iter_mut().zip(second);
    for (((first, second), (a, b)), (cos, sin)) in outputs.zip(a.iter().zip(b)).zip(cos.iter().zip(sin)) {
        let sin = sign * sin;
        *first = a * cos - b * sin;
        *second = b * cos + a * sin;
    }
}

impl Fused<1> for Rotate {
    type Saved = ();

    fn forward(&self, [x]: [FlexTensor; 1]) -> (FlexTensor, Self::Saved) {
        (self.turn(contiguous(x), 1.0), ())
    }

    fn backward(&self, (): Self::Saved, grad: FlexTensor, wanted: [bool; 1]) -> [Option<FlexTensor>; 1] {
        [wanted[0].then(|| self.turn(grad, -1.0))]
    }
}

/// `activation(gate) * up`; inputs: gate, up.
#[derive(Debug, Clone)]
pub struct Gated {
    /// The activation.
    pub activation: Activation,
}

impl Gated {
    fn apply(&self, gate: &FlexTensor, up: &FlexTensor) -> FlexTensor {
        let [rows, width] = dims(gate);
        let mut output = zeros(rows * width);
        output
            .par_chunks_mut(width)
            .zip(values(gate).par_chunks(width))
            .zip(values(up).par_chunks(width))
            .with_min_len(rows_per_task(width))
            .for_each(|((output, gate), up)| {
                widely(
                    #[inline(always)]
                    || match self.activation {
                        Activation::Silu => gate_row::<false>(output, gate, up),
                        Activation::GeluTanh => gate_row::<true>(output, gate, up),
                    },
                );
            });
        tensor(output, [rows, width])
    }
}

#[inline(always)]
fn gate_row<const GELU: bool>(output: &mut [f32], gate: &[f32], up: &[f32]) {
    for ((output, &gate), &up) in output.iter_mut().zip(gate).zip(up) {
        *output = gate * sigmoid(inner::<GELU>(gate).0) * up;
    }
}

#[inline(always)]
fn gate_row_backward<const GELU: bool>(outputs: [&mut [f32]; 2], gate: &[f32], up: &[f32], grad: &[f32]) {
    let [for_gate, for_up] = outputs;
    let outputs = for_gate.iter_mut().zip(for_up);
    for (((for_gate, for_up), (gate, up)), grad) in outputs.zip(gate.iter().zip(up)).zip(grad) {
        let (inner, slope) = inner::<GELU>(*gate);
        let sigmoid = sigmoid(inner);
        *for_up = grad * gate * sigmoid;
        *for_gate = grad * up * sigmoid * (1.0 + gate * slope * (1.0 - sigmoid));
    }
}

/// What the sigmoid is taken of, and its slope. Both activations are `x * sigmoid(inner(x))`, since
/// `(1 + tanh(u)) / 2 = sigmoid(2 u)`.
///
/// # Mathematical Definition
/// SiLU: `x`; the tanh approximation of GeLU: `2 sqrt(2 / pi) (x + 0.044715 x^3)`.
#[inline(always)]
fn inner<const GELU: bool>(x: f32) -> (f32, f32) {
    const TWICE: f32 = 1.595_769;
    if !GELU {
        return (x, 1.0);
    }
    let square = x * x;
    (TWICE * x * (1.0 + 0.044_715 * square), TWICE * (1.0 + 3.0 * 0.044_715 * square))
}

impl Fused<2> for Gated {
    type Saved = [FlexTensor; 2];

    fn forward(&self, [gate, up]: [FlexTensor; 2]) -> (FlexTensor, Self::Saved) {
        let (gate, up) = (contiguous(gate), contiguous(up));
        (self.apply(&gate, &up), [gate, up])
    }

    fn backward(&self, [gate, up]: Self::Saved, grad: FlexTensor, wanted: [bool; 2]) -> [Option<FlexTensor>; 2] {
        if wanted == [false, false] {
            return [None, None];
        }
        let [rows, width] = dims(&gate);
        let mut for_gate = zeros(rows * width);
        let mut for_up = zeros(rows * width);
        for_gate
            .par_chunks_mut(width)
            .zip(for_up.par_chunks_mut(width))
            .zip(values(&gate).par_chunks(width).zip(values(&up).par_chunks(width)))
            .zip(values(&grad).par_chunks(width))
            .with_min_len(rows_per_task(width))
            .for_each(|(((for_gate, for_up), (gate, up)), grad)| {
                widely(
                    #[inline(always)]
                    || match self.activation {
                        // A loop for each, so that both vectorise.
                        Activation::Silu => gate_row_backward::<false>([for_gate, for_up], gate, up, grad),
                        Activation::GeluTanh => gate_row_backward::<true>([for_gate, for_up], gate, up, grad),
                    },
                );
            });
        [Some(tensor(for_gate, [rows, width])), Some(tensor(for_up, [rows, width]))]
    }
}

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// The exponential to about two units in the last place; unlike libm's it vectorises.
///
/// # Mathematical Definition
/// `e^x = 2^n e^r` with `n = round(x / ln 2)` and a polynomial for `|r| <= ln 2 / 2`.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.0, 88.0);
    let rounded = x * std::f32::consts::LOG2_E + ROUND;
    let n = rounded - ROUND;
    // ln 2 in two parts, so that r keeps its last bits.
    let r = (x - n * 0.693_145_75) - n * 1.428_606_8e-6;
    let p =
        1.0 + r * (1.0 + r * (0.5 + r * (1.666_666_7e-1 + r * (4.166_579_6e-2 + r * (8.333_452e-3 + r * 1.398_2e-3)))));
    // The last bits of `rounded` are n; a conversion would be done for one value at a time.
    p * f32::from_bits(rounded.to_bits().wrapping_add(127) << 23)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_exponential_is_within_a_few_units_in_the_last_place() {
        for i in -8600..8800 {
            let x = i as f32 * 0.01;
            let exact = f64::from(x).exp();
            let error = (f64::from(super::exp(x)) - exact).abs() / exact;
            assert!(error < 4e-7, "e^{x}: relative error {error}");
        }
    }
}
