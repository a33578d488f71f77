//! The only source of randomness: for a seed, the numbers PyTorch gives on its CPU.
//!
//! A [`Noise`] made from a seed gives what `torch.Generator().manual_seed(seed)` gives, draw after
//! draw: [`Noise::normal`] and [`Noise::normal_vec`] are `torch.randn`, [`Noise::uniform_vec`] is
//! `torch.rand`, all of them float32. Integers and uniforms are PyTorch's to the last bit. Normals
//! are within 1e-6 of PyTorch's on a processor with AVX2; PyTorch's own differ by up to 3e-6 from
//! processor to processor. These do not: a seed means the same numbers on every machine, whatever
//! device computes the picture.
//!
//! As in PyTorch, the numbers depend on how a draw is split: two draws of 100 are not one of 200.

mod generator;

use std::collections::VecDeque;

use burn::tensor::{DType, Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use self::generator::{Generator, GeneratorState};
use crate::error::{Error, Result};

/// A stream of random numbers, from a seed or recorded.
#[derive(Clone, Debug)]
pub struct Noise {
    seed: Option<u64>,
    generator: Generator,
    recording: Option<Recording>,
    shares_rows: bool,
}

/// Draws to play back instead of drawing.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Recording {
    /// How many have been played.
    played: usize,
    left: VecDeque<Vec<f32>>,
}

/// Where a [`Noise`] stands, to go on from there in another process: see [`Noise::state`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NoiseState {
    seed: Option<u64>,
    generator: GeneratorState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    recording: Option<Recording>,
    #[serde(default)]
    shares_rows: bool,
}

impl Noise {
    /// The stream of `torch.Generator().manual_seed(seed)`.
    ///
    /// As in PyTorch, only the low 32 bits of the seed count.
    pub fn from_seed(seed: u64) -> Self {
        Self {
            seed: Some(seed),
            generator: Generator::new(seed),
            recording: None,
            shares_rows: false,
        }
    }

    /// Plays back the given normals, one entry per draw, in order.
    ///
    /// A draw of another size than the next entry is an error and leaves the entry in place; so is
    /// a draw after the last entry. Draws of no values take no entry. Uniforms and integers are not
    /// recorded: they come from seed 0.
    pub fn recorded(draws: impl IntoIterator<Item = Vec<f32>>) -> Self {
        Self {
            seed: None,
            generator: Generator::new(0),
            recording: Some(Recording {
                played: 0,
                left: draws.into_iter().collect(),
            }),
            shares_rows: false,
        }
    }

    /// The seed this was made from; `None` if it is [`recorded`](Self::recorded).
    pub fn seed(&self) -> Option<u64> {
        self.seed
    }

    /// Standard normals of `shape` as a float32 tensor on `device`: `torch.randn(shape)`.
    ///
    /// # Errors
    /// Of recorded noise [`Error::Setting`] if there is none left, [`Error::Shape`] if the next is of another size.
    pub fn normal<const D: usize>(
        &mut self,
        shape: [usize; D],
        device: &Device,
    ) -> Result<Tensor<D>> {
        let values = match shape[..] {
            [rows, ref row @ ..] if self.shares_rows && rows > 1 => self.draw(row)?.repeat(rows),
            _ => self.draw(&shape)?,
        };
        let data = TensorData::new(values, shape);
        Ok(Tensor::from_data(data, (device, DType::F32)))
    }

    /// `n` standard normals: `torch.randn(n)`.
    ///
    /// # Errors
    /// Of recorded noise [`Error::Setting`] if there is none left, [`Error::Shape`] if the next is of another size.
    pub fn normal_vec(&mut self, n: usize) -> Result<Vec<f32>> {
        self.draw(&[n])
    }

    /// `n` multiples of 2⁻²⁴, uniform in [0, 1): `torch.rand(n)`.
    pub fn uniform_vec(&mut self, n: usize) -> Vec<f32> {
        self.generator.uniforms(n)
    }

    /// The next 32 random bits.
    pub fn next_u32(&mut self) -> u32 {
        self.generator.next_u32()
    }

    /// Everything there is to know to go on from here, for instance to store with a job's results.
    pub fn state(&self) -> NoiseState {
        NoiseState {
            seed: self.seed,
            generator: self.generator.state(),
            recording: self.recording.clone(),
            shares_rows: self.shares_rows,
        }
    }

    /// Goes on where [`state`](Self::state) was taken.
    ///
    /// # Errors
    /// [`Error::Setting`] for a state that no stream can be in, as it may come from a file.
    pub fn from_state(state: NoiseState) -> Result<Self> {
        let generator = Generator::from_state(&state.generator)
            .map_err(|(found, expected)| Error::setting("noise state", found, expected))?;
        Ok(Self {
            seed: state.seed,
            generator,
            recording: state.recording,
            shares_rows: state.shares_rows,
        })
    }

    /// From now on [`normal`](Self::normal) draws one row and gives it to all: the pictures of a
    /// batch differ only by what they are made of.
    pub fn share_rows(&mut self, on: bool) {
        self.shares_rows = on;
    }

    fn draw(&mut self, shape: &[usize]) -> Result<Vec<f32>> {
        let n = shape.iter().product();
        match &mut self.recording {
            _ if n == 0 => Ok(Vec::new()),
            Some(recording) => recording.next(n, shape),
            None => Ok(self.generator.normals(n)),
        }
    }
}

impl Recording {
    fn next(&mut self, n: usize, shape: &[usize]) -> Result<Vec<f32>> {
        let number = self.played + 1;
        let draw = self.left.pop_front().ok_or_else(|| {
            Error::setting(
                "recorded noise",
                format!("{} draws", self.played),
                format!("draw {number}, of shape {shape:?}, needs one more"),
            )
        })?;
        if draw.len() != n {
            let name = format!("draw {number} of the recorded noise");
            let error = Error::shape(&name, &[draw.len()], format!("{n} values, for {shape:?}"));
            self.left.push_front(draw);
            return Err(error);
        }
        self.played = number;
        Ok(draw)
    }
}
