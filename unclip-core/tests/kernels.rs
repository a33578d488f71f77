//! The kernels of CPUs and GPUs against Burn's operations: results, every gradient, and one thread or many.

#![cfg(all(feature = "flex", feature = "train"))]
#![allow(missing_docs)]

mod compare;

use burn::{
    module::Param,
    nn::{GroupNorm, GroupNormConfig},
    tensor::{
        Bool, Device, Tensor, TensorData,
        activation::{self, silu},
        module,
        ops::{AvgPoolOptions, ConvOptions, InterpolateMode, InterpolateOptions},
    },
};
use compare::{Source, conv_results, devices, difference, values};
use unclip_core::{
    kernels,
    nn::{attend, causal_mask},
    noise::Noise,
};

#[test]
fn convolutions_agree_with_burns() {
    // batch, in, out, height, width, kernel, stride, padding
    let cases = [
        ([1, 1, 1, 1, 1], [1, 1], [1, 1], [0, 0]),
        ([2, 3, 5, 7, 9], [3, 3], [1, 1], [1, 1]),
        ([1, 6, 24, 16, 16], [3, 3], [1, 1], [1, 1]),
        ([3, 24, 48, 16, 16], [3, 3], [2, 2], [1, 1]),
        ([2, 17, 33, 8, 8], [1, 1], [1, 1], [0, 0]),
        ([2, 32, 3, 13, 11], [3, 3], [1, 1], [1, 1]),
        ([1, 4, 7, 20, 3], [5, 5], [1, 1], [2, 2]),
        ([1, 3, 16, 28, 28], [7, 7], [7, 7], [0, 0]),
        ([2, 3, 8, 17, 19], [3, 3], [2, 2], [1, 1]),
        ([2, 3, 8, 16, 18], [4, 4], [2, 2], [1, 1]),
        ([1, 5, 9, 12, 12], [3, 1], [1, 1], [1, 0]),
        ([1, 5, 9, 12, 13], [1, 4], [1, 3], [0, 2]),
        ([1, 2, 2, 9, 9], [2, 2], [3, 3], [0, 0]),
        ([1, 2, 3, 70, 130], [3, 3], [1, 1], [1, 1]),
        ([1, 160, 96, 8, 8], [3, 3], [1, 1], [1, 1]),
        ([5, 20, 12, 1, 9], [3, 3], [1, 1], [1, 1]),
        ([3, 24, 24, 64, 64], [3, 3], [1, 1], [1, 1]),
        ([2, 50, 13, 33, 47], [3, 3], [1, 1], [0, 2]),
        ([19, 90, 41, 7, 6], [3, 3], [1, 1], [2, 0]),
        ([1, 12, 33, 5, 210], [3, 3], [1, 1], [1, 0]),
        ([4, 144, 144, 8, 8], [3, 3], [1, 1], [1, 1]),
    ];
    for (number, ([batch, from, to, height, width], kernel, stride, padding)) in
        cases.into_iter().enumerate()
    {
        let options = || ConvOptions::new(stride, padding, [1, 1], 1);
        let reference = |x, weight, bias| module::conv2d(x, weight, Some(bias), options());
        let ours = |x, weight, bias| kernels::conv2d(x, weight, Some(bias), options());
        let run = |device: &Device, convolve: &dyn Fn(_, _, _) -> Tensor<4>| {
            let mut source = Source::on(number as u64, device);
            let inputs = (
                source.tensor([batch, from, height, width]),
                source.tensor([to, from, kernel[0], kernel[1]]),
                source.tensor([to]),
            );
            let output =
                [0, 1].map(|i| ([height, width][i] + 2 * padding[i] - kernel[i]) / stride[i] + 1);
            let weigh = source.tensor([batch, to, output[0], output[1]]).detach();
            conv_results(&inputs, &weigh, convolve)
        };
        let expected = run(&Device::flex(), &reference);
        for (device, place) in devices() {
            let found = run(&place, &ours);
            for (name, found, expected) in [("output", 0), ("input", 1), ("weight", 2), ("bias", 3)]
                .map(|(n, i)| (n, &found[i], &expected[i]))
            {
                let apart = difference(found, expected);
                assert!(
                    apart < 2e-5,
                    "{device}, case {number}, {name}: {apart:e} apart"
                );
            }
        }
    }
}

#[test]
fn a_convolution_without_bias_or_gradients() {
    let device = Device::flex();
    let mut noise = Noise::from_seed(9);
    let mut tensor = |dims: [usize; 4]| {
        let values = noise.normal_vec(dims.iter().product()).unwrap();
        Tensor::<4>::from_data(TensorData::new(values, dims), &device)
    };
    let (x, weight) = (tensor([2, 6, 10, 12]), tensor([8, 6, 3, 3]));
    // Not in order in memory.
    let x = x.swap_dims(2, 3);
    let options = || ConvOptions::new([1, 1], [1, 1], [1, 1], 1);
    let expected = module::conv2d(x.clone(), weight.clone(), None, options());
    let found = kernels::conv2d(x, weight, None, options());
    assert!(difference(&values(found), &values(expected)) < 1e-5);
}

/// Burn's layer and its operations for what follows it.
fn norm_in_parts(
    layer: &GroupNorm,
    x: Tensor<4>,
    scale_shift: Option<Tensor<2>>,
    is_activated: bool,
) -> Tensor<4> {
    let [batch, channels, ..] = x.dims();
    let mut y = layer.forward(x);
    if let Some(time) = scale_shift {
        let time = time.reshape([batch, 2 * channels, 1, 1]);
        let scale = time.clone().narrow(1, 0, channels);
        y = y * (scale + 1.0) + time.narrow(1, channels, channels);
    }
    if is_activated { silu(y) } else { y }
}

#[test]
fn group_norms_agree_with_burns() {
    let cases = [
        ([1, 1, 1, 3], 1),
        ([2, 8, 16, 16], 4),
        ([3, 6, 5, 7], 3),
        ([2, 24, 9, 3], 8),
        ([1, 12, 1, 17], 2),
        ([2, 5, 33, 2], 5),
    ];
    for (number, (dims, groups)) in cases.into_iter().enumerate() {
        for (has_time, is_activated) in [(false, false), (false, true), (true, false), (true, true)]
        {
            let run = |device: &Device, is_ours: bool| {
                let mut source = Source::on(number as u64, device);
                let [batch, channels, ..] = dims;
                // Far from zero: what a sum of squares loses its precision on.
                let x = source.tensor(dims).inner() * 2.0 + 3.0;
                let x = Tensor::from_inner(x).require_grad();
                let time = has_time.then(|| source.tensor([batch, 2 * channels]));
                let mut layer = GroupNormConfig::new(groups, channels).init(&source.device);
                layer.gamma = Some(Param::from_tensor(source.tensor([channels])));
                layer.beta = Some(Param::from_tensor(source.tensor([channels])));
                let weigh = source.tensor(dims).detach();
                let normed = if is_ours {
                    kernels::group_norm
                } else {
                    norm_in_parts
                };
                let out = normed(&layer, x.clone(), time.clone(), is_activated);
                let gradients = (out.clone() * weigh.clone()).sum().backward();
                let affine = [&layer.gamma, &layer.beta].into_iter().flatten();
                let mut all = vec![values(out.inner()), values(x.grad(&gradients).unwrap())];
                all.extend(affine.map(|p| values(p.val().grad(&gradients).unwrap())));
                all.extend(time.iter().map(|t| values(t.grad(&gradients).unwrap())));
                all
            };
            let expected = run(&Device::flex(), false);
            for (device, place) in devices() {
                let found = run(&place, true);
                assert_eq!(found.len(), if has_time { 5 } else { 4 });
                for (part, (found, expected)) in found.iter().zip(&expected).enumerate() {
                    let apart = difference(found, expected);
                    assert!(
                        apart < 5e-5,
                        "{device}, case {number}, time {has_time}, SiLU {is_activated}, part {part}: \
                         {apart:e} apart"
                    );
                }
            }
        }
    }
}

#[test]
fn a_group_norm_survives_what_silu_does_to_large_values() {
    let device = Device::flex();
    let x = [-1e4, -200.0, -90.0, -1e-3, 0.0, 1e-3, 90.0, 1e4];
    let x = Tensor::<4>::from_data(TensorData::new(x.to_vec(), [1, 1, 1, 8]), &device);
    let mut layer = GroupNormConfig::new(1, 1).init(&device);
    layer.gamma = Some(Param::from_tensor(Tensor::from_floats([1e3], &device)));
    let expected = values(silu(layer.forward(x.clone())));
    let found = values(kernels::group_norm(&layer, x, None, true));
    for (found, expected) in found.iter().zip(&expected) {
        assert!(
            (found - expected).abs() <= 1e-5 * expected.abs().max(1.0),
            "{found} {expected}"
        );
    }
}

#[test]
fn linear_layers_agree_with_burns() {
    for (number, [batch, rows, inputs, outputs]) in [
        [1, 1, 1, 1],
        [2, 3, 5, 7],
        [3, 90, 33, 300],
        [1, 1, 64, 700],
        [4, 64, 300, 24],
        [5, 256, 96, 96],
    ]
    .into_iter()
    .enumerate()
    {
        let run = |device: &Device, has_bias: bool, is_ours: bool| {
            let mut source = Source::on(number as u64, device);
            let x = source.tensor([batch, rows, inputs]);
            let (weight, bias) = (source.tensor([inputs, outputs]), source.tensor([outputs]));
            let weigh = source.tensor([batch, rows, outputs]).detach();
            let layer = if is_ours {
                kernels::linear::<3>
            } else {
                module::linear
            };
            let given = has_bias.then(|| bias.clone());
            let out = layer(x.clone(), weight.clone(), given);
            let gradients = (out.clone() * weigh).sum().backward();
            let mut all = vec![values(out.inner()), values(x.grad(&gradients).unwrap())];
            all.push(values(weight.grad(&gradients).unwrap()));
            all.extend(has_bias.then(|| values(bias.grad(&gradients).unwrap())));
            all
        };
        for has_bias in [true, false] {
            let expected = run(&Device::flex(), has_bias, false);
            for (device, place) in devices() {
                let found = run(&place, has_bias, true);
                for (part, (found, expected)) in found.iter().zip(&expected).enumerate() {
                    let apart = difference(found, expected);
                    assert!(
                        apart < 1e-5,
                        "{device}, case {number}, {has_bias}, part {part}: {apart:e} apart"
                    );
                }
            }
        }
    }
}

/// Attention operation by operation.
fn attention_in_parts(
    [query, key, value]: [Tensor<3>; 3],
    heads: usize,
    hidden: Option<Tensor<4, Bool>>,
) -> Tensor<3> {
    let [batch, n, width] = query.dims();
    let [_, m, _] = key.dims();
    let split = |x: Tensor<3>, length: usize| {
        x.reshape([batch, length, heads, width / heads])
            .swap_dims(1, 2)
    };
    let scale = 1.0 / ((width / heads) as f64).sqrt();
    let scores = split(query, n).matmul(split(key, m).transpose()) * scale;
    let scores = match hidden {
        Some(hidden) => scores.mask_fill(hidden.expand([batch, heads, n, m]), -1e30),
        None => scores,
    };
    activation::softmax(scores, 3)
        .matmul(split(value, m))
        .swap_dims(1, 2)
        .reshape([batch, n, width])
}

#[test]
fn attention_agrees_with_burns_operations() {
    // batch, heads, width of a head, queries, keys
    for (number, [batch, heads, head, n, m]) in [
        [1, 1, 1, 1, 2],
        [2, 3, 4, 6, 6],
        [3, 2, 17, 5, 33],
        [1, 2, 48, 300, 290],
        [2, 1, 8, 129, 129],
    ]
    .into_iter()
    .enumerate()
    {
        let run = |device: &Device, is_ours: bool| {
            let mut source = Source::on(number as u64, device);
            let width = heads * head;
            let given = [n, m, m].map(|length| source.tensor([batch, length, width]));
            let weigh = source.tensor([batch, n, width]).detach();
            let results = |out: Tensor<3>| {
                let gradients = (out.clone() * weigh.clone()).sum().backward();
                let mut all = vec![values(out.inner())];
                all.extend(given.iter().map(|t| values(t.grad(&gradients).unwrap())));
                all
            };
            // No mask, one for all queries, one for each, and only keys up to the query.
            let hidden = |rows: usize| {
                // In the second row of masks every key is hidden.
                let hides = |i: usize| i * 7 % 5 < 2 || i / m == 1;
                let data: Vec<bool> = (0..batch * rows * m).map(hides).collect();
                let data = TensorData::new(data, [batch, 1, rows, m]);
                Tensor::<4, Bool>::from_data(data, &source.device)
            };
            let mut cases = vec![
                (None, None, false),
                (Some(hidden(1)), Some(hidden(1)), false),
                (Some(hidden(n)), Some(hidden(n)), false),
            ];
            if n == m {
                let causal = causal_mask(n, &source.device);
                let both = hidden(1).expand([batch, 1, n, n]);
                let both = both.bool_or(causal.clone().expand([batch, 1, n, n]));
                cases.push((None, Some(causal.expand([batch, 1, n, n])), true));
                cases.push((Some(hidden(1)), Some(both), true));
            }
            let each = cases.into_iter().map(|(mask, hidden, is_causal)| {
                let [query, key, value] = given.clone();
                results(match is_ours {
                    true => attend(query, key, value, heads, mask, is_causal),
                    false => attention_in_parts([query, key, value], heads, hidden),
                })
            });
            each.collect::<Vec<_>>()
        };
        let expected = run(&Device::flex(), false);
        for (device, place) in devices() {
            let cases = run(&place, true).into_iter().zip(&expected);
            for (case, (found, expected)) in cases.enumerate() {
                for (part, (found, expected)) in found.iter().zip(expected).enumerate() {
                    // Of one key, queries and keys have no gradient.
                    if expected.iter().all(|v| v.abs() < 1e-9) {
                        assert!(found.iter().all(|v| v.abs() < 1e-6));
                        continue;
                    }
                    let apart = difference(found, expected);
                    assert!(
                        apart < 2e-5,
                        "{device}, {number}, case {case}, part {part}: {apart:e} apart"
                    );
                }
            }
        }
    }
}

#[test]
fn attention_does_not_hide_what_is_no_number() {
    for (name, device) in devices() {
        for (at, value) in [(0, f32::NAN), (20, f32::NAN), (3, f32::INFINITY)] {
            let mut row = vec![1.0; 21];
            row[at] = value;
            let key = Tensor::<3>::from_data(TensorData::new(row, [1, 21, 1]), &device);
            let one = Tensor::ones([1, 1, 1], &device);
            let found = values(attend(one, key.clone(), key.ones_like(), 1, None, false));
            assert!(found[0].is_nan(), "{name}: {value} at {at}: {found:?}");
        }
    }
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| {
            let mut source = Source::new(4);
            let inputs = (
                source.tensor([3, 24, 20, 36]),
                source.tensor([40, 24, 3, 3]),
                source.tensor([40]),
            );
            let layer = GroupNormConfig::new(8, 40).init(&source.device);
            let weigh = source.tensor([3, 40, 20, 36]).detach();
            conv_results(&inputs, &weigh, |x, weight, bias| {
                let options = ConvOptions::new([1, 1], [1, 1], [1, 1], 1);
                let out = kernels::conv2d(x, weight, Some(bias), options);
                kernels::group_norm(&layer, out, None, true)
            })
        })
    };
    let one = run(1);
    for threads in [2, 3, 7] {
        // To the bit.
        assert!(run(threads) == one, "{threads} threads");
    }
}

/// Result and gradient of a function of one tensor.
fn results<const D: usize>(
    x: &Tensor<D>,
    weigh: &Tensor<D>,
    function: impl Fn(Tensor<D>) -> Tensor<D>,
) -> [Vec<f32>; 2] {
    let out = function(x.clone());
    let gradients = (out.clone() * weigh.clone()).sum().backward();
    [values(out.inner()), values(x.grad(&gradients).unwrap())]
}

#[test]
fn gelus_agree_with_burns() {
    let exact = |x: Tensor<3>| {
        let share = (x.clone() * std::f64::consts::FRAC_1_SQRT_2).erf() * 0.5 + 0.5;
        x * share
    };
    let quick = |x: Tensor<3>| x.clone() * activation::sigmoid(x * 1.702);
    for dims in [[1, 1, 5], [2, 3, 33], [3, 100, 170]] {
        let run = |device: &Device, gelu: &dyn Fn(Tensor<3>) -> Tensor<3>| {
            let mut source = Source::on(6, device);
            // Far enough that nothing or all is left.
            let x = Tensor::from_inner(source.tensor(dims).inner() * 4.0).require_grad();
            let weigh = source.tensor(dims).detach();
            results(&x, &weigh, gelu)
        };
        for (name, expected, ours) in [
            (
                "gelu",
                run(&Device::flex(), &exact),
                kernels::gelu::<3> as fn(_) -> _,
            ),
            (
                "quick",
                run(&Device::flex(), &quick),
                kernels::quick_gelu::<3>,
            ),
        ] {
            for (device, place) in devices() {
                let found = run(&place, &ours);
                for (found, expected) in found.iter().zip(&expected) {
                    let apart = difference(found, expected);
                    assert!(
                        apart < 3e-6,
                        "{device}, {name} of {dims:?}: {apart:e} apart"
                    );
                }
            }
        }
    }
}

#[test]
fn sizes_change_as_burns_do() {
    for (number, dims) in [[1, 1, 2, 2], [2, 3, 4, 6], [3, 2, 16, 34], [1, 2, 5, 7]]
        .into_iter()
        .enumerate()
    {
        let [batch, channels, height, width] = dims;
        let run = |device: &Device, size: [usize; 2], change: &dyn Fn(Tensor<4>) -> Tensor<4>| {
            let mut source = Source::on(number as u64, device);
            let x = source.tensor(dims);
            let weigh = source.tensor([batch, channels, size[0], size[1]]).detach();
            let out = change(x.clone());
            let gradients = (out.clone() * weigh).sum().backward();
            [values(out.inner()), values(x.grad(&gradients).unwrap())]
        };
        let halved = |x: Tensor<4>| module::avg_pool2d(x, AvgPoolOptions::new([2, 2]));
        let doubled = |x: Tensor<4>| {
            let options =
                InterpolateOptions::new(InterpolateMode::Nearest).with_scale_factor([2.0, 2.0]);
            module::interpolate(x, options)
        };
        type Change<'a> = &'a dyn Fn(Tensor<4>) -> Tensor<4>;
        let changes: [([usize; 2], Change<'_>, Change<'_>); 2] = [
            ([height / 2, width / 2], &kernels::halve, &halved),
            ([2 * height, 2 * width], &kernels::double, &doubled),
        ];
        for (size, ours, burns) in changes {
            let expected = run(&Device::flex(), size, burns);
            for (device, place) in devices() {
                for (found, expected) in run(&place, size, ours).iter().zip(&expected) {
                    let apart = difference(found, expected);
                    assert!(
                        apart < 1e-6,
                        "{device}, {dims:?} to {size:?}: {apart:e} apart"
                    );
                }
            }
        }
    }
}
