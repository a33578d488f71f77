//! The loop of all samplers: where it starts, what it keeps, whom it tells.

use burn::tensor::{Bool, Tensor};

use super::{Denoiser, Level, Tools};
use crate::{
    diffusion::Process,
    error::{Error, Result},
    noise::Noise,
    stage::{Canvas, Run, Stage},
};

/// Pixels that are given, in the shape of x.
struct Known<const D: usize> {
    pixels: Tensor<D>,
    /// Where x is free.
    repaint: Option<Tensor<D, Bool>>,
}

impl<const D: usize> Known<D> {
    /// The given pixels where they are given, `x` elsewhere.
    fn keep(&self, x: Tensor<D>) -> Tensor<D> {
        match &self.repaint {
            None => x,
            Some(free) => self.pixels.clone().mask_where(free.clone(), x),
        }
    }

    /// The same at a level, with fresh noise on the given pixels (RePaint, arXiv 2201.09865,
    /// eq. 8a).
    fn keep_at(&self, level: Level, x: Tensor<D>, noise: &mut Noise) -> Result<Tensor<D>> {
        let Some(free) = &self.repaint else {
            return Ok(x);
        };
        let noise = noise.normal(x.dims(), &x.device())?;
        let noisy = self.pixels.clone() * level.signal + noise * level.sigma;
        Ok(noisy.mask_where(free.clone(), x))
    }
}

/// Samples from unit noise `x`, by the sampler, on the canvas and with the noise of `run`.
///
/// Draws of noise, each of the shape of `x`: with a canvas that keeps pixels, one for these before
/// every step; then the step's own, if it has any; then one for every return to a noisier level.
///
/// # Errors
/// [`Error::Setting`] for settings out of range, [`Error::Shape`] for a canvas of another size,
/// [`Error::Cancelled`] if `run.watch` says so, and the denoiser's own.
pub fn sample<const D: usize>(
    denoiser: &mut dyn Denoiser<D>,
    x: Tensor<D>,
    process: &Process,
    stage: Stage,
    run: &mut Run<'_>,
) -> Result<Tensor<D>> {
    run.sampler.check(process.steps())?;
    let mut method = run.sampler.method::<D>(process)?;
    let levels = method.levels().to_vec();
    let steps = levels.len() - 1;

    let mut first = 0;
    let mut rounds = 1;
    let mut known = None;
    let mut x = x;
    let scale = method.initial_scale();
    if let Some(canvas) = run.canvas.take() {
        Canvas::check_settings(canvas.strength, canvas.rounds, stage)?;
        let pixels = in_shape(canvas.pixels, x.dims(), &x.device(), stage)?;
        let repaint = canvas
            .repaint
            .map(|mask| in_shape(mask.int().float(), x.dims(), &x.device(), stage))
            .transpose()?
            .map(|mask| mask.greater_elem(0.5));
        first = steps - ((steps as f64 * canvas.strength).round() as usize).clamp(1, steps);
        rounds = canvas.rounds;
        if first > 0 {
            let level = levels[first];
            x = pixels.clone() * level.signal + x * level.sigma;
        } else {
            x = x * scale;
        }
        known = Some(Known { pixels, repaint });
    } else if scale != 1.0 {
        x = x * scale;
    }

    let total = (steps - first) * rounds;
    for index in first..steps {
        for round in 1..=rounds {
            if let Some(known) = &known {
                x = known.keep_at(levels[index], x, run.noise)?;
            }
            let mut tools = Tools {
                denoiser,
                process,
                noise: run.noise,
            };
            x = method.step(index, x, &mut tools)?;
            if round < rounds {
                x = back(levels[index + 1], levels[index], x, run.noise)?;
                method.forget();
            }
            run.report(stage, (index - first) * rounds + round, total)?;
        }
    }
    Ok(match known {
        Some(known) => known.keep(x),
        None => x,
    })
}

/// Noise again: from `from` back to the noisier `to`, as the forward process does.
fn back<const D: usize>(
    from: Level,
    to: Level,
    x: Tensor<D>,
    noise: &mut Noise,
) -> Result<Tensor<D>> {
    let ratio = to.signal / from.signal;
    let variance = to.sigma.powi(2) - (ratio * from.sigma).powi(2);
    let noise = noise.normal(x.dims(), &x.device())?;
    Ok(x * ratio + noise * variance.max(0.0).sqrt())
}

/// `canvas` with one row or one channel repeated to `shape`.
fn in_shape<const D: usize>(
    canvas: Tensor<4>,
    shape: [usize; D],
    device: &burn::tensor::Device,
    stage: Stage,
) -> Result<Tensor<D>> {
    let found = canvas.dims();
    let fits = D == 4
        && found
            .iter()
            .zip(&shape)
            .enumerate()
            .all(|(axis, (f, s))| f == s || axis < 2 && *f == 1);
    if !fits {
        let expected = format!("{shape:?}, or 1 for its first two");
        return Err(Error::shape(
            &format!("the {stage}'s canvas"),
            &found,
            expected,
        ));
    }
    Ok(canvas
        .to_device(device)
        .reshape(found_as::<D>(found))
        .expand(shape))
}

/// A shape of four axes in a context that is generic over them.
fn found_as<const D: usize>(found: [usize; 4]) -> [usize; D] {
    std::array::from_fn(|axis| found[axis])
}
