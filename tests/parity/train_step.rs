//! A training step of a stage: losses, gradients, and what AdamW makes of them.

use std::{collections::BTreeMap, path::Path};

use unclip::{
    ImageEncoder, TextEncoder,
    burn::{
        module::{Module, ModuleMapper, Param},
        optim::GradientsParams,
        tensor::{Device, Tensor},
    },
    core::{
        diffusion::{Process, SchedulerConfig},
        noise::Noise,
        stage::TextEncoding,
        train::{Captioned, EmbeddedCaption, Optimizer, Recipe, TrainSettings},
        weights::LoadOptions,
    },
    decoder::{DecoderConfig, DecoderTraining, load_decoder, save_decoder},
    image::{DynamicImage, RgbImage},
    prior::{DiffusersPrior, PriorTraining, load_prior, save_prior},
};

use crate::{
    common::{Golden, Goldens, read_goldens},
    report::{Case, Report},
};

pub fn check(case: &Case, report: &mut Report) {
    let io = case.goldens("io.safetensors");
    let device = case.device.clone().autodiff();
    let (root, options) = (case.checkpoint(), LoadOptions::default());
    let process = |stage: &str| -> Process {
        let folder = root.join(format!("{stage}_scheduler"));
        SchedulerConfig::load(&folder).unwrap().process
    };
    let text = Box::new(Given {
        io: io.clone(),
        device: case.device.clone(),
    });
    let noise = io["noise"]
        .floats
        .chunks(io["noise"].floats.len() / io["noise"].shape[0]);
    let noise = Noise::recorded(noise.map(<[f32]>::to_vec));
    match case.json["stage"].as_str() {
        Some("decoder") => {
            let (projection, unet) = (root.join("text_proj"), root.join("decoder"));
            let config = DecoderConfig::load_diffusers(&projection, &unet).unwrap();
            let model = load_decoder(&projection, &unet, None, &device, options).unwrap();
            let image = Box::new(Given {
                io: io.clone(),
                device: case.device.clone(),
            });
            let recipe = DecoderTraining::new(&config, process("decoder"), text, image);
            let samples = pictures(&io["pictures"]);
            step(
                case,
                report,
                &io,
                (recipe, model, samples, noise),
                |model, to| {
                    let (projection, unet) = (to.join("text_proj"), to.join("decoder"));
                    save_decoder(model, &config, &projection, &unet, None).unwrap();
                    [("text_proj", projection), ("decoder", unet)].into()
                },
            );
        }
        Some("prior") => {
            let folder = root.join("prior");
            let config = DiffusersPrior::load(&folder).unwrap();
            let model = load_prior(&folder, None, &device, options).unwrap();
            let recipe = PriorTraining::new(&config, process("prior"), text);
            let width = config.embedding;
            let rows = io["image_embeds"].floats.chunks(width).enumerate();
            let samples = rows.map(|(i, row)| EmbeddedCaption {
                embedding: row.to_vec(),
                caption: i.to_string(),
            });
            let samples = samples.collect();
            step(
                case,
                report,
                &io,
                (recipe, model, samples, noise),
                |model, to| {
                    save_prior(model, &config, to, None).unwrap();
                    [("prior", to.to_owned())].into()
                },
            );
        }
        stage => report.failed(case, format!("unknown stage {stage:?}")),
    }
}

/// One step; `save` writes a model's parts and says where, each under its name in the case.
fn step<R: Recipe>(
    case: &Case,
    report: &mut Report,
    io: &Goldens,
    (recipe, model, samples, mut noise): (R, R::Model, Vec<R::Sample>, Noise),
    save: impl Fn(&R::Model, &Path) -> BTreeMap<&'static str, std::path::PathBuf>,
) {
    let number = |key: &str| case.json[key].as_f64().unwrap();
    let settings = TrainSettings {
        learning_rate: number("lr"),
        beta1: case.json["betas"][0].as_f64().unwrap(),
        beta2: case.json["betas"][1].as_f64().unwrap(),
        epsilon: number("eps"),
        weight_decay: number("weight_decay"),
        warm_up: 0,
        cosine: false,
        ema: 0.0,
        ..TrainSettings::new(1, samples.len())
    };
    let examples = recipe.prepare(samples, &mut noise).unwrap();
    let all: Vec<&R::Example> = examples.iter().collect();
    let devices = [case.device.clone().autodiff()];
    let pass = recipe
        .backward(&model, &all, 1, 1.0 / all.len() as f64, &devices)
        .unwrap();
    report.compare_values(case, "losses", &[all.len()], &pass.losses, &io["losses"]);

    // Written as a checkpoint, gradients and weights have the reference's names and layout.
    let read = |model: &R::Model| -> BTreeMap<String, Vec<f32>> {
        let folder = tempfile::tempdir().unwrap();
        let mut all = BTreeMap::new();
        for (part, folder) in save(model, folder.path()) {
            let file = folder.join("diffusion_pytorch_model.safetensors");
            for (name, golden) in read_goldens(&file) {
                all.insert(format!("{part}.{name}"), golden.floats);
            }
        }
        all
    };
    let plain = model.clone().valid();
    let before = read(&plain);
    let gradients = read(&plain.map(&mut Gradients(&pass.gradients)));
    let scale = number("gradient_scale");
    let model = Optimizer::default().step(model, pass.gradients, scale, &settings, 0);
    let mut changes = read(&model.valid());
    for (name, values) in &mut changes {
        for (value, before) in values.iter_mut().zip(&before[name]) {
            *value -= before;
        }
    }
    // What the reference does not train stays as it is.
    let names = case.json["parameters"].as_array().unwrap();
    for (name, values) in &changes {
        if !names.iter().any(|n| n == name) && values.iter().any(|v| *v != 0.0) {
            report.failed(case, format!("{name} was trained"));
        }
    }
    compare(case, report, "gradients", &gradients, &io["gradients"]);
    compare(case, report, "changes", &changes, &io["changes"]);
}

/// Compares the marks of each parameter: its length, and its product with cosines.
fn compare(
    case: &Case,
    report: &mut Report,
    what: &str,
    found: &BTreeMap<String, Vec<f32>>,
    golden: &Golden,
) {
    let names = case.json["parameters"].as_array().unwrap();
    // Relative to the longest: what is nearly 0 is nearly 0 here too.
    let longest = golden
        .floats
        .chunks(2)
        .map(|pair| pair[0])
        .fold(0.0, f32::max);
    let mut worst = 0.0_f64;
    for (name, golden) in names.iter().zip(golden.floats.chunks(2)) {
        let Some(values) = found.get(name.as_str().unwrap()) else {
            report.failed(case, format!("{what}: no {name}"));
            continue;
        };
        let wide = values.iter().map(|v| f64::from(*v));
        let length = wide.clone().map(|v| v * v).sum::<f64>().sqrt();
        let product: f64 = wide
            .enumerate()
            .map(|(i, v)| v * ((i + 1) as f64).cos())
            .sum();
        for (found, golden) in [length, product].into_iter().zip(golden) {
            let apart = (found - f64::from(*golden)).abs();
            worst = worst.max(apart / f64::from(longest));
        }
    }
    report.number(
        case,
        &format!("{what} of {} parameters, relative", names.len()),
        worst,
        1e-5,
    );
}

/// Puts gradients in the place of parameters.
struct Gradients<'a>(&'a GradientsParams);

impl ModuleMapper for Gradients<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let gradient = self.0.get::<D>(param.id);
        param.map(|tensor| match gradient {
            Some(gradient) => gradient,
            None => tensor.zeros_like(),
        })
    }
}

fn pictures(bytes: &Golden) -> Vec<Captioned> {
    let [count, _, height, width] = bytes.shape[..] else {
        panic!("pictures are [n, 3, h, w]");
    };
    let plane = height * width;
    let picture = |i: usize| {
        let planes = &bytes.bytes[i * 3 * plane..][..3 * plane];
        RgbImage::from_fn(width as u32, height as u32, |x, y| {
            let at = y as usize * width + x as usize;
            unclip::image::Rgb([planes[at], planes[plane + at], planes[2 * plane + at]])
        })
    };
    let samples = (0..count).map(|i| Captioned {
        picture: picture(i),
        caption: i.to_string(),
    });
    samples.collect()
}

/// Encoders that know the case's rows: a caption is the row's number, the empty one the last.
struct Given {
    io: Goldens,
    device: Device,
}

impl TextEncoder for Given {
    fn encode_text(&self, texts: &[&str]) -> unclip::Result<TextEncoding> {
        let io = &self.io;
        let last = io["text_embeds"].shape[0] - 1;
        let rows: Vec<usize> = texts.iter().map(|t| t.parse().unwrap_or(last)).collect();
        let pick = |golden: &Golden| Golden {
            shape: [&[rows.len()], &golden.shape[1..]].concat(),
            floats: rows_of(&golden.floats, &rows, last + 1),
            ints: rows_of(&golden.ints, &rows, last + 1),
            bytes: rows_of(&golden.bytes, &rows, last + 1),
        };
        Ok(TextEncoding {
            embedding: pick(&io["text_embeds"]).tensor(&self.device),
            tokens: pick(&io["tokens"]).tensor(&self.device),
            mask: pick(&io["mask"]).mask(&self.device),
        })
    }
}

impl ImageEncoder for Given {
    fn encode_images(&self, _: &[DynamicImage]) -> unclip::Result<Tensor<2>> {
        Ok(self.io["image_embeds"].tensor(&self.device))
    }
}

fn rows_of<T: Clone>(values: &[T], rows: &[usize], count: usize) -> Vec<T> {
    let width = values.len() / count;
    rows.iter()
        .flat_map(|row| values[row * width..][..width].to_vec())
        .collect()
}
