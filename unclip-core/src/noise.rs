//! The only source of randomness.
//!
//! [`Noise::from_seed`] gives what `torch.Generator().manual_seed(seed)` gives on a CPU with
//! `torch.randn(…, dtype=float32)`: so a seed here is the same picture as in diffusers, and the
//! same bits on every device of ours. Integers and uniforms are exact; normals agree within 1e-6,
//! since PyTorch's vector log, sin and cos are approximations. Ours are computed by a pure-Rust
//! library, so that no platform's own maths can make a difference.

use std::{collections::VecDeque, f64::consts::TAU};

use burn::tensor::{DType, Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Length of the Mersenne Twister's state.
const STATE: usize = 624;
/// PyTorch fills draws of this many values and more in blocks of as many.
const BLOCK: usize = 16;

/// Normal and uniform numbers from a seed, or draws that were recorded.
///
/// Serialising it keeps its place in the sequence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Noise {
    source: Source,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Source {
    Seeded(Box<Seeded>),
    Recorded { draws: VecDeque<Vec<f32>>, taken: usize },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Seeded {
    seed: u64,
    /// The Mersenne Twister's words (Matsumoto and Nishimura 1998), `STATE` of them.
    words: Vec<u32>,
    /// Words of the current state already given out.
    used: usize,
    /// The second normal of a pair that a draw of fewer than 16 values left over.
    spare: Option<f64>,
}

impl Noise {
    /// The sequence of a seed. As in PyTorch, only its low 32 bits count.
    pub fn from_seed(seed: u64) -> Self {
        let mut words = Vec::with_capacity(STATE);
        let mut word = seed as u32;
        words.push(word);
        for i in 1..STATE as u32 {
            word = (word ^ (word >> 30))
                .wrapping_mul(1_812_433_253)
                .wrapping_add(i);
            words.push(word);
        }
        let seeded = Seeded {
            seed,
            words,
            used: STATE,
            spare: None,
        };
        Self {
            source: Source::Seeded(Box::new(seeded)),
        }
    }

    /// Plays back draws in order, each of exactly the length that is asked for.
    pub fn recorded(draws: Vec<Vec<f32>>) -> Self {
        Self {
            source: Source::Recorded {
                draws: draws.into(),
                taken: 0,
            },
        }
    }

    /// The seed; none for recorded draws.
    pub fn seed(&self) -> Option<u64> {
        match &self.source {
            Source::Seeded(seeded) => Some(seeded.seed),
            Source::Recorded { .. } => None,
        }
    }

    /// Standard normal f32 values of a shape, on `device`.
    ///
    /// # Errors
    /// [`Error::Setting`] or [`Error::Shape`] if recorded draws are over or of another length.
    pub fn normal<const D: usize>(
        &mut self,
        shape: [usize; D],
        device: &Device,
    ) -> Result<Tensor<D>> {
        let values = self.normal_vec(shape.iter().product())?;
        Ok(Tensor::from_data(
            TensorData::new(values, shape),
            (device, DType::F32),
        ))
    }

    /// `count` standard normal values: one draw, which differs from several shorter ones as in
    /// PyTorch.
    ///
    /// # Errors
    /// [`Error::Setting`] or [`Error::Shape`] if recorded draws are over or of another length.
    pub fn normal_vec(&mut self, count: usize) -> Result<Vec<f32>> {
        match &mut self.source {
            Source::Seeded(seeded) => Ok(seeded.normals(count)),
            Source::Recorded { draws, taken } => {
                let Some(draw) = draws.pop_front() else {
                    let expected = "no more were recorded; record one for each stage and step";
                    return Err(Error::setting("noise draws", *taken + 1, expected));
                };
                *taken += 1;
                if draw.len() == count {
                    return Ok(draw);
                }
                let name = format!("recorded noise draw {taken}");
                Err(Error::shape(&name, &[draw.len()], format!("[{count}]")))
            }
        }
    }

    /// `count` values from [0, 1) with 24 bits; zeros for recorded draws.
    pub fn uniform_vec(&mut self, count: usize) -> Vec<f32> {
        match &mut self.source {
            Source::Seeded(seeded) => (0..count).map(|_| seeded.uniform()).collect(),
            Source::Recorded { .. } => vec![0.0; count],
        }
    }
}

impl Seeded {
    /// The next 32 bits.
    fn next(&mut self) -> u32 {
        if self.used == STATE {
            self.twist();
        }
        let mut word = self.words[self.used];
        self.used += 1;
        word ^= word >> 11;
        word ^= (word << 7) & 0x9d2c_5680;
        word ^= (word << 15) & 0xefc6_0000;
        word ^ (word >> 18)
    }

    fn twist(&mut self) {
        for i in 0..STATE {
            let joined = (self.words[i] & 0x8000_0000) | (self.words[(i + 1) % STATE] & 0x7fff_ffff);
            let odd = if joined & 1 == 1 { 0x9908_b0df } else { 0 };
            self.words[i] = self.words[(i + 397) % STATE] ^ (joined >> 1) ^ odd;
        }
        self.used = 0;
    }

    fn uniform(&mut self) -> f32 {
        (self.next() & 0x00ff_ffff) as f32 / 16_777_216.0
    }

    /// From [0, 1) with 53 bits; the first word is the high one.
    fn uniform_f64(&mut self) -> f64 {
        let bits = (u64::from(self.next()) << 32) | u64::from(self.next());
        (bits & ((1 << 53) - 1)) as f64 / (1u64 << 53) as f64
    }

    fn normals(&mut self, count: usize) -> Vec<f32> {
        if count < BLOCK {
            return (0..count).map(|_| self.normal() as f32).collect();
        }
        let mut values: Vec<f32> = (0..count).map(|_| self.uniform()).collect();
        values.chunks_exact_mut(BLOCK).for_each(box_muller);
        if !count.is_multiple_of(BLOCK) {
            // The tail is a block of its own, with new uniforms, over part of the last one.
            let tail = &mut values[count - BLOCK..];
            for value in tail.iter_mut() {
                *value = self.uniform();
            }
            box_muller(tail);
        }
        values
    }

    /// One normal number; they come in pairs.
    fn normal(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        let (turn, height) = (self.uniform_f64(), self.uniform_f64());
        let radius = libm::sqrt(-2.0 * libm::log1p(-height));
        let angle = TAU * turn;
        self.spare = Some(radius * libm::sin(angle));
        radius * libm::cos(angle)
    }
}

/// 16 uniforms to 16 normals: the first half gives the radii, the second the angles. Rounded to
/// f32 where PyTorch rounds.
fn box_muller(block: &mut [f32]) {
    let (radii, angles) = block.split_at_mut(BLOCK / 2);
    for (a, b) in radii.iter_mut().zip(angles) {
        let log = libm::log(f64::from(1.0 - *a)) as f32;
        let radius = (-2.0 * log).sqrt();
        let (sin, cos) = libm::sincos(f64::from(TAU as f32 * *b));
        *a = radius * cos as f32;
        *b = radius * sin as f32;
    }
}
