//! Bytes of a file → a picture.

use std::path::Path;

use image::RgbImage;

use crate::{
    error::{Error, Result},
    image::{on_white, upright},
};

/// Endings of the files that are pictures.
pub(super) const ENDINGS: [&str; 5] = ["png", "jpg", "jpeg", "gif", "webp"];

/// Whether a file's name ends as pictures' names do.
pub(super) fn is_picture(path: &Path) -> bool {
    let ending = path.extension().unwrap_or_default().to_string_lossy();
    ENDINGS.iter().any(|e| ending.eq_ignore_ascii_case(e))
}

/// Decodes a picture: turned as its camera says, transparent parts on white.
pub(super) fn decode(bytes: &[u8], name: &str) -> Result<RgbImage> {
    let picture = upright(bytes);
    let picture = picture.map_err(|e| Error::data(name, format!("not a readable picture: {e}")))?;
    if picture.width() == 0 || picture.height() == 0 {
        return Err(Error::data(name, "a picture without pixels"));
    }
    Ok(on_white(picture))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

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
