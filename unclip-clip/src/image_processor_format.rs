//! transformers' configuration of a `CLIPImageProcessor`.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;
use unclip_core::{
    error::{Error, Result},
    json,
};

use crate::{
    image_processor::{ClipImageProcessor, ResizeTo},
    pillow_resize::Filter,
};

/// Largest side of a resized or cropped picture.
const LARGEST_SIDE: u64 = 4096;

/// `preprocessor_config.json` of a `CLIPImageProcessor`, or of the `CLIPFeatureExtractor` it was
/// called before; missing keys have the reference's defaults.
///
/// `do_convert_rgb` is not asked: every picture is converted.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct TransformersClipImageProcessor {
    image_processor_type: Option<String>,
    feature_extractor_type: Option<String>,
    do_resize: Option<bool>,
    size: Value,
    resample: Value,
    do_center_crop: Option<bool>,
    crop_size: Value,
    do_rescale: Option<bool>,
    rescale_factor: Option<f64>,
    do_normalize: Option<bool>,
    image_mean: Value,
    image_std: Value,
}

impl TransformersClipImageProcessor {
    /// Reads `preprocessor_config.json` in `folder`.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Json`], or [`Error::Config`] for a value not supported.
    pub fn load(folder: &Path) -> Result<ClipImageProcessor> {
        let path = folder.join("preprocessor_config.json");
        let config: Self = json::read(&path)?;
        config.processor(&path.display().to_string())
    }

    /// The processor this describes; `origin` names it in errors.
    ///
    /// # Errors
    /// [`Error::Config`] for a value that is not supported.
    pub fn processor(&self, origin: &str) -> Result<ClipImageProcessor> {
        for (key, class) in [
            ("image_processor_type", &self.image_processor_type),
            ("feature_extractor_type", &self.feature_extractor_type),
        ] {
            if let Some(class) = class
                && ![
                    "CLIPImageProcessor",
                    "CLIPImageProcessorFast",
                    "CLIPFeatureExtractor",
                ]
                .contains(&class.as_str())
            {
                return Err(Error::config(
                    origin,
                    key,
                    class,
                    "expected CLIPImageProcessor",
                ));
            }
        }
        let openai = ClipImageProcessor::openai(224);
        let is_on = |switch: Option<bool>| switch.unwrap_or(true);
        let resize = match is_on(self.do_resize) {
            true => Some((self.resize_to(origin)?, self.filter(origin)?)),
            false => None,
        };
        let crop = match (is_on(self.do_center_crop), &self.crop_size) {
            (false, _) => None,
            (true, Value::Null) => openai.crop,
            (true, size) => Some(crop_size(origin, size)?),
        };
        let rescale = match (is_on(self.do_rescale), self.rescale_factor) {
            (false, _) => None,
            (true, None) => openai.rescale,
            (true, Some(factor)) if factor.is_finite() => Some(factor),
            (true, Some(factor)) => {
                let expected = "expected a number";
                return Err(Error::config(origin, "rescale_factor", factor, expected));
            }
        };
        let normalize = match (is_on(self.do_normalize), openai.normalize) {
            (true, Some((mean, std))) => Some((
                channels(origin, "image_mean", &self.image_mean, mean, f32::is_finite)?,
                channels(origin, "image_std", &self.image_std, std, |std| {
                    std.is_finite() && std != 0.0
                })?,
            )),
            _ => None,
        };
        Ok(ClipImageProcessor {
            resize,
            crop,
            rescale,
            normalize,
        })
    }

    fn resize_to(&self, origin: &str) -> Result<ResizeTo> {
        let found = match &self.size {
            Value::Null => Some(ResizeTo::ShorterSide(224)),
            Value::Object(sides) => match sides.get("shortest_edge") {
                Some(side) => as_side(side).map(ResizeTo::ShorterSide),
                None => both_sides(&self.size)
                    .map(|[height, width]| ResizeTo::Exactly { height, width }),
            },
            side => as_side(side).map(ResizeTo::ShorterSide),
        };
        found.ok_or_else(|| {
            let expected = format!(
                "expected 1 to {LARGEST_SIDE} pixels, as a number, as shortest_edge, or as height \
                 and width"
            );
            Error::config(origin, "size", &self.size, expected)
        })
    }

    fn filter(&self, origin: &str) -> Result<Filter> {
        if self.resample.is_null() {
            return Ok(Filter::Bicubic);
        }
        let filter = self.resample.as_u64().and_then(Filter::from_number);
        filter.ok_or_else(|| {
            let expected = "expected the number of a Pillow filter, 0 to 5; CLIP's is 3, bicubic";
            Error::config(origin, "resample", &self.resample, expected)
        })
    }
}

fn as_side(value: &Value) -> Option<u32> {
    let side = value.as_u64()?;
    (1..=LARGEST_SIDE).contains(&side).then_some(side as u32)
}

fn both_sides(value: &Value) -> Option<[u32; 2]> {
    Some([
        as_side(value.get("height")?)?,
        as_side(value.get("width")?)?,
    ])
}

fn crop_size(origin: &str, value: &Value) -> Result<[u32; 2]> {
    let found = match value {
        Value::Object(_) => both_sides(value),
        side => as_side(side).map(|side| [side; 2]),
    };
    found.ok_or_else(|| {
        let expected =
            format!("expected 1 to {LARGEST_SIDE} pixels, as a number or as height and width");
        Error::config(origin, "crop_size", value, expected)
    })
}

/// One number for all channels, or one for each; used as f32.
fn channels(
    origin: &str,
    key: &str,
    value: &Value,
    default: [f64; 3],
    is_allowed: impl Fn(f32) -> bool,
) -> Result<[f64; 3]> {
    let found = match value {
        Value::Null => Some(default),
        Value::Array(values) => {
            let values: Option<Vec<f64>> = values.iter().map(Value::as_f64).collect();
            values.and_then(|values| <[f64; 3]>::try_from(values).ok())
        }
        value => value.as_f64().map(|value| [value; 3]),
    };
    let found = found.filter(|values| values.iter().all(|value| is_allowed(*value as f32)));
    found.ok_or_else(|| {
        let expected = "expected a number for each of 3 channels; a deviation is not 0";
        Error::config(origin, key, value, expected)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<ClipImageProcessor> {
        let config: TransformersClipImageProcessor = serde_json::from_str(text).unwrap();
        config.processor("here")
    }

    #[test]
    fn old_and_new_files_mean_the_same() {
        let openai = ClipImageProcessor::openai(224);
        for text in [
            "{}",
            r#"{"feature_extractor_type": "CLIPFeatureExtractor", "size": 224, "crop_size": 224,
                "do_normalize": true, "resample": 3}"#,
            r#"{"size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 224},
                "image_processor_type": "CLIPImageProcessor", "do_convert_rgb": true}"#,
        ] {
            assert_eq!(read(text).unwrap(), openai, "{text}");
        }
        let squashed = read(r#"{"size": {"height": 3, "width": 5}, "resample": 2}"#).unwrap();
        let exactly = ResizeTo::Exactly {
            height: 3,
            width: 5,
        };
        assert_eq!(squashed.resize, Some((exactly, Filter::Bilinear)));
        let plain = r#"{"do_resize": false, "do_center_crop": false, "do_rescale": false,
            "do_normalize": false, "size": "not asked"}"#;
        let plain = read(plain).unwrap();
        assert_eq!((plain.resize, plain.crop), (None, None));
        assert_eq!((plain.rescale, plain.normalize), (None, None));
        let half = read(r#"{"image_mean": 0.5, "image_std": [0.5, 0.5, 0.25]}"#).unwrap();
        assert_eq!(half.normalize, Some(([0.5; 3], [0.5, 0.5, 0.25])));
    }

    #[test]
    fn values_without_sense_are_named() {
        for (key, value) in [
            ("image_processor_type", "\"ViTImageProcessor\""),
            ("size", "0"),
            ("size", "-3"),
            ("size", "1e9"),
            ("size", "100000"),
            ("size", "{\"longest_edge\": 224}"),
            ("size", "{\"height\": 224}"),
            ("crop_size", "0"),
            ("crop_size", "[224, 224]"),
            ("crop_size", "{\"shortest_edge\": 224}"),
            ("crop_size", "{\"height\": 4294967296, \"width\": 1}"),
            ("resample", "6"),
            ("resample", "\"bicubic\""),
            ("image_mean", "[0.5]"),
            ("image_mean", "[0.5, 0.5, null]"),
            ("image_mean", "[1e300, 0, 0]"),
            ("image_std", "[0.5, 0.0, 0.5]"),
        ] {
            match read(&format!("{{\"{key}\": {value}}}")) {
                Err(Error::Config { key: found, .. }) => assert_eq!(found, key),
                other => panic!("{key} {value}: {other:?}"),
            }
        }
    }
}
