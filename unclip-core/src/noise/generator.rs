//! PyTorch's CPU generator: a Mersenne Twister and two ways to make normals of its output.
//!
//! Logarithms, sines and cosines are computed by `libm` in Rust, never by the platform's C library,
//! whose last bits differ from system to system. Square roots and the four basic operations are
//! exact by IEEE 754 everywhere.

use std::{
    f32::consts::TAU,
    fmt::{self, Debug, Formatter},
};

use serde::{Deserialize, Serialize};

/// Draws of fewer normals than this are made one by one, others in blocks of this size.
const BLOCK: usize = 16;

/// The generator, and the normal that drawing one by one leaves over every other time.
#[derive(Clone, Debug)]
pub(super) struct Generator {
    twister: Twister,
    spare: Option<f64>,
}

/// A [`Generator`] as it is stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct GeneratorState {
    words: Vec<u32>,
    used: usize,
    /// As bits, because readers of JSON round decimal fractions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    spare_bits: Option<u64>,
}

impl Generator {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            // PyTorch takes 64 bits, its Mersenne Twister the low 32 of them.
            twister: Twister::new(seed as u32),
            spare: None,
        }
    }

    pub(super) fn next_u32(&mut self) -> u32 {
        self.twister.next()
    }

    /// `n` uniforms of [0, 1), each of 24 bits: all that a float32 below 1 holds at even spacing.
    pub(super) fn uniforms(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.uniform_f32()).collect()
    }

    /// `n` standard normals. How they are made depends on `n`, as it does in PyTorch.
    pub(super) fn normals(&mut self, n: usize) -> Vec<f32> {
        if n < BLOCK {
            return (0..n).map(|_| self.normal_f64() as f32).collect();
        }
        let mut values = self.uniforms(n);
        let (blocks, rest) = values.as_chunks_mut();
        blocks.iter_mut().for_each(box_muller);
        if !rest.is_empty()
            && let Some(tail) = values.last_chunk_mut()
        {
            // The last block overlaps the one before: it starts from new uniforms and overwrites.
            *tail = std::array::from_fn(|_| self.uniform_f32());
            box_muller(tail);
        }
        values
    }

    pub(super) fn state(&self) -> GeneratorState {
        GeneratorState {
            words: self.twister.words.to_vec(),
            used: self.twister.used,
            spare_bits: self.spare.map(f64::to_bits),
        }
    }

    /// The generator of a stored state, or what is wrong with it and what would be right.
    pub(super) fn from_state(state: &GeneratorState) -> Result<Self, (String, String)> {
        let words = state.words.as_slice().try_into().map_err(|_| {
            let found = format!("{} words", state.words.len());
            (found, format!("expected {WORDS}"))
        })?;
        if state.used > WORDS {
            let found = format!("at word {}", state.used);
            return Err((found, format!("expected at most {WORDS}")));
        }
        let spare = state.spare_bits.map(f64::from_bits);
        if let Some(spare) = spare.filter(|spare| !spare.is_finite()) {
            let found = format!("{spare} left over");
            return Err((found, "expected a finite number".to_owned()));
        }
        Ok(Self {
            twister: Twister {
                words,
                used: state.used,
            },
            spare,
        })
    }

    fn uniform_f32(&mut self) -> f32 {
        const BITS: u32 = f32::MANTISSA_DIGITS;
        let bits = self.next_u32() & ((1 << BITS) - 1);
        bits as f32 * (1.0 / (1 << BITS) as f32)
    }

    fn uniform_f64(&mut self) -> f64 {
        const BITS: u32 = f64::MANTISSA_DIGITS;
        let high = u64::from(self.next_u32());
        let low = u64::from(self.next_u32());
        let bits = (high << 32 | low) & ((1 << BITS) - 1);
        bits as f64 * (1.0 / (1_u64 << BITS) as f64)
    }

    /// One normal, by Box and Muller's method in f64: every other call has one left over, which
    /// waits for the next call however many blocks or uniforms are drawn in between.
    fn normal_f64(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        let turn = self.uniform_f64();
        let radius = (-2.0 * libm::log1p(-self.uniform_f64())).sqrt();
        let (sin, cos) = libm::sincos(std::f64::consts::TAU * turn);
        self.spare = Some(radius * sin);
        radius * cos
    }
}

/// Makes a block of uniforms normal, the first half paired with the second.
///
/// Every step is rounded to f32 where PyTorch rounds it. Above all the angle: near a full turn its
/// rounding error times the radius shows in the sixth decimal.
fn box_muller(block: &mut [f32; BLOCK]) {
    let (first, second) = block.split_at_mut(BLOCK / 2);
    for (a, b) in first.iter_mut().zip(second) {
        // 1 - a is in (0, 1], so that the logarithm is finite.
        let log = libm::log(f64::from(1.0 - *a)) as f32;
        let radius = (-2.0 * log).sqrt();
        let (sin, cos) = libm::sincosf(TAU * *b);
        *a = radius * cos;
        *b = radius * sin;
    }
}

/// Words of the Mersenne Twister's state.
const WORDS: usize = 624;

/// MT19937 by Matsumoto and Nishimura (1998), with their initialisation of 2002.
#[derive(Clone)]
struct Twister {
    words: [u32; WORDS],
    /// Words already given out since they were last renewed.
    used: usize,
}

impl Twister {
    fn new(seed: u32) -> Self {
        let mut words = [seed; WORDS];
        for i in 1..WORDS {
            let last = words[i - 1];
            words[i] = (last ^ (last >> 30))
                .wrapping_mul(1_812_433_253)
                .wrapping_add(i as u32);
        }
        Self { words, used: WORDS }
    }

    fn next(&mut self) -> u32 {
        if self.used == WORDS {
            self.renew();
        }
        let mut word = self.words[self.used];
        self.used += 1;
        // The tempering of the paper.
        word ^= word >> 11;
        word ^= word << 7 & 0x9D2C_5680;
        word ^= word << 15 & 0xEFC6_0000;
        word ^ (word >> 18)
    }

    /// Replaces all words by the recurrence: each by one that comes 397 words later, and by one bit
    /// of itself joined to 31 bits of its neighbour.
    fn renew(&mut self) {
        const OFFSET: usize = 397;
        const LOW_BITS: u32 = 0x7FFF_FFFF;
        const MATRIX: u32 = 0x9908_B0DF;
        for i in 0..WORDS {
            let neighbour = self.words[(i + 1) % WORDS];
            let joined = (self.words[i] & !LOW_BITS) | (neighbour & LOW_BITS);
            let twisted = (joined >> 1) ^ (MATRIX * (joined & 1));
            self.words[i] = self.words[(i + OFFSET) % WORDS] ^ twisted;
        }
        self.used = 0;
    }
}

impl Debug for Twister {
    /// Without the words, which would drown whatever is printed around them.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Twister")
            .field("used", &self.used)
            .finish_non_exhaustive()
    }
}
