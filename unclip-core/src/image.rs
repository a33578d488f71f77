//! Between tensors in [-1, 1] and pictures of bytes, and PNG files that say how they were made.

use std::{
    fs::File,
    io::{BufWriter, Cursor},
    path::Path,
};

use burn::tensor::{DType, Device, Tensor, TensorData};
use image::{DynamicImage, ImageDecoder, ImageReader, ImageResult, Rgb, RgbImage};

use crate::{
    error::{Error, Result},
    weights::temporary,
};

/// `[b, 3, h, w]` in [-1, 1] → one picture an element; values outside are clamped, halves go to
/// the even byte (as numpy rounds).
///
/// # Errors
/// [`Error::Shape`] without three channels, [`Error::NotFinite`] for NaN or infinity.
pub fn to_images(pixels: Tensor<4>) -> Result<Vec<RgbImage>> {
    let [batch, channels, height, width] = pixels.dims();
    if channels != 3 {
        return Err(Error::shape(
            "the picture",
            &pixels.dims(),
            "[batch, 3, height, width]",
        ));
    }
    let values = to_host(pixels, "last stage")?;
    let area = height * width;
    Ok((0..batch)
        .map(|b| {
            RgbImage::from_fn(width as u32, height as u32, |x, y| {
                let at = b * 3 * area + y as usize * width + x as usize;
                image::Rgb([0, 1, 2].map(|c| to_byte(values[at + c * area])))
            })
        })
        .collect())
}

/// Pictures of one size → `[b, 3, h, w]` in [-1, 1], f32.
///
/// # Errors
/// [`Error::Setting`] without pictures, [`Error::Shape`] if they differ in size.
pub fn from_images(images: &[RgbImage], device: &Device) -> Result<Tensor<4>> {
    let Some(first) = images.first() else {
        return Err(Error::setting("pictures", 0, "at least 1 is needed"));
    };
    let (width, height) = first.dimensions();
    let mut values = Vec::with_capacity(images.len() * 3 * (width * height) as usize);
    for picture in images {
        if picture.dimensions() != (width, height) {
            let found = [picture.height() as usize, picture.width() as usize];
            let expected = format!("[{height}, {width}], the size of the first");
            return Err(Error::shape("a picture", &found, expected));
        }
        for channel in 0..3 {
            let bytes = picture.pixels().map(|pixel| pixel.0[channel]);
            values.extend(bytes.map(|byte| f32::from(byte) / 127.5 - 1.0));
        }
    }
    let shape = [images.len(), 3, height as usize, width as usize];
    Ok(Tensor::from_data(
        TensorData::new(values, shape),
        (device, DType::F32),
    ))
}

/// Reads a tensor back as f32.
///
/// # Errors
/// [`Error::NotFinite`] for NaN or infinity, named after `stage`.
pub fn to_host<const D: usize>(tensor: Tensor<D>, stage: &str) -> Result<Vec<f32>> {
    let unreadable = |reason: String| Error::NotFinite {
        stage: stage.to_owned(),
        hint: reason,
    };
    let values = tensor
        .into_data()
        .convert_dtype(DType::F32)
        .try_to_vec::<f32>()
        .map_err(|e| unreadable(format!("they could not be read back: {e:?}")))?;
    if values.iter().all(|v| v.is_finite()) {
        Ok(values)
    } else {
        Err(unreadable(
            "the weights are damaged (load them with `check_finite`), or f16 arithmetic \
             overflowed: try f32"
                .into(),
        ))
    }
}

fn to_byte(value: f32) -> u8 {
    ((value * 0.5 + 0.5).clamp(0.0, 1.0) * 255.0).round_ties_even() as u8
}

/// Pictures side by side, `columns` to a row, on white with a gap of `gap` pixels.
///
/// Pictures may differ in size; every cell has the size of the largest. No pictures give one
/// white pixel.
pub fn contact_sheet(images: &[RgbImage], columns: usize, gap: u32) -> RgbImage {
    let columns = columns.clamp(1, images.len().max(1));
    let rows = images.len().div_ceil(columns) as u32;
    let cell_w = images.iter().map(RgbImage::width).max().unwrap_or(1);
    let cell_h = images.iter().map(RgbImage::height).max().unwrap_or(1);
    let size = |cells: u32, cell: u32| (cells * (cell + gap)).saturating_sub(gap).max(1);
    let mut sheet = RgbImage::from_pixel(
        size(columns as u32, cell_w),
        size(rows, cell_h),
        image::Rgb([255; 3]),
    );
    for (i, picture) in images.iter().enumerate() {
        let (column, row) = ((i % columns) as i64, (i / columns) as i64);
        image::imageops::replace(
            &mut sheet,
            picture,
            column * i64::from(cell_w + gap),
            row * i64::from(cell_h + gap),
        );
    }
    sheet
}

/// Decodes the bytes of a file, whatever it is called, and turns the picture as its camera says.
///
/// # Errors
/// What the `image` crate says of bytes that are no picture of a kind it reads.
pub fn upright(bytes: &[u8]) -> ImageResult<DynamicImage> {
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format()?;
    let mut decoder = reader.into_decoder()?;
    let orientation = decoder.orientation()?;
    let mut picture = DynamicImage::from_decoder(decoder)?;
    picture.apply_orientation(orientation);
    Ok(picture)
}

/// The picture with what is transparent laid on white.
pub fn on_white(picture: DynamicImage) -> RgbImage {
    if !picture.color().has_alpha() {
        return picture.into_rgb8();
    }
    let picture = picture.into_rgba8();
    let (width, height) = picture.dimensions();
    RgbImage::from_fn(width, height, |x, y| {
        let [r, g, b, alpha] = picture.get_pixel(x, y).0.map(u32::from);
        Rgb([r, g, b].map(|v| ((v * alpha + 255 * (255 - alpha) + 127) / 255) as u8))
    })
}

/// Writes a PNG with `texts` (keyword, text) in its text chunks.
///
/// The file is complete or not there: it is written beside `path` and renamed.
///
/// # Errors
/// [`Error::Io`] or [`Error::Image`].
pub fn save_png(image: &RgbImage, path: &Path, texts: &[(&str, &str)]) -> Result<()> {
    let temporary = temporary(path);
    let io = |source| Error::Io {
        path: path.to_owned(),
        source,
    };
    let file = File::create(&temporary).map_err(io)?;
    let written = encode(image, BufWriter::new(file), texts);
    let written = written
        .map_err(|e| Error::Image {
            path: path.to_owned(),
            source: Box::new(e),
        })
        .and_then(|()| std::fs::rename(&temporary, path).map_err(io));
    if written.is_err() {
        // Best effort: the error that matters is the one before.
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

fn encode(
    image: &RgbImage,
    to: impl std::io::Write,
    texts: &[(&str, &str)],
) -> Result<(), png::EncodingError> {
    let mut encoder = png::Encoder::new(to, image.width(), image.height());
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    for (keyword, text) in texts {
        encoder.add_itxt_chunk((*keyword).to_owned(), (*text).to_owned())?;
    }
    let mut writer = encoder.write_header()?;
    writer.write_image_data(image.as_raw())?;
    writer.finish()
}

/// The (keyword, text) pairs of a PNG's text chunks.
///
/// # Errors
/// [`Error::Io`] or [`Error::Image`].
pub fn png_texts(path: &Path) -> Result<Vec<(String, String)>> {
    let unreadable = |e: png::DecodingError| Error::Image {
        path: path.to_owned(),
        source: Box::new(e),
    };
    let file = File::open(path).map_err(|e| Error::io(path, e, "no such picture"))?;
    let mut reader = png::Decoder::new(std::io::BufReader::new(file))
        .read_info()
        .map_err(unreadable)?;
    reader.finish().map_err(unreadable)?;
    let info = reader.info();
    let mut texts = Vec::new();
    for chunk in &info.utf8_text {
        texts.push((chunk.keyword.clone(), chunk.get_text().map_err(unreadable)?));
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_rounded_to_even_and_clamped() {
        assert_eq!(to_byte(-2.0), 0);
        assert_eq!(to_byte(2.0), 255);
        assert_eq!(to_byte(0.0), 128); // 127.5
    }

    #[test]
    fn every_byte_survives_a_tensor() {
        let image = RgbImage::from_fn(16, 16, |x, y| {
            let byte = (y * 16 + x) as u8;
            image::Rgb([byte, 255 - byte, byte / 2])
        });
        let tensor = from_images(&[image.clone(), image.clone()], &Device::flex()).unwrap();
        assert_eq!(tensor.dims(), [2, 3, 16, 16]);
        assert_eq!(to_images(tensor).unwrap(), [image.clone(), image.clone()]);
        let other = RgbImage::new(16, 8);
        let error = from_images(&[image, other], &Device::flex()).unwrap_err();
        assert!(matches!(error, Error::Shape { .. }), "{error}");
    }

    #[test]
    fn text_chunks_survive_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        let image = RgbImage::from_pixel(3, 2, image::Rgb([1, 2, 3]));
        save_png(&image, &path, &[("prompt", "Zoë's café"), ("seed", "7")]).unwrap();
        let texts = png_texts(&path).unwrap();
        assert_eq!(texts[0], ("prompt".into(), "Zoë's café".into()));
        assert_eq!(texts[1], ("seed".into(), "7".into()));
        assert_eq!(image::open(&path).unwrap().to_rgb8(), image);
    }

    #[test]
    fn a_sheet_has_room_for_every_picture() {
        let images = vec![RgbImage::new(4, 4); 5];
        let sheet = contact_sheet(&images, 3, 2);
        assert_eq!(sheet.dimensions(), (16, 10));
    }
}
