//! A whole CLIP: embeddings, logits both ways, the contrastive loss.

use unclip::{
    clip::{ClipModel, contrastive_loss, load_clip_model, normalize, similarity_logits},
    core::weights::LoadOptions,
};

use crate::{
    common::Goldens,
    report::{Case, Report},
};

pub fn check(case: &Case, report: &mut Report) {
    let load =
        |device| load_clip_model(&case.checkpoint(), None, device, LoadOptions::default()).unwrap();
    let io = case.goldens("io.safetensors");
    let model = load(&case.device);
    check_pairs(case, &io, &model, report);
    check_rectangle(case, &io, &model, report);
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
