//! Memory that kernels work in.

#![allow(unsafe_code)]

use std::{cell::RefCell, marker::PhantomData};

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
        if memory.len() < len {
            memory = vec![0.0; len];
        }
        Self { memory, len }
    }

    pub(super) fn values(&mut self) -> &mut [f32] {
        &mut self.memory[..self.len]
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        MEMORY.set(std::mem::take(&mut self.memory));
    }
}

/// A slice that several threads write to, each its own part.
pub(super) struct Shared<'a> {
    start: *mut f32,
    len: usize,
    whole: PhantomData<&'a mut [f32]>,
}

// SAFETY: it only gives out parts, and whoever takes one answers for nobody else having it.
unsafe impl Send for Shared<'_> {}
// SAFETY: as above.
unsafe impl Sync for Shared<'_> {}

impl<'a> Shared<'a> {
    pub(super) fn new(whole: &'a mut [f32]) -> Self {
        Self {
            start: whole.as_mut_ptr(),
            len: whole.len(),
            whole: PhantomData,
        }
    }

    /// `len` values from `start`.
    ///
    /// # Safety
    /// No two parts that are held at the same time may overlap.
    ///
    /// # Panics
    /// If it is not within the slice.
    #[allow(clippy::mut_from_ref)]
    pub(super) unsafe fn part(&self, start: usize, len: usize) -> &mut [f32] {
        assert!(
            start <= self.len && len <= self.len - start,
            "a part of the slice"
        );
        // SAFETY: within the slice, which is borrowed for 'a; not shared, by the caller.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), len) }
    }
}
