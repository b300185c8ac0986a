use crate::testing::Case;
use graph_core::Value;

/// Beside a plain loop: both directions, with and without the element itself, along each axis.
#[test]
fn every_line_is_scanned() {
    for shape in [
        [1, 5, 1],
        [7, 1, 300],
        [3, 40, 1],
        [2, 33, 259],
        [1, 20, 1030],
        [300, 9, 2],
    ] {
        let [_, len, inner] = shape;
        let count: usize = shape.iter().product();
        let bytes: Vec<u8> = (0..count).map(|at| (at * at % 251) as u8).collect();
        let floats: Vec<f32> = bytes.iter().map(|&x| f32::from(x) / 16.0 - 3.0).collect();
        for flags in 0..4 {
            let (exclusive, reverse) = (flags & 1 != 0, flags & 2 != 0);
            let scan = |value: Value| {
                let case = Case::new("Cumsum")
                    .attr("exclusive", exclusive)
                    .attr("reverse", reverse);
                case.input(value).input(1i32).run().unwrap().remove(0)
            };
            let of_bytes = scan(Value::from_vec(shape, bytes.clone()).unwrap());
            let of_floats = scan(Value::from_vec(shape, floats.clone()).unwrap());
            let (of_bytes, of_floats) = (of_bytes.as_slice::<u8>().unwrap(), of_floats.as_slice::<f32>().unwrap());
            for line in 0..count / len {
                let (mut byte, mut float) = (0u8, 0.0f32);
                for at in 0..len {
                    let at = if reverse { len - 1 - at } else { at };
                    let at = (line / inner * len + at) * inner + line % inner;
                    let next = (byte.wrapping_add(bytes[at]), float + floats[at]);
                    let expected = if exclusive { (byte, float) } else { next };
                    assert_eq!(
                        (of_bytes[at], of_floats[at]),
                        expected,
                        "{shape:?} {exclusive} {reverse} {at}"
                    );
                    (byte, float) = next;
                }
            }
        }
    }
}

#[test]
fn axes_out_of_range_are_errors() {
    for axis in [2i32, -3] {
        for op in ["Cumsum", "Cumprod"] {
            let error = Case::new(op).input([[1.0f32]]).input(axis).run().unwrap_err();
            assert_eq!(error.class(), "InvalidArgument");
        }
    }
}
