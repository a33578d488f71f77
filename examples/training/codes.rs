//! An autoregressive prior for given embeddings.

use std::error::Error;

use unclip::{
    TextEncoder,
    burn::tensor::Device,
    core::{
        resident::Resident,
        train::{EmbeddedCaption, initialized, stack},
    },
    prior::{
        AutoregressiveConfig, AutoregressiveModel, AutoregressivePrior, EmbeddingCodec, Pca,
        PriorConfig, dot_edges,
    },
};

use super::Start;

/// Buckets of each code; the paper has 1,024.
const BUCKETS: usize = 256;
/// Buckets of the dot product that is told.
const DOT_BUCKETS: usize = 32;
/// Samples whose dot products are taken.
const DOTS: usize = 2_000;

/// A new network with its codes.
pub struct Autoregressive {
    pub config: AutoregressiveConfig,
    pub model: AutoregressiveModel,
    codec: EmbeddingCodec,
    edges: Vec<f32>,
    device: Device,
}

impl Autoregressive {
    /// Codes that hold 99 % of the variance of `some` embeddings, and a network of `like`'s size.
    pub fn new(
        start: &Start,
        like: &PriorConfig,
        some: &[EmbeddedCaption],
        seed: u64,
    ) -> Result<Self, Box<dyn Error>> {
        let width = like.embedding;
        let values: Vec<f32> = some.iter().flat_map(|s| s.embedding.clone()).collect();
        let pca = Pca::fit(&values, width)?;
        let dims = pca.dims_for(0.99);
        eprintln!(
            "{dims} of {} components hold 99 % of the variance",
            pca.dims()
        );
        let codec = EmbeddingCodec::fit(pca.truncated(dims)?, &values, BUCKETS)?;
        let some = &some[..some.len().min(DOTS)];
        let captions: Vec<&str> = some.iter().map(|s| &s.caption[..]).collect();
        let text = start.text_encoder()?.encode_text(&captions)?;
        let images = some.iter().map(|s| &s.embedding[..]);
        let edges = dot_edges(
            text.embedding,
            stack(images, &[width], &start.device)?,
            DOT_BUCKETS,
        )?;
        let (layers, heads) = (like.layers, like.heads);
        let config = AutoregressiveConfig::new(
            width,
            like.context,
            dims,
            BUCKETS,
            heads,
            like.head_dim,
            layers,
        )
        .with_dot_buckets(DOT_BUCKETS);
        Ok(Self {
            model: initialized(config.init(&start.device), seed, &[])?,
            config,
            codec,
            edges,
            device: start.device.clone(),
        })
    }

    /// The stage with a network.
    pub fn stage(&self, model: AutoregressiveModel) -> unclip::Result<AutoregressivePrior> {
        let (codec, edges) = (self.codec.clone(), self.edges.clone());
        AutoregressivePrior::new(
            &self.config,
            Resident::Kept(model),
            codec,
            edges,
            &self.device,
        )
    }
}
