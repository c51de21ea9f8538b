//! How large a model is, from its directory or, where that is not there yet, from the sweep.

use std::path::Path;

use model::DecoderConfig;
use prompts::Tokenizer;

use crate::sweep::{HubShape, ModelSpec, Source, Sweep};

/// The sizes that time and memory depend on. Biases and norms are counted where a `config.json` tells of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// All parameters.
    pub parameters: usize,
    /// Parameters of the decoder blocks.
    pub hidden: usize,
    /// Number of token ids.
    pub vocabulary: usize,
    /// Width of the residual stream.
    pub width: usize,
    /// Width of the gated MLP.
    pub mlp: usize,
    /// Number of decoder blocks.
    pub blocks: usize,
    /// Width of all query heads.
    pub query: usize,
    /// Width of all key heads.
    pub key: usize,
}

impl Shape {
    /// The shape of a sweep's model; none where nothing tells it yet.
    #[must_use]
    pub fn of(sweep: &Sweep, model: &ModelSpec) -> Option<Self> {
        match &model.source {
            Source::Dir(dir) => Self::of_dir(&sweep.root_file(dir)),
            Source::Hub(hub) => Self::of_dir(&sweep.root_file(&hub.dir)).or(Some(hub.shape.into())),
            Source::Pretrain(pretrain) => {
                let tokenizer = Tokenizer::from_dir(&sweep.data_file(&pretrain.training.tokenizer)).ok()?;
                Some(Self::of_config(&pretrain.config.decoder(tokenizer.vocab_size()).ok()?))
            }
            Source::Gguf(gguf) => {
                let file = model::checkpoint::gguf::Gguf::open(&sweep.root_file(&gguf.file)).ok()?;
                Some(Self::of_config(&model::checkpoint::gguf::config(&file).ok()?))
            }
        }
    }

    /// The shape of the model in a directory; none where there is none.
    #[must_use]
    pub fn of_dir(dir: &Path) -> Option<Self> {
        Some(Self::of_config(&DecoderConfig::from_dir(dir).ok()?))
    }

    fn of_config(config: &DecoderConfig) -> Self {
        let shape = HubShape {
            vocab_size: config.vocab_size,
            hidden_size: config.hidden_size,
            intermediate_size: config.intermediate_size,
            num_hidden_layers: config.num_hidden_layers,
            num_attention_heads: config.num_attention_heads,
            num_key_value_heads: config.num_key_value_heads,
            head_dim: Some(config.head_dim),
            tie_word_embeddings: config.tie_word_embeddings,
        };
        let (rough, hidden) = (Self::from(shape), config.hidden_parameters());
        Self { parameters: rough.parameters - rough.hidden + hidden, hidden, ..rough }
    }

    /// Parameters of a low-rank adapter on the seven projections of every block.
    #[must_use]
    pub fn adapter(&self, rank: usize) -> usize {
        let (d, q, k, f) = (self.width, self.query, self.key, self.mlp);
        self.blocks * rank * ((d + q) + 2 * (d + k) + (q + d) + 3 * (d + f))
    }
}

impl From<HubShape> for Shape {
    fn from(shape: HubShape) -> Self {
        let (width, mlp, blocks) = (shape.hidden_size, shape.intermediate_size, shape.num_hidden_layers);
        let head = shape.head_dim.unwrap_or(width / shape.num_attention_heads);
        let (query, key) = (shape.num_attention_heads * head, shape.num_key_value_heads * head);
        let hidden = blocks * (2 * width * query + 2 * width * key + 3 * width * mlp + 2 * width);
        let tables = if shape.tie_word_embeddings { 1 } else { 2 };
        let parameters = hidden + tables * shape.vocab_size * width + width;
        Self { parameters, hidden, vocabulary: shape.vocab_size, width, mlp, blocks, query, key }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_papers_models_have_the_parameters_that_their_cards_say() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("paper.yaml");
        let sweep = Sweep::parse(&std::fs::read_to_string(&path).unwrap(), &path).unwrap();
        // Safetensors sizes of the hub's cards; Qwen's q, k and v biases (393,216) are not in a plan's shape.
        let cards: [usize; 5] = [6_738_415_616, 13_015_864_320, 2_506_172_416, 7_241_732_096, 7_721_324_544];
        for (model, card) in sweep.models.iter().zip(cards) {
            let parameters = Shape::of(&sweep, model).unwrap().parameters;
            assert!(parameters.abs_diff(card) < 500_000, "{}: {parameters} is not {card}", model.name);
        }
    }

    #[test]
    fn an_adapter_has_two_thin_matrices_for_each_projection() {
        let shape = Shape { parameters: 0, hidden: 0, vocabulary: 9, width: 4, mlp: 6, blocks: 2, query: 4, key: 2 };
        // Per block and rank: q 8, k and v 6 each, o 8, gate, up and down 10 each.
        assert_eq!(shape.adapter(3), 2 * 3 * (8 + 12 + 8 + 30));
    }
}
