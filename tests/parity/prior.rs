//! The prior's network with all its switches, and its denormalisation.

use unclip::{
    core::weights::LoadOptions,
    prior::{PriorInput, load_prior},
};

use crate::report::{Case, Report};

pub fn check(case: &Case, report: &mut Report) {
    let device = &case.device;
    let folder = case.checkpoint();
    let model = load_prior(&folder, None, device, LoadOptions::default()).unwrap();
    let io = case.goldens("io.safetensors");
    let noisy = &io["in.hidden_states"];
    let is_flat = noisy.shape.len() == 2;
    let noisy_tokens = match is_flat {
        true => noisy.tensor::<2>(device).unsqueeze_dim(1),
        false => noisy.tensor::<3>(device),
    };
    let timesteps = timesteps(&io["in.timestep"].ints, noisy.shape[0]);
    let output = model.forward(PriorInput {
        noisy: noisy_tokens,
        timesteps: &timesteps,
        text_embedding: io["in.proj_embedding"].tensor(device),
        tokens: io.get("in.encoder_hidden_states").map(|t| t.tensor(device)),
        mask: io.get("in.attention_mask").map(|m| m.mask(device)),
    });
    match io["out"].shape.len() {
        2 => report.compare(case, "out", output.squeeze_dim::<2>(1), &io["out"]),
        _ => report.compare(case, "out", output, &io["out"]),
    }
    if case.folder.join("post_process.safetensors").is_file() {
        let io = case.goldens("post_process.safetensors");
        let found = model.denormalize(io["in"].tensor(device));
        report.compare(case, "post_process", found, &io["out"]);
    }
}

/// A single timestep stands for the whole batch.
pub fn timesteps(given: &[i64], batch: usize) -> Vec<f32> {
    match given {
        [t] => vec![*t as f32; batch],
        all => all.iter().map(|t| *t as f32).collect(),
    }
}
