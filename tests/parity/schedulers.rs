//! Schedules, added noise, and the trajectories of the UnCLIP scheduler step by step.

use serde_json::Value;
use unclip::core::diffusion::{
    BetaSchedule, Prediction, Process, SchedulerConfig, Tables, Target, Variance,
    sampler::{AncestralStep, unclip_timesteps},
};

use crate::{
    common::Goldens,
    report::{Case, Report},
};

/// Schedulers whose samplers are later work.
const LATER: [&str; 4] = [
    "DDIMScheduler",
    "DDPMScheduler",
    "DPMSolverMultistepScheduler",
    "EulerDiscreteScheduler",
];

pub fn check(case: &Case, report: &mut Report) {
    check_tables(case, report);
    check_timesteps(case, report);
    let trajectories = case.goldens("trajectories.safetensors");
    for entry in case.json["cases"].as_array().expect("cases") {
        match entry["cls"].as_str().unwrap_or("none") {
            "UnCLIPScheduler" => check_trajectory(case, entry, &trajectories, report),
            class if LATER.contains(&class) => {}
            class => report.failed(case, format!("unknown scheduler `{class}`")),
        }
    }
}

fn check_trajectory(case: &Case, entry: &Value, goldens: &Goldens, report: &mut Report) {
    let id = entry["id"].as_str().unwrap();
    let config: SchedulerConfig = serde_json::from_value(entry["config"].clone()).unwrap();
    let process = config.process(id).unwrap();
    let steps = entry["steps"].as_u64().unwrap() as usize;
    let timesteps = unclip_timesteps(process.steps(), steps);
    let expected: Vec<usize> = entry["timesteps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| t.as_f64().unwrap() as usize)
        .collect();
    report.case_exact(case, &format!("{id}.timesteps"), &timesteps, &expected);

    let golden = |name: &str| goldens.get(&format!("{id}.{name}"));
    let every_previous = entry["args"]["no_prev"].as_bool().unwrap_or(false);
    let device = &case.device;
    let mut x = golden("init").unwrap().tensor::<4>(device);
    for (i, &t) in timesteps.iter().enumerate() {
        let previous = match every_previous {
            true => t.checked_sub(1),
            false => timesteps.get(i + 1).copied(),
        };
        let step = AncestralStep::new(&process, t, previous, Tables::Diffusers);
        let channels = x.dims()[1];
        let output = golden("model_out").unwrap().at(i).tensor::<4>(device);
        let outputs = output.dims()[1];
        let prediction = Prediction {
            variance: (outputs > channels)
                .then(|| output.clone().narrow(1, channels, outputs - channels)),
            target: output.narrow(1, 0, channels),
        };
        let noise = (t > 0).then(|| golden("noise").unwrap().at(i).tensor::<4>(device));
        let found = step.apply(&process, x, prediction, noise);
        let expected = golden("prev_sample").unwrap().at(i);
        report.compare(case, &format!("{id}[{i}]"), found, &expected);
        // Open loop: the next step starts where the reference's did.
        x = expected.tensor(device);
    }
}

fn check_tables(case: &Case, report: &mut Report) {
    let tables = case.goldens("tables.safetensors");
    for (name, golden) in &tables {
        let Some((schedule, "betas")) = name.split_once('.') else {
            continue;
        };
        let steps = golden.floats.len();
        let [start, end] = [golden.floats[0], golden.floats[steps - 1]].map(f64::from);
        let schedule = match schedule {
            "linear" => BetaSchedule::Linear { start, end },
            "scaled_linear" => BetaSchedule::ScaledLinear { start, end },
            s if s.starts_with("squaredcos_cap_v2") => BetaSchedule::SquaredCosine,
            // Not used by any unCLIP model.
            _ => continue,
        };
        let process = Process::new(schedule, steps, Target::Epsilon, Variance::FixedSmall);
        let betas: Vec<f32> = process.betas().iter().map(|b| *b as f32).collect();
        report.compare_values(case, name, &[steps], &betas, golden);
        let bars: Vec<f32> = process.alpha_bars().iter().map(|b| *b as f32).collect();
        let name = name.replace("betas", "alphas_cumprod");
        report.compare_values(case, &name, &[steps], &bars, &tables[&name]);
    }
    let timesteps: Vec<usize> = tables["add_noise.timesteps"]
        .ints
        .iter()
        .map(|t| *t as usize)
        .collect();
    let device = &case.device;
    let start_of = || tables["add_noise.x0"].tensor::<4>(device);
    let noise = || tables["add_noise.noise"].tensor::<4>(device);
    // The defaults of the reference's schedulers.
    let (start, end) = (1e-4, 0.02);
    for (name, schedule) in [
        ("linear", BetaSchedule::Linear { start, end }),
        ("squaredcos", BetaSchedule::SquaredCosine),
    ] {
        let process = Process::new(schedule, 1000, Target::Epsilon, Variance::FixedSmall);
        let name = format!("add_noise.{name}.out");
        let found = process.add_noise(start_of(), noise(), &timesteps);
        report.compare(case, &name, found, &tables[&name]);
        let name = name.replace("add_noise", "get_velocity");
        if let Some(golden) = tables.get(&name) {
            let found = process.velocity(start_of(), noise(), &timesteps);
            report.compare(case, &name, found, golden);
        }
    }
}

fn check_timesteps(case: &Case, report: &mut Report) {
    let text = std::fs::read(case.folder.join("unclip_timesteps.json")).unwrap();
    let lists: std::collections::BTreeMap<usize, Vec<usize>> =
        serde_json::from_slice(&text).unwrap();
    let found: Vec<_> = lists.keys().map(|n| unclip_timesteps(1000, *n)).collect();
    let expected: Vec<_> = lists.into_values().collect();
    report.case_exact(case, "timesteps", &found, &expected);
}
