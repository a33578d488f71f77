//! What a step of training does beside the gradients, where there are kernels for it.

use burn::tensor::{Device, Tensor};

#[cfg(feature = "cube")]
use super::{Room, are_on, cube, room};

/// Whether there is a kernel for AdamW on this row of values.
pub(crate) fn has_adam(value: &Tensor<1>, gradient: &Tensor<1>) -> bool {
    #[cfg(feature = "cube")]
    return room(value, &[gradient.dtype()]) == Some(Room::Cube);
    #[cfg(not(feature = "cube"))]
    {
        let _ = (value, gradient);
        false
    }
}

/// A step of AdamW on a row of values where [there is a kernel](has_adam): new values, both moments,
/// average. `numbers` is what [`AdamNumbers::on`] gives.
#[cfg_attr(not(feature = "cube"), allow(unused_variables))]
pub(crate) fn adam(
    value: Tensor<1>,
    gradient: Tensor<1>,
    moments: [Tensor<1>; 2],
    average: Tensor<1>,
    numbers: Tensor<1>,
    form: AdamForm,
) -> [Tensor<1>; 4] {
    #[cfg(feature = "cube")]
    return cube::adam(value, gradient, moments, average, numbers, form);
    #[cfg(not(feature = "cube"))]
    unreachable!("there is no kernel for AdamW")
}

/// Whether a device can record what it is given to do, and do it again. Burn's fusion, which puts
/// operations off, cannot be followed.
pub(crate) fn can_record(device: &Device) -> bool {
    #[cfg(all(feature = "cube", not(feature = "fusion")))]
    return cube::is_cube(device) && are_on();
    #[cfg(not(all(feature = "cube", not(feature = "fusion"))))]
    {
        let _ = device;
        false
    }
}

/// Puts other values into the memory of a tensor on a device that [can record](can_record).
#[cfg_attr(not(feature = "cube"), allow(unused_variables))]
pub(crate) fn write(into: &Tensor<1>, values: Vec<f32>) {
    #[cfg(feature = "cube")]
    cube::write(into, values);
    #[cfg(not(feature = "cube"))]
    unreachable!("no device can record")
}

/// Sums of squares, of which a tensor's are added to those of others, where there is a kernel for it;
/// their sum is the square of the length of all.
pub(crate) fn add_squares<const D: usize>(
    x: &Tensor<D>,
    sums: Option<Tensor<1>>,
) -> Option<Tensor<1>> {
    #[cfg(feature = "cube")]
    if room(x, &[]) == Some(Room::Cube) {
        return Some(cube::add_squares(x, sums));
    }
    let _ = (x, sums);
    None
}

/// The numbers of a step of AdamW.
#[cfg_attr(not(feature = "cube"), allow(dead_code))]
#[derive(Clone, Copy, Debug)]
pub(crate) struct AdamNumbers {
    /// What gradients are multiplied by.
    pub(crate) scale: f64,
    /// The learning rate.
    pub(crate) rate: f64,
    /// The share of the values that decays, before the learning rate.
    pub(crate) decay: f64,
    /// Decays of the moments.
    pub(crate) betas: [f64; 2],
    /// What the moments are divided by.
    pub(crate) corrections: [f64; 2],
    /// Added to the root of the second moment.
    pub(crate) epsilon: f64,
    /// Decay of the average.
    pub(crate) ema: f64,
}

impl AdamNumbers {
    /// As the kernel reads them.
    pub(crate) fn row(&self) -> [f32; 11] {
        let [beta1, beta2] = self.betas;
        let [correction1, correction2] = self.corrections;
        [
            self.scale,
            beta1,
            1.0 - beta1,
            beta2,
            1.0 - beta2,
            correction2,
            self.epsilon,
            self.rate / correction1,
            1.0 - self.rate * self.decay,
            self.ema,
            1.0 - self.ema,
        ]
        .map(|number| number as f32)
    }

    /// On a device, for the kernel.
    pub(crate) fn on(&self, device: &Device) -> Tensor<1> {
        Tensor::from_floats(self.row(), device)
    }
}

/// How a step of AdamW is done.
#[cfg_attr(not(feature = "cube"), allow(dead_code))]
#[derive(Clone, Copy, Debug)]
pub(crate) struct AdamForm {
    /// Whether values decay.
    pub(crate) decays: bool,
    /// Whether the average begins, with the new values.
    pub(crate) begins: bool,
    /// Whether all is written into the memory that it is in, whoever holds it.
    pub(crate) is_in_place: bool,
}
