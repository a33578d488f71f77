//! The upsamplers' networks: presets, and diffusers' folders.

use std::path::Path;

use burn::{
    config::Config,
    tensor::{Device, FloatDType},
};
use unclip_core::{
    error::{Error, Result},
    json,
    nn::{DiffusersUNet, UNet, UNetConfig, unet_keys},
    weights::{Checkpoint, LoadOptions, load, save},
};

/// An upsampler's U-Net and the size of its pictures.
#[derive(Config, Debug)]
pub struct UpsamplerConfig {
    /// The U-Net: noisy picture and enlarged low-resolution picture in, one picture out.
    pub unet: UNetConfig,
    /// Height and width of the pictures.
    pub size: usize,
}

impl UpsamplerConfig {
    /// Karlo's 64 → 256 upsampler: 691,579,523 parameters. Its last step has a second network of
    /// the same shape.
    pub fn karlo() -> Self {
        Self::new(plain(6, 3, vec![320, 640, 960, 1280], 3, false), 256)
    }

    /// The 64 → 256 upsampler of unCLIP's table 3 (the paper says 700 million parameters).
    pub fn paper_256() -> Self {
        Self::new(plain(6, 3, vec![320, 640, 960, 1280], 3, true), 256)
    }

    /// The 256 → 1024 upsampler of unCLIP's table 3 (the paper says 300 million parameters).
    pub fn paper_1024() -> Self {
        let channels = vec![192, 192, 384, 384, 768, 768];
        Self::new(plain(6, 3, channels, 2, true), 1024)
    }

    /// Reads `config.json` of a `super_res_first` folder.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Json`], or [`Error::Config`] for a value not supported.
    pub fn load_diffusers(folder: &Path) -> Result<Self> {
        let (unet, json) = DiffusersUNet::load(folder)?;
        let origin = folder.join("config.json");
        match json.sample_size {
            Some(size) if unet.allows_size(size) => Ok(Self::new(unet, size)),
            size => Err(Error::config(
                origin.display(),
                "sample_size",
                size.map_or("null".into(), |s| s.to_string()),
                format!("expected a multiple of {} up to 8192", unet.size_multiple()),
            )),
        }
    }
}

fn plain(from: usize, to: usize, channels: Vec<usize>, layers: usize, shift: bool) -> UNetConfig {
    let off = vec![false; channels.len()];
    UNetConfig::new(
        from,
        to,
        channels,
        layers,
        off.clone(),
        off,
        false,
        0,
        shift,
    )
}

/// Loads a `super_res_first` or `super_res_last` network from its folder.
///
/// # Errors
/// Missing or damaged files, unsupported settings, weights that do not fit.
pub fn load_upsampler(
    folder: &Path,
    variant: Option<&str>,
    device: &Device,
    options: LoadOptions,
) -> Result<UNet> {
    let (config, _) = DiffusersUNet::load(folder)?;
    let checkpoint = Checkpoint::open(folder, variant)?;
    load(config.init(device), &checkpoint, &unet_keys(), options)
}

/// Writes an upsampler's network into the folder that [`load_upsampler`] and diffusers read, floats as
/// `dtype` or as they are kept.
///
/// # Errors
/// [`Error::Io`].
pub fn save_upsampler(
    network: &UNet,
    config: &UpsamplerConfig,
    folder: &Path,
    dtype: Option<FloatDType>,
) -> Result<()> {
    json::write(
        &folder.join("config.json"),
        &config.unet.diffusers(config.size),
    )?;
    let path = folder.join("diffusion_pytorch_model.safetensors");
    save(network, &path, &unet_keys(), dtype)
}

#[cfg(test)]
mod tests {
    use burn::module::Module;

    use super::*;

    fn count(config: &UpsamplerConfig) -> usize {
        config.unet.init(&Device::flex()).num_params()
    }

    #[test]
    fn karlo_has_the_published_size() {
        assert_eq!(count(&UpsamplerConfig::karlo()), 691_579_523);
    }

    #[test]
    fn the_papers_upsamplers_have_about_its_sizes() {
        let first = count(&UpsamplerConfig::paper_256()) as f64;
        assert!((0.63e9..0.77e9).contains(&first), "{first}");
        let second = count(&UpsamplerConfig::paper_1024()) as f64;
        assert!((0.27e9..0.33e9).contains(&second), "{second}");
    }
}
