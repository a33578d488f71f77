//! A shuffled order that can be entered anywhere.

/// The order in which samples are read: each epoch a permutation of its own, computed place by place
/// instead of kept, so that ten million samples cost nothing and a resumed run starts where it was.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    len: u64,
    seed: u64,
    /// Bits of half a number below the next power of four.
    half: u32,
}

impl Order {
    /// An order of `len` samples.
    ///
    /// # Panics
    /// If there are none.
    pub fn new(len: usize, seed: u64) -> Self {
        assert!(len > 0, "an order needs samples");
        let bits = u64::BITS - (len as u64 - 1).leading_zeros();
        Self {
            len: len as u64,
            seed,
            half: bits.div_ceil(2).max(1),
        }
    }

    /// The sample at a place of the endless order: epoch after epoch.
    pub fn at(&self, place: u64) -> usize {
        let (epoch, mut at) = (place / self.len, place % self.len);
        let key = mix(self.seed ^ mix(epoch));
        // A permutation of a power of four; places outside walk on until they are inside.
        loop {
            at = self.permute(at, key);
            if at < self.len {
                return at as usize;
            }
        }
    }

    /// Four rounds of a Feistel network.
    fn permute(&self, at: u64, key: u64) -> u64 {
        let mask = (1 << self.half) - 1;
        let (mut left, mut right) = (at >> self.half, at & mask);
        for round in 0..4 {
            let next = left ^ (mix(right ^ mix(key ^ round)) & mask);
            (left, right) = (right, next);
        }
        left << self.half | right
    }
}

/// The finaliser of SplitMix64.
pub(super) fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_epoch_is_another_permutation() {
        for len in [1, 2, 3, 17, 64, 1000] {
            let order = Order::new(len, 7);
            let epoch = |n: usize| -> Vec<usize> {
                (n * len..(n + 1) * len)
                    .map(|i| order.at(i as u64))
                    .collect()
            };
            for n in 0..3 {
                let mut seen = epoch(n);
                seen.sort_unstable();
                assert_eq!(seen, (0..len).collect::<Vec<_>>());
            }
            assert!(len < 17 || (epoch(0) != epoch(1) && epoch(0) != (0..len).collect::<Vec<_>>()));
        }
        let (a, b) = (Order::new(1000, 1), Order::new(1000, 2));
        assert!((0..10).any(|i| a.at(i) != b.at(i)));
    }
}
