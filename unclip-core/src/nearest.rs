//! Which embedding is nearest to what was asked for.

use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::{
    error::{Error, Result},
    image::to_host,
    slerp::normalize_rows,
};

/// Cosine of each row of `a` with the same row of `b`; 0 where one is zero.
///
/// # Shapes
/// `[b, d]` each → `b` values
///
/// # Errors
/// [`Error::Shape`] if the shapes differ, [`Error::NotFinite`].
pub fn row_cosines(a: Tensor<2>, b: Tensor<2>) -> Result<Vec<f32>> {
    if a.dims() != b.dims() {
        let expected = format!("{:?}, like those they are compared with", b.dims());
        return Err(Error::shape("the embeddings", &a.dims(), expected));
    }
    let b = b.to_device(&a.device());
    let dots = normalize_rows(a) * normalize_rows(b);
    to_host(dots.sum_dim(1), "embedding")
}

/// The index of the largest of each `group` values next to each other; the first of equals.
pub fn best_rows(values: &[f32], group: usize) -> Vec<usize> {
    let best = |(i, values): (usize, &[f32])| {
        let best = (0..values.len())
            .rev()
            .max_by(|a, b| values[*a].total_cmp(&values[*b]));
        i * group + best.unwrap_or(0)
    };
    values.chunks(group).enumerate().map(best).collect()
}

/// Row numbers as a tensor, to select by.
pub fn row_index(rows: &[usize], device: &Device) -> Tensor<1, Int> {
    let index: Vec<i64> = rows.iter().map(|row| *row as i64).collect();
    Tensor::from_data(TensorData::new(index, [rows.len()]), device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_the_best_is_found_in_each_group() {
        let values = [0.1, 0.3, 0.2, 0.5, 0.5, -1.0];
        assert_eq!(best_rows(&values, 3), [1, 3]);
        assert_eq!(best_rows(&values, 1), [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn cosines_need_equal_shapes_and_survive_zeros() {
        let tensor = |values: [[f32; 2]; 2]| Tensor::<2>::from_data(values, &Device::flex());
        let a = tensor([[3.0, 4.0], [0.0, 0.0]]);
        let b = tensor([[6.0, 8.0], [1.0, 0.0]]);
        let cosines = row_cosines(a.clone(), b).unwrap();
        assert!((cosines[0] - 1.0).abs() < 1e-6 && cosines[1] == 0.0);
        let one = Tensor::<2>::from_data([[1.0, 2.0]], &Device::flex());
        assert!(matches!(row_cosines(a, one), Err(Error::Shape { .. })));
    }
}
