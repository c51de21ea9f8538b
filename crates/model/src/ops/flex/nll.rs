//! Softmax cross-entropy per row, without a copy of the probabilities in the forward.

use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

use super::elementwise::exp;
use super::{Fused, contiguous, dims, fold, tensor, values, widely, zeros};

/// See [`super::super::negative_log_likelihood`]; input: logits.
#[derive(Debug, Clone)]
pub struct NegativeLogLikelihood {
    /// The target id of each row.
    pub targets: Vec<u32>,
}

impl Fused<1> for NegativeLogLikelihood {
    /// Logits, and the logarithm of each row's sum of exponentials.
    type Saved = (FlexTensor, Vec<f32>);

    fn forward(&self, [logits]: [FlexTensor; 1]) -> (FlexTensor, Self::Saved) {
        let logits = contiguous(logits);
        let [rows, vocab] = dims(&logits);
        let log_sums: Vec<f32> = values(&logits).par_chunks(vocab).map(log_sum_exp).collect();
        let losses = values(&logits).chunks(vocab).zip(&self.targets).zip(&log_sums);
        let losses: Vec<f32> = losses.map(|((row, &target), sum)| sum - row[target as usize]).collect();
        (tensor(losses, [rows]), (logits, log_sums))
    }

    fn backward(
        &self,
        (logits, log_sums): Self::Saved,
        grad: FlexTensor,
        wanted: [bool; 1],
    ) -> [Option<FlexTensor>; 1] {
        let [rows, vocab] = dims(&logits);
        let gradient = wanted[0].then(|| {
            let mut output = zeros(rows * vocab);
            output
                .par_chunks_mut(vocab)
                .zip(values(&logits).par_chunks(vocab))
                .zip(log_sums.par_iter().zip(values(&grad)))
                .zip(self.targets.par_iter())
                .for_each(|(((output, logits), (&sum, &grad)), &target)| {
                    widely(
                        #[inline(always)]
                        || {
                            for (output, &logit) in output.iter_mut().zip(logits) {
                                *output = grad * exp(logit - sum);
                            }
                        },
                    );
                    output[target as usize] -= grad;
                });
            tensor(output, [rows, vocab])
        });
        [gradient]
    }
}

fn log_sum_exp(row: &[f32]) -> f32 {
    widely(
        #[inline(always)]
        || {
            let max = fold::max(row);
            let sums = row.chunks(1 << 13).map(|part| f64::from(fold::sum([part], |[x]| exp(x - max))));
            max + (sums.sum::<f64>() as f32).ln()
        },
    )
}
