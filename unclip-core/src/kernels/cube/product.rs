//! Matrix products in f32, or on matrix units in TF32.

use burn::tensor::{DType, Shape};
use burn_cubecl::{ops::numeric::empty_device_contiguous_dtype, ops::permute, tensor::CubeTensor};
use cubek::{
    matmul::{
        definition::{MatmulElems, MatmulGlobalElems},
        launch::launch_ref,
        multi_level,
        strategy::Strategy,
    },
    std::InputBinding,
};

use crate::kernels::precision::is_tf32;

/// Products of matrices, `[b, m, k]` and `[b, k, n]`, where either may have one for all.
///
/// Not Burn's own product: without tuning it takes f32 for TF32 wherever there are matrix units.
pub(super) fn product(lhs: CubeTensor, rhs: CubeTensor) -> CubeTensor {
    let ([batch, m, _], [others, _, n]) = (lhs.meta.shape().dims(), rhs.meta.shape().dims());
    let out = empty([batch.max(others), m, n].into(), &lhs);
    let strategy = match is_tf32() {
        true => Strategy::Auto,
        false => multi_level::Strategy::SimpleUnit(Default::default()).into(),
    };
    let f32 = burn::backend::cubecl::dtype_to_storage_type(DType::F32);
    let mut types = MatmulElems::from_globals(&MatmulGlobalElems {
        lhs: f32,
        rhs: f32,
        out: f32,
    });
    let client = lhs.client.clone();
    let launched = launch_ref(
        &strategy,
        &client,
        InputBinding::new(lhs.binding(), f32),
        InputBinding::new(rhs.binding(), f32),
        out.clone().binding(),
        &mut types,
    );
    if let Err(error) = launched {
        panic!("no matrix product on this device: {error:?}");
    }
    out
}

/// Matrices with rows and columns changed over, in the memory that they have.
pub(super) fn transposed(x: CubeTensor) -> CubeTensor {
    permute(x, &[0, 2, 1])
}

/// Memory for a contiguous tensor beside another.
pub(super) fn empty(shape: Shape, beside: &CubeTensor) -> CubeTensor {
    let (client, device) = (beside.client.clone(), beside.device.clone());
    empty_device_contiguous_dtype(client, device, shape, DType::F32)
}
