//! Several samples of a prior, of which the best is kept.

use burn::tensor::Tensor;
use unclip_core::{
    error::{Error, Result},
    image::to_host,
    nearest::{best_rows, row_index},
    stage::{Caption, Prior, Run, Stage, StageSettings},
};

/// Samples `count` embeddings for each row and keeps the one with the largest dot product with the
/// row's text embedding (unCLIP §2.2, with two).
///
/// Noise is drawn as if the prior ran once with each row `count` times, next to each other.
pub struct BestOf {
    prior: Box<dyn Prior>,
    count: usize,
}

impl BestOf {
    /// The best of `count` samples of `prior`.
    ///
    /// # Errors
    /// [`Error::Setting`] for 0.
    pub fn new(prior: impl Prior + 'static, count: usize) -> Result<Self> {
        Self::of(Box::new(prior), count)
    }

    /// The same for a prior in a box.
    ///
    /// # Errors
    /// [`Error::Setting`] for 0.
    pub fn of(prior: Box<dyn Prior>, count: usize) -> Result<Self> {
        match count {
            0 => Err(Error::setting(
                "samples of the prior",
                0,
                "at least 1 is needed",
            )),
            _ => Ok(Self { prior, count }),
        }
    }
}

impl Prior for BestOf {
    fn sample(&self, caption: Caption<'_>, run: &mut Run<'_>) -> Result<Tensor<2>> {
        let text = caption.text.repeat_rows(self.count);
        let unconditional = caption.unconditional.map(|u| u.repeat_rows(self.count));
        let repeated = Caption {
            text: &text,
            unconditional: unconditional.as_ref(),
        };
        // Given latents have a row for every sample; another shape is an error of the prior's.
        let samples = self.prior.sample(repeated, run)?;
        let device = samples.device();
        let dots = samples.clone() * text.embedding.to_device(&device);
        let dots = to_host(dots.sum_dim(1), &Stage::Prior.to_string())?;
        let best = best_rows(&dots, self.count);
        Ok(samples.select(0, row_index(&best, &device)))
    }

    fn defaults(&self) -> StageSettings {
        self.prior.defaults()
    }

    fn check(&self, settings: &StageSettings) -> Result<()> {
        self.prior.check(settings)
    }
}

impl std::fmt::Debug for BestOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BestOf")
            .field("count", &self.count)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Bool, Device, TensorData};
    use unclip_core::{diffusion::Sampler, noise::Noise, stage::TextEncoding};

    use super::*;
    use crate::{NoPrior, TextAsImage};

    /// Plain noise.
    struct Random;

    impl Prior for Random {
        fn sample(&self, caption: Caption<'_>, run: &mut Run<'_>) -> Result<Tensor<2>> {
            let shape = caption.text.embedding.dims();
            run.start(Stage::Prior, shape, &Device::flex())
        }
    }

    fn text() -> TextEncoding {
        let device = Device::flex();
        let embedding = TensorData::new(vec![1.0_f32, 0.0, 0.0, -2.0], [2, 2]);
        TextEncoding {
            embedding: Tensor::from_data(embedding, &device),
            tokens: Tensor::zeros([2, 3, 2], &device),
            mask: Tensor::<2, Bool>::ones([2, 3], &device),
        }
    }

    fn sampled(prior: &dyn Prior, draws: Vec<f32>) -> Vec<f32> {
        let mut noise = Noise::recorded([draws]);
        let mut run = Run::new(Sampler::ancestral(1), &mut noise);
        let text = text();
        let caption = Caption {
            text: &text,
            unconditional: None,
        };
        let found = prior.sample(caption, &mut run).unwrap();
        found.into_data().try_to_vec().unwrap()
    }

    #[test]
    fn the_larger_dot_product_is_kept() {
        // Three samples for each of two rows.
        let draws = vec![
            0.1, 9.0, 0.5, -9.0, 0.3, 0.0, // best for (1, 0): the second
            7.0, 0.1, 7.0, -0.4, 7.0, -0.2, // best for (0, -2): the second
        ];
        let best = BestOf::new(Random, 3).unwrap();
        assert_eq!(sampled(&best, draws), [0.5, -9.0, 7.0, -0.4]);
        let one = BestOf::new(Random, 1).unwrap();
        let draws = vec![1.0, 2.0, 3.0, 4.0];
        assert_eq!(sampled(&one, draws.clone()), draws);
        assert!(BestOf::new(Random, 0).is_err());
    }

    #[test]
    fn ablations_are_what_they_say() {
        assert_eq!(sampled(&NoPrior, vec![]), [0.0; 4]);
        assert_eq!(sampled(&TextAsImage, vec![]), [1.0, 0.0, 0.0, -2.0]);
    }

    #[test]
    fn latents_need_a_row_for_every_sample() {
        let mut noise = Noise::from_seed(0);
        let mut run = Run::new(Sampler::ancestral(1), &mut noise);
        run.latents = Some(TensorData::new(vec![0.0_f32; 4], [2, 2]));
        let text = text();
        let caption = Caption {
            text: &text,
            unconditional: None,
        };
        let error = BestOf::new(Random, 2).unwrap().sample(caption, &mut run);
        assert!(matches!(error, Err(Error::Shape { .. })));
    }
}
