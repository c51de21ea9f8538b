//! Keys and values of a batch that is being decoded: on the CPU row by row, elsewhere left-padded.
//! Memory is taken for 64 steps at first, and twice as much whenever it is full.

use burn::tensor::{DType, Device, Int, Tensor, TensorData, activation::softmax};

use crate::ops::{RowCache, Scores, serves};
use crate::{DecoderConfig, Packed};

/// The cache of one block.
#[derive(Debug, Clone)]
pub enum LayerCache {
    /// Each row on its own.
    Rows(RowCache),
    /// A rectangle for all rows.
    Padded(Box<PaddedCache>),
}

/// Keys and values of one block, left-padded.
#[derive(Debug, Clone)]
pub struct PaddedCache {
    /// `[rows, kv_heads, capacity, head_dim]`; empty before the prefill.
    keys: Option<Tensor<4>>,
    /// Same shape as the keys.
    values: Option<Tensor<4>>,
    /// Columns that a new position sees, its own included.
    window: Option<usize>,
    layout: Layout,
}

/// What all blocks of a batch share.
#[derive(Debug, Clone)]
struct Layout {
    rows: usize,
    /// Columns taken by the prompts, the padding on the left included.
    width: usize,
    /// Columns that there is memory for.
    capacity: usize,
    /// Columns at most.
    limit: usize,
    /// Columns in use.
    used: usize,
    /// Pack position of each (row, column); padding points at position 0.
    source: Tensor<1, Int>,
    /// 0 where a column holds a token, a large negative number where it is padding:
    /// `[rows, 1, 1, capacity]`.
    mask: Tensor<4>,
}

/// The caches of all blocks.
#[derive(Debug, Clone)]
pub struct KvCache {
    /// One per block.
    pub layers: Vec<LayerCache>,
}

/// Columns of new positions that memory is taken for at first.
const RESERVED: usize = 64;

/// Added to the scores of padded columns; its exponential is 0 in f32.
const MASKED: f32 = -1e30;

impl KvCache {
    /// An empty cache for the rows of `packed` and up to `new_tokens` further positions each.
    pub fn new(packed: &Packed, new_tokens: usize, config: &DecoderConfig, device: &Device) -> Self {
        let segments = &packed.segments;
        if serves(device, DType::F32) && !device.is_autodiff() {
            let layer = |&kind| LayerCache::Rows(RowCache::new(segments, new_tokens, config.window(kind)));
            return Self { layers: config.layer_types.iter().map(layer).collect() };
        }
        let prefix = segments.prefix;
        let lengths: Vec<usize> = segments.ranges().map(|range| prefix + range.len()).collect();
        let width = lengths.iter().copied().max().unwrap_or(0);
        let (rows, capacity, limit) = (lengths.len(), width + new_tokens.min(RESERVED), width + new_tokens);
        let mut source = vec![0i32; rows * width];
        let mut mask = vec![0f32; rows * capacity];
        for (row, &length) in lengths.iter().enumerate() {
            let pad = width - length;
            mask[row * capacity..row * capacity + pad].fill(MASKED);
            for position in 0..length {
                source[row * width + pad + position] = packed.index(row, position) as i32;
            }
        }
        let layout = Layout {
            rows,
            width,
            capacity,
            limit,
            used: width,
            source: Tensor::from_data(TensorData::new(source, [rows * width]), device),
            mask: Tensor::from_data(TensorData::new(mask, [rows, 1, 1, capacity]), device),
        };
        let layer = |&kind| {
            let window = config.window(kind);
            let padded = PaddedCache { keys: None, values: None, window, layout: layout.clone() };
            LayerCache::Padded(Box::new(padded))
        };
        Self { layers: config.layer_types.iter().map(layer).collect() }
    }

    /// Keeps the given rows alone; ascending.
    pub fn keep(&mut self, rows: &[usize]) {
        for layer in &mut self.layers {
            match layer {
                LayerCache::Rows(cache) => cache.keep(rows),
                LayerCache::Padded(cache) => cache.keep(rows),
            }
        }
    }

    /// Whether rows can join while others are being decoded: a rectangle has no room for them.
    pub fn takes_rows(&self) -> bool {
        self.layers.iter().all(|layer| matches!(layer, LayerCache::Rows(_)))
    }

    /// Takes in the rows of another cache, behind its own.
    ///
    /// # Panics
    /// When either does not [take rows](Self::takes_rows): an error of the caller.
    pub fn join(&mut self, other: Self) {
        for (layer, other) in self.layers.iter_mut().zip(other.layers) {
            match (layer, other) {
                (LayerCache::Rows(cache), LayerCache::Rows(other)) => cache.join(other),
                _ => panic!("rows cannot join a padded cache"),
            }
        }
    }
}

impl LayerCache {
    /// Stores the prompts' keys and values.
    ///
    /// # Shapes
    /// - key and value: `[positions of the pack, kv_heads, head_dim]`
    pub fn prefill(&mut self, key: Tensor<3>, value: Tensor<3>) {
        match self {
            Self::Rows(cache) => cache.prefill(&key, &value),
            Self::Padded(cache) => cache.prefill(key, value),
        }
    }

    /// Stores one new position per row and attends over all of them.
    ///
    /// # Shapes
    /// - query: `[rows, heads, head_dim]`
    /// - key and value: `[rows, kv_heads, head_dim]`
    /// - output: `[rows, heads, head_dim]`
    ///
    /// # Panics
    /// When there was no prefill, or the capacity is exceeded: both are errors of the caller.
    pub fn attend(&mut self, query: Tensor<3>, key: Tensor<3>, value: Tensor<3>, how: Scores) -> Tensor<3> {
        match self {
            Self::Rows(cache) => cache.attend(&query, &key, &value, how),
            Self::Padded(cache) => cache.attend(query, key, value, how),
        }
    }
}

impl PaddedCache {
    fn keep(&mut self, rows: &[usize]) {
        let data = TensorData::new(rows.iter().map(|&r| r as i32).collect::<Vec<_>>(), [rows.len()]);
        let index: Tensor<1, Int> = Tensor::from_data(data, &self.layout.mask.device());
        self.keys = self.keys.take().map(|keys| keys.select(0, index.clone()));
        self.values = self.values.take().map(|values| values.select(0, index.clone()));
        self.layout.mask = self.layout.mask.clone().select(0, index);
        self.layout.rows = rows.len();
    }

    fn prefill(&mut self, key: Tensor<3>, value: Tensor<3>) {
        self.keys = Some(self.spread(key));
        self.values = Some(self.spread(value));
    }

    fn spread(&self, packed: Tensor<3>) -> Tensor<4> {
        let Layout { rows, width, capacity, source, .. } = &self.layout;
        let [_, heads, head_dim] = packed.dims();
        let device = packed.device();
        let columns = packed.select(0, source.clone()).reshape([*rows, *width, heads, head_dim]).swap_dims(1, 2);
        Tensor::zeros([*rows, heads, *capacity, head_dim], &device)
            .slice_assign([0..*rows, 0..heads, 0..*width, 0..head_dim], columns)
    }

    /// Takes memory for twice as many columns.
    fn grow(&mut self) {
        let more = self.layout.capacity.max(1).min(self.layout.limit - self.layout.capacity);
        let longer = |old: Tensor<4>, dim: usize| {
            let (mut shape, device) = (old.dims(), old.device());
            shape[dim] = more;
            Tensor::cat(vec![old, Tensor::zeros(shape, &device)], dim)
        };
        self.keys = self.keys.take().map(|keys| longer(keys, 2));
        self.values = self.values.take().map(|values| longer(values, 2));
        self.layout.mask = longer(self.layout.mask.clone(), 3);
        self.layout.capacity += more;
    }

    fn attend(&mut self, query: Tensor<3>, key: Tensor<3>, value: Tensor<3>, how: Scores) -> Tensor<3> {
        let [rows, heads, head_dim] = query.dims();
        let [_, kv_heads, _] = key.dims();
        let column = self.layout.used;
        assert!(column < self.layout.limit, "the cache holds {column} positions and is full");
        if column == self.layout.capacity {
            self.grow();
        }
        self.layout.used += 1;
        let used = self.layout.used;
        let place = [0..rows, 0..kv_heads, column..used, 0..head_dim];
        let (keys, values) = match (self.keys.take(), self.values.take()) {
            (Some(keys), Some(values)) => (keys, values),
            _ => panic!("a step needs a prefill before it"),
        };
        let keys = keys.slice_assign(place.clone(), key.unsqueeze_dim(2));
        let values = values.slice_assign(place, value.unsqueeze_dim(2));
        // Rows are aligned on the right, so that a window begins at the same column in all of them.
        let first = self.window.map_or(0, |window| used.saturating_sub(window));
        let seen = [0..rows, 0..kv_heads, first..used, 0..head_dim];
        let query = query.reshape([rows, kv_heads, heads / kv_heads, head_dim]);
        let scores = query.matmul(keys.clone().slice(seen.clone()).swap_dims(2, 3));
        let scores = how.apply(scores) + self.layout.mask.clone().slice([0..rows, 0..1, 0..1, first..used]);
        let output = softmax(scores, 3).matmul(values.clone().slice(seen));
        self.keys = Some(keys);
        self.values = Some(values);
        output.reshape([rows, heads, head_dim])
    }
}
