//! The upsamplers' networks.

use unclip::{
    core::nn::{Times, UNetInput},
    core::weights::LoadOptions,
    upsample::load_upsampler,
};

use crate::{
    prior::timesteps,
    report::{Case, Report},
};

pub fn check(case: &Case, report: &mut Report) {
    let device = &case.device;
    let unet = load_upsampler(&case.checkpoint(), None, device, LoadOptions::default()).unwrap();
    let io = case.goldens("io.safetensors");
    let sample = io["in.sample"].tensor::<4>(device);
    let timesteps = timesteps(&io["in.timestep"].ints, sample.dims()[0]);
    let output = unet.forward(UNetInput {
        sample,
        times: Times::Steps(&timesteps),
        added_time: None,
        context: None,
        context_mask: None,
    });
    report.compare(case, "out", output, &io["out"]);
}
