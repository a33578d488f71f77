//! The decoder's text projection and U-Net.

use unclip::{
    burn::tensor::{Bool, Tensor},
    core::{
        nn::{DiffusersUNet, Times, UNetInput, unet_keys},
        weights::{Checkpoint, LoadOptions, load},
    },
    decoder::load_text_projection,
};

use crate::{
    prior::timesteps,
    report::{Case, Report},
};

pub fn check_projection(case: &Case, report: &mut Report) {
    let device = &case.device;
    let folder = case.checkpoint();
    let model = load_text_projection(&folder, None, device, LoadOptions::default()).unwrap();
    let io = case.goldens("io.safetensors");
    let mut image = io["in.image_embeddings"].tensor::<2>(device);
    let text = io["in.prompt_embeds"].tensor::<2>(device);
    let tokens = io["in.text_encoder_hidden_states"].tensor::<3>(device);
    let [rows, length, _] = tokens.dims();
    let given = image.dims()[0];
    if given < rows {
        // Guidance: the null embedding comes first, as in the reference.
        image = Tensor::cat(vec![model.null_embedding(rows - given), image], 0);
    }
    let mask = Tensor::<2, Bool>::from_data(
        unclip::burn::tensor::TensorData::new(vec![true; rows * length], [rows, length]),
        device,
    );
    let output = model.forward(image, text, tokens, mask);
    let mut compare = |name: &str, golden: &str| match name {
        "encoder_hidden_states" => {
            report.compare(case, name, output.context.clone(), &io[golden]);
        }
        _ => report.compare(case, name, output.added_time.clone(), &io[golden]),
    };
    compare("encoder_hidden_states", "out.encoder_hidden_states");
    compare(
        "additive_clip_time_embeddings",
        "out.additive_clip_time_embeddings",
    );
}

pub fn check_unet(case: &Case, report: &mut Report) {
    let device = &case.device;
    let folder = case.checkpoint();
    let (config, _) = DiffusersUNet::load(&folder).unwrap();
    let checkpoint = Checkpoint::open(&folder, None).unwrap();
    let unet = load(
        config.init(device),
        &checkpoint,
        &unet_keys(),
        LoadOptions::default(),
    )
    .unwrap();
    let io = case.goldens("io.safetensors");
    let sample = io["in.sample"].tensor::<4>(device);
    let timesteps = timesteps(&io["in.timestep"].ints, sample.dims()[0]);
    let output = unet.forward(UNetInput {
        sample,
        times: Times::Steps(&timesteps),
        added_time: io.get("in.class_labels").map(|t| t.tensor(device)),
        context: io.get("in.encoder_hidden_states").map(|t| t.tensor(device)),
        context_mask: io.get("in.attention_mask").map(|m| m.mask(device)),
    });
    report.compare(case, "out", output, &io["out"]);
}
