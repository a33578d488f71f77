//! Schedules, added noise, and the trajectories of every scheduler step by step.

use std::collections::VecDeque;

use serde_json::Value;
use unclip::{
    Noise, Result, Sampler, Stage,
    burn::tensor::Tensor,
    core::{
        diffusion::{
            BetaSchedule, Denoiser, Prediction, Process, Scheduler, SchedulerConfig, Tables,
            Target, Timestep, Variance, sample,
            sampler::{AncestralStep, Churn, unclip_timesteps},
        },
        stage::Run,
    },
};

use crate::{
    common::{Golden, Goldens},
    report::{Case, Report},
};

pub fn check(case: &Case, report: &mut Report) {
    check_tables(case, report);
    check_timesteps(case, report);
    let trajectories = case.goldens("trajectories.safetensors");
    for entry in case.json["cases"].as_array().expect("cases") {
        let id = entry["id"].as_str().unwrap();
        let mut config = entry["config"].clone();
        config["_class_name"] = entry["cls"].clone();
        let config: SchedulerConfig = serde_json::from_value(config).unwrap();
        let scheduler = config.scheduler(id);
        match (entry["error"].as_str(), scheduler) {
            (None, Err(error)) => report.failed(case, format!("{id}: {error}")),
            (None, Ok(scheduler)) if entry["args"]["no_prev"].as_bool() == Some(true) => {
                check_single_steps(case, entry, &scheduler, &trajectories, report);
            }
            (None, Ok(scheduler)) => {
                check_trajectory(case, entry, scheduler, &trajectories, report);
            }
            // Where the reference fails we refuse, or do better and stay finite.
            (Some(_), Err(_)) => report.case_exact(case, &format!("{id} is refused"), &[()], &[()]),
            (Some(_), Ok(scheduler)) => check_finite(case, entry, scheduler, report),
        }
    }
}

/// A network that says what the reference's said, and notes what it is asked.
struct Replay {
    answers: VecDeque<Golden>,
    device: unclip::burn::tensor::Device,
    asked: Vec<(f64, Tensor<4>)>,
}

impl Denoiser<4> for Replay {
    fn predict(&mut self, x: Tensor<4>, at: Timestep) -> Result<Prediction<4>> {
        let channels = x.dims()[1];
        self.asked.push((at.t, x));
        let answer = self
            .answers
            .pop_front()
            .expect("no more questions than the reference's");
        let output = answer.tensor::<4>(&self.device);
        let outputs = output.dims()[1];
        Ok(Prediction {
            variance: (outputs > channels)
                .then(|| output.clone().narrow(1, channels, outputs - channels)),
            target: output.narrow(1, 0, channels),
        })
    }
}

/// The sampler of a case: the configuration's, with the arguments that the reference takes later.
fn sampler_of(entry: &Value, scheduler: &Scheduler) -> Sampler {
    let args = &entry["args"];
    let steps = entry["steps"].as_u64().unwrap() as usize;
    let mut sampler = scheduler.sampler.with_steps(steps);
    match &mut sampler {
        Sampler::Ddim(ddim) => {
            ddim.eta = args["eta"].as_f64().unwrap_or(0.0);
            ddim.is_noise_from_clipped = args["use_clipped_model_output"].as_bool() == Some(true);
        }
        Sampler::Euler(euler) => {
            euler.churn = args["s_churn"].as_f64().map(|amount| Churn {
                amount,
                min: args["s_tmin"].as_f64().unwrap_or(0.0),
                max: args["s_tmax"].as_f64().unwrap_or(f64::MAX),
                noise: args["s_noise"].as_f64().unwrap_or(1.0),
            });
        }
        _ => {}
    }
    sampler
}

/// The whole loop on the reference's answers: every question and the result.
fn check_trajectory(
    case: &Case,
    entry: &Value,
    scheduler: Scheduler,
    goldens: &Goldens,
    report: &mut Report,
) {
    let id = entry["id"].as_str().unwrap();
    let golden = |name: &str| goldens.get(&format!("{id}.{name}"));
    let rows = |name: &str| {
        let golden = golden(name);
        golden.map_or_else(VecDeque::new, |g| {
            (0..g.shape[0]).map(|i| g.at(i)).collect()
        })
    };
    let device = &case.device;
    let mut noise = Noise::recorded(rows("noise").into_iter().map(|draw| draw.floats));
    let mut run = Run::new(sampler_of(entry, &scheduler), &mut noise);
    let mut network = Replay {
        answers: rows("model_out"),
        device: device.clone(),
        asked: Vec::new(),
    };
    // The start is given in the scheduler's own units.
    let scale = entry["init_noise_sigma"].as_f64().unwrap_or(1.0);
    let start = golden("init").unwrap().tensor::<4>(device) / scale;
    let process = &scheduler.process;
    let found = match sample(&mut network, start, process, Stage::Decoder, &mut run) {
        Ok(found) => found,
        Err(error) => return report.failed(case, format!("{id}: {error}")),
    };
    let timesteps: Vec<f32> = network.asked.iter().map(|(t, _)| *t as f32).collect();
    let expected: Vec<f32> = entry["timesteps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| t.as_f64().unwrap() as f32)
        .collect();
    let off = timesteps
        .iter()
        .zip(&expected)
        .map(|(a, b)| f64::from((a - b).abs()));
    let off = off.fold((timesteps.len().abs_diff(expected.len())) as f64, f64::max);
    // Samplers that choose noise levels have timesteps between two, from logarithms in f32.
    let is_whole = expected.iter().all(|t| t.fract() == 0.0);
    report.number(
        case,
        &format!("{id}.timesteps"),
        off,
        if is_whole { 0.0 } else { 1e-3 },
    );

    let after = rows("prev_sample");
    let given = rows("model_in");
    for (i, (_, x)) in network.asked.into_iter().enumerate() {
        let expected = match (given.get(i), i.checked_sub(1)) {
            (Some(given), _) => given,
            (None, Some(before)) => &after[before],
            (None, None) => golden("init").unwrap(),
        };
        report.compare(case, &format!("{id}[{i}]"), x, expected);
    }
    report.compare(case, &format!("{id}.result"), found, after.back().unwrap());
}

/// A network that is wrong in a harmless way.
struct Smooth;

impl Denoiser<4> for Smooth {
    fn predict(&mut self, x: Tensor<4>, _: Timestep) -> Result<Prediction<4>> {
        Ok(Prediction {
            target: x.clone() * 0.9,
            variance: Some(x * 0.1),
        })
    }
}

fn check_finite(case: &Case, entry: &Value, scheduler: Scheduler, report: &mut Report) {
    let id = entry["id"].as_str().unwrap();
    let mut noise = Noise::from_seed(0);
    let start = noise.normal([2, 3, 2, 2], &case.device).unwrap();
    let mut run = Run::new(sampler_of(entry, &scheduler), &mut noise);
    let found = sample(
        &mut Smooth,
        start,
        &scheduler.process,
        Stage::Decoder,
        &mut run,
    );
    let is_finite = found.is_ok_and(|x| {
        let values = x.into_data().try_to_vec::<f32>().unwrap();
        values.iter().all(|v| v.is_finite())
    });
    report.case_exact(case, &format!("{id} is finite"), &[is_finite], &[true]);
}

/// Steps of unCLIP's scheduler that are not told where the next begins: to the timestep before.
fn check_single_steps(
    case: &Case,
    entry: &Value,
    scheduler: &Scheduler,
    goldens: &Goldens,
    report: &mut Report,
) {
    let id = entry["id"].as_str().unwrap();
    let process = &scheduler.process;
    let steps = entry["steps"].as_u64().unwrap() as usize;
    let golden = |name: &str| &goldens[&format!("{id}.{name}")];
    let device = &case.device;
    let mut x = golden("init").tensor::<4>(device);
    for (i, t) in unclip_timesteps(process.steps(), steps)
        .into_iter()
        .enumerate()
    {
        let step = AncestralStep::new(process, t, t.checked_sub(1), Tables::Diffusers);
        let channels = x.dims()[1];
        let output = golden("model_out").at(i).tensor::<4>(device);
        let outputs = output.dims()[1];
        let prediction = Prediction {
            variance: (outputs > channels)
                .then(|| output.clone().narrow(1, channels, outputs - channels)),
            target: output.narrow(1, 0, channels),
        };
        let noise = (t > 0).then(|| golden("noise").at(i).tensor::<4>(device));
        let found = step.apply(process, x, prediction, noise).unwrap();
        let expected = golden("prev_sample").at(i);
        report.compare(case, &format!("{id}[{i}]"), found, &expected);
        // The next step starts where the reference's did.
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
