//! Image embeddings as codes: principal components, each in buckets (unCLIP §2.2).

use burn::tensor::{Device, Tensor, TensorData};
use unclip_core::{
    error::{Error, Result},
    image::to_host,
};

use crate::Pca;

/// Turns embeddings into one code for each principal component, the strongest first, and back.
///
/// Each component is cut into buckets of equal width between the extremes of the data. With 1,024
/// of them the error is (range / 1024)² / 12, some 5e-6 of the variance: far less than what the
/// left out components take away, so that nothing is gained by buckets of unequal width.
#[derive(Clone, Debug, PartialEq)]
pub struct EmbeddingCodec {
    pca: Pca,
    buckets: usize,
    low: Vec<f64>,
    high: Vec<f64>,
}

impl EmbeddingCodec {
    /// Fits the buckets of `pca`'s components to `embeddings`, rows of its width.
    ///
    /// # Errors
    /// [`Error::Setting`] for less than two buckets, no rows, or values that are not finite.
    pub fn fit(pca: Pca, embeddings: &[f32], buckets: usize) -> Result<Self> {
        if embeddings.is_empty() || !embeddings.len().is_multiple_of(pca.width()) {
            let found = format!("{} values", embeddings.len());
            let expected = format!("rows of {}", pca.width());
            return Err(Error::setting("embeddings", found, expected));
        }
        let mut low = vec![f64::INFINITY; pca.dims()];
        let mut high = vec![f64::NEG_INFINITY; pca.dims()];
        for row in embeddings.chunks(pca.width()) {
            for (i, value) in pca.project_row(row).into_iter().enumerate() {
                low[i] = low[i].min(value);
                high[i] = high[i].max(value);
            }
        }
        Self::from_parts(pca, buckets, low, high)
    }

    /// From its parts: the extremes of each component.
    ///
    /// # Errors
    /// [`Error::Setting`] for less than two buckets, or extremes that are not finite or not in
    /// order.
    pub fn from_parts(pca: Pca, buckets: usize, low: Vec<f64>, high: Vec<f64>) -> Result<Self> {
        if !(2..=1 << 20).contains(&buckets) {
            return Err(Error::setting("buckets", buckets, "2 to 1,048,576"));
        }
        let is_range = |(low, high): (&f64, &f64)| low <= high && (high - low).is_finite();
        if low.len() != pca.dims()
            || high.len() != pca.dims()
            || !low.iter().zip(&high).all(is_range)
        {
            let expected = "finite extremes for each component, the lower one first";
            return Err(Error::setting("bucket ranges", low.len(), expected));
        }
        Ok(Self {
            pca,
            buckets,
            low,
            high,
        })
    }

    /// The principal components.
    pub fn pca(&self) -> &Pca {
        &self.pca
    }

    /// Buckets of each component.
    pub fn buckets(&self) -> usize {
        self.buckets
    }

    /// Codes of each embedding.
    pub fn dims(&self) -> usize {
        self.pca.dims()
    }

    /// The extremes of each component: (lower, upper).
    pub fn ranges(&self) -> (&[f64], &[f64]) {
        (&self.low, &self.high)
    }

    /// Codes of embeddings, `[b, width]` → `b` rows of [`dims`](Self::dims). Values outside the
    /// range get the outermost bucket.
    ///
    /// # Errors
    /// [`Error::Shape`] for another width, [`Error::NotFinite`] for NaN.
    pub fn encode(&self, embeddings: Tensor<2>) -> Result<Vec<u32>> {
        let dims = embeddings.dims();
        if dims[1] != self.pca.width() {
            let expected = format!("[b, {}]", self.pca.width());
            return Err(Error::shape("the image embedding", &dims, expected));
        }
        let values = to_host(embeddings, "image embedding")?;
        let rows = values.chunks(self.pca.width());
        Ok(rows
            .flat_map(|row| {
                let coordinates = self.pca.project_row(row);
                (0..self.dims()).map(move |i| self.bucket(i, coordinates[i]))
            })
            .collect())
    }

    /// Embeddings of codes: rows of [`dims`](Self::dims) → `[b, width]` on `device`, the middle of
    /// each bucket.
    ///
    /// # Errors
    /// [`Error::Setting`] for codes that are not whole rows, or a bucket that does not exist.
    pub fn decode(&self, codes: &[u32], device: &Device) -> Result<Tensor<2>> {
        if !codes.len().is_multiple_of(self.dims()) {
            let expected = format!("rows of {}", self.dims());
            return Err(Error::setting("codes", codes.len(), expected));
        }
        if let Some(code) = codes.iter().find(|c| **c as usize >= self.buckets) {
            return Err(Error::setting(
                "code",
                code,
                format!("less than {}", self.buckets),
            ));
        }
        let width = self.pca.width();
        let mut values = Vec::with_capacity(codes.len() / self.dims() * width);
        for row in codes.chunks(self.dims()) {
            let coordinates = row
                .iter()
                .enumerate()
                .map(|(i, code)| self.middle(i, *code));
            values.extend(self.pca.reconstruct_row(coordinates));
        }
        let shape = [values.len() / width, width];
        Ok(Tensor::from_data(TensorData::new(values, shape), device))
    }

    fn step(&self, component: usize) -> f64 {
        (self.high[component] - self.low[component]) / self.buckets as f64
    }

    fn bucket(&self, component: usize, value: f64) -> u32 {
        let step = self.step(component);
        let at = match step > 0.0 {
            true => (value - self.low[component]) / step,
            false => 0.0,
        };
        at.clamp(0.0, (self.buckets - 1) as f64) as u32
    }

    fn middle(&self, component: usize, code: u32) -> f64 {
        self.low[component] + (f64::from(code) + 0.5) * self.step(component)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pca::tests::falling;

    fn rows(data: &[f32], width: usize) -> Tensor<2> {
        let data = TensorData::new(data.to_vec(), [data.len() / width, width]);
        Tensor::from_data(data, &Device::flex())
    }

    #[test]
    fn codes_survive_the_way_back() {
        let data = falling(300, 16, 7);
        let pca = Pca::fit(&data, 16).unwrap().truncated(6).unwrap();
        for buckets in [2, 16, 1024] {
            let codec = EmbeddingCodec::fit(pca.clone(), &data, buckets).unwrap();
            let codes = codec.encode(rows(&data, 16)).unwrap();
            assert_eq!(codes.len(), 300 * 6);
            let back = codec.decode(&codes, &Device::flex()).unwrap();
            assert_eq!(codec.encode(back).unwrap(), codes);
        }
    }

    #[test]
    fn a_thousand_buckets_cost_nothing_beside_the_components() {
        let data = falling(300, 16, 8);
        let pca = Pca::fit(&data, 16).unwrap().truncated(6).unwrap();
        let squeezed = pca.squeeze(rows(&data, 16));
        let codec = EmbeddingCodec::fit(pca.clone(), &data, 1024).unwrap();
        let codes = codec.encode(rows(&data, 16)).unwrap();
        let decoded = codec.decode(&codes, &Device::flex()).unwrap();
        let square =
            |a: Tensor<2>, b: Tensor<2>| -> f32 { (a - b).powi_scalar(2).mean().into_scalar() };
        let (coded, left_out) = (
            square(decoded, squeezed.clone()),
            square(squeezed, rows(&data, 16)),
        );
        assert!(coded < left_out / 100.0, "{coded} {left_out}");
    }

    #[test]
    fn nonsense_is_named() {
        let data = falling(30, 4, 9);
        let pca = Pca::fit(&data, 4).unwrap();
        for buckets in [0, 1, usize::MAX] {
            assert!(EmbeddingCodec::fit(pca.clone(), &data, buckets).is_err());
        }
        assert!(EmbeddingCodec::fit(pca.clone(), &[], 8).is_err());
        assert!(EmbeddingCodec::fit(pca.clone(), &[f32::NAN; 4], 8).is_err());
        let codec = EmbeddingCodec::fit(pca, &data, 8).unwrap();
        assert!(codec.decode(&[1, 2, 3], &Device::flex()).is_err());
        assert!(codec.decode(&[1, 2, 3, 8], &Device::flex()).is_err());
        assert!(codec.encode(rows(&[0.0; 3], 3)).is_err());
        assert!(codec.encode(rows(&[f32::INFINITY; 4], 4)).is_err());
    }
}
