//! The autoregressive prior as a stage.

use burn::tensor::{Bool, Device, Int, Tensor, TensorData};
use unclip_core::{
    error::{Error, Result},
    image::to_host,
    nearest::row_cosines,
    noise::Noise,
    resident::Resident,
    stage::{Caption, Prior, Run, Stage, StageSettings, TextEncoding},
};

use super::model::{AutoregressiveConfig, AutoregressiveInput, AutoregressiveModel};
use crate::EmbeddingCodec;

/// Samples CLIP image embeddings code by code (unCLIP §2.2).
///
/// A token before the codes says how large the dot product of the normalised text and image
/// embedding shall be; it is drawn from the upper half of those seen in training. Guidance is on
/// the logits. Draws: for each row, one uniform number for that token and one for each code, in
/// the order of the codes and, within a code, of the rows.
#[derive(Debug)]
pub struct AutoregressivePrior {
    /// The network.
    pub model: Resident<AutoregressiveModel>,
    codec: EmbeddingCodec,
    dot_edges: Vec<f32>,
    context: usize,
    temperature: f64,
    top_k: usize,
    device: Device,
}

impl AutoregressivePrior {
    /// A stage of parts; the network, configured by `config`, is on `device`. `dot_edges` part the
    /// dot products seen in training into buckets of equal numbers, see [`dot_edges`].
    ///
    /// # Errors
    /// [`Error::Config`] if the parts do not belong together.
    pub fn new(
        config: &AutoregressiveConfig,
        model: Resident<AutoregressiveModel>,
        codec: EmbeddingCodec,
        dot_edges: Vec<f32>,
        device: &Device,
    ) -> Result<Self> {
        let pairs = [
            ("codes", config.codes, codec.dims()),
            ("buckets", config.buckets, codec.buckets()),
            ("embedding", config.embedding, codec.pca().width()),
            ("dot_buckets", config.dot_buckets, dot_edges.len() + 1),
        ];
        for (key, value, found) in pairs {
            if value != found {
                let origin = "autoregressive prior";
                let expected = format!("but its codes and edges are made for {found}");
                return Err(Error::config(origin, key, value, expected));
            }
        }
        Ok(Self {
            model,
            codec,
            dot_edges,
            context: config.context,
            temperature: 1.0,
            top_k: 0,
            device: device.clone(),
        })
    }

    /// Divides logits by this: towards 0 the likeliest code is taken. Default: 1.
    pub fn with_temperature(mut self, temperature: f64) -> Self {
        self.temperature = temperature;
        self
    }

    /// Takes only the `k` likeliest codes into account; all if 0. Default: 0.
    pub fn with_top_k(mut self, k: usize) -> Self {
        self.top_k = k;
        self
    }

    /// How embeddings become codes.
    pub fn codec(&self) -> &EmbeddingCodec {
        &self.codec
    }

    /// Where the network is.
    pub(super) fn device(&self) -> &Device {
        &self.device
    }

    /// Where the buckets of the dot product begin.
    pub fn dot_edges(&self) -> &[f32] {
        &self.dot_edges
    }

    /// The exact log likelihood of image embeddings, `[b, d]`, in nats: of the codes they are turned
    /// into, given the caption and the bucket of their own dot product with it. One a row.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::NotFinite`], or a network that cannot be loaded.
    pub fn log_likelihood(&self, text: &TextEncoding, embeddings: Tensor<2>) -> Result<Vec<f32>> {
        let (input, codes) = self.training_pair(text, embeddings)?;
        let each = self.model.hold()?.log_likelihood(&input, codes);
        to_host(each.sum_dim(1), "prior")
    }

    /// What the network is trained on: its input, and the codes it has to predict.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::NotFinite`].
    pub fn training_pair(
        &self,
        text: &TextEncoding,
        embeddings: Tensor<2>,
    ) -> Result<(AutoregressiveInput, Tensor<2, Int>)> {
        text.check(
            embeddings.dims()[0],
            self.codec.pca().width(),
            Some(self.context),
        )?;
        let codes = self.codec.encode(embeddings.clone())?;
        let dots = row_cosines(text.embedding.clone(), embeddings)?;
        let buckets = dots
            .iter()
            .map(|dot| self.dot_bucket(*dot) as i64)
            .collect();
        let rows = dots.len();
        let codes: Vec<i64> = codes.into_iter().map(i64::from).collect();
        let codes = TensorData::new(codes, [rows, self.codec.dims()]);
        let input = self.input(text, buckets);
        Ok((input, Tensor::from_data(codes, &self.device)))
    }

    fn dot_bucket(&self, dot: f32) -> usize {
        self.dot_edges.partition_point(|edge| *edge <= dot)
    }

    fn input(&self, text: &TextEncoding, dots: Vec<i64>) -> AutoregressiveInput {
        let text = text.to_device(&self.device);
        let rows = dots.len();
        AutoregressiveInput {
            text_embedding: text.embedding,
            tokens: text.tokens,
            mask: text.mask,
            dots: Tensor::from_data(TensorData::new(dots, [rows]), &self.device),
        }
    }

    fn check_settings(&self, run: &Run<'_>) -> Result<()> {
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            let expected = "a finite number of at least 0";
            return Err(Error::setting("temperature", self.temperature, expected));
        }
        if run.latents.is_some() {
            let expected = "none: an autoregressive prior starts from no noise";
            return Err(Error::setting("the prior's latents", "given", expected));
        }
        Ok(())
    }
}

/// Edges that part the dot products of text and image embeddings (of the same rows) into `buckets`
/// of equal numbers.
///
/// # Errors
/// [`Error::Setting`] for less than two buckets or no rows, [`Error::NotFinite`].
pub fn dot_edges(text: Tensor<2>, image: Tensor<2>, buckets: usize) -> Result<Vec<f32>> {
    if buckets < 2 || text.dims()[0] == 0 {
        return Err(Error::setting(
            "dot buckets",
            buckets,
            "at least 2, and a row",
        ));
    }
    let mut dots = row_cosines(text, image)?;
    dots.sort_by(f32::total_cmp);
    Ok((1..buckets)
        .map(|i| dots[i * dots.len() / buckets])
        .collect())
}

impl Prior for AutoregressivePrior {
    fn sample(&self, caption: Caption<'_>, run: &mut Run<'_>) -> Result<Tensor<2>> {
        self.check_settings(run)?;
        caption.check(self.codec.pca().width(), Some(self.context))?;
        let rows = caption.text.rows();
        // The upper half of the buckets, each as likely.
        let half = self.dot_edges.len().div_ceil(2);
        let upper = self.dot_edges.len() + 1 - half;
        let dots: Vec<i64> = run
            .noise
            .uniform_vec(rows)
            .into_iter()
            .map(|u| (half + (u * upper as f32) as usize) as i64)
            .collect();

        let model = self.model.hold()?;
        let conditional = self.input(caption.text, dots.clone());
        let branches = match caption.unconditional {
            None => vec![conditional],
            Some(text) => {
                let unconditional = self.input(text, dots);
                match run.is_batched {
                    true => vec![cat(unconditional, conditional)],
                    false => vec![unconditional, conditional],
                }
            }
        };
        let mut decodings = Vec::new();
        let mut logits = Vec::new();
        for input in &branches {
            let (first, decoding) = model.start(input);
            logits.push(first);
            decodings.push(decoding);
        }
        let is_guided = caption.unconditional.is_some();
        let count = self.codec.dims();
        let mut codes = vec![0; rows * count];
        for i in 0..count {
            let guided = guide(&logits, rows, is_guided, run.guidance);
            let chosen = self.choose(guided, run.noise)?;
            for (row, code) in chosen.iter().enumerate() {
                codes[row * count + i] = *code;
            }
            run.report(Stage::Prior, i + 1, count)?;
            if i + 1 == count {
                break;
            }
            logits.clear();
            for decoding in &mut decodings {
                let copies = match is_guided && run.is_batched {
                    true => 2,
                    false => 1,
                };
                let next: Vec<i64> = chosen.iter().map(|c| i64::from(*c)).collect();
                let next = TensorData::new(next.repeat(copies), [rows * copies]);
                logits.push(model.next(decoding, Tensor::from_data(next, &self.device)));
            }
        }
        self.codec.decode(&codes, &self.device)
    }

    fn defaults(&self) -> StageSettings {
        StageSettings {
            guidance: 1.0,
            ..StageSettings::default()
        }
    }
}

fn cat(first: AutoregressiveInput, second: AutoregressiveInput) -> AutoregressiveInput {
    AutoregressiveInput {
        text_embedding: Tensor::cat(vec![first.text_embedding, second.text_embedding], 0),
        tokens: Tensor::cat(vec![first.tokens, second.tokens], 0),
        mask: Tensor::<2, Bool>::cat(vec![first.mask, second.mask], 0),
        dots: Tensor::cat(vec![first.dots, second.dots], 0),
    }
}

/// u + scale · (c − u), from both in one batch or from one each.
fn guide(logits: &[Tensor<2>], rows: usize, is_guided: bool, scale: f64) -> Tensor<2> {
    let (unconditional, conditional) = match logits {
        [all] if is_guided => (
            all.clone().narrow(0, 0, rows),
            all.clone().narrow(0, rows, rows),
        ),
        [unconditional, conditional] => (unconditional.clone(), conditional.clone()),
        all => return all[0].clone(),
    };
    unconditional.clone() + (conditional - unconditional) * scale
}

impl AutoregressivePrior {
    /// One code a row, from its logits and one uniform number a row.
    fn choose(&self, logits: Tensor<2>, noise: &mut Noise) -> Result<Vec<u32>> {
        let [rows, buckets] = logits.dims();
        let logits = to_host(logits, "prior")?;
        let uniforms = noise.uniform_vec(rows);
        Ok(logits
            .chunks(buckets)
            .zip(uniforms)
            .map(|(row, uniform)| pick(row, f64::from(uniform), self.temperature, self.top_k))
            .collect())
    }
}

/// The code at `uniform` of the cumulated probabilities.
fn pick(logits: &[f32], uniform: f64, temperature: f64, top_k: usize) -> u32 {
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    // The earlier of equals first: the same choice everywhere.
    order.sort_by(|a, b| logits[*b as usize].total_cmp(&logits[*a as usize]));
    if top_k > 0 {
        order.truncate(top_k);
    }
    let largest = f64::from(logits[order[0] as usize]);
    if temperature == 0.0 {
        return order[0];
    }
    let weight = |code: &u32| ((f64::from(logits[*code as usize]) - largest) / temperature).exp();
    let total: f64 = order.iter().map(weight).sum();
    let mut left = uniform * total;
    for code in &order {
        left -= weight(code);
        if left < 0.0 {
            return *code;
        }
    }
    order[order.len() - 1]
}

#[cfg(test)]
mod tests {
    use super::pick;

    #[test]
    fn codes_are_picked_by_their_probability() {
        let logits = [0.0, 2.0_f32.ln(), 5.0_f32.ln()];
        assert_eq!(
            [0.0, 0.6, 0.7, 0.9].map(|u| pick(&logits, u, 1.0, 0)),
            [2, 2, 1, 0]
        );
        assert_eq!([0.0, 0.99].map(|u| pick(&logits, u, 1e-3, 0)), [2, 2]);
        assert_eq!([0.0, 0.99].map(|u| pick(&logits, u, 0.0, 0)), [2, 2]);
        assert_eq!([0.0, 0.99].map(|u| pick(&logits, u, 1.0, 1)), [2, 2]);
        assert_eq!([0.0, 0.99].map(|u| pick(&logits, u, 1.0, 2)), [2, 1]);
        assert_eq!(pick(&[1.0, 1.0], 0.0, 1.0, 1), 0);
    }
}
