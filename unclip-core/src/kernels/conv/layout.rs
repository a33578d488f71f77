//! Pictures copied between zeros.

/// How a band of a picture's rows is laid out for the vectors: rows of a common pitch with zeros
/// where the padding is, so that output pixel (y, x) sees tap k at y · pitch + x + taps\[k\].
///
/// With a stride of s there are s · s such planes, one for each remainder of row and column.
pub(super) struct Layout {
    input: [usize; 2],
    /// Zeros before the first row and column.
    lead: [usize; 2],
    stride: [usize; 2],
    /// Distance of the picture's pixels, with zeros in between; 1 but for gradients of strides.
    spread: [usize; 2],
    phases: [usize; 2],
    /// Rows that a band has beyond its output rows.
    extra: usize,
    kernel: [usize; 2],
    pub(super) pitch: usize,
}

impl Layout {
    pub(super) fn new(
        input: [usize; 2],
        width_out: usize,
        kernel: [usize; 2],
        stride: [usize; 2],
        lead: [usize; 2],
        spread: [usize; 2],
    ) -> Self {
        let reach = |i: usize| (kernel[i] - 1) / stride[i];
        Self {
            input,
            lead,
            stride,
            spread,
            phases: [0, 1].map(|i| stride[i].min(kernel[i])),
            extra: reach(0),
            kernel,
            pitch: width_out + reach(1),
        }
    }

    /// Values of one channel in a band with `rows` output rows.
    pub(super) fn plane(&self, rows: usize) -> usize {
        self.phases[0] * self.phases[1] * (rows + self.extra) * self.pitch
    }

    /// Where each tap lies in the plane of such a band.
    pub(super) fn taps(&self, rows: usize) -> Vec<usize> {
        let phase = (rows + self.extra) * self.pitch;
        let [stride_y, stride_x] = self.stride;
        let tap = |y: usize, x: usize| {
            let plane = (y % stride_y) * self.phases[1] + x % stride_x;
            plane * phase + (y / stride_y) * self.pitch + x / stride_x
        };
        let [height, width] = self.kernel;
        (0..height * width)
            .map(|k| tap(k / width, k % width))
            .collect()
    }

    /// Copies what `rows` output rows from row `first` see of a channel.
    pub(super) fn fill(&self, picture: &[f32], first: usize, rows: usize, plane: &mut [f32]) {
        let mut lines = plane.chunks_exact_mut(self.pitch);
        for phase_y in 0..self.phases[0] {
            for phase_x in 0..self.phases[1] {
                for row in first..first + rows + self.extra {
                    let Some(line) = lines.next() else { return };
                    let y = row * self.stride[0] + phase_y;
                    match source(y, self.lead[0], self.spread[0], self.input[0]) {
                        Some(y) => {
                            let width = self.input[1];
                            self.fill_line(&picture[y * width..][..width], phase_x, line);
                        }
                        None => line.fill(0.0),
                    }
                }
            }
        }
    }

    fn fill_line(&self, from: &[f32], phase: usize, line: &mut [f32]) {
        let lead = self.lead[1].min(line.len());
        if self.stride[1] == 1 && self.spread[1] == 1 {
            let count = from.len().min(line.len() - lead);
            line[..lead].fill(0.0);
            line[lead..lead + count].copy_from_slice(&from[..count]);
            line[lead + count..].fill(0.0);
        } else {
            for (at, value) in line.iter_mut().enumerate() {
                let x = at * self.stride[1] + phase;
                let found = source(x, self.lead[1], self.spread[1], from.len());
                *value = found.map_or(0.0, |x| from[x]);
            }
        }
    }
}

/// The row or column of the picture that stands at `at` of the padded one.
fn source(at: usize, lead: usize, spread: usize, len: usize) -> Option<usize> {
    let within = at.checked_sub(lead)?;
    (within.is_multiple_of(spread) && within / spread < len).then(|| within / spread)
}
