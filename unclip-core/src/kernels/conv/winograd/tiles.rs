//! A picture's tiles, and what they are brought to.

#![allow(unsafe_code)]
// Indices run over two arrays at once; closures would not be compiled for the vectors' width.
#![allow(clippy::needless_range_loop)]

use pulp::Simd;

use super::TILE;
use crate::kernels::simd::{load, store};

/// How tiles lie in memory: a row of them follows the other, with one that is not there in between. So
/// a run of vectors covers several rows, and a tile's right neighbour is the next value.
#[derive(Clone, Copy)]
pub(super) struct Grid {
    /// Height and width of the picture.
    pub(super) input: [usize; 2],
    /// Zeros before its first row and column.
    pub(super) lead: [usize; 2],
    /// Rows and columns of tiles.
    pub(super) tiles: [usize; 2],
}

impl Grid {
    pub(super) fn new(input: [usize; 2], output: [usize; 2], lead: [usize; 2]) -> Self {
        Self {
            input,
            lead,
            tiles: output.map(|n| n.div_ceil(2)),
        }
    }

    pub(super) fn pitch(&self) -> usize {
        self.tiles[1] + 1
    }

    /// Values that `rows` rows of tiles take, in whole vectors.
    pub(super) fn run(&self, rows: usize, lanes: usize) -> usize {
        (rows * self.pitch()).next_multiple_of(lanes)
    }

    /// Values of one channel for `run` tiles: four planes, for even and odd rows and columns, and what the
    /// last vectors read beyond them.
    pub(super) fn planes(&self, rows: usize, run: usize) -> usize {
        4 * self.plane(rows) + run
    }

    fn plane(&self, rows: usize) -> usize {
        (rows + 1) * self.pitch()
    }

    /// Copies what `rows` rows of tiles from row `first` see of a channel to planes; `line` holds one row.
    #[inline(always)]
    pub(super) fn fill(
        &self,
        picture: &[f32],
        first: usize,
        rows: usize,
        line: &mut [f32],
        planes: &mut [f32],
    ) {
        let pitch = self.pitch();
        let [height, width] = self.input;
        let (even_rows, odd_rows) = planes.split_at_mut(2 * self.plane(rows));
        let odd_rows = &mut odd_rows[..2 * self.plane(rows)];
        for (odd, planes) in [even_rows, odd_rows].into_iter().enumerate() {
            let (even_columns, odd_columns) = planes.split_at_mut(self.plane(rows));
            let lines = even_columns
                .chunks_exact_mut(pitch)
                .zip(odd_columns.chunks_exact_mut(pitch));
            for (row, (even, odds)) in lines.enumerate() {
                let y = (2 * (first + row) + odd).wrapping_sub(self.lead[0]);
                if y >= height {
                    even.fill(0.0);
                    odds.fill(0.0);
                    continue;
                }
                let line = &mut line[..2 * pitch];
                let lead = self.lead[1];
                let count = width.min(line.len() - lead);
                line[..lead].fill(0.0);
                line[lead..lead + count].copy_from_slice(&picture[y * width..][..count]);
                line[lead + count..].fill(0.0);
                let pairs = line.chunks_exact(2);
                for ((even, odd), pair) in even.iter_mut().zip(odds).zip(pairs) {
                    *even = pair[0];
                    *odd = pair[1];
                }
            }
        }
    }

    /// `Bᵀ d B` of `run` tiles of the planes: value k of tile i goes to `out[k * step + i]`.
    #[inline(always)]
    pub(super) fn transform<S: Simd>(
        &self,
        simd: S,
        planes: &[f32],
        rows: usize,
        run: usize,
        out: &mut [f32],
        step: usize,
    ) {
        let (pitch, plane) = (self.pitch(), self.plane(rows));
        assert!(planes.len() >= 3 * plane + pitch + 1 + run);
        assert!(out.len() >= (TILE - 1) * step + run);
        let (planes, out) = (planes.as_ptr(), out.as_mut_ptr());
        for at in (0..run).step_by(S::F32_LANES) {
            let mut d = [[simd.splat_f32s(0.0); 4]; 4];
            for y in 0..4 {
                for x in 0..4 {
                    let from = (2 * (y % 2) + x % 2) * plane + y / 2 * pitch + x / 2 + at;
                    // SAFETY: the last of these vectors ends where was asserted.
                    d[y][x] = unsafe { load(simd, planes.add(from)) };
                }
            }
            for x in 0..4 {
                let [a, b, c, e] = bring(simd, [d[0][x], d[1][x], d[2][x], d[3][x]]);
                (d[0][x], d[1][x], d[2][x], d[3][x]) = (a, b, c, e);
            }
            for (y, row) in d.into_iter().enumerate() {
                for (x, value) in bring(simd, row).into_iter().enumerate() {
                    // SAFETY: as above.
                    unsafe { store(simd, out.add((4 * y + x) * step + at), value) };
                }
            }
        }
    }
}

/// `Bᵀ` of four values.
#[inline(always)]
fn bring<S: Simd>(simd: S, [a, b, c, d]: [S::f32s; 4]) -> [S::f32s; 4] {
    [
        simd.sub_f32s(a, c),
        simd.add_f32s(b, c),
        simd.sub_f32s(c, b),
        simd.sub_f32s(b, d),
    ]
}

/// `Aᵀ` of four values.
#[inline(always)]
pub(super) fn back<S: Simd>(simd: S, [a, b, c, d]: [S::f32s; 4]) -> [S::f32s; 2] {
    [
        simd.add_f32s(simd.add_f32s(a, b), c),
        simd.sub_f32s(simd.sub_f32s(b, c), d),
    ]
}

/// `A` of two values.
#[cfg(feature = "train")]
#[inline(always)]
pub(super) fn spread<S: Simd>(simd: S, [a, b]: [S::f32s; 2]) -> [S::f32s; 4] {
    [
        a,
        simd.add_f32s(a, b),
        simd.sub_f32s(a, b),
        simd.sub_f32s(simd.splat_f32s(0.0), b),
    ]
}
