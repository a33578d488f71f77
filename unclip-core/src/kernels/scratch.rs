//! Memory that kernels work in.

#![allow(unsafe_code)]

use std::{cell::RefCell, marker::PhantomData, mem::MaybeUninit};

/// Bytes of a cache line.
const LINE: usize = 64;

thread_local! {
    static MEMORY: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// This thread's scratch memory, of any content: taking it anew each time costs as much as a small
/// convolution. A second one taken while the first is held is new memory.
///
/// It is a value and not a closure's argument, so that kernels stay one function: a closure would
/// not be compiled for the vectors that the kernel around it is.
pub(super) struct Scratch {
    memory: Vec<f32>,
    len: usize,
}

impl Scratch {
    pub(super) fn take(len: usize) -> Self {
        let mut memory = MEMORY.take();
        if memory.len() < len + LINE / size_of::<f32>() {
            memory = vec![0.0; len + LINE / size_of::<f32>()];
        }
        Self { memory, len }
    }

    /// They start with a cache line.
    pub(super) fn values(&mut self) -> &mut [f32] {
        let start = self.memory.as_ptr().align_offset(LINE);
        &mut self.memory[start..start + self.len]
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        MEMORY.set(std::mem::take(&mut self.memory));
    }
}

/// A vector that several threads write to, each its own part. It is not filled with zeros first, on one
/// thread: that would cost as much as a small convolution.
///
/// # Safety
/// `write` must write every value.
pub(super) unsafe fn written(len: usize, write: impl FnOnce(&Shared<'_>)) -> Vec<f32> {
    let mut values = Vec::with_capacity(len);
    write(&Shared::new(&mut values.spare_capacity_mut()[..len]));
    // SAFETY: there is memory for as many, and all were written.
    unsafe { values.set_len(len) };
    values
}

/// Memory that several threads write to, each its own part.
pub(super) struct Shared<'a> {
    start: *mut MaybeUninit<f32>,
    len: usize,
    whole: PhantomData<&'a mut [MaybeUninit<f32>]>,
}

// SAFETY: it only gives out parts, and whoever takes one answers for nobody else having it.
unsafe impl Send for Shared<'_> {}
// SAFETY: as above.
unsafe impl Sync for Shared<'_> {}

impl<'a> Shared<'a> {
    fn new(whole: &'a mut [MaybeUninit<f32>]) -> Self {
        Self {
            start: whole.as_mut_ptr(),
            len: whole.len(),
            whole: PhantomData,
        }
    }

    /// `len` values from `start`, to be written.
    ///
    /// # Safety
    /// No two parts that are held at the same time may overlap.
    ///
    /// # Panics
    /// If it is not within the memory.
    #[allow(clippy::mut_from_ref)]
    pub(super) unsafe fn part(&self, start: usize, len: usize) -> &mut [MaybeUninit<f32>] {
        assert!(
            start <= self.len && len <= self.len - start,
            "a part of the memory"
        );
        // SAFETY: within the memory, which is borrowed for 'a; not shared, by the caller.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), len) }
    }

    /// Where `len` values from `start` are, for what writes only some of them.
    ///
    /// # Safety
    /// Those that are written must be in no other part that is held at the same time.
    ///
    /// # Panics
    /// If it is not within the memory.
    pub(super) unsafe fn values(&self, start: usize, len: usize) -> *mut f32 {
        assert!(
            start <= self.len && len <= self.len - start,
            "a part of the memory"
        );
        // SAFETY: within the memory.
        unsafe { self.start.add(start).cast() }
    }

    /// A [`part`](Self::part) with zeros.
    ///
    /// # Safety
    /// As [`part`](Self::part).
    ///
    /// # Panics
    /// As [`part`](Self::part).
    #[allow(clippy::mut_from_ref)]
    pub(super) unsafe fn zeros(&self, start: usize, len: usize) -> &mut [f32] {
        // SAFETY: by the caller.
        let part = unsafe { self.part(start, len) };
        part.fill(MaybeUninit::new(0.0));
        // SAFETY: all were written just now.
        unsafe { std::slice::from_raw_parts_mut(part.as_mut_ptr().cast(), len) }
    }
}

/// Copies `from` to a part.
pub(super) fn copy(from: &[f32], to: &mut [MaybeUninit<f32>]) {
    for (to, from) in to.iter_mut().zip(from) {
        to.write(*from);
    }
}
