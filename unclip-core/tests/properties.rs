//! What holds for every schedule, process, picture and key.
#![allow(missing_docs)]

use burn::tensor::{Device, Tensor, TensorData};
use proptest::prelude::*;
use unclip_core::{
    diffusion::{
        BetaSchedule, Clip, Process, Sampler, Tables, Target, Variance,
        sampler::{Ancestral, AncestralStep, unclip_timesteps},
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
            let sampler = Sampler::Ancestral(Ancestral { steps, tables });
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn respacing_keeps_the_marginals_exactly(
        schedule in schedule(), steps in 2usize..1000, picks in prop::collection::btree_set(0usize..1000, 1..60),
    ) {
        let process = process(schedule, steps, Target::Epsilon);
        let picks: Vec<usize> = picks.into_iter().filter(|t| *t < steps).collect();
        // The longest step is the hardest: it leaves almost nothing of x₀.
        for picks in [picks, vec![steps - 1], vec![0, steps - 1]] {
            let short = process.respaced(&picks);
            for (i, t) in picks.iter().enumerate() {
                let (found, expected) = (short.alpha_bars()[i], process.alpha_bars()[*t]);
                prop_assert!((found / expected - 1.0).abs() < 1e-12, "{found} {expected}");
            }
        }
        let all: Vec<usize> = (0..steps).collect();
        for (found, expected) in process.respaced(&all).betas().iter().zip(process.betas()) {
            prop_assert!((found / expected - 1.0).abs() < 1e-9, "{found} {expected}");
        }
    }

    /// The product of two Gaussians in x_prev, by their precisions:
    /// N(x_t; √r x_prev, 1 − r) · N(x_prev; √ᾱ_prev x₀, 1 − ᾱ_prev).
    #[test]
    fn the_posterior_is_the_product_of_two_gaussians(schedule in schedule(), steps in 2usize..1000, at in 0.0..1.0f64, before in 0.0..1.0f64) {
        let process = process(schedule, steps, Target::Epsilon);
        let t = 1 + ((steps - 1) as f64 * at) as usize;
        prop_assume!(t < steps);
        let previous = (t as f64 * before) as usize;
        let bar_previous = process.alpha_bars()[previous];
        let r: f64 = process.betas()[previous + 1..=t].iter().map(|beta| 1.0 - beta).product();
        let (from_current, from_start) = (r / (1.0 - r), 1.0 / (1.0 - bar_previous));
        let variance = 1.0 / (from_current + from_start);
        let current = variance * r.sqrt() / (1.0 - r);
        let start = variance * bar_previous.sqrt() / (1.0 - bar_previous);
        let posterior = process.posterior(t, Some(previous));
        for (found, expected) in [
            (posterior.variance, variance),
            (posterior.current, current),
            (posterior.start, start),
            (posterior.beta, 1.0 - r),
        ] {
            prop_assert!((found / expected - 1.0).abs() < 1e-8, "{found} {expected}");
        }
        let end = process.posterior(t, None);
        prop_assert!((end.start - 1.0).abs() < 1e-12 && end.current == 0.0 && end.variance == 0.0);
    }

    #[test]
    fn any_number_of_timesteps_stays_inside(available in 0usize..1500, count in 0usize..3000) {
        let timesteps = unclip_timesteps(available, count);
        prop_assert_eq!(timesteps.len(), count.max(1));
        prop_assert_eq!(timesteps[0], available.saturating_sub(1));
        prop_assert!(timesteps.windows(2).all(|pair| pair[0] >= pair[1]));
        let is_allowed = Sampler::ancestral(count).check(available).is_ok();
        prop_assert_eq!(is_allowed, count >= 1 && count <= available);
    }

    #[test]
    fn noise_is_of_each_elements_own_timestep(
        start in prop::collection::vec(-1.0..1.0f32, 6), noise in prop::collection::vec(-2.0..2.0f32, 6), a in 0usize..1000, b in 0usize..1000,
    ) {
        let process = process(BetaSchedule::SquaredCosine, 1000, Target::Epsilon);
        let two = |v: &[f32]| Tensor::<2>::from_data(TensorData::new(v.to_vec(), [2, 3]), &Device::flex());
        let both = values(process.add_noise(two(&start), two(&noise), &[a, b]));
        let first = values(process.add_noise(tensor(start[..3].to_vec()), tensor(noise[..3].to_vec()), &[a]));
        let second = values(process.add_noise(tensor(start[3..].to_vec()), tensor(noise[3..].to_vec()), &[b]));
        prop_assert_eq!(both, [first, second].concat());
    }

    #[test]
    fn predictions_are_clamped_as_the_process_says(x in prop::collection::vec(-9.0..9.0f32, 8), t in 0usize..1000, range in 0.1..5.0f64) {
        for target in [Target::Epsilon, Target::Velocity, Target::Sample] {
            let process = process(BetaSchedule::SquaredCosine, 1000, target).with_clip(Some(Clip::Range(range)));
            for tables in [Tables::Diffusers, Tables::Karlo] {
                let step = AncestralStep::new(&process, t, t.checked_sub(1), tables);
                let start = values(step.start_of(&process, tensor(x.clone()), tensor(x.clone())));
                prop_assert!(start.iter().all(|v| f64::from(v.abs()) <= range + 1e-6), "{start:?}");
            }
        }
    }

    #[test]
    fn the_reference_tables_are_near_in_every_coefficient(schedule in schedule(), count in 2usize..200, at in 0usize..199) {
        prop_assume!(at + 1 < count);
        let process = process(schedule, 1000, Target::Epsilon);
        let timesteps = unclip_timesteps(1000, count);
        let step = |tables| AncestralStep::new(&process, timesteps[at], Some(timesteps[at + 1]), tables);
        let (rounded, exact) = (step(Tables::Diffusers), step(Tables::Karlo));
        for (found, expected) in [
            (rounded.signal, exact.signal),
            (rounded.sigma, exact.sigma),
            (rounded.start, exact.start),
            (rounded.current, exact.current),
            (rounded.beta, exact.beta),
            (rounded.variance, exact.variance),
        ] {
            // A factor near 0 is the root of a difference in f32, which may be 6e-8 off.
            prop_assert!((found - expected).abs() < 1e-2 * expected + 2.5e-4, "{found} {expected}");
        }
    }

    #[test]
    fn wide_sinusoids_of_any_time_are_bounded(t in 0.0..1e6f32, width in 4usize..300, cos_first: bool, shift in prop_oneof![Just(0.0), Just(1.0)]) {
        let features = sinusoid(&[t], width, cos_first, shift);
        prop_assert_eq!(features.len(), width);
        prop_assert!(features.iter().all(|f| f.abs() <= 1.0));
        if width % 2 == 1 {
            prop_assert_eq!(features[width - 1], 0.0);
        }
        // cos² + sin² of each frequency, in either order.
        let half = width / 2;
        for k in 0..half {
            prop_assert!((features[k].hypot(features[half + k]) - 1.0).abs() < 1e-5);
        }
    }

    #[test]
    fn a_prefix_stands_once_before_every_key(path in "[a-z]{1,4}(\\.[a-z0-9]{1,4}){0,4}", prefix in "([a-z]{1,4}\\.){0,2}") {
        let rules = [("a.b", "c"), ("x", "x.0")];
        let (plain, once) = (KeyMap::new(&rules), KeyMap::new(&rules).with_prefix(&prefix));
        prop_assert_eq!(once.key(&path), format!("{prefix}{}", plain.key(&path)));
        let twice = KeyMap::new(&rules).with_prefix(&prefix).with_prefix(&prefix);
        prop_assert_eq!(twice.key(&path), once.key(&path));
        prop_assert_eq!(KeyMap::default().key(&path), path);
    }

    #[test]
    fn sheets_fit_pictures_of_any_size(sizes in prop::collection::vec((1u32..12, 1u32..12), 1..12), columns in 0usize..15, gap in 0u32..4) {
        let black: Vec<_> = sizes.iter().map(|(w, h)| image::RgbImage::new(*w, *h)).collect();
        let sheet = contact_sheet(&black, columns, gap);
        let columns = columns.clamp(1, sizes.len());
        let (w, h) = sizes.iter().fold((0, 0), |(w, h), s| (w.max(s.0), h.max(s.1)));
        let cells = |count: usize, cell: u32| count as u32 * (cell + gap) - gap;
        prop_assert_eq!(sheet.dimensions(), (cells(columns, w), cells(sizes.len().div_ceil(columns), h)));
        // Nothing is covered or cut off: the black area is that of all pictures.
        let found = sheet.pixels().filter(|pixel| pixel.0 == [0; 3]).count() as u32;
        prop_assert_eq!(found, sizes.iter().map(|(w, h)| w * h).sum::<u32>());
    }

    #[test]
    fn settings_go_through_json(steps in 0usize..usize::MAX, guidance in -1e9..1e9f64, kinds in (0usize..3, 0usize..3)) {
        use burn::tensor::FloatDType::{BF16, F16, F32};
        let settings = unclip_core::stage::StageSettings { sampler: Sampler::ancestral(steps), guidance };
        let json = serde_json::to_string(&settings).unwrap();
        let found: unclip_core::stage::StageSettings = serde_json::from_str(&json).unwrap();
        prop_assert_eq!(found.sampler, settings.sampler);
        prop_assert!((found.guidance - guidance).abs() <= guidance.abs() * 1e-15);
        let types = [F32, F16, BF16];
        let precision = Precision { weights: types[kinds.0], compute: types[kinds.1] };
        let json = serde_json::to_string(&precision).unwrap();
        prop_assert_eq!(serde_json::from_str::<Precision>(&json).unwrap(), precision);
    }

    #[test]
    fn a_picture_of_its_own_size_stays_as_it_is(pixels in prop::collection::vec(-1.0..1.0f32, 60)) {
        let picture = Tensor::<4>::from_data(TensorData::new(pixels.clone(), [1, 3, 4, 5]), &Device::flex());
        let same = resize_bicubic(picture, 4, 5).into_data().try_to_vec::<f32>().unwrap();
        prop_assert!(same.iter().zip(&pixels).all(|(a, b)| (a - b).abs() < 1e-6));
    }
}
