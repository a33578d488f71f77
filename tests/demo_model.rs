//! The model that comes with the repository: it loads, it is small, and it knows what is on top.
#![cfg(feature = "flex")]
#![allow(missing_docs)]

use std::path::{Path, PathBuf};

use unclip::{
    UnClip,
    burn::tensor::Device,
    clip::ClipEncoders,
    core::weights::LoadOptions,
    image::{self, RgbImage},
    prior::load_autoregressive_prior,
};

fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo")
}

/// The middle row of the pixels in which one channel is far above the others.
fn height_of(picture: &RgbImage, channel: usize) -> Option<f32> {
    let strong = picture.enumerate_pixels().filter(|(_, _, pixel)| {
        (0..3).all(|c| c == channel || pixel[channel] > pixel[c].saturating_add(60))
    });
    let rows: Vec<f32> = strong.map(|(_, y, _)| y as f32).collect();
    (rows.len() > 20).then(|| rows.iter().sum::<f32>() / rows.len() as f32)
}

#[test]
fn it_puts_the_red_cube_on_top_of_the_blue_one() {
    let unclip = UnClip::load(demo(), &Device::flex()).unwrap();
    let job = unclip.text_to_image("a red cube on top of a blue cube");
    let output = job
        .seed(7)
        .candidates(4)
        .without_upsampling()
        .run()
        .unwrap();
    let picture = &output.images[0];
    let (red, blue) = (height_of(picture, 0), height_of(picture, 2));
    assert!(red.unwrap() + 8.0 < blue.unwrap(), "{red:?}, {blue:?}");
    assert_eq!(unclip.upsamplers().count(), 2);
    let folder = demo().join("autoregressive_prior");
    load_autoregressive_prior(&folder, &Device::flex(), LoadOptions::default()).unwrap();
}

#[test]
fn its_clip_knows_what_is_on_top() {
    let clip = ClipEncoders::load(&demo(), None, &Device::flex(), LoadOptions::default());
    let clip = clip.unwrap();
    let shown = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/src/images/demo-1024.png");
    let picture = image::open(shown).unwrap();
    let captions = [
        "a blue cube on top of a red cube",
        "a red cube on top of a blue cube",
        "a red ball on top of a blue cube",
        "a green cube on top of a blue cube",
    ];
    let ranked = clip.matcher().rank_captions(&picture, &captions).unwrap();
    assert_eq!(captions[ranked[0].index], captions[1], "{ranked:?}");
}

#[test]
fn its_weights_stay_under_20_mb() {
    let size = |folder: &Path| -> u64 {
        let mut folders = vec![folder.to_owned()];
        let mut bytes = 0;
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
                match entry.file_type().unwrap().is_dir() {
                    true => folders.push(entry.path()),
                    false => bytes += entry.metadata().unwrap().len(),
                }
            }
        }
        bytes
    };
    assert!(size(&demo()) < 20_000_000, "{}", size(&demo()));
}
