//! Variations end to end with recorded noise: from pictures, or from embeddings.

use unclip::{Exclamation, UnClip, image};

use crate::{
    report::{Case, Report},
    text_to_image::{compare_pictures, recorded},
};

pub fn check(case: &Case, report: &mut Report) {
    let unclip = UnClip::builder(&case.device)
        .checkpoint(case.checkpoint())
        .exclamation(Exclamation::AsStated)
        .build()
        .unwrap();
    let args = &case.json["args"];
    let count = |key: &str| args[key].as_u64().map(|n| n as usize);
    let decoder = case.goldens("decoder.safetensors");
    let upsampler = case.goldens("super_res.safetensors");
    let job = match case.json["images"].as_array() {
        Some(files) => {
            let files = files.iter().map(|f| case.folder.join(f.as_str().unwrap()));
            unclip.variations_of(files.map(|path| image::open(path).unwrap()))
        }
        None => {
            let inputs = case.goldens("inputs.safetensors");
            unclip.decode_embeddings(inputs["image_embeddings"].tensor(&case.device))
        }
    };
    let output = job
        .images(count("num_images_per_prompt").unwrap_or(1))
        .decoder_steps(count("decoder_num_inference_steps").unwrap())
        .upsampler_steps(count("super_res_num_inference_steps").unwrap())
        .decoder_guidance(args["decoder_guidance_scale"].as_f64().unwrap())
        .noise(recorded(&[&decoder, &upsampler]))
        .run()
        .unwrap();
    if case.folder.join("image_encoder.safetensors").is_file() {
        let golden = &case.goldens("image_encoder.safetensors")["image_embeds"];
        report.compare(
            case,
            "image_embeds",
            output.image_embeddings.clone(),
            golden,
        );
    }
    compare_pictures(case, &output, &decoder, report);
}
