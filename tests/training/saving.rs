//! What is saved can be read again: the same weights under the same configuration.

use std::{collections::BTreeMap, path::Path};

use safetensors::SafeTensors;
use unclip::{
    burn::{
        module::{Module, ModuleVisitor, Param},
        tensor::{Device, FloatDType, Tensor},
    },
    clip::{
        ClipImageProcessor, TransformersClip, TransformersClipText, TransformersClipVision,
        load_clip_model, load_text_tower, load_vision_tower, save_clip_model, save_text_tower,
        save_vision_tower,
    },
    core::weights::LoadOptions,
    decoder::{DecoderConfig, load_decoder, save_decoder},
    prior::{DiffusersPrior, load_prior, save_prior},
    upsample::{UpsamplerConfig, load_upsampler, save_upsampler},
};

fn checkpoint(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/checkpoints")
        .join(name)
}

/// All values of a module with their shapes, by name.
pub fn values<M: Module>(module: &M) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    let mut all = All::default();
    module.visit(&mut all);
    all.found
}

#[derive(Default)]
struct All {
    path: Vec<String>,
    found: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
}

impl ModuleVisitor for All {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let (shape, data) = (param.val().dims().to_vec(), param.val().into_data());
        self.found
            .insert(self.path.join("."), (shape, data.try_to_vec().unwrap()));
    }
}

#[test]
fn every_stage_reads_what_it_wrote() {
    let (device, options) = (Device::flex(), LoadOptions::default());
    let out = tempfile::tempdir().unwrap();
    let out = |name: &str| out.path().join(name);
    let (from, to) = (checkpoint("unclip"), out);

    let (projection, unet) = (from.join("text_proj"), from.join("decoder"));
    let config = DecoderConfig::load_diffusers(&projection, &unet).unwrap();
    let model = load_decoder(&projection, &unet, None, &device, options).unwrap();
    save_decoder(&model, &config, &to("text_proj"), &to("decoder"), None).unwrap();
    let again = DecoderConfig::load_diffusers(&to("text_proj"), &to("decoder")).unwrap();
    assert_eq!(format!("{again:?}"), format!("{config:?}"));
    let again = load_decoder(&to("text_proj"), &to("decoder"), None, &device, options).unwrap();
    assert_eq!(values(&again), values(&model));

    let folder = from.join("super_res_first");
    let config = UpsamplerConfig::load_diffusers(&folder).unwrap();
    let model = load_upsampler(&folder, None, &device, options).unwrap();
    save_upsampler(&model, &config, &to("upsampler"), None).unwrap();
    let again = UpsamplerConfig::load_diffusers(&to("upsampler")).unwrap();
    assert_eq!(format!("{again:?}"), format!("{config:?}"));
    let again = load_upsampler(&to("upsampler"), None, &device, options).unwrap();
    assert_eq!(values(&again), values(&model));

    for name in [
        "unclip/prior",
        "prior_variant_norms",
        "prior_variant_no_encoder",
    ] {
        let folder = checkpoint(name);
        let config = DiffusersPrior::load(&folder).unwrap();
        let model = load_prior(&folder, None, &device, options).unwrap();
        save_prior(&model, &config, &to("prior"), None).unwrap();
        let again = DiffusersPrior::load(&to("prior")).unwrap();
        assert_eq!(format!("{again:?}"), format!("{config:?}"));
        let again = load_prior(&to("prior"), None, &device, options).unwrap();
        assert_eq!(values(&again), values(&model));
    }
}

#[test]
fn clips_read_what_they_wrote() {
    let (device, options) = (Device::flex(), LoadOptions::default());
    let out = tempfile::tempdir().unwrap();
    for act in ["gelu", "quick_gelu"] {
        let to = |name: &str| out.path().join(name).join(act);
        let folder = checkpoint(&format!("clip_text_{act}"));
        let config = TransformersClipText::load(&folder).unwrap();
        let model = load_text_tower(&folder, None, &device, options).unwrap();
        save_text_tower(&model, &config, &to("text"), None).unwrap();
        // transformers refuses files that do not say this.
        let file = std::fs::read(to("text").join("model.safetensors")).unwrap();
        let (_, header) = SafeTensors::read_metadata(&file).unwrap();
        assert_eq!(header.metadata().as_ref().unwrap()["format"], "pt");
        let again = TransformersClipText::load(&to("text")).unwrap();
        assert_eq!(format!("{again:?}"), format!("{config:?}"));
        let again = load_text_tower(&to("text"), None, &device, options).unwrap();
        assert_eq!(values(&again), values(&model));

        let folder = checkpoint(&format!("clip_vision_{act}"));
        let config = TransformersClipVision::load(&folder).unwrap();
        let model = load_vision_tower(&folder, None, &device, options).unwrap();
        save_vision_tower(&model, &config, &to("vision"), None).unwrap();
        let again = TransformersClipVision::load(&to("vision")).unwrap();
        assert_eq!(format!("{again:?}"), format!("{config:?}"));
        let again = load_vision_tower(&to("vision"), None, &device, options).unwrap();
        assert_eq!(values(&again), values(&model));

        let folder = checkpoint(&format!("clip_full_{act}"));
        let config = TransformersClip::load(&folder).unwrap();
        let model = load_clip_model(&folder, None, &device, options).unwrap();
        // Half precision rounds once and then stays.
        let half = Some(FloatDType::F16);
        save_clip_model(&model, &config, &to("clip"), half).unwrap();
        let once = load_clip_model(&to("clip"), None, &device, options).unwrap();
        save_clip_model(&once, &config, &to("clip"), half).unwrap();
        let twice = load_clip_model(&to("clip"), None, &device, options).unwrap();
        assert_eq!(values(&once), values(&twice));
        let again = TransformersClip::load(&to("clip")).unwrap();
        assert_eq!(format!("{again:?}"), format!("{config:?}"));
        for ((name, (_, ours)), (_, theirs)) in values(&once).iter().zip(values(&model)) {
            let apart = ours
                .iter()
                .zip(&theirs.1)
                .map(|(a, b)| (a - b).abs() / b.abs().max(1e-3));
            assert!(apart.fold(0.0, f32::max) < 1e-3, "{name}");
        }
    }
}

#[test]
fn preprocessing_reads_what_it_wrote() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/cases");
    let out = tempfile::tempdir().unwrap();
    let mut count = 0;
    for entry in std::fs::read_dir(root.join("clip_image_processor")).unwrap() {
        let folder = entry.unwrap().path();
        if folder.is_dir() {
            let processor = ClipImageProcessor::load(&folder).unwrap();
            processor.save(out.path()).unwrap();
            assert_eq!(ClipImageProcessor::load(out.path()).unwrap(), processor);
            count += 1;
        }
    }
    assert!(count > 3);
}
