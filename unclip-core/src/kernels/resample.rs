//! Pictures of half the size and of twice it, each the other's gradient.

#![allow(unsafe_code)]

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::{
    scratch::{Shared, written},
    shape::Resample,
    simd::dispatch,
};

impl Resample {
    /// Of each of `planes` pictures of `size`.
    pub(super) fn forward(self, x: &[f32], planes: usize, size: [usize; 2]) -> Vec<f32> {
        let factor = match self {
            Self::Halve => 0.25,
            Self::Double => 1.0,
        };
        run(self, x, planes, size, factor)
    }

    /// The gradient for the input of `size`, given the one for the output.
    pub(super) fn backward(self, gradient: &[f32], planes: usize, size: [usize; 2]) -> Vec<f32> {
        let size = self.output(size);
        match self {
            Self::Halve => run(Self::Double, gradient, planes, size, 0.25),
            Self::Double => run(Self::Halve, gradient, planes, size, 1.0),
        }
    }
}

fn run(way: Resample, x: &[f32], planes: usize, size: [usize; 2], factor: f32) -> Vec<f32> {
    let [height, width] = way.output(size);
    let (pixels_in, pixels_out) = (size[0] * size[1], height * width);
    let compute = |out: &Shared<'_>| {
        (0..planes).into_par_iter().for_each(|plane| {
            dispatch(Plane {
                x: &x[plane * pixels_in..][..pixels_in],
                width: size[1],
                way,
                factor,
                // SAFETY: no two tasks have the same plane.
                out: unsafe { out.zeros(plane * pixels_out, pixels_out) },
            });
        });
    };
    // SAFETY: the tasks are all planes.
    unsafe { written(planes * pixels_out, compute) }
}

struct Plane<'a> {
    x: &'a [f32],
    width: usize,
    way: Resample,
    factor: f32,
    out: &'a mut [f32],
}

impl WithSimd for Plane<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let (width, factor) = (self.width, self.factor);
        match self.way {
            Resample::Halve => {
                let rows = self.x.chunks_exact(2 * width);
                for (rows, out) in rows.zip(self.out.chunks_exact_mut(width / 2)) {
                    let (above, below) = rows.split_at(width);
                    let pairs = above.chunks_exact(2).zip(below.chunks_exact(2));
                    for ((above, below), out) in pairs.zip(out) {
                        *out = (above[0] + above[1] + below[0] + below[1]) * factor;
                    }
                }
            }
            Resample::Double => {
                let rows = self.x.chunks_exact(width);
                for (row, out) in rows.zip(self.out.chunks_exact_mut(4 * width)) {
                    let (above, below) = out.split_at_mut(2 * width);
                    for (value, out) in row.iter().zip(above.chunks_exact_mut(2)) {
                        out.fill(value * factor);
                    }
                    below.copy_from_slice(above);
                }
            }
        }
    }
}
