//! Linear layers and their gradients.

#![allow(unsafe_code)]

use std::ops::Range;

use rayon::prelude::*;

use super::{
    matrix::{Matrix, multiply},
    scratch::{Shared, copy, written},
    shape::LinearShape,
};

/// Rows and columns of the result that are a task of their own.
const TASK: [usize; 2] = [128, 256];

/// The gradients for input, weight and bias.
pub(super) struct Found {
    pub(super) x: Vec<f32>,
    pub(super) weight: Vec<f32>,
    pub(super) bias: Vec<f32>,
}

/// `x`, `[rows, inputs]`, times `weight`, `[inputs, outputs]`, plus `bias`.
pub(super) fn forward(x: &[f32], weight: &[f32], bias: &[f32], shape: &LinearShape) -> Vec<f32> {
    let LinearShape {
        rows,
        inputs,
        outputs,
    } = *shape;
    product(
        [rows, outputs, inputs],
        Matrix::new(x, [rows, inputs], inputs),
        Matrix::new(weight, [inputs, outputs], outputs),
        Some(bias),
    )
}

/// The gradients, given the one for the result.
pub(super) fn backward(x: &[f32], weight: &[f32], gradient: &[f32], shape: &LinearShape) -> Found {
    let LinearShape {
        rows,
        inputs,
        outputs,
    } = *shape;
    let gradients = Matrix::new(gradient, [rows, outputs], outputs);
    let weights = Matrix::new(weight, [inputs, outputs], outputs).transposed();
    let x = Matrix::new(x, [rows, inputs], inputs).transposed();
    let mut bias = vec![0.0_f64; outputs];
    for some in gradient.chunks(TASK[0] * outputs) {
        let mut sums = vec![0.0_f32; outputs];
        for row in some.chunks_exact(outputs) {
            for (sum, value) in sums.iter_mut().zip(row) {
                *sum += value;
            }
        }
        for (bias, sum) in bias.iter_mut().zip(sums) {
            *bias += f64::from(sum);
        }
    }
    Found {
        x: product([rows, inputs, outputs], gradients, weights, None),
        weight: product([inputs, outputs, rows], x, gradients, None),
        bias: bias.into_iter().map(|sum| sum as f32).collect(),
    }
}

/// `left` · `right`, plus `bias` in each row; both are borrowed by the caller.
fn product(
    [rows, columns, depth]: [usize; 3],
    left: Matrix,
    right: Matrix,
    bias: Option<&[f32]>,
) -> Vec<f32> {
    let across = columns.div_ceil(TASK[1]);
    let range = |task: usize, size: usize, all: usize| -> Range<usize> {
        task * size..all.min((task + 1) * size)
    };
    let compute = |out: &Shared<'_>| {
        let tasks = (0..rows.div_ceil(TASK[0]) * across).into_par_iter();
        tasks.for_each(|task| {
            let down = range(task / across, TASK[0], rows);
            let right_part = range(task % across, TASK[1], columns);
            let start = |row: usize| row * columns + right_part.start;
            if let Some(bias) = bias {
                for row in down.clone() {
                    // SAFETY: no two tasks have the same values.
                    let out = unsafe { out.part(start(row), right_part.len()) };
                    copy(&bias[right_part.clone()], out);
                }
            }
            let size = [down.len(), right_part.len(), depth];
            // SAFETY: as above; the factors are borrowed by the caller.
            unsafe {
                let span = (down.len() - 1) * columns + right_part.len();
                let out = out.values(start(down.start), span);
                let (left, right) = (
                    left.after_rows(down.start),
                    right.after_columns(right_part.start),
                );
                multiply(size, out, columns, left, right, 1.0, bias.is_some());
            }
        });
    };
    // SAFETY: the tasks are all rows and columns.
    unsafe { written(rows * columns, compute) }
}
