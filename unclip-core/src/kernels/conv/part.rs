//! How a convolution's work is divided among threads.

use std::ops::Range;

/// What a thread does at once: some rows of some pictures, for some blocks of output channels.
pub(super) struct Part {
    pub(super) pictures: Range<usize>,
    pub(super) rows: Range<usize>,
    pub(super) blocks: Range<usize>,
}

impl Part {
    /// Parts that are all pictures, rows and blocks: of pictures and of rows, how many there are and how
    /// many a part takes. Blocks are divided where there would be fewer parts than `wanted`.
    ///
    /// An output's value is the same however that is, since each is computed in one part and in the same
    /// order.
    pub(super) fn all(
        [batch, together]: [usize; 2],
        [height, rows]: [usize; 2],
        blocks: usize,
        wanted: usize,
    ) -> Vec<Self> {
        let tasks = batch.div_ceil(together) * height.div_ceil(rows);
        let share = blocks.div_ceil(wanted.div_ceil(tasks).min(blocks));
        let mut parts = Vec::new();
        for picture in (0..batch).step_by(together) {
            for row in (0..height).step_by(rows) {
                for first in (0..blocks).step_by(share) {
                    parts.push(Self {
                        pictures: picture..(picture + together).min(batch),
                        rows: row..(row + rows).min(height),
                        blocks: first..(first + share).min(blocks),
                    });
                }
            }
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::Part;

    #[test]
    fn parts_are_all_there_is_once() {
        for (pictures, rows, blocks, wanted) in [
            ([5, 2], [7, 3], 4, 4),
            ([1, 1], [8, 8], 5, 4),
            ([3, 3], [1, 1], 1, 64),
        ] {
            let mut seen = vec![0; pictures[0] * rows[0] * blocks];
            for part in Part::all(pictures, rows, blocks, wanted) {
                for picture in part.pictures {
                    for row in part.rows.clone() {
                        for block in part.blocks.clone() {
                            seen[(picture * rows[0] + row) * blocks + block] += 1;
                        }
                    }
                }
            }
            assert!(seen.iter().all(|count| *count == 1), "{seen:?}");
        }
        assert_eq!(Part::all([1, 1], [8, 8], 5, 4).len(), 3);
    }
}
