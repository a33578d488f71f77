//! PyTorch keeps a linear layer's weight as `[out, in]`, Burn as `[in, out]`.

use burn::tensor::TensorData;

/// Swaps the two axes of a matrix of any element type.
///
/// # Panics
/// If `data` is not of rank 2.
pub(super) fn transpose(data: TensorData) -> TensorData {
    let (bytes, shape, dtype) = data.into_parts();
    let dims: Vec<usize> = shape.iter().copied().collect();
    let [rows, columns] = dims[..] else {
        panic!("only a matrix can be transposed, not {dims:?}");
    };
    let size = dtype.size();
    let swapped = match size {
        2 => swap::<2>(&bytes, rows, columns),
        4 => swap::<4>(&bytes, rows, columns),
        8 => swap::<8>(&bytes, rows, columns),
        _ => swap::<1>(&bytes, rows, columns),
    };
    TensorData::from_bytes_vec(swapped, vec![columns, rows], dtype)
}

/// Works in tiles that fit the first-level cache: row by row would miss it on every write.
fn swap<const N: usize>(source: &[u8], rows: usize, columns: usize) -> Vec<u8> {
    const TILE: usize = 32;
    let mut target = vec![0; source.len()];
    for row0 in (0..rows).step_by(TILE) {
        for column0 in (0..columns).step_by(TILE) {
            for row in row0..rows.min(row0 + TILE) {
                for column in column0..columns.min(column0 + TILE) {
                    let (from, to) = ((row * columns + column) * N, (column * rows + row) * N);
                    target[to..to + N].copy_from_slice(&source[from..from + N]);
                }
            }
        }
    }
    target
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_larger_than_a_tile_is_transposed_exactly() {
        let (rows, columns) = (37, 71);
        let values: Vec<f32> = (0..rows * columns).map(|i| i as f32).collect();
        let swapped = transpose(TensorData::new(values.clone(), [rows, columns]));
        let swapped = swapped.try_to_vec::<f32>().unwrap();
        for row in 0..rows {
            for column in 0..columns {
                assert_eq!(swapped[column * rows + row], values[row * columns + column]);
            }
        }
    }
}
