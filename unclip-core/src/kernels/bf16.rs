//! f32 rounded to bf16, the upper half of its bits.

/// Two values that follow each other in a sum, as matrix units take them: the first in the lower half.
pub(super) type Pair = u32;

/// To the nearest, ties to even; the value stands in the upper half.
#[inline(always)]
fn rounded(value: f32) -> u32 {
    let bits = value.to_bits();
    let up = bits.wrapping_add(0x7fff + ((bits >> 16) & 1));
    // What is not a number must not be rounded into one.
    if value.is_nan() { bits | 0x40_0000 } else { up }
}

#[inline(always)]
pub(super) fn single(value: f32) -> u16 {
    (rounded(value) >> 16) as u16
}

#[inline(always)]
pub(super) fn pair(first: f32, second: f32) -> Pair {
    rounded(first) >> 16 | rounded(second) & 0xffff_0000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_to_nearest_even() {
        let value = |bits: u16| f32::from_bits(u32::from(bits) << 16);
        assert_eq!(single(1.0), 0x3f80);
        assert_eq!(single(-2.5), 0xc020);
        // Half way between 1 and the next value above it, then between that and the one after.
        assert_eq!(single(f32::from_bits(0x3f80_8000)), 0x3f80);
        assert_eq!(single(f32::from_bits(0x3f81_8000)), 0x3f82);
        assert_eq!(single(f32::from_bits(0x3f80_8001)), 0x3f81);
        assert_eq!(single(f32::MAX), 0x7f80);
        assert_eq!(single(f32::NEG_INFINITY), 0xff80);
        for bits in [0x7fff_ffff, 0x7f80_0001, 0xffff_ffff] {
            assert!(value(single(f32::from_bits(bits))).is_nan());
        }
        assert_eq!(pair(1.0, -2.5), 0xc020_3f80);
    }
}
