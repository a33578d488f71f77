//! Spherical interpolation of latents and embeddings.

use burn::tensor::{Tensor, TensorData};

use crate::{
    error::{Error, Result},
    image::to_host,
};

/// Interpolates each row from `from` to `to`: the direction along the great circle between them,
/// the length evenly.
///
/// At `share` 0 it is `from` and at 1 it is `to`, exactly. Rows that point the same way, or of which
/// one is zero, are interpolated evenly. Opposite rows, between which every great circle leads,
/// take the one through the axis on which `from` is smallest. Computed in f64 on the host.
///
/// # Shapes
/// `[b, ..]` each, also the result
///
/// # Errors
/// [`Error::Shape`] if the shapes differ, [`Error::NotFinite`] for NaN or infinity.
pub fn slerp<const D: usize>(from: Tensor<D>, to: Tensor<D>, share: f64) -> Result<Tensor<D>> {
    let shape = from.dims();
    if to.dims() != shape {
        return Err(Error::shape(
            "the end of the interpolation",
            &to.dims(),
            format!("{shape:?}"),
        ));
    }
    if share == 0.0 {
        return Ok(from);
    }
    if share == 1.0 {
        return Ok(to);
    }
    let (device, dtype) = (from.device(), from.dtype());
    let row = shape[1..].iter().product::<usize>().max(1);
    let (from, to) = (to_host(from, "latents")?, to_host(to, "latents")?);
    let values: Vec<f32> = from
        .chunks(row)
        .zip(to.chunks(row))
        .flat_map(|(from, to)| slerp_row(from, to, share))
        .collect();
    let data = TensorData::new(values, shape).convert_dtype(dtype);
    Ok(Tensor::from_data(data, (&device, dtype)))
}

fn slerp_row(from: &[f32], to: &[f32], share: f64) -> Vec<f32> {
    let wide = |row: &[f32]| row.iter().map(|v| f64::from(*v)).collect::<Vec<f64>>();
    let (from, to) = (wide(from), wide(to));
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let (long_from, long_to) = (dot(&from, &from).sqrt(), dot(&to, &to).sqrt());
    let mix = |of_from: f64, of_to: f64| {
        let mixed = from.iter().zip(&to).map(|(a, b)| of_from * a + of_to * b);
        mixed.map(|v| v as f32).collect()
    };
    if long_from == 0.0 || long_to == 0.0 {
        return mix(1.0 - share, share);
    }
    let length = (1.0 - share) * long_from + share * long_to;
    let cosine = (dot(&from, &to) / (long_from * long_to)).clamp(-1.0, 1.0);
    let angle = cosine.acos();
    if angle < 1e-4 {
        return mix(1.0 - share, share);
    }
    if std::f64::consts::PI - angle > 1e-4 {
        let part = |share: f64| (share * angle).sin() / angle.sin();
        return mix(
            length * part(1.0 - share) / long_from,
            length * part(share) / long_to,
        );
    }
    // Opposite: turn towards an axis that is as far from both as there is.
    let size = |i: usize| from[i].abs();
    let axis = (0..from.len())
        .min_by(|a, b| size(*a).total_cmp(&size(*b)))
        .unwrap_or(0);
    let unit: Vec<f64> = from.iter().map(|v| v / long_from).collect();
    let mut side: Vec<f64> = unit.iter().map(|v| -v * unit[axis]).collect();
    side[axis] += 1.0;
    let long_side = dot(&side, &side).sqrt();
    if long_side == 0.0 {
        return mix(1.0 - share, share);
    }
    let (sin, cos) = (share * std::f64::consts::PI).sin_cos();
    unit.iter()
        .zip(&side)
        .map(|(u, s)| (length * (cos * u + sin * s / long_side)) as f32)
        .collect()
}

/// Rows scaled to length 1; zero rows stay zero.
pub fn normalize_rows(x: Tensor<2>) -> Tensor<2> {
    let length = x.clone().powi_scalar(2).sum_dim(1).sqrt();
    x / length.clamp_min(1e-12)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::noise::Noise;

    fn row(values: &[f32]) -> Tensor<2> {
        let shape = [1, values.len()];
        Tensor::from_data(TensorData::new(values.to_vec(), shape), &Device::flex())
    }

    fn values(x: Tensor<2>) -> Vec<f32> {
        x.into_data().try_to_vec().unwrap()
    }

    fn length(x: &[f32]) -> f32 {
        x.iter().map(|v| v * v).sum::<f32>().sqrt()
    }

    #[test]
    fn ends_are_exact_and_the_middle_is_on_the_sphere() {
        let mut noise = Noise::from_seed(1);
        let device = Device::flex();
        let (a, b) = (
            noise.normal([3, 50], &device).unwrap(),
            noise.normal([3, 50], &device).unwrap(),
        );
        let ends = [0.0, 1.0].map(|share| values(slerp(a.clone(), b.clone(), share).unwrap()));
        assert_eq!(ends, [values(a.clone()), values(b.clone())]);
        for share in [0.25, 0.5, 0.9] {
            let found = values(slerp(a.clone(), b.clone(), share).unwrap());
            for ((found, a), b) in found
                .chunks(50)
                .zip(values(a.clone()).chunks(50))
                .zip(values(b.clone()).chunks(50))
            {
                let expected = (1.0 - share as f32) * length(a) + share as f32 * length(b);
                assert!((length(found) / expected - 1.0).abs() < 1e-5);
            }
        }
        // Even on the circle, not on the chord.
        let quarter = values(slerp(row(&[2.0, 0.0]), row(&[0.0, 2.0]), 0.5).unwrap());
        assert!(quarter.iter().all(|v| (v - 2.0_f32.sqrt()).abs() < 1e-6));
    }

    #[test]
    fn equal_zero_and_opposite_rows_have_a_way() {
        let same = values(slerp(row(&[1.0, 2.0]), row(&[1.0, 2.0]), 0.3).unwrap());
        assert!((same[0] - 1.0).abs() < 1e-6 && (same[1] - 2.0).abs() < 1e-6);
        let zero = values(slerp(row(&[0.0, 0.0]), row(&[4.0, 0.0]), 0.25).unwrap());
        assert_eq!(zero, [1.0, 0.0]);
        for share in [0.25, 0.5, 0.75] {
            let found =
                values(slerp(row(&[3.0, 0.0, 0.0]), row(&[-3.0, 0.0, 0.0]), share).unwrap());
            assert!((length(&found) - 3.0).abs() < 1e-5, "{found:?}");
            let expected = 3.0 * (share * std::f64::consts::PI).cos() as f32;
            assert!((found[0] - expected).abs() < 1e-5, "{found:?}");
        }
        let one = values(slerp(row(&[2.0]), row(&[-2.0]), 0.5).unwrap());
        assert_eq!(one, [0.0]);
    }

    #[test]
    fn other_shapes_and_numbers_are_errors() {
        assert!(slerp(row(&[1.0]), row(&[1.0, 2.0]), 0.5).is_err());
        assert!(slerp(row(&[f32::NAN]), row(&[1.0]), 0.5).is_err());
    }
}
