//! The matrix units that some processors have: Intel's AMX, on Linux.
//!
//! One instruction multiplies 16 × 32 by 32 × 16 values of bf16 and adds to 16 × 16 sums in f32: sixteen
//! times what vectors of f32 do in the same time.

#![allow(unsafe_code)]

use super::bf16::Pair;

/// Rows and columns of the block of sums that [`Product::add_to`] computes: two tiles each way.
pub(super) const BLOCK: usize = 32;
/// Products that one step adds to each sum.
pub(super) const DEPTH: usize = 32;

/// Where the factors of each step of a product begin.
pub(super) struct Steps {
    /// Values into the left factor, pairs into the right one.
    at: Vec<[usize; 2]>,
    last: [usize; 2],
}

impl Steps {
    pub(super) fn new(at: Vec<[usize; 2]>) -> Self {
        let last = [0, 1].map(|i| at.iter().map(|step| step[i]).max().unwrap_or(0));
        Self { at, last }
    }
}

/// A sum over steps of products of 32 × 32 values each.
pub(super) struct Product<'a> {
    /// bf16; each step reads 32 rows of 32 values, `left_pitch` apart.
    pub(super) left: &'a [u16],
    pub(super) left_pitch: usize,
    /// Pairs of values that follow each other in the sum; each step reads 16 rows of 32 pairs.
    pub(super) right: &'a [Pair],
    pub(super) right_pitch: usize,
    pub(super) steps: &'a Steps,
}

impl Product<'_> {
    /// Adds to 32 rows of 32 sums, `pitch` apart, or begins them.
    ///
    /// # Panics
    /// If anything of that is outside of its slice.
    pub(super) fn add_to(&self, _: &Tiles, sums: &mut [f32], pitch: usize, begin: bool) {
        let [left, right] = self.steps.last;
        assert!(!self.steps.at.is_empty());
        assert!(self.left.len() >= left + (BLOCK - 1) * self.left_pitch + DEPTH);
        assert!(self.right.len() >= right + (DEPTH / 2 - 1) * self.right_pitch + BLOCK);
        assert!(sums.len() >= (BLOCK - 1) * pitch + BLOCK);
        // SAFETY: the tiles are configured, by the guard, and all that is read or written was
        // asserted to be there.
        unsafe { machine::multiply(self, sums.as_mut_ptr(), pitch, begin) }
    }
}

/// This thread's tiles, in the one shape that is used here.
pub(super) struct Tiles(());

impl Tiles {
    /// Whether processor and system have them.
    pub(super) fn exist() -> bool {
        use std::sync::OnceLock;
        static EXIST: OnceLock<bool> = OnceLock::new();
        *EXIST.get_or_init(machine::request)
    }

    /// # Panics
    /// Where there are none.
    pub(super) fn take() -> Self {
        assert!(Self::exist(), "matrix units");
        // SAFETY: they exist and this process may use them.
        unsafe { machine::configure() };
        Self(())
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: there is one only where they exist.
        unsafe { machine::release() };
    }
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod machine {
    use std::arch::{
        asm,
        x86_64::{__cpuid, __cpuid_count},
    };

    use super::{Pair, Product};

    /// Asks the system to keep the tiles' content for this process.
    pub(super) fn request() -> bool {
        const ARCH_PRCTL: i64 = 158;
        const REQUEST: i64 = 0x1023;
        const TILE_DATA: i64 = 18;
        const TILES_AND_BF16: u32 = 1 << 24 | 1 << 22;
        if __cpuid(0).eax < 7 || __cpuid_count(7, 0).edx & TILES_AND_BF16 != TILES_AND_BF16 {
            return false;
        }
        let mut result = ARCH_PRCTL;
        // SAFETY: this system call takes two numbers and touches no memory of ours.
        unsafe {
            asm!(
                "syscall",
                inout("rax") result,
                in("rdi") REQUEST,
                in("rsi") TILE_DATA,
                out("rcx") _,
                out("r11") _,
                options(nostack),
            );
        }
        result == 0
    }

    /// Eight tiles of 16 rows of 64 bytes.
    ///
    /// # Safety
    /// There must be tiles, and they must have been requested.
    pub(super) unsafe fn configure() {
        #[repr(align(64))]
        struct Shape([u8; 64]);
        let mut shape = Shape([0; 64]);
        shape.0[0] = 1;
        for tile in 0..8 {
            shape.0[16 + 2 * tile] = 64;
            shape.0[48 + tile] = 16;
        }
        // SAFETY: by the caller; the shape is 64 bytes of palette 1.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &shape, options(nostack, readonly)) };
    }

    /// # Safety
    /// There must be tiles.
    pub(super) unsafe fn release() {
        // SAFETY: by the caller.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }

    /// # Safety
    /// The tiles must be configured, there must be steps, and what they read, and the sums, must be
    /// within memory.
    pub(super) unsafe fn multiply(
        product: &Product<'_>,
        sums: *mut f32,
        pitch: usize,
        begin: bool,
    ) {
        let row = 4 * pitch;
        // SAFETY: by the caller.
        unsafe {
            let below = sums.add(16 * pitch);
            asm!(
                "test {begin}, {begin}",
                "jnz 2f",
                "tileloadd tmm0, [{sums} + {row}]",
                "tileloadd tmm1, [{sums} + {row} + 64]",
                "tileloadd tmm2, [{below} + {row}]",
                "tileloadd tmm3, [{below} + {row} + 64]",
                "jmp 3f",
                "2:",
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "3:",
                begin = in(reg) usize::from(begin),
                sums = in(reg) sums,
                below = in(reg) below,
                row = in(reg) row,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                options(nostack, readonly),
            );
            asm!(
                "2:",
                "mov {p}, [{steps}]",
                "mov {q}, [{steps} + 8]",
                "lea {p}, [{left} + 2 * {p}]",
                "lea {q}, [{right} + 4 * {q}]",
                "tileloadd tmm6, [{q} + {right_row}]",
                "tileloadd tmm4, [{p} + {left_row}]",
                "tileloadd tmm7, [{q} + {right_row} + 64]",
                "add {p}, {half}",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm5, [{p} + {left_row}]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "add {steps}, 16",
                "dec {count}",
                "jnz 2b",
                p = out(reg) _,
                q = out(reg) _,
                steps = inout(reg) product.steps.at.as_ptr() => _,
                count = inout(reg) product.steps.at.len() => _,
                left = in(reg) product.left.as_ptr(),
                left_row = in(reg) 2 * product.left_pitch,
                half = in(reg) 2 * 16 * product.left_pitch,
                right = in(reg) product.right.as_ptr(),
                right_row = in(reg) size_of::<Pair>() * product.right_pitch,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack, readonly),
            );
            asm!(
                "tilestored [{sums} + {row}], tmm0",
                "tilestored [{sums} + {row} + 64], tmm1",
                "tilestored [{below} + {row}], tmm2",
                "tilestored [{below} + {row} + 64], tmm3",
                sums = in(reg) sums,
                below = in(reg) below,
                row = in(reg) row,
                options(nostack),
            );
        }
    }
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
mod machine {
    use super::Product;

    pub(super) fn request() -> bool {
        false
    }

    pub(super) unsafe fn configure() {}

    pub(super) unsafe fn release() {}

    pub(super) unsafe fn multiply(_: &Product<'_>, _: *mut f32, _: usize, _: bool) {
        unreachable!("tiles exist nowhere else")
    }
}
