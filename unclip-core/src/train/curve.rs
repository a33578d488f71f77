//! The loss of a run as a picture.

use image::{Rgb, RgbImage};

use super::LogRow;

const WIDTH: u32 = 640;
const HEIGHT: u32 = 320;

/// Loss against steps on a logarithmic axis: every step in grey, a running mean in blue, a line at
/// each power of ten.
pub fn loss_curve(rows: &[LogRow]) -> RgbImage {
    let mut sheet = RgbImage::from_pixel(WIDTH, HEIGHT, Rgb([255; 3]));
    let losses: Vec<f64> = rows.iter().map(|row| row.loss.max(1e-12).log10()).collect();
    let (Some(low), Some(high)) = (
        losses.iter().copied().reduce(f64::min),
        losses.iter().copied().reduce(f64::max),
    ) else {
        return sheet;
    };
    let (low, high) = (low - 0.05, high + 0.05);
    let last = (losses.len() - 1).max(1) as f64;
    let x = |i: usize| (i as f64 / last * f64::from(WIDTH - 1)) as u32;
    let y = |loss: f64| ((high - loss) / (high - low) * f64::from(HEIGHT - 1)) as u32;
    for power in low.ceil() as i64..=high.floor() as i64 {
        for x in 0..WIDTH {
            sheet.put_pixel(x, y(power as f64), Rgb([220; 3]));
        }
    }
    for (i, loss) in losses.iter().enumerate() {
        sheet.put_pixel(x(i), y(*loss), Rgb([190; 3]));
    }
    let share = 1.0 / (losses.len() as f64 / 50.0).clamp(1.0, 500.0);
    let mut mean = losses[0];
    let mut before = y(mean);
    for (i, loss) in losses.iter().enumerate() {
        mean += (loss - mean) * share;
        let now = y(mean);
        for y in before.min(now)..=before.max(now) {
            sheet.put_pixel(x(i), y, Rgb([40, 80, 190]));
        }
        before = now;
    }
    sheet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_record_can_be_drawn() {
        let row = |step: usize| LogRow {
            step,
            loss: 2.0 / step as f64,
            gradient_norm: 1.0,
            learning_rate: 1.0,
            samples_per_second: 1.0,
        };
        for count in [0, 1, 2, 3000] {
            let rows: Vec<_> = (1..=count).map(row).collect();
            let sheet = loss_curve(&rows);
            let blue = sheet.pixels().filter(|p| p.0 == [40, 80, 190]).count();
            assert_eq!(blue > 0, count > 0);
        }
    }
}
