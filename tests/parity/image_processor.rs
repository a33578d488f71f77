//! CLIP's image preprocessing: the bytes after the crop and the pixel values, on every picture.

use serde_json::Value;
use unclip::{
    clip::{ClipImageProcessor, TransformersClipImageProcessor},
    core::json,
    image::{DynamicImage, RgbImage},
};

use crate::{
    common::Golden,
    report::{Case, Report},
};

pub fn check(case: &Case, report: &mut Report) {
    let io = case.goldens("io.safetensors");
    let images: Vec<(&String, DynamicImage)> = entries(case, "images")
        .map(|(name, image)| {
            let file = image["file"].as_str().expect("a file");
            (name, unclip::image::open(case.folder.join(file)).unwrap())
        })
        .collect();
    for (name, file) in entries(case, "processors") {
        let path = case.folder.join(file.as_str().expect("a file"));
        let config: TransformersClipImageProcessor = json::read(&path).unwrap();
        let processor = config.processor(&path.display().to_string()).unwrap();
        let (mut bytes, mut expected_bytes) = (Vec::new(), Vec::new());
        let (mut values, mut expected) = (Vec::new(), Vec::new());
        for (image_name, image) in &images {
            let golden = |kind: &str| io.get(&format!("{name}.{image_name}.{kind}"));
            if let Some(golden) = golden("u8") {
                let cropped = processor.crop(image).unwrap();
                expected_bytes.extend_from_slice(&golden.bytes);
                bytes.extend((0..3).flat_map(|c| channel(&cropped, c)));
            }
            if let Some(golden) = golden("pixel_values") {
                expected.extend_from_slice(&golden.floats);
                let batch = std::slice::from_ref(image);
                let found = processor.pixel_values(batch, &case.device).unwrap();
                assert_eq!(found.dims()[1..], golden.shape[..], "{name} {image_name}");
                values.extend(found.into_data().try_to_vec::<f32>().unwrap());
            }
            check_picture(case, (name, &processor), (image_name, image), report);
        }
        if !expected_bytes.is_empty() {
            report.case_exact(case, &format!("{name} bytes"), &bytes, &expected_bytes);
        }
        if expected.is_empty() {
            continue;
        }
        let golden = Golden {
            shape: vec![expected.len()],
            floats: expected,
            ints: Vec::new(),
            bytes: Vec::new(),
        };
        let what = format!("{name} pixel values");
        report.compare_values(case, &what, &[values.len()], &values, &golden);
    }
}

fn entries<'a>(case: &'a Case, key: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    case.json[key].as_object().expect("a map").iter()
}

fn channel(image: &RgbImage, channel: usize) -> impl Iterator<Item = u8> {
    image.as_raw().iter().skip(channel).step_by(3).copied()
}

/// The default processor's bytes lie there as pictures too, and of more sources.
fn check_picture(
    case: &Case,
    (name, processor): (&str, &ClipImageProcessor),
    (image_name, image): (&str, &DynamicImage),
    report: &mut Report,
) {
    let Some(side) = name.strip_prefix("default") else {
        return;
    };
    let path = case.folder.join(format!("crop{side}_{image_name}.png"));
    if path.is_file() {
        let golden = unclip::image::open(path).unwrap().to_rgb8();
        let found = processor.crop(image).unwrap();
        let what = format!("{name} {image_name}");
        report.case_exact(case, &what, found.as_raw(), golden.as_raw());
    }
}
