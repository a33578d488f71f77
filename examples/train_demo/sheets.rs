//! Sheets of pictures to watch the decoder by.

use unclip::{
    ImageEncoder, UnClip,
    burn::tensor::Tensor,
    core::resident::Resident,
    decoder::{DecoderModel, DiffusionDecoder},
    image::DynamicImage,
};

use super::{
    Args, config,
    stages::{image_encoder, text_encoder},
    support::Done,
};
use crate::demo::{
    caption::full_caption,
    render::render,
    split::{held_out_scene, train_scene},
};

/// Scenes of a sheet: half of them as training sees them, half of combinations it never sees.
const SCENES: u64 = 16;

/// True pictures with their captions and embeddings.
pub struct Decoder {
    truth: Vec<DynamicImage>,
    captions: Vec<String>,
    embeddings: Tensor<2>,
}

impl Decoder {
    pub fn new(args: &Args) -> Result<Self, Box<dyn std::error::Error>> {
        let seen = (0..SCENES / 2).map(|i| train_scene(u64::MAX / 2 + i));
        let scenes = seen.chain((0..SCENES / 2).map(held_out_scene));
        let (mut truth, mut captions) = (Vec::new(), Vec::new());
        for scene in scenes {
            truth.push(DynamicImage::from(render(&scene, config::SMALL as u32)));
            captions.push(full_caption(&scene));
        }
        let embeddings = image_encoder(args)?.encode_images(&truth)?;
        Ok(Self {
            truth,
            captions,
            embeddings,
        })
    }

    /// Writes `samples-STEP.png`: true pictures, and below each row what the decoder makes of their
    /// captions and embeddings.
    pub fn make(&mut self, args: &Args, model: DecoderModel, step: usize) -> Done {
        let scheduler = config::scheduler("decoder")?;
        let device = &args.device[0];
        let model = Resident::Kept(model);
        let stage = DiffusionDecoder::new(&config::decoder(), model, scheduler.process, device)?;
        let unclip = UnClip::builder(device)
            .text_encoder(text_encoder(args)?)
            .decoder(stage)
            .build()?;
        let output = unclip
            .texts_to_images(&self.captions)
            .image_embeddings(self.embeddings.clone())
            .decoder_guidance(2.0)
            .prior_guidance(1.0)
            .decoder_steps(20)
            .seed(1)
            .run()?;
        let rows = self.truth.chunks(8).zip(output.images.chunks(8));
        let all = rows.flat_map(|(truth, made)| {
            truth
                .iter()
                .map(DynamicImage::to_rgb8)
                .chain(made.iter().cloned())
        });
        let sheet = unclip::core::image::contact_sheet(&all.collect::<Vec<_>>(), 8, 2);
        let path = args
            .out
            .join("decoder")
            .join(format!("samples-{step:06}.png"));
        unclip::core::image::save_png(&sheet, &path, &[])?;
        Ok(())
    }
}
