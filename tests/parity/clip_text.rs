//! CLIP's text tower: hidden states, pooling, projection; with and without a mask.

use unclip::{clip::load_text_tower, core::weights::LoadOptions};

use crate::report::{Case, Report};

pub fn check(case: &Case, report: &mut Report) {
    let folder = case.checkpoint();
    let tower = load_text_tower(&folder, None, &case.device, LoadOptions::default()).unwrap();
    let goldens = case.goldens("io.safetensors");
    for variant in case.json["variants"].as_array().expect("variants") {
        let variant = variant.as_str().unwrap();
        let golden = |name: &str| goldens.get(&format!("{variant}.{name}"));
        let ids = golden("in.input_ids").expect("ids");
        let mask = golden("in.attention_mask").map(|m| m.mask(&case.device));
        let output = tower.forward(&ids.ids(), ids.shape[0], mask).unwrap();
        let mut compare = |name: &str, found, golden| {
            report.compare(case, &format!("{variant}.{name}"), found, golden);
        };
        compare(
            "text_embeds",
            output.embedding,
            golden("text_embeds").unwrap(),
        );
        compare("pooled", output.pooled, golden("pooled").unwrap());
        let name = format!("{variant}.last_hidden_state");
        report.compare(case, &name, output.tokens, &goldens[&name]);
    }
}
