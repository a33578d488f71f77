//! What training promises: repeatable to the bit, however it is cut up, stopped and resumed.

#![cfg(feature = "train")]
#![allow(missing_docs)]

#[allow(dead_code)] // Of what tests share, this one takes some.
#[path = "../compare/mod.rs"]
mod compare;
mod refusals;

use std::{ops::ControlFlow, panic::AssertUnwindSafe, path::Path, sync::Arc};

use burn::{
    module::Module,
    nn::{Linear, LinearConfig},
    tensor::{Device, Tensor, activation::silu},
};
use compare::{devices, difference};
use unclip_core::{
    error::{Error, Result},
    noise::Noise,
    train::{
        Given, Inputs, Recipe, Recordable, Samples, TrainSettings, Trainer, checkpoints,
        initialized, latest_checkpoint, read_log,
    },
};

#[derive(Module, Debug)]
struct Net {
    first: Linear,
    last: Linear,
}

fn net() -> Net {
    let device = Device::flex();
    let net = Net {
        first: LinearConfig::new(2, 16).init(&device),
        last: LinearConfig::new(16, 1).init(&device),
    };
    initialized(net, 3, &[]).unwrap()
}

impl Net {
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.last.forward(silu(self.first.forward(x)))
    }
}

/// Learns a · b from noisy a and b.
struct Product {
    noise: f32,
}

impl Recipe for Product {
    type Model = Net;
    type Sample = [f32; 2];
    type Example = ([f32; 2], f32);

    fn prepare(&self, samples: Vec<[f32; 2]>, noise: &mut Noise) -> Result<Vec<Self::Example>> {
        let shift = noise.normal_vec(2 * samples.len())?;
        let shifted = samples
            .iter()
            .zip(shift.chunks(2))
            .map(|([a, b], s)| ([a + self.noise * s[0], b + self.noise * s[1]], a * b));
        Ok(shifted.collect())
    }

    fn loss(&self, model: &Net, examples: &[&Self::Example], device: &Device) -> Result<Tensor<1>> {
        self.loss_of(model, &self.inputs(model, examples)?.on(device))
    }

    fn recordable(&self) -> Option<&dyn Recordable<Model = Net, Example = Self::Example>> {
        Some(self)
    }
}

impl Recordable for Product {
    type Model = Net;
    type Example = ([f32; 2], f32);

    fn inputs(&self, _: &Net, examples: &[&Self::Example]) -> Result<Inputs> {
        let mut inputs = Inputs::default();
        inputs.put_rows("x", &[2], examples.iter().map(|e| &e.0[..]))?;
        let wanted = examples.iter().map(|e| std::slice::from_ref(&e.1));
        inputs.put_rows("y", &[1], wanted)?;
        Ok(inputs)
    }

    fn loss_of(&self, model: &Net, given: &Given) -> Result<Tensor<1>> {
        let x: Tensor<2> = given.get("x")?;
        let rows = x.dims()[0];
        let squares = (model.forward(x) - given.get("y")?).powi_scalar(2);
        Ok(squares.reshape([rows]))
    }
}

/// Points of a square; some may be broken or lead to a loss that is not finite.
#[derive(Clone, Copy, Default)]
struct Points {
    broken: usize,
    poisoned: Option<usize>,
    huge: Option<usize>,
    /// There are so many less.
    less: usize,
    panics: bool,
}

impl Samples for Points {
    type Item = [f32; 2];

    fn len(&self) -> usize {
        100 - self.less
    }

    fn get(&self, index: usize, _: u64) -> Result<[f32; 2]> {
        assert!(!self.panics, "a sample that panics");
        if index < self.broken {
            return Err(Error::setting("point", index, "another"));
        }
        let at = |n: usize| n as f32 / 5.0 - 1.0;
        Ok(match index {
            _ if self.poisoned == Some(index) => [f32::NAN, 0.0],
            _ if self.huge == Some(index) => [1e6, 1e6],
            _ => [at(index % 10), at(index / 10)],
        })
    }

    fn name(&self, index: usize) -> String {
        format!("point {index}")
    }
}

fn settings(steps: usize) -> TrainSettings {
    TrainSettings {
        learning_rate: 0.01,
        seed: 5,
        save_every: 10,
        ..TrainSettings::new(steps, 8)
    }
}

fn trainer(settings: TrainSettings, devices: &[Device]) -> Trainer<Product> {
    Trainer::new(Product { noise: 0.02 }, net(), settings, devices).unwrap()
}

/// A device that repeats a step with other numbers finds what it finds without.
#[test]
fn recorded_steps_are_the_steps() {
    for (name, device) in devices() {
        let weights = [false, true].map(|records| {
            let folder = tempfile::tempdir().unwrap();
            let plain = TrainSettings {
                clip_norm: Some(0.1),
                ema: 0.9,
                weight_decay: 0.1,
                ..settings(40)
            };
            let mut trainer = trainer(plain, std::slice::from_ref(&device));
            if records {
                trainer = trainer.with_recorded_steps();
            }
            let (mut losses, mut recorded) = (Vec::new(), 0);
            // A broken sample makes one batch smaller.
            let points = Points {
                broken: 1,
                ..Points::default()
            };
            trainer
                .run(Arc::new(points), folder.path(), |_, progress| {
                    losses.push(progress.row.loss);
                    recorded += usize::from(progress.is_recorded);
                    ControlFlow::Continue(())
                })
                .unwrap();
            let expected = if records && name != "flex" && name != "ndarray" {
                30..39
            } else {
                0..1
            };
            assert!(expected.contains(&recorded), "{name}: {recorded} recorded");
            let net = trainer.averaged();
            let weights = [values(trainer.model()), values(&net)].concat();
            (losses, weights)
        });
        assert!(weights[0] == weights[1], "{name}: {weights:?}");
    }
}

fn keep_on<R: Recipe>(_: &Trainer<R>, _: unclip_core::train::Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn values(net: &Net) -> Vec<f32> {
    [&net.first, &net.last]
        .into_iter()
        .flat_map(|layer| {
            let bias = layer.bias.as_ref().unwrap().val().inner().into_data();
            let weight = layer.weight.val().inner().into_data();
            let mut all = weight.try_to_vec::<f32>().unwrap();
            all.extend(bias.try_to_vec::<f32>().unwrap());
            all
        })
        .collect()
}

fn trained(settings: TrainSettings, devices: &[Device], folder: &Path) -> Trainer<Product> {
    let mut trainer = trainer(settings, devices);
    trainer
        .run(Arc::new(Points::default()), folder, keep_on)
        .unwrap();
    trainer
}

#[test]
fn the_loss_falls_and_the_record_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let device = [Device::flex()];
    trained(settings(400), &device, folder.path());
    let rows = read_log(&folder.path().join("log.csv")).unwrap();
    assert_eq!(rows.len(), 400);
    let mean = |rows: &[unclip_core::train::LogRow]| {
        rows.iter().map(|r| r.loss).sum::<f64>() / rows.len() as f64
    };
    let (before, after) = (mean(&rows[..20]), mean(&rows[380..]));
    assert!(after < 0.1 * before, "{before} {after}");
    assert!(
        rows.iter()
            .all(|r| r.gradient_norm > 0.0 && r.samples_per_second > 0.0)
    );
    let kept: Vec<usize> = checkpoints(folder.path()).iter().map(|c| c.0).collect();
    assert_eq!(kept, [380, 390, 400]);
    assert!(folder.path().join("loss.png").is_file());
}

#[test]
fn stopped_anywhere_and_resumed_it_ends_at_the_same_bits() {
    let device = [Device::flex()];
    let whole = tempfile::tempdir().unwrap();
    let expected = trained(settings(60), &device, whole.path());
    let cut = tempfile::tempdir().unwrap();
    let mut stops = [7, 10, 11, 25, 59].into_iter();
    loop {
        let mut one = trainer(settings(60), &device);
        one.resume(cut.path()).unwrap();
        let stop = stops.next();
        let is_polite = stop.is_some_and(|s| s % 2 == 0);
        let run = AssertUnwindSafe(|| {
            one.run(Arc::new(Points::default()), cut.path(), |_, progress| {
                match Some(progress.row.step) == stop {
                    true if is_polite => ControlFlow::Break(()),
                    // As if it were killed: nothing is saved at this step.
                    true => std::panic::resume_unwind(Box::new("killed")),
                    false => ControlFlow::Continue(()),
                }
            })
        });
        let Ok(result) = std::panic::catch_unwind(run) else {
            continue;
        };
        match result {
            Ok(()) => {
                assert_eq!(values(&one.averaged()), values(&expected.averaged()));
                assert_eq!(values(one.model()), values(expected.model()));
                break;
            }
            Err(error) => assert!(matches!(error, Error::Cancelled { .. }), "{error}"),
        }
    }
}

#[test]
fn pieces_and_devices_change_nothing_but_rounding() {
    let device = Device::flex();
    let run = |pieces: usize, devices: &[Device]| {
        let folder = tempfile::tempdir().unwrap();
        let settings = TrainSettings {
            pieces,
            ..settings(20)
        };
        values(trained(settings, devices, folder.path()).model())
    };
    let one = run(1, std::slice::from_ref(&device));
    for other in [
        run(4, std::slice::from_ref(&device)),
        run(3, std::slice::from_ref(&device)),
        run(1, &[device.clone(), device.clone()]),
        run(2, &[device.clone(), device.clone(), device]),
    ] {
        let apart = one.iter().zip(&other).map(|(a, b)| (a - b).abs());
        assert!(apart.fold(0.0, f32::max) < 1e-5);
    }
}

#[test]
fn a_run_may_be_told_later_how_long_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let settings = TrainSettings {
        warm_up: 10,
        ..settings(100_000)
    };
    let mut trainer = trainer(settings, &[Device::flex()]);
    let data = Arc::new(Points::default());
    let stop =
        |_: &Trainer<Product>, progress: unclip_core::train::Progress| match progress.row.step {
            5 => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        };
    let stopped = trainer.run(data.clone(), folder.path(), stop);
    assert!(matches!(stopped, Err(Error::Cancelled { step: 5, .. })));
    trainer.set_steps(20);
    trainer.run(data, folder.path(), keep_on).unwrap();
    let log = read_log(&folder.path().join("log.csv")).unwrap();
    let rates: Vec<f64> = log.iter().map(|row| row.learning_rate).collect();
    assert_eq!(rates.len(), 20);
    // Still rising at first, then near its highest and down to nothing.
    assert!(
        rates[4] < 0.006 && rates[5] > 0.008 && rates[19] < 1e-4,
        "{rates:?}"
    );
}

#[test]
fn a_gpu_learns_what_a_cpu_does() {
    let run = |device: Device| {
        let folder = tempfile::tempdir().unwrap();
        let settings = TrainSettings {
            // Often enough that the gradient is clipped.
            clip_norm: Some(0.5),
            ema: 0.9,
            ..settings(30)
        };
        let trainer = trained(settings, &[device], folder.path());
        let log = read_log(&folder.path().join("log.csv")).unwrap();
        let lengths: Vec<f32> = log.iter().map(|row| row.gradient_norm as f32).collect();
        let weights = values(&trainer.averaged());
        (lengths, weights)
    };
    let (lengths, weights) = run(Device::flex());
    for (name, device) in devices() {
        let found = run(device);
        assert!(difference(&found.0, &lengths) < 1e-4, "{name}: lengths");
        assert!(difference(&found.1, &weights) < 1e-4, "{name}: weights");
    }
}

#[test]
fn frozen_layers_stay() {
    let folder = tempfile::tempdir().unwrap();
    let mut model = net();
    model.first = model.first.freeze();
    let before = values(&model);
    let recipe = Product { noise: 0.0 };
    let mut trainer = Trainer::new(recipe, model, settings(20), &[Device::flex()]).unwrap();
    trainer
        .run(Arc::new(Points::default()), folder.path(), keep_on)
        .unwrap();
    let after = values(trainer.model());
    assert_eq!(before[..48], after[..48]);
    assert_ne!(before[48..], after[48..]);
    assert_eq!(values(&trainer.averaged())[..48], before[..48]);
    // And after a restart.
    let mut model = net();
    model.first = model.first.freeze();
    let recipe = Product { noise: 0.0 };
    let mut again = Trainer::new(recipe, model, settings(30), &[Device::flex()]).unwrap();
    assert!(again.resume(folder.path()).unwrap());
    again
        .run(Arc::new(Points::default()), folder.path(), keep_on)
        .unwrap();
    assert_eq!(values(again.model())[..48], before[..48]);
    assert_eq!(again.step(), 30);
}

#[test]
fn a_step_is_adamws() {
    // One parameter of each kind, against the formula in f64.
    let folder = tempfile::tempdir().unwrap();
    let before: Vec<f64> = values(&net()).iter().map(|v| f64::from(*v)).collect();
    let settings = TrainSettings {
        warm_up: 0,
        cosine: false,
        clip_norm: None,
        weight_decay: 0.1,
        ..settings(1)
    };
    let after = trained(settings, &[Device::flex()], folder.path());
    // After one step the change is the learning rate times the gradient's sign, but for ε and
    // for weight decay on matrices.
    let first = values(after.model());
    for (i, (before, after)) in before.iter().zip(&first).enumerate() {
        let is_matrix = i < 32 || (48..64).contains(&i);
        let decayed = if is_matrix {
            before * (1.0 - 0.01 * 0.1)
        } else {
            *before
        };
        let change = (f64::from(*after) - decayed).abs();
        assert!((change - 0.01).abs() < 1e-5, "{i}: {change}");
    }
}
