//! What holds for every schedule, process, picture and key.
#![allow(missing_docs)]

use burn::tensor::{Device, Tensor, TensorData};
use proptest::prelude::*;
use unclip_core::{
    diffusion::{
        BetaSchedule, Process, Sampler, Tables, Target, Variance,
        sampler::{AncestralStep, unclip_timesteps},
    },
    image::contact_sheet,
    nn::sinusoid,
    resample::{bicubic_weights, resize_bicubic},
    weights::{KeyMap, Precision},
};

fn schedule() -> impl Strategy<Value = BetaSchedule> {
    let ends = (1e-5..1e-3f64, 5e-3..3e-2f64);
    prop_oneof![
        Just(BetaSchedule::SquaredCosine),
        ends.clone()
            .prop_map(|(start, end)| BetaSchedule::Linear { start, end }),
        ends.prop_map(|(start, end)| BetaSchedule::ScaledLinear { start, end }),
    ]
}

fn process(schedule: BetaSchedule, steps: usize, target: Target) -> Process {
    Process::new(schedule, steps, target, Variance::FixedSmall)
}

fn tensor(values: Vec<f32>) -> Tensor<2> {
    let count = values.len();
    Tensor::from_data(TensorData::new(values, [1, count]), &Device::flex())
}

fn values(tensor: Tensor<2>) -> Vec<f32> {
    tensor.into_data().try_to_vec::<f32>().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn noise_only_grows(schedule in schedule(), steps in 2usize..2000) {
        let process = process(schedule, steps, Target::Epsilon);
        prop_assert!(process.betas().iter().all(|b| (0.0..1.0).contains(b) && *b > 0.0));
        prop_assert!(process.alpha_bars().windows(2).all(|pair| pair[0] > pair[1]));
        prop_assert!(process.alpha_bars().iter().all(|bar| *bar > 0.0 && *bar < 1.0));
    }

    #[test]
    fn respacing_is_a_subset(schedule in schedule(), picks in prop::collection::btree_set(0usize..500, 1..40)) {
        let process = process(schedule, 500, Target::Epsilon);
        let picks: Vec<usize> = picks.into_iter().collect();
        let short = process.respaced(&picks);
        prop_assert_eq!(short.steps(), picks.len());
        for (i, t) in picks.iter().enumerate() {
            let (found, expected) = (short.alpha_bars()[i], process.alpha_bars()[*t]);
            prop_assert!((found / expected - 1.0).abs() < 1e-9, "{found} {expected}");
        }
    }

    /// The posterior, by multiplying the densities q(x_t | x) and q(x | x₀) on a grid.
    #[test]
    fn the_posterior_is_bayes(
        schedule in schedule(), a in 0usize..99, b in 0usize..99, start in -1.0..1.0f64, x in -1.5..1.5f64,
    ) {
        prop_assume!(a != b);
        let (previous, t) = (a.min(b), a.max(b));
        let process = process(schedule, 100, Target::Epsilon);
        let (bar, bar_previous) = (process.alpha_bars()[t], process.alpha_bars()[previous]);
        let ratio = bar / bar_previous;
        let density = |z: f64, mean: f64, variance: f64| (-(z - mean).powi(2) / (2.0 * variance)).exp();
        let posterior = process.posterior(t, Some(previous));
        let (center, width) = (posterior.start * start + posterior.current * x, posterior.variance.sqrt());
        let (mut mass, mut first, mut second) = (0.0, 0.0, 0.0);
        for i in -4000..=4000 {
            let z = center + width * f64::from(i) * 2e-3;
            let weight = density(x, ratio.sqrt() * z, 1.0 - ratio)
                * density(z, bar_previous.sqrt() * start, 1.0 - bar_previous);
            mass += weight;
            first += weight * z;
            second += weight * z * z;
        }
        prop_assume!(mass > 1e-200);
        let mean = first / mass;
        let variance = second / mass - mean * mean;
        prop_assert!((mean - center).abs() < 1e-6 * (1.0 + width), "{mean} {center}");
        prop_assert!((variance / posterior.variance - 1.0).abs() < 1e-2, "{variance}");
    }

    #[test]
    fn timesteps_descend_to_zero(available in 2usize..1500, count in 2usize..1500) {
        prop_assume!(count <= available);
        let timesteps = unclip_timesteps(available, count);
        prop_assert_eq!(timesteps.len(), count);
        prop_assert_eq!((timesteps[0], timesteps[count - 1]), (available - 1, 0));
        prop_assert!(timesteps.windows(2).all(|pair| pair[0] > pair[1]));
    }

    #[test]
    fn the_reference_tables_are_near_the_exact_ones(count in 2usize..200, at in 0usize..199) {
        prop_assume!(at + 1 < count);
        let process = process(BetaSchedule::SquaredCosine, 1000, Target::Epsilon);
        let timesteps = unclip_timesteps(1000, count);
        let step = |tables| AncestralStep::new(&process, timesteps[at], timesteps.get(at + 1).copied(), tables);
        let (rounded, exact) = (step(Tables::Diffusers), step(Tables::Karlo));
        prop_assert!((rounded.start - exact.start).abs() < 1e-2 * exact.start.abs());
        prop_assert!((rounded.variance - exact.variance).abs() < 1e-2 * exact.variance);
        prop_assert!((rounded.sigma - exact.sigma).abs() < 1e-2 * exact.sigma);
    }

    #[test]
    fn what_was_noised_is_found_again(
        start in prop::collection::vec(-1.0..1.0f32, 8), noise in prop::collection::vec(-2.0..2.0f32, 8), t in 0usize..900,
    ) {
        for target in [Target::Epsilon, Target::Velocity, Target::Sample] {
            let process = process(BetaSchedule::SquaredCosine, 1000, target);
            let (x0, e) = (tensor(start.clone()), tensor(noise.clone()));
            let x = process.add_noise(x0.clone(), e.clone(), &[t]);
            let predicted = match target {
                Target::Epsilon => e,
                Target::Velocity => process.velocity(x0.clone(), e, &[t]),
                Target::Sample => x0,
            };
            let step = AncestralStep::new(&process, t, None, Tables::Karlo);
            for (found, expected) in values(step.start_of(&process, x, predicted)).iter().zip(&start) {
                prop_assert!((found - expected).abs() < 1e-4, "{target:?}: {found} {expected}");
            }
        }
    }

    #[test]
    fn resampling_keeps_the_mean(from in 1usize..80, to in 1usize..80) {
        for row in bicubic_weights(from, to).chunks(from) {
            prop_assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        }
        let same = bicubic_weights(from, from);
        for (i, weight) in same.iter().enumerate() {
            let expected = if i % from == i / from { 1.0 } else { 0.0 };
            prop_assert!((weight - expected).abs() < 1e-12);
        }
        let plain = Tensor::<4>::full([1, 1, from, 3], 0.25, &Device::flex());
        let resized = resize_bicubic(plain, to, 7).into_data().try_to_vec::<f32>().unwrap();
        prop_assert!(resized.iter().all(|v| (v - 0.25).abs() < 1e-6));
    }

    #[test]
    fn sinusoids_are_bounded(t in 0.0..1000.0f32, width in 2usize..300) {
        let features = sinusoid(&[t, 0.0], width, true, 0.0);
        prop_assert_eq!(features.len(), 2 * width);
        prop_assert!(features.iter().all(|f| f.abs() <= 1.0));
    }

    #[test]
    fn sheets_hold_every_picture(count in 1usize..20, columns in 1usize..30, size in 1u32..20, gap in 0u32..5) {
        let images = vec![image::RgbImage::new(size, size); count];
        let columns = columns.min(count);
        let rows = count.div_ceil(columns) as u32;
        let cells = |n: u32| n * (size + gap) - gap;
        let expected = (cells(columns as u32), cells(rows));
        prop_assert_eq!(contact_sheet(&images, columns, gap).dimensions(), expected);
    }

    #[test]
    fn keys_replace_whole_segments_only(name in "[a-z]{1,8}") {
        let keys = KeyMap::new(&[("to_out", "to_out.0")]).with_prefix("model.");
        prop_assert_eq!(keys.key(&format!("{name}.to_out.bias")), format!("model.{name}.to_out.0.bias"));
        let longer = format!("{name}.to_outer.bias");
        prop_assert_eq!(keys.key(&longer), format!("model.{longer}"));
    }

    #[test]
    fn samplers_go_through_json(steps in 1usize..1000) {
        for tables in [Tables::Diffusers, Tables::Karlo] {
            let sampler = Sampler::Ancestral { steps, tables };
            let json = serde_json::to_string(&sampler).unwrap();
            prop_assert_eq!(serde_json::from_str::<Sampler>(&json).unwrap(), sampler);
        }
    }
}

#[test]
fn precisions_go_through_json() {
    for precision in [Precision::FULL, Precision::HALF_WEIGHTS, Precision::HALF] {
        let json = serde_json::to_string(&precision).unwrap();
        assert_eq!(serde_json::from_str::<Precision>(&json).unwrap(), precision);
    }
}

#[test]
fn an_empty_sheet_is_one_pixel() {
    assert_eq!(contact_sheet(&[], 3, 2).dimensions(), (1, 1));
}
