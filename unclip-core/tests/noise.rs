//! Noise against PyTorch's CPU generator (`tools/make_noise_fixtures.py`) and against itself.

use burn::tensor::{DType, Device};
use proptest::prelude::*;
use serde::Deserialize;
use unclip_core::{
    Error,
    noise::{Noise, NoiseState},
};

#[derive(Deserialize)]
struct Fixture {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    seed: u64,
    draws: Vec<Golden>,
}

#[derive(Deserialize)]
struct Golden {
    kind: Kind,
    size: usize,
    values: Vec<f64>,
    /// Where `values` stand in the draw; all of it if absent.
    indices: Option<Vec<usize>>,
    sum: Option<f64>,
    fnv1a: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Normal,
    Uniform,
    Integer,
}

/// Any draw as f64, which holds float32 and 32-bit integers exactly.
fn draw(noise: &mut Noise, kind: Kind, size: usize) -> Vec<f64> {
    match kind {
        Kind::Normal => to_f64(&noise.normal_vec(size).unwrap()),
        Kind::Uniform => to_f64(&noise.uniform_vec(size)),
        Kind::Integer => (0..size).map(|_| f64::from(noise.next_u32())).collect(),
    }
}

fn to_f64(values: &[f32]) -> Vec<f64> {
    values.iter().copied().map(f64::from).collect()
}

fn fnv1a(bytes: impl IntoIterator<Item = u8>) -> String {
    let checksum = bytes
        .into_iter()
        .fold(0xCBF2_9CE4_8422_2325_u64, |sum, byte| {
            (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3)
        });
    format!("{checksum:016x}")
}

#[test]
fn agrees_with_pytorch() {
    let fixture: Fixture = serde_json::from_str(include_str!("data/noise.json")).unwrap();
    let mut largest = 0.0_f64;
    for case in &fixture.cases {
        let mut noise = Noise::from_seed(case.seed);
        for (number, golden) in case.draws.iter().enumerate() {
            let Golden { kind, size, .. } = *golden;
            let context = format!("seed {}, draw {number}: {size} of {kind:?}", case.seed);
            let found = draw(&mut noise, kind, size);
            assert_eq!(found.len(), size, "{context}");
            let all = (0..size).collect();
            let indices = golden.indices.as_ref().unwrap_or(&all);
            assert_eq!(golden.values.len(), indices.len(), "{context}");
            for (&i, &expected) in indices.iter().zip(&golden.values) {
                if kind == Kind::Normal {
                    let difference = (found[i] - expected).abs();
                    assert!(difference < 1e-6, "{context}, value {i}: {difference}");
                    largest = largest.max(difference);
                } else {
                    // The decimals of the fixture name a float32.
                    let expected = match kind {
                        Kind::Uniform => f64::from(expected as f32),
                        _ => expected,
                    };
                    assert_eq!(found[i], expected, "{context}, value {i}");
                }
            }
            if let Some(sum) = golden.sum {
                let difference = (found.iter().sum::<f64>() - sum).abs();
                assert!(
                    difference < 1e-7 * size as f64,
                    "{context}: sum {difference}"
                );
            }
            if let Some(expected) = &golden.fnv1a {
                let checksum = match kind {
                    Kind::Integer => fnv1a(found.iter().flat_map(|&v| (v as u32).to_le_bytes())),
                    _ => fnv1a(found.iter().flat_map(|&v| (v as f32).to_le_bytes())),
                };
                assert_eq!(&checksum, expected, "{context}");
            }
        }
    }
    println!("largest difference of a normal: {largest:e}");
}

#[test]
fn the_ten_thousandth_integer_is_that_of_the_standard() {
    // The C++ standard names it, for its default seed.
    let mut noise = Noise::from_seed(5489);
    let last = (0..10_000).map(|_| noise.next_u32()).last();
    assert_eq!(last, Some(4_123_659_995));
}

#[test]
fn every_machine_gives_the_same_bits() {
    // Not PyTorch's last bits: those of this crate, fixed so that a change of them is noticed.
    let bits = |values: Vec<f32>| fnv1a(values.into_iter().flat_map(f32::to_le_bytes));
    let mut noise = Noise::from_seed(42);
    assert_eq!(bits(noise.normal_vec(100_003).unwrap()), "00a75e0e46beb3aa");
    let one_by_one = (0..1_000).flat_map(|_| noise.normal_vec(1).unwrap());
    assert_eq!(bits(one_by_one.collect()), "1c95689b2c76ddcd");
}

#[test]
fn normals_have_mean_zero_and_variance_one() {
    for seed in 0..4 {
        for size in [15, 3 * 256 * 256] {
            let mut noise = Noise::from_seed(seed);
            let total = 196_608 / size * size;
            let values = (0..total / size).flat_map(|_| noise.normal_vec(size).unwrap());
            let values = to_f64(&values.collect::<Vec<_>>());
            let mean = values.iter().sum::<f64>() / total as f64;
            let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / total as f64;
            assert!(mean.abs() < 0.01, "seed {seed}, size {size}: mean {mean}");
            let excess = variance - 1.0;
            assert!(
                excess.abs() < 0.015,
                "seed {seed}, size {size}: variance {variance}"
            );
        }
    }
}

#[test]
fn a_tensor_has_the_values_of_a_vector() {
    let device = Device::flex();
    for mut noise in [
        Noise::from_seed(7),
        Noise::recorded([Noise::from_seed(7).normal_vec(24).unwrap()]),
    ] {
        let tensor = noise.normal([2, 3, 4], &device).unwrap();
        assert_eq!(tensor.dims(), [2, 3, 4]);
        let data = tensor.into_data();
        assert_eq!(data.dtype(), DType::F32);
        let expected = Noise::from_seed(7).normal_vec(24).unwrap();
        assert_eq!(data.try_to_vec::<f32>().unwrap(), expected);
    }
}

#[test]
fn recorded_draws_come_back_in_order() {
    let mut noise = Noise::recorded(vec![vec![1.0, 2.0], vec![3.0], vec![4.0]]);
    assert_eq!(noise.seed(), None);
    assert_eq!(noise.normal_vec(2).unwrap(), [1.0, 2.0]);
    assert!(noise.normal_vec(0).unwrap().is_empty());

    // A draw of another size is an error and does not lose the recorded one.
    let error = noise.normal([2, 2], &Device::flex()).unwrap_err();
    assert!(
        matches!(&error, Error::Shape { found, .. } if found == &[1]),
        "{error:?}"
    );
    assert!(
        error.to_string().contains("draw 2 of the recorded noise"),
        "{error}"
    );
    assert!(error.to_string().contains("[2, 2]"), "{error}");
    assert_eq!(noise.normal_vec(1).unwrap(), [3.0]);

    let mut noise = through_json(&noise);
    assert_eq!(noise.seed(), None);
    assert_eq!(noise.normal_vec(1).unwrap(), [4.0]);
    let error = noise.normal_vec(5).unwrap_err();
    assert!(matches!(&error, Error::Setting { .. }), "{error:?}");
    assert_eq!(
        error.to_string(),
        "recorded noise is 3 draws: draw 4, of shape [5], needs one more",
    );
    assert!(noise.normal_vec(0).unwrap().is_empty());
}

#[test]
fn a_broken_state_is_an_error() {
    let state = serde_json::to_value(Noise::from_seed(1).state()).unwrap();
    let breakages: [fn(&mut serde_json::Value); 3] = [
        |state| state["generator"]["words"] = vec![1_u32; 623].into(),
        |state| state["generator"]["used"] = 625.into(),
        |state| state["generator"]["spare_bits"] = f64::NAN.to_bits().into(),
    ];
    for breakage in breakages {
        let mut broken = state.clone();
        breakage(&mut broken);
        let broken: NoiseState = serde_json::from_value(broken).unwrap();
        let error = Noise::from_state(broken).unwrap_err();
        assert!(matches!(&error, Error::Setting { .. }), "{error:?}");
        assert!(error.to_string().starts_with("noise state is "), "{error}");
    }
}

#[test]
fn debug_output_is_short() {
    assert!(format!("{:?}", Noise::from_seed(1)).len() < 200);
}

fn through_json(noise: &Noise) -> Noise {
    let text = serde_json::to_string(&noise.state()).unwrap();
    Noise::from_state(serde_json::from_str(&text).unwrap()).unwrap()
}

fn any_draws() -> impl Strategy<Value = Vec<(Kind, usize)>> {
    let kind = prop_oneof![
        3 => Just(Kind::Normal),
        1 => Just(Kind::Uniform),
        1 => Just(Kind::Integer),
    ];
    let size = prop_oneof![3 => 0..20_usize, 1 => 0..2_000_usize];
    proptest::collection::vec((kind, size), 0..8)
}

fn run(noise: &mut Noise, draws: &[(Kind, usize)]) -> Vec<Vec<f64>> {
    draws
        .iter()
        .map(|&(kind, n)| draw(noise, kind, n))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_stream_goes_on_after_clone_and_state(
        seed: u64,
        before in any_draws(),
        after in any_draws(),
    ) {
        let mut noise = Noise::from_seed(seed);
        let mut again = Noise::from_seed(seed);
        prop_assert_eq!(run(&mut noise, &before), run(&mut again, &before));
        let mut clone = noise.clone();
        let mut restored = through_json(&noise);
        prop_assert_eq!(restored.seed(), Some(seed));
        let expected = run(&mut noise, &after);
        prop_assert_eq!(&run(&mut again, &after), &expected);
        prop_assert_eq!(&run(&mut clone, &after), &expected);
        prop_assert_eq!(&run(&mut restored, &after), &expected);
    }

    #[test]
    fn the_high_half_of_a_seed_does_not_count(seed: u64, draws in any_draws()) {
        let low = seed & u64::from(u32::MAX);
        let expected = run(&mut Noise::from_seed(low), &draws);
        prop_assert_eq!(run(&mut Noise::from_seed(seed), &draws), expected);
    }

    #[test]
    fn a_draw_can_be_split_only_where_pytorch_does(
        seed: u64,
        blocks in 1..5_usize,
        n in 16..100_usize,
        short in 0..16_usize,
    ) {
        // Whole blocks before at least one more block.
        let joined = Noise::from_seed(seed).normal_vec(16 * blocks + n).unwrap();
        let mut noise = Noise::from_seed(seed);
        let mut split = noise.normal_vec(16 * blocks).unwrap();
        split.extend(noise.normal_vec(n).unwrap());
        prop_assert_eq!(joined, split);

        // Fewer than 16 are made one by one.
        let joined = Noise::from_seed(seed).normal_vec(short).unwrap();
        let mut noise = Noise::from_seed(seed);
        let split: Vec<f32> = (0..short).flat_map(|_| noise.normal_vec(1).unwrap()).collect();
        prop_assert_eq!(joined, split);

        // Nowhere else.
        let joined = Noise::from_seed(seed).normal_vec(16 + short).unwrap();
        let mut noise = Noise::from_seed(seed);
        let mut split = noise.normal_vec(16).unwrap();
        split.extend(noise.normal_vec(short).unwrap());
        prop_assert_eq!(joined == split, short == 0);
    }

    #[test]
    fn values_are_in_range(seed: u64, n in 0..3_000_usize) {
        let mut noise = Noise::from_seed(seed);
        prop_assert!(noise.uniform_vec(n).iter().all(|u| (0.0..1.0).contains(u)));
        // The largest radius of 24-bit uniforms is 5.77, of 53-bit ones 8.58.
        prop_assert!(noise.normal_vec(n).unwrap().iter().all(|v| v.abs() < 8.6));
    }
}
