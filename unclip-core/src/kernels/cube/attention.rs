//! Attention by matrix products, with the softmax between them in one pass.

#![allow(unsafe_code)]

use burn_cubecl::{
    cubecl,
    kernel::into_contiguous,
    ops::{permute, reshape},
    tensor::CubeTensor,
};
use cubecl::prelude::*;

use super::{
    product::{empty, product, transposed},
    sums::{cube_max, cube_sum},
};
use crate::kernels::shape::{AttentionShape, HIDDEN};

/// Units of a cube: rows are short.
const UNITS: u32 = 64;

/// Which keys a query sees, known when the kernel is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Sight {
    has_mask: bool,
    is_causal: bool,
}

#[cube]
fn is_hidden(mask: &[f32], mask_row: u32, keys: u32, key: u32, #[comptime] sight: Sight) -> bool {
    let mut hidden = false.runtime();
    if comptime!(sight.has_mask) {
        hidden = mask[(mask_row * keys + key) as usize] != 0.0;
    }
    if comptime!(sight.is_causal) {
        hidden = hidden || key > CUBE_POS_X;
    }
    hidden
}

/// The row of the mask for this cube's query: there is one for all queries, or one for each.
#[cube]
fn row_of_mask(heads: u32, mask_rows: u32) -> u32 {
    CUBE_POS_Y / heads * mask_rows + min(CUBE_POS_X, mask_rows - 1)
}

#[cube]
fn score(
    scores: &[f32],
    mask: &[f32],
    start: u32,
    mask_row: u32,
    keys: u32,
    key: u32,
    scale: f32,
    #[comptime] sight: Sight,
) -> f32 {
    let value = scores[(start + key) as usize] * scale;
    select(is_hidden(mask, mask_row, keys, key, sight), HIDDEN, value)
}

#[cube(launch_unchecked)]
fn softmax(
    scores: &[f32],
    mask: &[f32],
    shares: &mut [f32],
    heads: u32,
    mask_rows: u32,
    keys: u32,
    scale: f32,
    #[comptime] sight: Sight,
    #[comptime] units: u32,
) {
    let mut shared = Shared::new_slice(units as usize);
    let start = (CUBE_POS_Y * CUBE_COUNT_X + CUBE_POS_X) * keys;
    let mask_row = row_of_mask(heads, mask_rows);
    let mut most = f32::new(f32::MIN);
    let mut key = UNIT_POS;
    while key < keys {
        let value = score(scores, mask, start, mask_row, keys, key, scale, sight);
        most = max(most, value);
        key += CUBE_DIM;
    }
    let most = cube_max(most, &mut shared);
    let mut sum = f32::new(0.0);
    let mut key = UNIT_POS;
    while key < keys {
        let value = score(scores, mask, start, mask_row, keys, key, scale, sight);
        let value = (value - most).exp();
        shares[(start + key) as usize] = value;
        sum += value;
        key += CUBE_DIM;
    }
    let sum = cube_sum(sum, &mut shared);
    let mut key = UNIT_POS;
    while key < keys {
        shares[(start + key) as usize] /= sum;
        key += CUBE_DIM;
    }
}

#[cube(launch_unchecked)]
fn softmax_gradient(
    shares: &[f32],
    gradient: &[f32],
    mask: &[f32],
    found: &mut [f32],
    heads: u32,
    mask_rows: u32,
    keys: u32,
    scale: f32,
    #[comptime] sight: Sight,
    #[comptime] units: u32,
) {
    let mut shared = Shared::new_slice(units as usize);
    let start = (CUBE_POS_Y * CUBE_COUNT_X + CUBE_POS_X) * keys;
    let mask_row = row_of_mask(heads, mask_rows);
    let mut sum = f32::new(0.0);
    let mut key = UNIT_POS;
    while key < keys {
        let at = (start + key) as usize;
        sum += shares[at] * gradient[at];
        key += CUBE_DIM;
    }
    let mean = cube_sum(sum, &mut shared);
    let mut key = UNIT_POS;
    while key < keys {
        let at = (start + key) as usize;
        // Where every key is hidden, each still has a share, which no score changes.
        let change = shares[at] * (gradient[at] - mean) * scale;
        found[at] = select(is_hidden(mask, mask_row, keys, key, sight), 0.0, change);
        key += CUBE_DIM;
    }
}

impl AttentionShape {
    fn sight(&self) -> Sight {
        Sight {
            has_mask: self.mask_rows > 0,
            is_causal: self.is_causal,
        }
    }

    fn cubes(&self) -> CubeCount {
        CubeCount::new_2d(self.queries as u32, self.pairs() as u32)
    }

    /// `[b, length, heads · width]` as `[b · heads, length, width]`.
    fn apart(&self, x: CubeTensor, length: usize) -> CubeTensor {
        let x = reshape(x, [self.batch, length, self.heads, self.width].into());
        let x = into_contiguous(permute(x, &[0, 2, 1, 3]));
        reshape(x, [self.pairs(), length, self.width].into())
    }

    /// The other way.
    fn together(&self, x: CubeTensor, length: usize) -> CubeTensor {
        let x = reshape(x, [self.batch, self.heads, length, self.width].into());
        let x = into_contiguous(permute(x, &[0, 2, 1, 3]));
        reshape(x, [self.batch, length, self.row()].into())
    }
}

/// The shares of each query's values, `[b · heads, queries, keys]`.
pub(super) fn shares(
    query: CubeTensor,
    key: CubeTensor,
    mask: CubeTensor,
    shape: &AttentionShape,
) -> CubeTensor {
    let key = transposed(shape.apart(key, shape.keys));
    let scores = product(shape.apart(query, shape.queries), key);
    let shares = empty(scores.meta.shape().clone(), &scores);
    // SAFETY: a cube reads and writes the keys of its row; a mask has one row of keys, or as many as
    // there are queries, for each sample.
    unsafe {
        softmax::launch_unchecked(
            &scores.client.clone(),
            shape.cubes(),
            CubeDim::new_1d(UNITS),
            scores.into_buffer_arg(),
            into_contiguous(mask).into_buffer_arg(),
            shares.clone().into_buffer_arg(),
            shape.heads as u32,
            shape.mask_rows.max(1) as u32,
            shape.keys as u32,
            shape.scale(),
            shape.sight(),
            UNITS,
        );
    }
    shares
}

/// Each query's sum of keys' rows by `weights`, or each key's of queries' rows.
pub(super) fn sums(
    weights: CubeTensor,
    rows: CubeTensor,
    of_keys: bool,
    shape: &AttentionShape,
) -> CubeTensor {
    match of_keys {
        true => {
            let found = product(weights, shape.apart(rows, shape.keys));
            shape.together(found, shape.queries)
        }
        false => {
            let found = product(transposed(weights), shape.apart(rows, shape.queries));
            shape.together(found, shape.keys)
        }
    }
}

/// The gradient for the products of queries and keys.
pub(super) fn score_gradient(
    shares: CubeTensor,
    value: CubeTensor,
    mask: CubeTensor,
    gradient: CubeTensor,
    shape: &AttentionShape,
) -> CubeTensor {
    let value = transposed(shape.apart(value, shape.keys));
    let gradient = product(shape.apart(gradient, shape.queries), value);
    let found = empty(shares.meta.shape().clone(), &shares);
    // SAFETY: as of `shares`.
    unsafe {
        softmax_gradient::launch_unchecked(
            &shares.client.clone(),
            shape.cubes(),
            CubeDim::new_1d(UNITS),
            shares.into_buffer_arg(),
            gradient.into_buffer_arg(),
            into_contiguous(mask).into_buffer_arg(),
            found.clone().into_buffer_arg(),
            shape.heads as u32,
            shape.mask_rows.max(1) as u32,
            shape.keys as u32,
            shape.scale(),
            shape.sight(),
            UNITS,
        );
    }
    found
}
