//! Stable unCLIP's normaliser and its noise on embeddings.

use unclip::{
    core::{
        diffusion::{BetaSchedule, Process, Target, Variance},
        weights::LoadOptions,
    },
    decoder::load_embedding_normalizer,
};

use crate::report::{Case, Report};

pub fn check(case: &Case, report: &mut Report) {
    let device = &case.device;
    let folder = case.checkpoint();
    let normalizer =
        load_embedding_normalizer(&folder, None, device, LoadOptions::default()).unwrap();
    let io = case.goldens("io.safetensors");
    let embedding = || io["image_embeds"].tensor::<2>(device);
    report.compare(
        case,
        "scale",
        normalizer.normalize(embedding()),
        &io["scale"],
    );
    report.compare(
        case,
        "unscale",
        normalizer.denormalize(embedding()),
        &io["unscale"],
    );
    // The schedule that case.json names.
    let process = Process::new(
        BetaSchedule::SquaredCosine,
        1000,
        Target::Epsilon,
        Variance::FixedSmall,
    );
    for (name, golden) in &io {
        if let Some(level) = name.strip_prefix("noised.") {
            let level = level.parse().unwrap();
            let noise = io["noise"].tensor(device);
            let found = normalizer
                .augment(embedding(), noise, level, &process)
                .unwrap();
            report.compare(case, name, found, golden);
        }
    }
}
