//! diffusers' `scheduler_config.json`: a process, and the sampler the checkpoint was made for.

use std::{fmt::Display, path::Path};

use serde::Deserialize;

use super::{
    BetaSchedule, Clip, Process, Sampler, Target, Variance,
    sampler::{
        Algorithm, Correction, Ddim, Ddpm, DpmSolver, Euler, FinalSigma, Sigmas, Spacing, Tables,
    },
};
use crate::{
    error::{Error, Result},
    json,
};

/// Steps of a sampler that a configuration gives, which has none.
const STEPS: usize = 25;

/// A process with its sampler.
#[derive(Clone, Debug, PartialEq)]
pub struct Scheduler {
    /// The process.
    pub process: Process,
    /// The sampler with diffusers' arithmetic and 25 steps: files do not say how many.
    pub sampler: Sampler,
}

/// The settings of a scheduler of diffusers; missing keys have the defaults of its class.
///
/// Classes: `UnCLIPScheduler`, `DDPMScheduler`, `DDIMScheduler`, `DPMSolverMultistepScheduler` and
/// `EulerDiscreteScheduler`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct SchedulerConfig {
    /// The class.
    #[serde(rename = "_class_name")]
    pub class_name: String,
    num_train_timesteps: usize,
    beta_schedule: Option<String>,
    beta_start: f64,
    beta_end: f64,
    rescale_betas_zero_snr: bool,
    prediction_type: String,
    variance_type: Option<String>,
    clip_sample: bool,
    clip_sample_range: Option<f64>,
    thresholding: bool,
    dynamic_thresholding_ratio: f64,
    sample_max_value: f64,
    timestep_spacing: Option<String>,
    steps_offset: usize,
    set_alpha_to_one: bool,
    solver_order: usize,
    algorithm_type: String,
    solver_type: String,
    lower_order_final: bool,
    euler_at_final: bool,
    use_karras_sigmas: Option<bool>,
    use_exponential_sigmas: Option<bool>,
    use_beta_sigmas: Option<bool>,
    use_lu_lambdas: Option<bool>,
    final_sigmas_type: String,
    lambda_min_clipped: Option<f64>,
    interpolation_type: String,
}

impl Default for SchedulerConfig {
    fn default() -> Self {
        Self {
            class_name: "UnCLIPScheduler".into(),
            num_train_timesteps: 1000,
            beta_schedule: None,
            beta_start: 1e-4,
            beta_end: 0.02,
            rescale_betas_zero_snr: false,
            prediction_type: "epsilon".into(),
            variance_type: None,
            clip_sample: true,
            clip_sample_range: Some(1.0),
            thresholding: false,
            dynamic_thresholding_ratio: 0.995,
            sample_max_value: 1.0,
            timestep_spacing: None,
            steps_offset: 0,
            set_alpha_to_one: true,
            solver_order: 2,
            algorithm_type: "dpmsolver++".into(),
            solver_type: "midpoint".into(),
            lower_order_final: true,
            euler_at_final: false,
            use_karras_sigmas: None,
            use_exponential_sigmas: None,
            use_beta_sigmas: None,
            use_lu_lambdas: None,
            final_sigmas_type: "zero".into(),
            lambda_min_clipped: None,
            interpolation_type: "linear".into(),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Unclip,
    Ddpm,
    Ddim,
    DpmSolver,
    Euler,
}

/// Values a key may have.
type Names<T, const N: usize> = [(&'static str, T); N];

impl SchedulerConfig {
    /// Reads `scheduler_config.json` in `folder`.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Json`], or [`Error::Config`] for a value not supported.
    pub fn load(folder: &Path) -> Result<Scheduler> {
        let path = folder.join("scheduler_config.json");
        json::read::<Self>(&path)?.scheduler(&path.display().to_string())
    }

    /// The process and the sampler these settings describe; `origin` names them in errors.
    ///
    /// # Errors
    /// [`Error::Config`] for a value that is not supported.
    pub fn scheduler(&self, origin: &str) -> Result<Scheduler> {
        Ok(Scheduler {
            process: self.process(origin)?,
            sampler: self.sampler(origin)?,
        })
    }

    fn class(&self, origin: &str) -> Result<Class> {
        const CLASSES: Names<Class, 5> = [
            ("UnCLIPScheduler", Class::Unclip),
            ("DDPMScheduler", Class::Ddpm),
            ("DDIMScheduler", Class::Ddim),
            ("DPMSolverMultistepScheduler", Class::DpmSolver),
            ("EulerDiscreteScheduler", Class::Euler),
        ];
        named(origin, "_class_name", &self.class_name, CLASSES)
    }

    /// The process these settings describe; `origin` names them in errors.
    ///
    /// # Errors
    /// [`Error::Config`] for a value that is not supported.
    pub fn process(&self, origin: &str) -> Result<Process> {
        let class = self.class(origin)?;
        let wrong = |key: &str, value: &dyn Display, expected: &str| {
            Err(Error::config(origin, key, value, expected))
        };
        if !(2..=1_000_000).contains(&self.num_train_timesteps) {
            let expected = "expected 2 to 1,000,000";
            return wrong("num_train_timesteps", &self.num_train_timesteps, expected);
        }
        let schedule = self.beta_schedule.as_deref().unwrap_or(match class {
            Class::Unclip => "squaredcos_cap_v2",
            _ => "linear",
        });
        let (start, end) = (self.beta_start, self.beta_end);
        for (key, beta) in [("beta_start", start), ("beta_end", end)] {
            if schedule != "squaredcos_cap_v2" && !(beta > 0.0 && beta < 1.0) {
                return wrong(key, &beta, "expected a number between 0 and 1");
            }
        }
        let schedule = named(
            origin,
            "beta_schedule",
            schedule,
            [
                ("squaredcos_cap_v2", BetaSchedule::SquaredCosine),
                ("linear", BetaSchedule::Linear { start, end }),
                ("scaled_linear", BetaSchedule::ScaledLinear { start, end }),
                ("sigmoid", BetaSchedule::Sigmoid { start, end }),
            ],
        )?;
        let target = named(
            origin,
            "prediction_type",
            &self.prediction_type,
            [
                ("epsilon", Target::Epsilon),
                ("sample", Target::Sample),
                ("v_prediction", Target::Velocity),
            ],
        )?;
        let mut process = Process::new(
            schedule,
            self.num_train_timesteps,
            target,
            self.variance(class, origin)?,
        )
        .with_clip(self.clip(class, origin)?);
        if self.rescale_betas_zero_snr {
            if target == Target::Epsilon && matches!(class, Class::Ddpm | Class::Ddim) {
                let expected = "but without any signal ε does not say what x₀ is: false, or \
                                v_prediction";
                return wrong("rescale_betas_zero_snr", &true, expected);
            }
            process = process.with_zero_terminal_snr();
        }
        Ok(process)
    }

    fn variance(&self, class: Class, origin: &str) -> Result<Variance> {
        let name = match (class, self.variance_type.as_deref()) {
            (Class::Unclip, None) => "fixed_small_log",
            (_, None) => "fixed_small",
            (_, Some(name)) => name,
        };
        let learned = match class {
            Class::Ddpm => Variance::LearnedValue,
            _ => Variance::Learned,
        };
        named(
            origin,
            "variance_type",
            name,
            [
                ("fixed_small", Variance::FixedSmall),
                ("fixed_small_log", Variance::FixedSmallLog),
                ("fixed_large", Variance::FixedLarge),
                ("learned", learned),
                ("learned_range", Variance::LearnedRange),
            ],
        )
    }

    fn clip(&self, class: Class, origin: &str) -> Result<Option<Clip>> {
        let (quantile, max) = (self.dynamic_thresholding_ratio, self.sample_max_value);
        if self.thresholding && matches!(class, Class::Ddpm | Class::Ddim | Class::DpmSolver) {
            if !(0.0..=1.0).contains(&quantile) || max.is_nan() || max < 1.0 {
                return Err(Error::config(
                    origin,
                    "dynamic_thresholding_ratio, sample_max_value",
                    format!("{quantile}, {max}"),
                    "expected 0 to 1, and at least 1",
                ));
            }
            return Ok(Some(Clip::Dynamic { quantile, max }));
        }
        if !self.clip_sample || matches!(class, Class::DpmSolver | Class::Euler) {
            return Ok(None);
        }
        match self.clip_sample_range {
            Some(range) if range > 0.0 => Ok(Some(Clip::Range(range))),
            range => Err(Error::config(
                origin,
                "clip_sample_range",
                format!("{range:?}"),
                "expected a positive number",
            )),
        }
    }

    fn sampler(&self, origin: &str) -> Result<Sampler> {
        let class = self.class(origin)?;
        let tables = Tables::Diffusers;
        let spacing = self.spacing(class, origin)?;
        Ok(match class {
            Class::Unclip => Sampler::ancestral(STEPS),
            Class::Ddpm => Sampler::Ddpm(Ddpm {
                spacing,
                tables,
                ..Ddpm::new(STEPS)
            }),
            Class::Ddim => Sampler::Ddim(Ddim {
                spacing,
                tables,
                is_noise_from_clipped: false,
                is_last_exact: self.set_alpha_to_one,
                ..Ddim::new(STEPS)
            }),
            Class::DpmSolver => Sampler::DpmSolver(self.dpm_solver(spacing, origin)?),
            Class::Euler => Sampler::Euler(Euler {
                sigmas: self.sigmas(spacing, origin)?,
                end: self.final_sigma(origin)?,
                tables,
                ..Euler::new(STEPS)
            }),
        })
    }

    fn spacing(&self, class: Class, origin: &str) -> Result<Spacing> {
        let name = self.timestep_spacing.as_deref().unwrap_or(match class {
            Class::Ddpm | Class::Ddim => "leading",
            _ => "linspace",
        });
        let offset = match class {
            Class::Ddpm => 0,
            _ => self.steps_offset,
        };
        if offset >= self.num_train_timesteps {
            let expected = "expected less than num_train_timesteps";
            return Err(Error::config(origin, "steps_offset", offset, expected));
        }
        named(
            origin,
            "timestep_spacing",
            name,
            [
                ("linspace", Spacing::Linspace),
                ("leading", Spacing::Leading { offset }),
                ("trailing", Spacing::Trailing),
            ],
        )
    }

    fn sigmas(&self, spacing: Spacing, origin: &str) -> Result<Sigmas> {
        let is_on = |switch: Option<bool>| switch.unwrap_or(false);
        for (key, switch) in [
            ("use_beta_sigmas", self.use_beta_sigmas),
            ("use_lu_lambdas", self.use_lu_lambdas),
        ] {
            if is_on(switch) {
                return Err(Error::config(origin, key, true, "expected false"));
            }
        }
        let is_log = named(
            origin,
            "interpolation_type",
            &self.interpolation_type,
            [("linear", false), ("log_linear", true)],
        )?;
        let karras = is_on(self.use_karras_sigmas);
        let exponential = is_on(self.use_exponential_sigmas);
        Ok(match (karras, exponential, is_log) {
            (true, true, _) => {
                let keys = "use_karras_sigmas, use_exponential_sigmas";
                return Err(Error::config(
                    origin,
                    keys,
                    "true, true",
                    "expected one of them",
                ));
            }
            (true, ..) => Sigmas::Karras,
            (_, true, _) => Sigmas::Exponential,
            (.., true) => Sigmas::LogLinear,
            _ => Sigmas::Timesteps(spacing),
        })
    }

    fn final_sigma(&self, origin: &str) -> Result<FinalSigma> {
        named(
            origin,
            "final_sigmas_type",
            &self.final_sigmas_type,
            [
                ("zero", FinalSigma::Zero),
                ("sigma_min", FinalSigma::Smallest),
            ],
        )
    }

    fn dpm_solver(&self, spacing: Spacing, origin: &str) -> Result<DpmSolver> {
        let solver = DpmSolver {
            order: self.solver_order,
            algorithm: named(
                origin,
                "algorithm_type",
                &self.algorithm_type,
                [
                    ("dpmsolver++", Algorithm::PlusPlus),
                    ("dpmsolver", Algorithm::Noise),
                    ("sde-dpmsolver++", Algorithm::SdePlusPlus),
                    ("sde-dpmsolver", Algorithm::SdeNoise),
                ],
            )?,
            correction: named(
                origin,
                "solver_type",
                &self.solver_type,
                [
                    ("midpoint", Correction::Midpoint),
                    ("heun", Correction::Heun),
                ],
            )?,
            sigmas: self.sigmas(spacing, origin)?,
            end: self.final_sigma(origin)?,
            is_last_lower: self.lower_order_final,
            is_last_euler: self.euler_at_final,
            min_lambda: self.lambda_min_clipped,
            ..DpmSolver::new(STEPS)
        };
        let sampler = Sampler::DpmSolver(solver);
        match sampler.check(self.num_train_timesteps.max(STEPS)) {
            Ok(()) => Ok(solver),
            Err(error) => Err(Error::config(
                origin,
                "solver_order, algorithm_type, final_sigmas_type",
                format!(
                    "{}, {}, {}",
                    self.solver_order, self.algorithm_type, self.final_sigmas_type
                ),
                error.to_string(),
            )),
        }
    }
}

/// The value that a key's name stands for.
fn named<T, const N: usize>(origin: &str, key: &str, name: &str, values: Names<T, N>) -> Result<T> {
    let expected = values.each_ref().map(|(known, _)| *known).join(", ");
    values
        .into_iter()
        .find(|(known, _)| *known == name)
        .map(|(_, value)| value)
        .ok_or_else(|| Error::config(origin, key, name, format!("expected {expected}")))
}
