//! CLIP's vision tower: hidden states, the class token, projection.

use unclip::{clip::load_vision_tower, core::weights::LoadOptions};

use crate::report::{Case, Report};

pub fn check(case: &Case, report: &mut Report) {
    let folder = case.checkpoint();
    let tower = load_vision_tower(&folder, None, &case.device, LoadOptions::default()).unwrap();
    let io = case.goldens("io.safetensors");
    let output = tower
        .forward(io["pixel_values"].tensor(&case.device))
        .unwrap();
    let name = "last_hidden_state";
    report.compare(case, name, output.tokens, &io[name]);
    report.compare(case, "pooled", output.pooled, &io["pooled"]);
    report.compare(case, "image_embeds", output.embedding, &io["image_embeds"]);
}
