//! Which samples of a batch lose a condition, so that guidance has something to lead away from.

use crate::{
    error::{Error, Result},
    noise::Noise,
};

/// For each of `count` samples whether it keeps the condition, which a `dropout`-th of them loses.
/// `name` is for the error.
///
/// # Errors
/// [`Error::Setting`] unless `dropout` is between 0 and 1.
pub fn kept_conditions(
    name: &str,
    dropout: f32,
    count: usize,
    noise: &mut Noise,
) -> Result<Vec<bool>> {
    if !(0.0..=1.0).contains(&dropout) {
        let expected = "a share of the samples, from 0 to 1";
        return Err(Error::setting(name, dropout, expected));
    }
    let uniform = noise.uniform_vec(count);
    Ok(uniform.into_iter().map(|u| u >= dropout).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_dropped_and_what_is_none_is_refused() {
        let mut noise = Noise::from_seed(1);
        let mut kept = |dropout| {
            let kept = kept_conditions("caption dropout", dropout, 4_000, &mut noise);
            kept.map(|kept| kept.into_iter().filter(|kept| *kept).count())
        };
        assert_eq!(kept(0.0).unwrap(), 4_000);
        assert_eq!(kept(1.0).unwrap(), 0);
        assert!((2_900..3_100).contains(&kept(0.25).unwrap()));
        for wrong in [-0.1, 1.1, f32::NAN] {
            let error = kept(wrong).unwrap_err().to_string();
            assert!(error.contains("caption dropout"), "{error}");
        }
    }
}
