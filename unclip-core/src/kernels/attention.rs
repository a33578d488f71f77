//! Scaled dot-product attention and its gradients, one head of one sample at a time: scores of a
//! few queries stay in the cache, and none are kept for the way back.

#![allow(unsafe_code)]

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::{
    matrix::{Matrix, multiply},
    scratch::{Scratch, Shared, written},
    shape::{AttentionShape, HIDDEN},
    simd::{dispatch, dot},
    softmax::softmax_row,
};

/// Queries that are worked on at once.
const QUERIES: usize = 128;

/// The tensors of an attention: `[b, queries or keys, heads · width]`.
#[derive(Clone, Copy)]
pub(super) struct Given<'a> {
    pub(super) query: &'a [f32],
    pub(super) key: &'a [f32],
    pub(super) value: &'a [f32],
    /// `[b, mask_rows, keys]`, not 0 where a key must not be seen.
    pub(super) mask: &'a [f32],
}

/// The gradients for query, key and value.
pub(super) struct Found {
    pub(super) query: Vec<f32>,
    pub(super) key: Vec<f32>,
    pub(super) value: Vec<f32>,
}

impl AttentionShape {
    /// Where head `head` of sample `sample` starts among rows of `length` a sample.
    fn start(&self, sample: usize, head: usize, length: usize) -> usize {
        sample * length * self.row() + head * self.width
    }
}

/// The result, `[b, queries, heads · width]`.
pub(super) fn forward(given: Given<'_>, shape: &AttentionShape) -> Vec<f32> {
    let blocks = shape.queries.div_ceil(QUERIES);
    let tasks = shape.batch * shape.heads * blocks;
    let compute = |out: &Shared<'_>| {
        (0..tasks).into_par_iter().for_each(|task| {
            let (pair, block) = (task / blocks, task % blocks);
            let head = Head::new(given, shape, pair);
            let (first, count) = head.block(block);
            let mut scratch = Scratch::take(count * shape.keys);
            let scores = scratch.values();
            head.weights(first, count, scores);
            let [n, m, d] = [count, shape.keys, shape.width];
            let start = head.start(shape.queries) + first * shape.row();
            // SAFETY: no two tasks have the same queries of the same head; the rest is borrowed.
            unsafe {
                let out = out.values(start, (n - 1) * shape.row() + d);
                let weights = Matrix::new(scores, [n, m], m);
                multiply(
                    [n, d, m],
                    out,
                    shape.row(),
                    weights,
                    head.value(),
                    1.0,
                    false,
                );
            }
        });
    };
    // SAFETY: the tasks are all queries of all heads.
    unsafe { written(shape.batch * shape.queries * shape.row(), compute) }
}

/// The gradients, given the one for the result.
pub(super) fn backward(given: Given<'_>, gradient: &[f32], shape: &AttentionShape) -> Found {
    let [queries, keys] = [shape.queries, shape.keys].map(|n| shape.batch * n * shape.row());
    let (mut key, mut value) = (Vec::new(), Vec::new());
    let compute = |query_out: &Shared<'_>| {
        let compute = |key_out: &Shared<'_>| {
            let compute = |value_out: &Shared<'_>| {
                let pairs = (0..shape.batch * shape.heads).into_par_iter();
                pairs.for_each(|pair| {
                    let head = Head::new(given, shape, pair);
                    // SAFETY: no two tasks have the same head.
                    unsafe { head.backward(gradient, [query_out, key_out, value_out]) }
                });
            };
            // SAFETY: the tasks are all heads.
            value = unsafe { written(keys, compute) };
        };
        // SAFETY: as above.
        key = unsafe { written(keys, compute) };
    };
    // SAFETY: as above.
    let query = unsafe { written(queries, compute) };
    Found { query, key, value }
}

/// One head of one sample.
struct Head<'a> {
    given: Given<'a>,
    shape: &'a AttentionShape,
    sample: usize,
    head: usize,
}

impl<'a> Head<'a> {
    fn new(given: Given<'a>, shape: &'a AttentionShape, pair: usize) -> Self {
        Self {
            given,
            shape,
            sample: pair / shape.heads,
            head: pair % shape.heads,
        }
    }

    fn start(&self, length: usize) -> usize {
        self.shape.start(self.sample, self.head, length)
    }

    /// First query and number of queries of a block.
    fn block(&self, block: usize) -> (usize, usize) {
        let first = block * QUERIES;
        (first, QUERIES.min(self.shape.queries - first))
    }

    /// `count` rows of this head from row `first`, of a tensor with `length` rows a sample.
    fn rows(&self, values: &[f32], length: usize, first: usize, count: usize) -> Matrix {
        let row = self.shape.row();
        let values = &values[self.start(length) + first * row..];
        Matrix::new(values, [count, self.shape.width], row)
    }

    fn key(&self) -> Matrix {
        self.rows(self.given.key, self.shape.keys, 0, self.shape.keys)
    }

    fn value(&self) -> Matrix {
        self.rows(self.given.value, self.shape.keys, 0, self.shape.keys)
    }

    /// The softmax of the scores of some queries, `[count, keys]`.
    fn weights(&self, first: usize, count: usize, scores: &mut [f32]) {
        let shape = self.shape;
        let query = self.rows(self.given.query, shape.queries, first, count);
        // SAFETY: queries and keys are borrowed, the scores are there and ours.
        unsafe {
            multiply(
                [count, shape.keys, shape.width],
                scores.as_mut_ptr(),
                shape.keys,
                query,
                self.key().transposed(),
                shape.scale(),
                false,
            );
        }
        let mask = self.mask(first);
        dispatch(Softmax { scores, mask });
    }

    fn mask(&self, first: usize) -> Mask<'a> {
        let (rows, keys) = (self.shape.mask_rows, self.shape.keys);
        Mask {
            hidden: &self.given.mask[self.sample * rows * keys..][..rows * keys],
            keys,
            first,
            is_causal: self.shape.is_causal,
        }
    }

    /// # Safety
    /// Nothing else may use this head's values of `out`: of query, key and value.
    unsafe fn backward(&self, gradient: &[f32], out: [&Shared<'_>; 3]) {
        let shape = self.shape;
        let (m, d, row) = (shape.keys, shape.width, shape.row());
        let most = QUERIES.min(shape.queries);
        let mut scratch = Scratch::take(2 * most * m);
        let (weights, slopes) = scratch.values().split_at_mut(most * m);
        let span = |rows: usize| (rows - 1) * row + d;
        // SAFETY: by the caller.
        let [query_out, key_out, value_out] = unsafe {
            [
                out[0].values(self.start(shape.queries), span(shape.queries)),
                out[1].values(self.start(m), span(m)),
                out[2].values(self.start(m), span(m)),
            ]
        };
        for block in 0..shape.queries.div_ceil(QUERIES) {
            let (first, n) = self.block(block);
            let (weights, slopes) = (&mut weights[..n * m], &mut slopes[..n * m]);
            self.weights(first, n, weights);
            let gradient = self.rows(gradient, shape.queries, first, n);
            let query = self.rows(self.given.query, shape.queries, first, n);
            let is_later = block > 0;
            // SAFETY: inputs are borrowed, scratch memory is ours, and the results by the caller.
            unsafe {
                let w = Matrix::new(weights, [n, m], m);
                multiply(
                    [m, d, n],
                    value_out,
                    row,
                    w.transposed(),
                    gradient,
                    1.0,
                    is_later,
                );
                let value = self.value().transposed();
                multiply(
                    [n, m, d],
                    slopes.as_mut_ptr(),
                    m,
                    gradient,
                    value,
                    1.0,
                    false,
                );
                dispatch(Slopes {
                    weights,
                    slopes,
                    mask: self.mask(first),
                    scale: shape.scale(),
                });
                let s = Matrix::new(slopes, [n, m], m);
                let query_out = query_out.add(first * row);
                multiply([n, d, m], query_out, row, s, self.key(), 1.0, false);
                multiply(
                    [m, d, n],
                    key_out,
                    row,
                    s.transposed(),
                    query,
                    1.0,
                    is_later,
                );
            }
        }
    }
}

/// What some queries must not see.
struct Mask<'a> {
    /// For all queries one row, for each its own, or none.
    hidden: &'a [f32],
    keys: usize,
    /// Place of the first query.
    first: usize,
    is_causal: bool,
}

impl Mask<'_> {
    /// Puts `value` where the query that is `number`-th here must not look.
    #[inline(always)]
    fn hide(&self, number: usize, values: &mut [f32], value: f32) {
        let (query, rows) = (self.first + number, self.hidden.len() / self.keys);
        if rows > 0 {
            let hidden = &self.hidden[query.min(rows - 1) * self.keys..][..self.keys];
            for (at, hidden) in values.iter_mut().zip(hidden) {
                *at = if *hidden == 0.0 { *at } else { value };
            }
        }
        if self.is_causal {
            values[query + 1..].fill(value);
        }
    }
}

/// Scores to weights, in place.
struct Softmax<'a> {
    scores: &'a mut [f32],
    mask: Mask<'a>,
}

impl WithSimd for Softmax<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let rows = self.scores.chunks_exact_mut(self.mask.keys);
        for (number, scores) in rows.enumerate() {
            self.mask.hide(number, scores, HIDDEN);
            softmax_row(simd, scores);
        }
    }
}

/// Gradients for weights to those for products of query and key, in place.
struct Slopes<'a> {
    weights: &'a [f32],
    slopes: &'a mut [f32],
    mask: Mask<'a>,
    scale: f32,
}

impl WithSimd for Slopes<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let keys = self.mask.keys;
        let rows = self.weights.chunks_exact(keys).enumerate();
        for ((number, weights), slopes) in rows.zip(self.slopes.chunks_exact_mut(keys)) {
            let mean = dot(simd, weights, slopes);
            for (slope, weight) in slopes.iter_mut().zip(weights) {
                *slope = weight * (*slope - mean) * self.scale;
            }
            // Where all keys are hidden they have weights, but the scores have no part in them.
            self.mask.hide(number, slopes, 0.0);
        }
    }
}
