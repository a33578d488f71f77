//! What a loss is computed from: numbers from the host that go to the device together.

use burn::tensor::{Bool, Device, Shape, Tensor, TensorData};

use crate::error::{Error, Result};

/// Numbers by name, on the host.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    values: Vec<f32>,
    places: Vec<Place>,
}

/// The same on a device.
#[derive(Clone, Debug)]
pub struct Given {
    values: Tensor<1>,
    places: Vec<Place>,
}

/// Where a tensor's numbers begin, and its shape.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    name: &'static str,
    start: usize,
    shape: Vec<usize>,
}

impl Inputs {
    /// Adds a tensor.
    ///
    /// # Errors
    /// [`Error::Shape`] if there are not as many values as its shape has.
    pub fn put(&mut self, name: &'static str, shape: &[usize], values: &[f32]) -> Result<()> {
        if values.len() != shape.iter().product::<usize>() {
            let expected = format!("values of {shape:?}");
            return Err(Error::shape(name, &[values.len()], expected));
        }
        self.places.push(Place {
            name,
            start: self.values.len(),
            shape: shape.to_vec(),
        });
        self.values.extend_from_slice(values);
        Ok(())
    }

    /// Adds a tensor, `[rows, ..shape]`, of which each example has a row.
    ///
    /// # Errors
    /// [`Error::Shape`] if a row has another length.
    pub fn put_rows<'a>(
        &mut self,
        name: &'static str,
        shape: &[usize],
        rows: impl Iterator<Item = &'a [f32]>,
    ) -> Result<()> {
        let (start, length) = (self.values.len(), shape.iter().product::<usize>());
        let mut count = 0;
        for row in rows {
            if row.len() != length {
                self.values.truncate(start);
                let expected = format!("{length} values: {shape:?}");
                return Err(Error::shape(name, &[row.len()], expected));
            }
            self.values.extend_from_slice(row);
            count += 1;
        }
        let shape = [&[count], shape].concat();
        self.places.push(Place { name, start, shape });
        Ok(())
    }

    /// Puts them onto a device.
    pub fn on(self, device: &Device) -> Given {
        let Self { values, places } = self;
        let count = values.len();
        let data = TensorData::new(values, [count]);
        Given {
            values: Tensor::from_data(data, device),
            places,
        }
    }

    /// All numbers, in a row.
    pub(super) fn into_values(self) -> Vec<f32> {
        self.values
    }
}

impl Given {
    /// A tensor.
    ///
    /// # Errors
    /// [`Error::Shape`] if there is none of that name with as many dimensions.
    pub fn get<const D: usize>(&self, name: &str) -> Result<Tensor<D>> {
        let of_name = |place: &&Place| place.name == name && place.shape.len() == D;
        let Some(place) = self.places.iter().find(of_name) else {
            let names: Vec<_> = self.places.iter().map(|place| place.name).collect();
            let expected = format!("{D} dimensions, among {}", names.join(", "));
            return Err(Error::shape(&format!("the input {name}"), &[], expected));
        };
        let values = self.values.clone().narrow(0, place.start, place.count());
        Ok(values.reshape(Shape::from(place.shape.clone())))
    }

    /// A tensor of what is true: of what is not 0.
    ///
    /// # Errors
    /// As of [`get`](Self::get).
    pub fn get_bool<const D: usize>(&self, name: &str) -> Result<Tensor<D, Bool>> {
        Ok(self.get::<D>(name)?.not_equal_scalar(0.0))
    }

    /// All numbers, in a row.
    pub(super) fn values(&self) -> &Tensor<1> {
        &self.values
    }

    /// Whether tensors of the same names and shapes are given.
    pub(super) fn is_like(&self, other: &Inputs) -> bool {
        self.places == other.places
    }
}

impl Place {
    fn count(&self) -> usize {
        self.shape.iter().product()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::to_host;

    #[test]
    fn tensors_come_back_by_name_and_shape() {
        let mut inputs = Inputs::default();
        let rows = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]];
        inputs
            .put_rows("rows", &[2], rows.iter().map(|row| &row[..]))
            .unwrap();
        inputs.put("seen", &[3], &[0.0, 1.0, 0.0]).unwrap();
        let short = inputs.put_rows("short", &[2], [&[1.0][..]].into_iter());
        assert!(short.unwrap_err().to_string().contains("short"));

        let given = inputs.on(&Device::flex());
        let found: Tensor<2> = given.get("rows").unwrap();
        assert_eq!(found.dims(), [3, 2]);
        assert_eq!(to_host(found, "rows").unwrap(), rows.concat());
        let seen = given.get_bool::<1>("seen").unwrap().into_data();
        assert_eq!(
            seen.iter::<bool>().collect::<Vec<_>>(),
            [false, true, false]
        );
        assert!(given.get::<3>("rows").is_err());
        let missing = given.get::<2>("raws").unwrap_err().to_string();
        assert!(
            missing.contains("raws") && missing.contains("rows, seen"),
            "{missing}"
        );
    }
}
