//! Principal components of CLIP embeddings (unCLIP §2.2 and §4).

use burn::tensor::{Device, Tensor, TensorData};
use nalgebra::{DMatrix, SymmetricEigen};
use unclip_core::{
    error::{Error, Result},
    kernels::linear,
};

/// The principal components of embeddings, the strongest first.
///
/// CLIP's image embeddings lie near a space of far fewer dimensions than they have: of 1024 the
/// paper keeps 319 and loses less than 1 % of the mean square.
#[derive(Clone, Debug, PartialEq)]
pub struct Pca {
    width: usize,
    mean: Vec<f64>,
    /// Row-major, a unit vector a row.
    components: Vec<f64>,
    /// Variance along each component.
    variances: Vec<f64>,
    /// Variance of what the components leave out.
    rest: f64,
}

impl Pca {
    /// Finds the components of `embeddings`, rows of `width` values.
    ///
    /// With fewer rows than dimensions there are fewer components. Each points so that its largest
    /// entry is positive: the same data give the same signs everywhere.
    ///
    /// # Errors
    /// [`Error::Setting`] for less than two rows, rows of another width, or values that are not
    /// finite.
    pub fn fit(embeddings: &[f32], width: usize) -> Result<Self> {
        if width == 0 || !embeddings.len().is_multiple_of(width) {
            let found = format!("{} values", embeddings.len());
            return Err(Error::setting(
                "embeddings",
                found,
                format!("rows of {width}"),
            ));
        }
        let rows = embeddings.len() / width;
        if rows < 2 {
            return Err(Error::setting(
                "embeddings",
                rows,
                "at least 2 rows are needed",
            ));
        }
        if let Some(at) = embeddings.iter().position(|v| !v.is_finite()) {
            let found = format!("{} in row {}", embeddings[at], at / width);
            return Err(Error::setting("embeddings", found, "finite values"));
        }
        let mut mean = vec![0.0; width];
        for row in embeddings.chunks(width) {
            for (sum, value) in mean.iter_mut().zip(row) {
                *sum += f64::from(*value) / rows as f64;
            }
        }
        let centred = DMatrix::from_fn(rows, width, |i, j| {
            f64::from(embeddings[i * width + j]) - mean[j]
        });
        let covariance = centred.transpose() * &centred / rows as f64;
        let eigen = SymmetricEigen::new(covariance);
        let mut order: Vec<usize> = (0..width).collect();
        order.sort_by(|a, b| eigen.eigenvalues[*b].total_cmp(&eigen.eigenvalues[*a]));
        order.truncate(width.min(rows - 1));
        let mut components = Vec::with_capacity(order.len() * width);
        let mut variances = Vec::with_capacity(order.len());
        for column in order {
            let vector = eigen.eigenvectors.column(column);
            let largest = vector
                .iter()
                .copied()
                .max_by(|a, b| a.abs().total_cmp(&b.abs()));
            let sign = if largest.unwrap_or(1.0) < 0.0 {
                -1.0
            } else {
                1.0
            };
            components.extend(vector.iter().map(|v| v * sign));
            // Rounding may leave a little below zero.
            variances.push(eigen.eigenvalues[column].max(0.0));
        }
        Ok(Self {
            width,
            mean,
            components,
            variances,
            rest: 0.0,
        })
    }

    /// From its parts: mean, row-major components, the variance along each.
    ///
    /// # Errors
    /// [`Error::Setting`] if the lengths do not fit or a value is not finite.
    pub fn from_parts(mean: Vec<f64>, components: Vec<f64>, variances: Vec<f64>) -> Result<Self> {
        let (width, dims) = (mean.len(), variances.len());
        let mut all = mean.iter().chain(&components).chain(&variances);
        if components.len() != width * dims || dims > width || all.any(|v| !v.is_finite()) {
            let found = format!("{width}, {}, {dims}", components.len());
            let expected = "a mean, finite components of its width, and a variance for each";
            return Err(Error::setting("principal components", found, expected));
        }
        Ok(Self {
            width,
            mean,
            components,
            variances,
            rest: 0.0,
        })
    }

    /// Width of the embeddings.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Number of components.
    pub fn dims(&self) -> usize {
        self.variances.len()
    }

    /// The mean embedding.
    pub fn mean(&self) -> &[f64] {
        &self.mean
    }

    /// The components, row after row.
    pub fn components(&self) -> &[f64] {
        &self.components
    }

    /// Variance along each component.
    pub fn variances(&self) -> &[f64] {
        &self.variances
    }

    /// Share of the variance that the first `dims` components hold; 1 for data without any.
    pub fn explained(&self, dims: usize) -> f64 {
        let total = self.variances.iter().sum::<f64>() + self.rest;
        match total > 0.0 {
            true => self.variances.iter().take(dims).sum::<f64>() / total,
            false => 1.0,
        }
    }

    /// The fewest dimensions that hold this share of the variance.
    pub fn dims_for(&self, share: f64) -> usize {
        (0..=self.dims())
            .find(|dims| self.explained(*dims) >= share)
            .unwrap_or(self.dims())
    }

    /// The same with only the first `dims` components.
    ///
    /// # Errors
    /// [`Error::Setting`] if there are not so many, or none are asked for.
    pub fn truncated(&self, dims: usize) -> Result<Self> {
        if !(1..=self.dims()).contains(&dims) {
            let expected = format!("1 to {}", self.dims());
            return Err(Error::setting("dimensions", dims, expected));
        }
        Ok(Self {
            components: self.components[..dims * self.width].to_vec(),
            variances: self.variances[..dims].to_vec(),
            rest: self.rest + self.variances[dims..].iter().sum::<f64>(),
            ..self.clone()
        })
    }

    /// Coordinates along each component: `[b, width]` → `[b, dims]`.
    pub fn project(&self, embeddings: Tensor<2>) -> Tensor<2> {
        let device = embeddings.device();
        let components = self.matrix(&device).transpose();
        linear(embeddings - self.mean_on(&device), components, None)
    }

    /// Embeddings of coordinates: `[b, dims]` → `[b, width]`.
    pub fn reconstruct(&self, coordinates: Tensor<2>) -> Tensor<2> {
        let device = coordinates.device();
        linear(coordinates, self.matrix(&device), None) + self.mean_on(&device)
    }

    /// What is left of embeddings in the first components: `[b, width]`, also the result.
    pub fn squeeze(&self, embeddings: Tensor<2>) -> Tensor<2> {
        self.reconstruct(self.project(embeddings))
    }

    /// Coordinates of one embedding, in f64.
    pub(crate) fn project_row(&self, row: &[f32]) -> Vec<f64> {
        let centred: Vec<f64> = row
            .iter()
            .zip(&self.mean)
            .map(|(v, mean)| f64::from(*v) - mean)
            .collect();
        let dot = |component: &[f64]| component.iter().zip(&centred).map(|(a, b)| a * b).sum();
        self.components.chunks(self.width).map(dot).collect()
    }

    /// The embedding at one row of coordinates.
    pub(crate) fn reconstruct_row(&self, coordinates: impl Iterator<Item = f64>) -> Vec<f32> {
        let mut sum = self.mean.clone();
        for (component, at) in self.components.chunks(self.width).zip(coordinates) {
            for (value, direction) in sum.iter_mut().zip(component) {
                *value += at * direction;
            }
        }
        sum.into_iter().map(|v| v as f32).collect()
    }

    fn mean_on(&self, device: &Device) -> Tensor<2> {
        tensor(&self.mean, [1, self.width], device)
    }

    fn matrix(&self, device: &Device) -> Tensor<2> {
        tensor(&self.components, [self.dims(), self.width], device)
    }
}

fn tensor(values: &[f64], shape: [usize; 2], device: &Device) -> Tensor<2> {
    let values: Vec<f32> = values.iter().map(|v| *v as f32).collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}

#[cfg(test)]
pub(crate) mod tests {
    use unclip_core::noise::Noise;

    use super::*;

    /// Rows whose spectrum falls: normals, mixed by a matrix with falling columns.
    pub(crate) fn falling(rows: usize, width: usize, seed: u64) -> Vec<f32> {
        let mut noise = Noise::from_seed(seed);
        let mixing = noise.normal_vec(width * width).unwrap();
        let sources = noise.normal_vec(rows * width).unwrap();
        sources
            .chunks(width)
            .flat_map(|row| {
                (0..width).map(|j| {
                    let parts = row.iter().enumerate();
                    parts
                        .map(|(k, v)| v * mixing[k * width + j] * 0.7_f32.powi(k as i32))
                        .sum::<f32>()
                        + 0.5
                })
            })
            .collect()
    }

    fn error_with(pca: &Pca, dims: usize, data: &[f32]) -> f64 {
        let device = Device::flex();
        let shape = [data.len() / pca.width(), pca.width()];
        let x = Tensor::<2>::from_data(TensorData::new(data.to_vec(), shape), &device);
        let pca = pca.truncated(dims).unwrap();
        let square: f32 = (pca.squeeze(x.clone()) - x)
            .powi_scalar(2)
            .mean()
            .into_scalar();
        f64::from(square)
    }

    #[test]
    fn the_error_falls_with_dimensions_as_the_variances_say() {
        let data = falling(400, 24, 1);
        let pca = Pca::fit(&data, 24).unwrap();
        assert!(pca.variances().is_sorted_by(|a, b| a >= b));
        let total: f64 = pca.variances().iter().sum();
        let errors: Vec<f64> = [1, 2, 4, 8, 16, 24]
            .map(|d| error_with(&pca, d, &data))
            .into();
        assert!(errors.is_sorted_by(|a, b| a > b), "{errors:?}");
        for (dims, error) in [1, 2, 4, 8].into_iter().zip(&errors) {
            let expected = (1.0 - pca.explained(dims)) * total / 24.0;
            assert!(
                (error / expected - 1.0).abs() < 1e-3,
                "{dims}: {error} {expected}"
            );
        }
        assert!(errors[5] < 1e-9 * total);
        let dims = pca.dims_for(0.99);
        assert!(dims < 24 && pca.explained(dims) >= 0.99 && pca.explained(dims - 1) < 0.99);
    }

    #[test]
    fn components_are_orthogonal_and_have_one_sign() {
        let data = falling(100, 10, 2);
        let pca = Pca::fit(&data, 10).unwrap();
        let row = |i: usize| &pca.components()[i * 10..(i + 1) * 10];
        for i in 0..10 {
            for j in 0..=i {
                let dot: f64 = row(i).iter().zip(row(j)).map(|(a, b)| a * b).sum();
                assert!((dot - f64::from(u8::from(i == j))).abs() < 1e-9);
            }
            let largest = row(i)
                .iter()
                .copied()
                .max_by(|a, b| a.abs().total_cmp(&b.abs()));
            assert!(largest.unwrap() > 0.0);
        }
    }

    #[test]
    fn few_rows_constant_rows_and_nonsense_are_told_apart() {
        assert_eq!(Pca::fit(&falling(4, 10, 3), 10).unwrap().dims(), 3);
        let constant = Pca::fit(&[1.0, 2.0, 1.0, 2.0, 1.0, 2.0], 2).unwrap();
        assert_eq!((constant.explained(1), constant.dims_for(0.99)), (1.0, 0));
        for (data, width) in [
            (vec![], 2),
            (vec![1.0, 2.0], 2),
            (vec![1.0; 5], 2),
            (vec![1.0; 4], 0),
            (vec![1.0, f32::NAN, 0.0, 0.0], 2),
        ] {
            assert!(matches!(Pca::fit(&data, width), Err(Error::Setting { .. })));
        }
        let pca = Pca::fit(&falling(20, 4, 4), 4).unwrap();
        assert!(pca.truncated(0).is_err() && pca.truncated(5).is_err());
        assert!(Pca::from_parts(vec![0.0; 4], vec![f64::NAN; 4], vec![1.0]).is_err());
        assert!(Pca::from_parts(vec![0.0; 4], vec![0.0; 5], vec![1.0]).is_err());
    }
}
