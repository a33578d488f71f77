//! Bytes of a file → a picture.

use std::{io::Cursor, path::Path};

use image::{DynamicImage, ImageDecoder, ImageReader, ImageResult, Rgb, RgbImage};

use crate::error::{Error, Result};

/// Endings of the files that are pictures.
pub(super) const ENDINGS: [&str; 5] = ["png", "jpg", "jpeg", "gif", "webp"];

/// Whether a file's name ends as pictures' names do.
pub(super) fn is_picture(path: &Path) -> bool {
    let ending = path.extension().unwrap_or_default().to_string_lossy();
    ENDINGS.iter().any(|e| ending.eq_ignore_ascii_case(e))
}

/// Decodes a picture: turned as its camera says, transparent parts on white.
pub(super) fn decode(bytes: &[u8], name: &str) -> Result<RgbImage> {
    let read = || -> ImageResult<DynamicImage> {
        let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format()?;
        let mut decoder = reader.into_decoder()?;
        let orientation = decoder.orientation()?;
        let mut picture = DynamicImage::from_decoder(decoder)?;
        picture.apply_orientation(orientation);
        Ok(picture)
    };
    let picture = read().map_err(|e| Error::data(name, format!("not a readable picture: {e}")))?;
    if picture.width() == 0 || picture.height() == 0 {
        return Err(Error::data(name, "a picture without pixels"));
    }
    if !picture.color().has_alpha() {
        return Ok(picture.into_rgb8());
    }
    let picture = picture.into_rgba8();
    let (width, height) = picture.dimensions();
    Ok(RgbImage::from_fn(width, height, |x, y| {
        let [r, g, b, alpha] = picture.get_pixel(x, y).0.map(u32::from);
        Rgb([r, g, b].map(|v| ((v * alpha + 255 * (255 - alpha) + 127) / 255) as u8))
    }))
}

#[cfg(test)]
mod tests {
    use image::{ImageFormat, Rgba, RgbaImage};

    use super::*;

    #[test]
    fn transparent_is_white() {
        let mut picture = RgbaImage::from_pixel(3, 1, Rgba([9, 90, 200, 255]));
        picture.put_pixel(1, 0, Rgba([9, 90, 200, 0]));
        picture.put_pixel(2, 0, Rgba([0, 100, 255, 51]));
        let mut bytes = Cursor::new(Vec::new());
        picture.write_to(&mut bytes, ImageFormat::Png).unwrap();
        let found = decode(bytes.get_ref(), "a.png").unwrap();
        assert_eq!(
            found.as_raw()[..],
            [9, 90, 200, 255, 255, 255, 204, 224, 255]
        );
    }

    #[test]
    fn what_is_no_picture_is_named() {
        for bytes in [&b""[..], b"hello", b"\x89PNG\r\n\x1a\n"] {
            let message = decode(bytes, "x/a.png").unwrap_err().to_string();
            assert!(
                message.starts_with("x/a.png: not a readable picture"),
                "{message}"
            );
        }
    }
}
