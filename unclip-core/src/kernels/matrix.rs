//! Products of matrices that need not be in order in memory.

#![allow(unsafe_code)]

use gemm::Parallelism;

/// Where a matrix lies: its first value, and the distances of rows and of columns.
#[derive(Clone, Copy)]
pub(super) struct Matrix {
    at: *const f32,
    row: usize,
    column: usize,
}

// SAFETY: it is only read through, by whoever answers for the values being borrowed.
unsafe impl Send for Matrix {}
// SAFETY: as above.
unsafe impl Sync for Matrix {}

impl Matrix {
    /// Rows of values that follow each other, `row` apart.
    ///
    /// # Panics
    /// If the last of `size` (rows and columns) is not within `values`.
    pub(super) fn new(values: &[f32], size: [usize; 2], row: usize) -> Self {
        assert!(size[0] > 0 && values.len() >= (size[0] - 1) * row + size[1]);
        Self {
            at: values.as_ptr(),
            row,
            column: 1,
        }
    }

    /// Without its first rows.
    ///
    /// # Safety
    /// There must be more of them.
    pub(super) unsafe fn after_rows(self, row: usize) -> Self {
        // SAFETY: by the caller, it is within the values.
        let at = unsafe { self.at.add(row * self.row) };
        Self { at, ..self }
    }

    /// Without its first columns.
    ///
    /// # Safety
    /// There must be more of them.
    pub(super) unsafe fn after_columns(self, column: usize) -> Self {
        // SAFETY: as above.
        let at = unsafe { self.at.add(column * self.column) };
        Self { at, ..self }
    }

    pub(super) fn transposed(self) -> Self {
        Self {
            at: self.at,
            row: self.column,
            column: self.row,
        }
    }
}

/// `left` · `right` · `scale`, on this thread, as rows of values `row` apart; added to what is there
/// if `add`.
///
/// # Safety
/// `left` must have `rows` × `depth` values and `right` `depth` × `columns`, still borrowed; nothing
/// else may read or write the `rows` × `columns` values of `out`, which must be there, and hold numbers
/// if `add`.
pub(super) unsafe fn multiply(
    [rows, columns, depth]: [usize; 3],
    out: *mut f32,
    row: usize,
    left: Matrix,
    right: Matrix,
    scale: f32,
    add: bool,
) {
    // SAFETY: by the caller.
    unsafe {
        gemm::gemm(
            rows,
            columns,
            depth,
            out,
            1,
            row as isize,
            add,
            left.at,
            left.column as isize,
            left.row as isize,
            right.at,
            right.column as isize,
            right.row as isize,
            1.0,
            scale,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}
