//! The whole chain with recorded noise, and every step of every stage against the recording.

use serde_json::Value;
use unclip::{Exclamation, Noise, Output, UnClip, burn::tensor::Tensor, image};

use crate::{
    common::{Golden, Goldens},
    report::{Case, Report},
};

pub fn check(case: &Case, report: &mut Report) {
    let unclip = UnClip::builder(&case.device)
        .checkpoint(case.checkpoint())
        .exclamation(Exclamation::AsStated)
        .build()
        .unwrap();
    let args = &case.json["args"];
    let prompts: Vec<String> = match &args["prompt"] {
        Value::Array(prompts) => prompts
            .iter()
            .map(|p| p.as_str().unwrap().to_owned())
            .collect(),
        prompt => vec![prompt.as_str().unwrap().to_owned()],
    };
    check_text(case, &unclip, &prompts, report);

    let count = |key: &str| args[key].as_u64().map(|n| n as usize);
    let (prior, decoder) = (
        case.goldens("prior.safetensors"),
        case.goldens("decoder.safetensors"),
    );
    let upsampler = case.goldens("super_res.safetensors");
    let job = unclip
        .texts_to_images(prompts)
        .images(count("num_images_per_prompt").unwrap_or(1))
        .prior_steps(count("prior_num_inference_steps").unwrap())
        .decoder_steps(count("decoder_num_inference_steps").unwrap())
        .upsampler_steps(count("super_res_num_inference_steps").unwrap())
        .prior_guidance(args["prior_guidance_scale"].as_f64().unwrap())
        .decoder_guidance(args["decoder_guidance_scale"].as_f64().unwrap())
        .noise(recorded(&[&prior, &decoder, &upsampler]));
    let output = job.run().unwrap();

    report.compare(
        case,
        "image_embeddings",
        output.image_embeddings.clone(),
        &prior["image_embeddings"],
    );
    compare_pictures(case, &output, &decoder, report);
}

/// The decoder's and the finished pictures.
pub fn compare_pictures(case: &Case, output: &Output, decoder: &Goldens, report: &mut Report) {
    report.compare(
        case,
        "image_small",
        output.small.clone(),
        &decoder["image_small"],
    );
    let golden = &case.goldens("output.safetensors")["image_nhwc"];
    let pixels = ((output.pixels.clone() + 1.0) / 2.0).clamp(0.0, 1.0);
    report.compare_loop(
        case,
        "image",
        Tensor::<4>::from_data(pixels.into_data(), &case.device).permute([0, 2, 3, 1]),
        golden,
    );
    for (i, found) in output.images.iter().enumerate() {
        let path = case.folder.join(format!("output_{i}.png"));
        let expected = image::open(&path).unwrap().to_rgb8();
        let total: u64 = found
            .as_raw()
            .iter()
            .zip(expected.as_raw())
            .map(|(a, b)| u64::from(a.abs_diff(*b)))
            .sum();
        let mean = total as f64 / expected.as_raw().len() as f64;
        report.number(
            case,
            &format!("output_{i}.png mean difference of bytes"),
            mean,
            1.0,
        );
    }
}

/// Every draw of the reference, in order: each stage's latents, then its steps' noise.
pub fn recorded(stages: &[&Goldens]) -> Noise {
    let mut draws = Vec::new();
    for stage in stages {
        draws.push(stage["latents_in"].floats.clone());
        if let Some(noise) = stage.get("noise") {
            draws.extend((0..noise.shape[0]).map(|i| noise.at(i).floats));
        }
    }
    Noise::recorded(draws)
}

/// Token ids through the text encoder: embeddings and hidden states of prompts and empty prompt.
fn check_text(case: &Case, unclip: &UnClip, prompts: &[String], report: &mut Report) {
    let text = case.goldens("text.safetensors");
    let encoder = unclip.text_encoder().unwrap();
    let prompts: Vec<&str> = prompts.iter().map(String::as_str).collect();
    let copies = text["text_embeds"].shape[0] / prompts.len();
    let found = encoder.encode_text(&prompts).unwrap().repeat_rows(copies);
    let mask: Vec<i64> = found.mask.int().into_data().iter::<i64>().collect();
    let compare_mask = |golden: &Golden| match golden.shape[0] * copies {
        rows if rows * golden.shape[1] == mask.len() && copies > 1 => None,
        _ => Some(golden.ints.clone()),
    };
    if let Some(expected) = compare_mask(&text["attention_mask"]) {
        report.case_exact(case, "attention_mask", &mask, &expected);
    }
    report.compare(case, "text_embeds", found.embedding, &text["text_embeds"]);
    report.compare(
        case,
        "last_hidden_state",
        found.tokens,
        &text["last_hidden_state"],
    );
}
