//! Kandinsky 2.2's prior: the second family on the same stages.

use serde_json::Value;
use unclip::{
    Exclamation, Noise, Sampler, UnClip,
    burn::tensor::Tensor,
    clip::{ClipImageEncoder, ClipImageProcessor, load_vision_tower},
    core::{
        resident::Resident,
        stage::{Caption, Run},
        weights::LoadOptions,
    },
};

use crate::report::{Case, Report};

pub fn check(case: &Case, report: &mut Report) {
    let folder = case.checkpoint();
    let unclip = UnClip::builder(&case.device)
        .checkpoint(&folder)
        .exclamation(Exclamation::AsStated)
        .build()
        .unwrap();
    let args = &case.json["args"];
    let texts = |key: &str| -> Vec<String> {
        let list = args[key].as_array().map(Vec::as_slice).unwrap_or_default();
        list.iter()
            .map(|t| t.as_str().unwrap().to_owned())
            .collect()
    };
    let (prompts, negatives) = (texts("prompt"), texts("negative_prompt"));
    // With a negative prompt the reference samples for it as well, in the same batch.
    let all: Vec<String> = prompts.iter().chain(&negatives).cloned().collect();
    let copies = args["num_images_per_prompt"].as_u64().unwrap_or(1) as usize;
    let guidance = args["guidance_scale"].as_f64().unwrap();
    let encoder = unclip.text_encoder().unwrap();
    let encode = |texts: &[String]| {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        encoder.encode_text(&texts).unwrap().repeat_rows(copies)
    };
    let text = encode(&all);
    let against = match negatives.first() {
        Some(negative) => vec![negative.clone(); all.len()],
        None => vec![String::new(); all.len()],
    };
    let unconditional = (guidance > 1.0).then(|| encode(&against));

    let io = case.goldens("io.safetensors");
    let steps = io["timesteps"].ints.len();
    let draws = &io["noise"];
    let draws = (0..draws.shape[0]).map(|i| draws.at(i).floats);
    let mut noise = Noise::recorded(std::iter::once(io["latents_in"].floats.clone()).chain(draws));
    let mut run = Run::new(Sampler::ancestral(steps), &mut noise);
    run.guidance = guidance;
    let caption = Caption {
        text: &text,
        unconditional: unconditional.as_ref(),
    };
    let found = unclip.prior().unwrap().sample(caption, &mut run).unwrap();
    let rows = prompts.len() * copies;
    report.compare(
        case,
        "image_embeds",
        found.clone().narrow(0, 0, rows),
        &io["image_embeds"],
    );

    let golden = &io["negative_image_embeds"];
    let negative: Tensor<2> = match args["negative_prompt"] {
        Value::Null => {
            let tower = load_vision_tower(
                &folder.join("image_encoder"),
                None,
                &case.device,
                LoadOptions::default(),
            );
            let processor = ClipImageProcessor::load(&folder.join("image_processor")).unwrap();
            let encoder =
                ClipImageEncoder::new(processor, Resident::Kept(tower.unwrap()), &case.device);
            encoder.zero_image_embedding(golden.shape[0]).unwrap()
        }
        _ => found.narrow(0, rows, rows),
    };
    report.compare(case, "negative_image_embeds", negative, golden);
}
