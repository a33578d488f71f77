//! Convolutions on matrix units, where this processor has them. In a file, and so a process, of its own:
//! the precision is one for all of a process.

#![cfg(all(feature = "flex", feature = "train"))]
#![allow(missing_docs)]

mod compare;

use burn::tensor::{Tensor, module, ops::ConvOptions};
use compare::{Source, conv_results, difference};
use unclip_core::kernels::{self, Precision};

/// Values that bf16 has, so that products of them are exact.
fn tensor<const D: usize>(source: &mut Source, dims: [usize; D]) -> Tensor<D> {
    let values = source.tensor(dims).inner().into_data();
    let values: Vec<f32> = values.try_to_vec().unwrap();
    let rounded = values
        .iter()
        .map(|v| f32::from_bits(v.to_bits() & 0xffff_0000))
        .collect();
    let data = burn::tensor::TensorData::new::<f32, _>(rounded, dims);
    Tensor::from_data(data, &source.device).require_grad()
}

#[test]
fn convolutions_of_bf16_are_exact_but_for_rounding_the_factors() {
    if !kernels::set_precision(Precision::Bf16) {
        eprintln!("this processor has no matrix units");
        return;
    }
    // batch, in, out, height, width, kernel, padding
    let cases = [
        ([1, 8, 8, 8, 8], [1, 1], [0, 0]),
        ([2, 8, 9, 7, 9], [3, 3], [1, 1]),
        ([3, 24, 24, 16, 16], [3, 3], [1, 1]),
        ([9, 33, 65, 8, 8], [3, 3], [1, 1]),
        ([2, 40, 24, 64, 64], [3, 3], [1, 1]),
        ([2, 16, 8, 20, 3], [5, 5], [2, 2]),
        ([1, 9, 31, 12, 13], [1, 4], [0, 2]),
        ([5, 20, 12, 1, 9], [3, 3], [1, 1]),
        ([17, 16, 12, 5, 4], [2, 3], [0, 1]),
        ([1, 700, 8, 70, 40], [3, 3], [1, 1]),
    ];
    for (number, ([batch, from, to, height, width], kernel, padding)) in
        cases.into_iter().enumerate()
    {
        let source = &mut Source::new(number as u64);
        let inputs = (
            tensor(source, [batch, from, height, width]),
            tensor(source, [to, from, kernel[0], kernel[1]]),
            tensor(source, [to]),
        );
        let options = || ConvOptions::new([1, 1], padding, [1, 1], 1);
        let reference = |x, weight, bias| module::conv2d(x, weight, Some(bias), options());
        let out = reference(inputs.0.clone(), inputs.1.clone(), inputs.2.clone());
        let weigh = tensor(source, out.dims()).detach();
        let expected = conv_results(&inputs, &weigh, reference);
        let ours = |x, weight, bias| kernels::conv2d(x, weight, Some(bias), options());
        let found = conv_results(&inputs, &weigh, ours);
        for (name, i) in [("output", 0), ("input", 1), ("weight", 2), ("bias", 3)] {
            let apart = difference(&found[i], &expected[i]);
            assert!(apart < 2e-5, "case {number}, {name}: {apart:e} apart");
        }
    }

    // What bf16 does not have is rounded, so that this is not f32 after all.
    let source = &mut Source::new(99);
    let inputs = (
        source.tensor([2, 24, 16, 16]),
        source.tensor([32, 24, 3, 3]),
        source.tensor([32]),
    );
    let weigh = source.tensor([2, 32, 16, 16]).detach();
    let options = || ConvOptions::new([1, 1], [1, 1], [1, 1], 1);
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        pool.build().unwrap().install(|| {
            conv_results(&inputs, &weigh, |x, weight, bias| {
                kernels::conv2d(x, weight, Some(bias), options())
            })
        })
    };
    let found = run(1);
    // To the bit.
    assert!(run(5) == found);
    kernels::set_precision(Precision::F32);
    let expected = run(1);
    for (found, expected) in found.iter().zip(&expected).take(3) {
        let apart = difference(found, expected);
        assert!((1e-4..2e-2).contains(&apart), "{apart:e} apart");
    }
}
