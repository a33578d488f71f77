//! Diffusion, away from any network: schedules, processes, guidance, samplers.
//!
//! Tables and coefficients are computed on the host in f64; networks see only tensors.

pub mod guidance;
mod prediction;
mod process;
pub mod sampler;
mod schedule;
mod scheduler_config;

pub use prediction::Clip;
pub use process::{Posterior, Process, Target, Variance};
pub use sampler::{Denoiser, Prediction, Sampler, Tables, Timestep, sample};
pub use schedule::BetaSchedule;
pub use scheduler_config::{Scheduler, SchedulerConfig};
