//! A whole CLIP: embeddings, logits both ways, the contrastive loss and its gradients.

use std::collections::BTreeMap;

use unclip::{
    burn::{
        module::{Module, ModuleVisitor, Param},
        tensor::{Gradients, Tensor},
    },
    clip::{
        ClipEncoders, ClipModel, clip_model_keys, contrastive_loss, load_clip_model, normalize,
        similarity_logits,
    },
    core::weights::LoadOptions,
};

use crate::{
    common::{Golden, Goldens},
    report::{Case, Report},
};

pub fn check(case: &Case, report: &mut Report) {
    let load =
        |device| load_clip_model(&case.checkpoint(), None, device, LoadOptions::default()).unwrap();
    let io = case.goldens("io.safetensors");
    let model = load(&case.device);
    check_pairs(case, &io, &model, report);
    check_rectangle(case, &io, &model, report);
    check_gradients(case, &io, &load(&case.device.clone().autodiff()), report);
    if case.json.get("matching").is_some() {
        check_matching(case, report);
    }
}

/// From captions and picture files to cosines.
fn check_matching(case: &Case, report: &mut Report) {
    let matching = &case.json["matching"];
    let strings = |key: &str| -> Vec<&str> {
        let list = matching[key].as_array().expect("a list");
        list.iter().map(|text| text.as_str().unwrap()).collect()
    };
    let pictures: Vec<_> = strings("pictures")
        .into_iter()
        .map(|file| unclip::image::open(case.root.join(file)).unwrap())
        .collect();
    let golden: Vec<Vec<f32>> = serde_json::from_value(matching["cosines"].clone()).unwrap();
    let options = LoadOptions::default();
    let clip = ClipEncoders::load(&case.checkpoint(), None, &case.device, options).unwrap();
    let captions = strings("captions");
    let found = clip
        .matcher()
        .image_text_similarity(&pictures, &captions)
        .unwrap();
    let golden = Golden {
        shape: vec![pictures.len(), captions.len()],
        floats: golden.concat(),
        ints: Vec::new(),
        bytes: Vec::new(),
    };
    let shape = [found.len(), found[0].len()];
    report.compare_values(case, "matching", &shape, &found.concat(), &golden);
}

fn check_pairs(case: &Case, io: &Goldens, model: &ClipModel, report: &mut Report) {
    let ids = &io["input_ids"];
    let mask = || io.get("attention_mask").map(|mask| mask.mask(&case.device));
    let pixels = || io["pixel_values"].tensor(&case.device);
    let rows = ids.shape[0];
    let text = model.text.forward(&ids.ids(), rows, mask()).unwrap();
    let image = model.vision.forward(pixels()).unwrap();
    let output = model.forward(&ids.ids(), rows, mask(), pixels()).unwrap();
    let loss = contrastive_loss(
        text.embedding.clone(),
        image.embedding.clone(),
        model.logit_scale(),
    );
    report.compare(case, "loss", loss, &io["loss"]);
    for (name, found) in [
        ("text_features", text.embedding),
        ("image_features", image.embedding),
        ("text_embeds", output.text_embeddings),
        ("image_embeds", output.image_embeddings),
        ("logits_per_text", output.logits_per_text),
        ("logits_per_image", output.logits_per_image),
    ] {
        report.compare(case, name, found, &io[name]);
    }
    let factor = model.logit_factor().unwrap();
    let golden = case.json["logit_scale_exp"].as_f64().expect("a number");
    let error = (f64::from(factor) - golden).abs();
    report.number(case, "logit_scale_exp", error, 1e-6 * golden);
}

/// Fewer texts than pictures, and no mask.
fn check_rectangle(case: &Case, io: &Goldens, model: &ClipModel, report: &mut Report) {
    let ids = &io["input_ids"];
    let (rows, length) = (io["rect.text_embeds"].shape[0], ids.shape[1]);
    let text = model
        .text
        .forward(&ids.ids()[..rows * length], rows, None)
        .unwrap()
        .embedding;
    let image = model
        .vision
        .forward(io["pixel_values"].tensor(&case.device))
        .unwrap()
        .embedding;
    let logits = similarity_logits(text.clone(), image, model.logit_scale());
    let name = "rect.text_embeds";
    report.compare(case, name, normalize(text), &io[name]);
    let name = "rect.logits_per_image";
    report.compare(case, name, logits.transpose(), &io[name]);
}

/// d loss / d parameter of every parameter, by the checkpoint's names.
fn check_gradients(case: &Case, io: &Goldens, model: &ClipModel, report: &mut Report) {
    let device = case.device.clone().autodiff();
    let ids = &io["input_ids"];
    let mask = io.get("attention_mask").map(|mask| mask.mask(&device));
    let text = model.text.forward(&ids.ids(), ids.shape[0], mask).unwrap();
    let image = model
        .vision
        .forward(io["pixel_values"].tensor(&device))
        .unwrap();
    let loss = contrastive_loss(text.embedding, image.embedding, model.logit_scale());
    let mut found = Found {
        gradients: loss.backward(),
        path: Vec::new(),
        by_key: BTreeMap::new(),
    };
    model.visit(&mut found);
    let mut missing: Vec<&String> = found.by_key.keys().collect();
    // Single tensors have the tolerance of the outputs, which are larger than most gradients: the
    // whole gradient is compared too, relative to its length.
    let (mut error, mut length) = (0.0, 0.0);
    let mut add = |values: &[f32], golden: &Golden| {
        for (a, b) in values.iter().zip(&golden.floats) {
            error += f64::from(a - b).powi(2);
            length += f64::from(*b).powi(2);
        }
    };
    let goldens = case.goldens("grads.safetensors");
    for (name, golden) in &goldens {
        let key = name.split(':').next().unwrap();
        missing.retain(|other| *other != key);
        let Some((shape, values)) = found.by_key.get(key) else {
            report.failed(case, format!("`{key}` has no gradient"));
            continue;
        };
        if name.ends_with(":rows") {
            continue;
        }
        let what = format!("gradient of {key}");
        let golden = match goldens.get(&format!("{key}:rows")) {
            Some(rows) => whole(golden, &rows.ints, shape),
            // Burn knows no rank 0.
            None if golden.shape.is_empty() => Golden {
                shape: vec![1],
                ..golden.clone()
            },
            None => golden.clone(),
        };
        add(values, &golden);
        report.compare_values(case, &what, shape, values, &golden);
    }
    let relative = (error / length).sqrt();
    report.number(case, "gradient as a whole, relative", relative, 1e-5);
    assert!(missing.is_empty(), "the reference has no {missing:?}");
}

/// Rows of a matrix that is 0 otherwise.
fn whole(golden: &Golden, rows: &[i64], shape: &[usize]) -> Golden {
    let width = shape[1];
    let mut all = Golden {
        shape: shape.to_vec(),
        floats: vec![0.0; shape.iter().product()],
        ints: Vec::new(),
        bytes: Vec::new(),
    };
    for (row, values) in rows.iter().zip(golden.floats.chunks(width)) {
        let at = *row as usize * width;
        all.floats[at..at + width].copy_from_slice(values);
    }
    all
}

struct Found {
    gradients: Gradients,
    path: Vec<(String, String)>,
    by_key: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
}

impl ModuleVisitor for Found {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.push((name.to_owned(), container.to_owned()));
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let names: Vec<&str> = self.path.iter().map(|(name, _)| name.as_str()).collect();
        let container = self.path.last().map_or("", |(_, container)| container);
        let mut path = names.join(".");
        if container == "Struct:LayerNorm" {
            path = path.replace(".gamma", ".weight").replace(".beta", ".bias");
        }
        let Some(gradient) = param.val().grad(&self.gradients) else {
            return;
        };
        let gradient = match container == "Struct:Linear" && D == 2 {
            true => gradient.transpose(),
            false => gradient,
        };
        let shape = gradient.dims().to_vec();
        let values = gradient.into_data().try_to_vec::<f32>().unwrap();
        let key = clip_model_keys().key(&path);
        self.by_key.insert(key, (shape, values));
    }
}
