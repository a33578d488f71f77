//! Bar charts with whiskers.

use font8x8::legacy::BASIC_LEGACY;
use unclip::image::{Rgb, RgbImage};

/// A bar: its label, its value, and the interval around it, all from 0 to 1.
pub struct Bar {
    pub label: String,
    pub value: f64,
    pub interval: (f64, f64),
}

const BAR: u32 = 18;
const LINE: u32 = 12;
const WIDE: u32 = 320;

/// Groups of bars under their titles, on white.
pub fn bar_chart(groups: &[(String, Vec<Bar>)]) -> RgbImage {
    let all = || groups.iter().flat_map(|(_, bars)| bars);
    let label = all().map(|b| b.label.chars().count()).max().unwrap_or(0) as u32 * 8;
    let title = groups.iter().map(|(t, _)| t.chars().count()).max();
    let left = label + 16;
    let width = (left + WIDE + 64).max(title.unwrap_or(0) as u32 * 8 + 16);
    let lines = |bars: &[Bar]| LINE + 4 + bars.len() as u32 * (BAR + 4) + 12;
    let height = groups.iter().map(|(_, bars)| lines(bars)).sum::<u32>() + 8;
    let mut sheet = RgbImage::from_pixel(width, height, Rgb([255; 3]));
    let mut y = 8;
    for (title, bars) in groups {
        write(&mut sheet, 8, y, title, [0; 3]);
        y += LINE + 4;
        for bar in bars {
            write(&mut sheet, 8, y + 5, &bar.label, [60; 3]);
            let at = |share: f64| left + (share.clamp(0.0, 1.0) * f64::from(WIDE)) as u32;
            fill(&mut sheet, (left, at(1.0)), (y, y + BAR), [238; 3]);
            fill(
                &mut sheet,
                (left, at(bar.value)),
                (y, y + BAR),
                [86, 128, 189],
            );
            let middle = y + BAR / 2;
            let (low, high) = (at(bar.interval.0), at(bar.interval.1));
            fill(&mut sheet, (low, high + 1), (middle, middle + 1), [20; 3]);
            for end in [low, high] {
                fill(
                    &mut sheet,
                    (end, end + 1),
                    (middle - 4, middle + 5),
                    [20; 3],
                );
            }
            let percent = format!("{:.0}%", 100.0 * bar.value);
            write(&mut sheet, at(1.0) + 8, y + 5, &percent, [60; 3]);
            y += BAR + 4;
        }
        y += 12;
    }
    sheet
}

fn fill(sheet: &mut RgbImage, x: (u32, u32), y: (u32, u32), colour: [u8; 3]) {
    for y in y.0..y.1.min(sheet.height()) {
        for x in x.0..x.1.min(sheet.width()) {
            sheet.put_pixel(x, y, Rgb(colour));
        }
    }
}

/// Letters of 8 by 8 pixels; what the font lacks becomes a question mark.
fn write(sheet: &mut RgbImage, x: u32, y: u32, text: &str, colour: [u8; 3]) {
    for (i, letter) in text.chars().enumerate() {
        let rows = BASIC_LEGACY
            .get(letter as usize)
            .unwrap_or(&BASIC_LEGACY['?' as usize]);
        for (dy, row) in rows.iter().enumerate() {
            for dx in (0..8).filter(|bit| row >> bit & 1 == 1) {
                let (x, y) = (x + i as u32 * 8 + dx, y + dy as u32);
                fill(sheet, (x, x + 1), (y, y + 1), colour);
            }
        }
    }
}

/// Wilson's 95 % interval of a share.
pub fn wilson(count: f64, of: f64) -> (f64, f64) {
    const Z: f64 = 1.959_964;
    let share = count / of;
    let scale = 1.0 + Z * Z / of;
    let middle = (share + Z * Z / (2.0 * of)) / scale;
    let half = Z / scale * (share * (1.0 - share) / of + Z * Z / (4.0 * of * of)).sqrt();
    ((middle - half).max(0.0), (middle + half).min(1.0))
}
