//! Sizes and forms of the operations that have kernels.

use burn::tensor::ops::ConvOptions;

#[cfg(feature = "flex")]
use super::precision::is_bf16;

/// Sizes of a convolution; pairs are height and width.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConvShape {
    pub(super) batch: usize,
    pub(super) channels_in: usize,
    pub(super) channels_out: usize,
    pub(super) input: [usize; 2],
    pub(super) output: [usize; 2],
    pub(super) kernel: [usize; 2],
    pub(super) stride: [usize; 2],
    pub(super) padding: [usize; 2],
    /// Whether it multiplies bf16 on matrix units, as its gradients then do.
    #[cfg(feature = "flex")]
    pub(super) is_bf16: bool,
}

/// Fewer channels than this leave most of a matrix unit idle.
#[cfg(feature = "flex")]
const BF16_CHANNELS: usize = 8;

impl ConvShape {
    /// The sizes, if it is a convolution that the kernels do.
    pub(super) fn of(x: [usize; 4], weight: [usize; 4], options: &ConvOptions<2>) -> Option<Self> {
        let [batch, channels_in, height, width] = x;
        let [channels_out, weight_in, kernel_h, kernel_w] = weight;
        let (input, kernel) = ([height, width], [kernel_h, kernel_w]);
        let stride = options.stride;
        let padding = options.padding.map(|(before, _)| before);
        let is_plain = options.dilation == [1, 1]
            && options.groups == 1
            && options
                .padding
                .iter()
                .all(|(before, after)| before == after)
            && weight_in == channels_in
            && [batch, channels_in, channels_out].iter().all(|n| *n > 0)
            && (0..2).all(|i| {
                // With more padding the gradient's own convolution would have less than none.
                stride[i] > 0 && padding[i] < kernel[i] && kernel[i] <= input[i] + 2 * padding[i]
            });
        is_plain.then(|| Self {
            batch,
            channels_in,
            channels_out,
            input,
            output: [0, 1].map(|i| (input[i] + 2 * padding[i] - kernel[i]) / stride[i] + 1),
            kernel,
            stride,
            padding,
            #[cfg(feature = "flex")]
            is_bf16: is_bf16()
                && stride == [1, 1]
                && channels_in.min(channels_out) >= BF16_CHANNELS,
        })
    }

    pub(super) fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    pub(super) fn pixels_in(&self) -> usize {
        self.input[0] * self.input[1]
    }

    pub(super) fn pixels_out(&self) -> usize {
        self.output[0] * self.output[1]
    }

    pub(super) fn dims_in(&self) -> [usize; 4] {
        let [height, width] = self.input;
        [self.batch, self.channels_in, height, width]
    }

    pub(super) fn dims_out(&self) -> [usize; 4] {
        let [height, width] = self.output;
        [self.batch, self.channels_out, height, width]
    }

    pub(super) fn dims_weight(&self) -> [usize; 4] {
        let [height, width] = self.kernel;
        [self.channels_out, self.channels_in, height, width]
    }
}

/// Sizes of a linear layer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LinearShape {
    pub(super) rows: usize,
    pub(super) inputs: usize,
    pub(super) outputs: usize,
}

/// Sizes and options of a group norm.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NormShape {
    pub(super) batch: usize,
    pub(super) channels: usize,
    pub(super) pixels: usize,
    pub(super) groups: usize,
    pub(super) epsilon: f32,
    pub(super) silu: bool,
    /// Whether there are scale and shift.
    #[cfg(feature = "cube")]
    pub(super) is_timed: bool,
}

impl NormShape {
    /// Values of a group.
    pub(super) fn group(&self) -> usize {
        self.per_group() * self.pixels
    }

    /// Channels of a group.
    pub(super) fn per_group(&self) -> usize {
        self.channels / self.groups
    }
}

/// Sizes of an attention.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AttentionShape {
    pub(super) batch: usize,
    pub(super) heads: usize,
    /// Width of a head.
    pub(super) width: usize,
    pub(super) queries: usize,
    pub(super) keys: usize,
    /// Rows of each sample's mask: none, one for all queries, or one for each.
    pub(super) mask_rows: usize,
    /// Whether a query sees no keys after its own place.
    pub(super) is_causal: bool,
}

/// What a score of a key that is not seen becomes: far below any other, and still a number where all
/// are hidden.
pub(super) const HIDDEN: f32 = -1e30;

impl AttentionShape {
    /// Width of a row of the tensors.
    pub(super) fn row(&self) -> usize {
        self.heads * self.width
    }

    /// What scores are multiplied by.
    pub(super) fn scale(&self) -> f32 {
        1.0 / (self.width as f32).sqrt()
    }
}

/// A form of GELU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Gelu {
    /// x · Φ(x), by the error function.
    Exact,
    /// x · sigmoid(1.702 x).
    Quick,
}

/// A change of size by two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resample {
    /// Four pixels become one, their mean.
    Halve,
    /// A pixel becomes four of its value.
    Double,
}

impl Resample {
    /// Sizes of the result: height and width.
    pub(super) fn output(self, [height, width]: [usize; 2]) -> [usize; 2] {
        match self {
            Self::Halve => [height / 2, width / 2],
            Self::Double => [2 * height, 2 * width],
        }
    }
}
