//! DDIM backwards: from a picture to the noise it is made of.

use burn::tensor::Tensor;

use super::{Ddim, Denoiser, Level, Timestep, tables::Tables};
use crate::{
    diffusion::Process,
    error::{Error, Result},
    stage::{Run, Stage},
};

/// x_T of `start`, such that DDIM with the same settings and η = 0 leads back to it (unCLIP §3,
/// "bipartite latent representations").
///
/// Each step solves the DDIM step for its noisier end, where the network would have to be asked at
/// the answer: it is asked at the best answer so far, `rounds` times, first at the cleaner end. One
/// round is plain DDIM inversion, whose error falls with the number of steps; more rounds come
/// closer with fewer steps. x₀ is not clipped: give [`Ddim::is_clipped`] = false to come back.
///
/// # Errors
/// [`Error::Setting`] if η is not 0 or there are no rounds, cancellation, and the denoiser's own.
pub fn invert<const D: usize>(
    denoiser: &mut dyn Denoiser<D>,
    start: Tensor<D>,
    process: &Process,
    ddim: Ddim,
    rounds: usize,
    stage: Stage,
    run: &mut Run<'_>,
) -> Result<Tensor<D>> {
    super::Sampler::Ddim(ddim).check(process.steps())?;
    if ddim.eta != 0.0 {
        let expected = "inversion needs the deterministic sampler, 0";
        return Err(Error::setting("eta", ddim.eta, expected));
    }
    if rounds == 0 {
        return Err(Error::setting("rounds", rounds, "at least 1 is needed"));
    }
    // The way back must be the way there: every step ends where the next one starts.
    let method = Ddim {
        tables: Tables::Karlo,
        ..ddim
    }
    .method(process);
    let count = method.timesteps.len();
    let mut x = start;
    for done in 0..count {
        let index = count - 1 - done;
        let at = Timestep {
            t: method.timesteps[index],
            index,
            count,
        };
        let (clean, noisy) = (method.levels[index + 1], method.levels[index]);
        // The first question is asked at the cleaner end, brought to the noisier one's scale.
        let mut answer = x.clone();
        let mut level = clean;
        for _ in 0..rounds {
            let target = denoiser.predict(answer.clone(), at)?.target;
            let Level { signal, sigma } = if level.sigma > 0.0 { level } else { noisy };
            let epsilon = process.noise_of(answer, target, signal, sigma);
            let base = (x.clone() - epsilon.clone() * clean.sigma) / clean.signal;
            answer = base * noisy.signal + epsilon * noisy.sigma;
            level = noisy;
        }
        x = answer;
        run.report(stage, done + 1, count)?;
    }
    Ok(x)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::{
        diffusion::{
            BetaSchedule, Sampler, Target, Variance,
            sampler::{Prediction, Spacing, sample},
        },
        noise::Noise,
        stage::Run,
    };

    /// The exact denoiser of a mixture of two Gaussians: smooth and not linear.
    struct Mixture(Process);

    impl Denoiser<2> for Mixture {
        fn predict(&mut self, x: Tensor<2>, at: Timestep) -> Result<Prediction<2>> {
            let bar = self.0.alpha_bars()[at.t as usize];
            let (signal, rest) = (bar.sqrt(), 1.0 - bar);
            // Means ±0.6, deviation 0.25.
            let total = bar * 0.0625 + rest;
            let side = (x.clone() * (0.6 * signal / total)).tanh() * 0.6;
            let start = side.clone() + (x.clone() - side * signal) * (signal * 0.0625 / total);
            let target = (x - start * signal) / rest.sqrt();
            Ok(Prediction {
                target,
                variance: None,
            })
        }
    }

    fn process() -> Process {
        Process::new(
            BetaSchedule::SquaredCosine,
            1000,
            Target::Epsilon,
            Variance::FixedSmall,
        )
    }

    fn error_after(steps: usize, rounds: usize) -> f32 {
        let device = Device::flex();
        let picture = Noise::from_seed(5).normal([4, 64], &device).unwrap() * 0.25 + 0.6;
        let ddim = Ddim {
            spacing: Spacing::Leading { offset: 0 },
            is_clipped: false,
            ..Ddim::new(steps)
        };
        let mut noise = Noise::from_seed(0);
        let mut run = Run::new(Sampler::Ddim(ddim), &mut noise);
        let process = process();
        let mut denoiser = Mixture(process.clone());
        let stage = Stage::Decoder;
        let latents = invert(
            &mut denoiser,
            picture.clone(),
            &process,
            ddim,
            rounds,
            stage,
            &mut run,
        )
        .unwrap();
        let back = sample(&mut denoiser, latents, &process, stage, &mut run).unwrap();
        (back - picture).abs().mean().into_scalar()
    }

    #[test]
    fn the_way_back_gets_better_with_steps() {
        let errors = [25, 50, 100, 250].map(|steps| error_after(steps, 1));
        assert!(errors.is_sorted_by(|a, b| a > b), "{errors:?}");
        assert!(errors[3] < 0.01, "{errors:?}");
    }

    #[test]
    fn rounds_do_the_work_of_steps() {
        let (plain, refined) = (error_after(25, 1), error_after(25, 4));
        assert!(refined < plain / 10.0, "{plain} {refined}");
    }

    #[test]
    fn noise_cannot_be_inverted() {
        let mut noise = Noise::from_seed(0);
        let mut run = Run::new(Sampler::ddim(10, 0.0), &mut noise);
        let x = Tensor::<2>::zeros([1, 2], &Device::flex());
        let noisy = Ddim {
            eta: 0.5,
            ..Ddim::new(10)
        };
        let process = process();
        let mut denoiser = Mixture(process.clone());
        let error = invert(
            &mut denoiser,
            x,
            &process,
            noisy,
            1,
            Stage::Decoder,
            &mut run,
        );
        assert!(matches!(error, Err(Error::Setting { .. })));
    }
}
