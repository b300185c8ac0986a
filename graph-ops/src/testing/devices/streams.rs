//! Random numbers.

use graph_core::op::AttrValue;
use graph_core::{DType, PartialShape, Value};

use super::{cast, check_case, check_node, device, node};
use crate::cuda::FLOATS;
use crate::testing::Case;

#[test]
fn random_streams_are_those_of_the_cpu() {
    let Some(device) = device() else { return };
    for dtype in [DType::Float32, DType::Float64, DType::Half, DType::BFloat16] {
        for n in [0i32, 1, 2, 3, 4, 5, 1000, 4099] {
            for (seed, seed2) in [(1i64, 12i64), (-3, i64::MAX)] {
                let case = |op| {
                    Case::new(op)
                        .attr("dtype", dtype)
                        .attr("seed", seed)
                        .attr("seed2", seed2)
                        .input([n])
                };
                check_case(&device, &case("RandomUniform"), (0.0, 0.0));
                check_case(&device, &case("RandomStandardNormal"), (1e-6, 1e-9));
                check_case(&device, &case("TruncatedNormal"), (1e-6, 1e-9));
            }
        }
    }
}

#[test]
pub(super) fn random_masks_are_those_of_the_cpu() {
    let Some(device) = device() else { return };
    for dtype in FLOATS.iter().copied() {
        for n in [0usize, 1, 3, 5, 4099] {
            for threshold in [-1.0, 0.0, 0.25, 0.5, 1.0, f64::NAN] {
                let attrs = vec![
                    ("seed", AttrValue::from(7i64)),
                    ("seed2", AttrValue::from(9i64)),
                    ("T", AttrValue::from(dtype)),
                    ("shape", AttrValue::from(PartialShape::from([n]))),
                ];
                let mask = node(crate::random::mask(), attrs, &[dtype]);
                let threshold = cast(&Value::scalar(threshold), dtype);
                check_node(
                    &device,
                    &mask,
                    std::slice::from_ref(&threshold),
                    (0.0, 0.0),
                    &format!("{dtype} {n} {threshold:?}"),
                );
            }
        }
    }
}

#[test]
fn random_integers_are_those_of_the_cpu() {
    let Some(device) = device() else { return };
    let case = |dtype: DType| {
        let case = Case::new("RandomUniformInt").attr("Tout", dtype);
        case.attr("seed", 3i64).attr("seed2", 4i64).input([1003i64])
    };
    for (low, high) in [(-5i32, 100), (i32::MIN, i32::MAX), (7, 8)] {
        check_case(&device, &case(DType::Int32).input(low).input(high), (0.0, 0.0));
    }
    for (low, high) in [(-5i64, 100), (i64::MIN, i64::MAX), (7, 8)] {
        check_case(&device, &case(DType::Int64).input(low).input(high), (0.0, 0.0));
    }
    let bad = case(DType::Int64).input(7i64).input(7i64);
    let node = bad.node().unwrap();
    let error = graph_core::session::evaluate::evaluate_node_on(&node, &bad.inputs, &device.accelerator());
    assert_eq!(error.unwrap_err().class(), "InvalidArgument");
}
