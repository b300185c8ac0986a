//! What moves elements by rules of its own: blocks of space, diagonals, borders, sequences, pictures.

use graph_core::{DType, Value};

use super::{Numbers, cast, check_case, device};
use crate::testing::Case;

const EXACT: (f64, f64) = (0.0, 0.0);

fn pairs(rows: &[[i32; 2]]) -> Value {
    Value::from_vec([rows.len(), 2], rows.concat()).unwrap()
}

#[test]
fn blocks_of_space_are_moved_as_on_the_cpu() {
    let Some(device) = device() else { return };
    let mut numbers = Numbers(71);
    for (shape, block, borders) in [
        (vec![2, 5, 6, 3], vec![2, 3], vec![[1, 0], [0, 3]]),
        (vec![3, 4], vec![4], vec![[4, 4]]),
        (vec![1, 2, 3, 4, 5], vec![1, 2, 2], vec![[0, 0], [1, 0], [0, 0]]),
        (vec![0, 4, 4, 1], vec![2, 2], vec![[0, 0], [0, 0]]),
    ] {
        let x = numbers.tensor(&shape);
        for x in [x.clone(), cast(&x, DType::Float32)] {
            let case = Case::new("SpaceToBatchND").input(x).input(Value::from(block.clone()));
            check_case(&device, &case.input(pairs(&borders)), EXACT);
        }
    }
    let x = numbers.tensor(&[12, 3, 4, 2]);
    let case = Case::new("BatchToSpaceND").input(x.clone()).input([2i32, 3]);
    check_case(&device, &case.input(pairs(&[[1, 2], [0, 4]])), EXACT);
    for format in ["NHWC", "NCHW"] {
        let x = numbers.tensor(&[2, 12, 4, 12]);
        for op in ["SpaceToDepth", "DepthToSpace"] {
            let case = Case::new(op).attr("block_size", 2i64).attr("data_format", format);
            check_case(&device, &case.input(x.clone()), EXACT);
        }
    }
}

#[test]
fn diagonals_bands_and_borders_are_those_of_the_cpu() {
    let Some(device) = device() else { return };
    let mut numbers = Numbers(72);
    for (rows, columns) in [(4, 4), (3, 7), (6, 2), (1, 300), (0, 3)] {
        let x = numbers.tensor(&[2, rows, columns]);
        check_case(&device, &Case::new("MatrixDiagPart").input(x.clone()), EXACT);
        let diagonal = numbers.tensor(&[2, rows.min(columns)]);
        let case = Case::new("MatrixSetDiag").input(x.clone()).input(diagonal.clone());
        check_case(&device, &case, EXACT);
        check_case(&device, &Case::new("MatrixDiag").input(diagonal), EXACT);
        for (lower, upper) in [(0i64, 0i64), (-1, 1), (1, -1), (2, 0)] {
            if lower > rows as i64 || upper > columns as i64 {
                continue;
            }
            let case = Case::new("MatrixBandPart").input(x.clone()).input(lower).input(upper);
            check_case(&device, &case, EXACT);
        }
    }
    check_case(&device, &Case::new("Diag").input(numbers.tensor(&[3, 5])), EXACT);
    check_case(
        &device,
        &Case::new("DiagPart").input(numbers.tensor(&[3, 5, 3, 5])),
        EXACT,
    );
    for mode in ["REFLECT", "SYMMETRIC"] {
        let case = Case::new("MirrorPadGrad")
            .attr("mode", mode)
            .input(numbers.tensor(&[9, 8, 11]));
        check_case(&device, &case.input(pairs(&[[2, 3], [0, 0], [4, 1]])), (1e-12, 1e-12));
    }
    for (shift, axis) in [(vec![2, -1], vec![0, 2]), (vec![0], vec![1]), (vec![5, 5], vec![1, 1])] {
        let x = numbers.tensor(&[3, 4, 5]);
        check_case(&device, &Case::new("Roll").input(x).input(shift).input(axis), EXACT);
    }
    for (sequence, batch) in [(1i64, 0i64), (0, 2), (2, 1)] {
        let x = numbers.tensor(&[5, 5, 5]);
        let case = Case::new("ReverseSequence")
            .attr("seq_dim", sequence)
            .attr("batch_dim", batch);
        check_case(&device, &case.input(x).input([0i64, 5, 2, 3, 1]), EXACT);
    }
}

#[cfg(feature = "full")]
#[test]
fn pictures_are_resized_and_cropped_as_on_the_cpu() {
    let Some(device) = device() else { return };
    let mut numbers = Numbers(73);
    let picture = cast(&numbers.tensor(&[2, 7, 9, 3]), DType::Float32);
    let close = (2e-5, 2e-6);
    for size in [[3i32, 4], [14, 18], [1, 20], [7, 9]] {
        for (corners, centres) in [(false, false), (true, false), (false, true)] {
            for op in ["Bilinear", "Bicubic", "NearestNeighbor"] {
                let name: &'static str = match op {
                    "Bilinear" => "ResizeBilinear",
                    "Bicubic" => "ResizeBicubic",
                    _ => "ResizeNearestNeighbor",
                };
                let case = Case::new(name)
                    .attr("align_corners", corners)
                    .attr("half_pixel_centers", centres);
                check_case(&device, &case.input(picture.clone()).input(size), close);
                let name: &'static str = match op {
                    "Bilinear" => "ResizeBilinearGrad",
                    "Bicubic" => "ResizeBicubicGrad",
                    _ => "ResizeNearestNeighborGrad",
                };
                let shape = [2, size[0] as usize, size[1] as usize, 3];
                let gradient = cast(&numbers.tensor(&shape), DType::Float32);
                let case = Case::new(name)
                    .attr("align_corners", corners)
                    .attr("half_pixel_centers", centres);
                let case = case.input(gradient);
                let case = match op {
                    "NearestNeighbor" => case.input([7i32, 9]),
                    _ => case.input(picture.clone()),
                };
                check_case(&device, &case, close);
            }
        }
        check_case(
            &device,
            &Case::new("ResizeArea").input(picture.clone()).input(size),
            close,
        );
    }
    let boxes = [
        [0.0f32, 0.0, 1.0, 1.0],
        [0.9, 0.2, 0.1, 0.8],
        [-0.3, 0.4, 0.7, 1.4],
        [0.5, 0.5, 0.5, 0.5],
    ];
    let (of, size) = ([0i32, 1, 1, 0], [5i32, 4]);
    for method in ["bilinear", "nearest"] {
        let case = Case::new("CropAndResize")
            .attr("method", method)
            .attr("extrapolation_value", 2.0f32);
        let case = case.input(picture.clone()).input(boxes).input(of).input(size);
        check_case(&device, &case, close);
        let gradient = cast(&numbers.tensor(&[4, 5, 4, 3]), DType::Float32);
        let case = Case::new("CropAndResizeGradImage")
            .attr("method", method)
            .attr("T", DType::Float32);
        let case = case.input(gradient).input(boxes).input(of).input([2i32, 7, 9, 3]);
        check_case(&device, &case, close);
    }
    let gradient = cast(&numbers.tensor(&[4, 5, 4, 3]), DType::Float32);
    let case = Case::new("CropAndResizeGradBoxes")
        .input(gradient)
        .input(picture.clone());
    check_case(&device, &case.input(boxes).input(of), (1e-4, 1e-4));
    for padding in ["SAME", "VALID"] {
        let case = Case::new("ExtractImagePatches")
            .attr("ksizes", vec![1i64, 3, 2, 1])
            .attr("strides", vec![1i64, 2, 3, 1])
            .attr("rates", vec![1i64, 2, 1, 1])
            .attr("padding", padding);
        check_case(&device, &case.input(picture.clone()), EXACT);
    }
    let colours = cast(&numbers.coarse(&[2, 5, 40, 3]), DType::Float32);
    for (op, amount) in [
        ("RGBToHSV", None),
        ("HSVToRGB", None),
        ("AdjustHue", Some(0.3f32)),
        ("AdjustSaturation", Some(0.6)),
        ("AdjustContrastv2", Some(1.5)),
    ] {
        let mut case = Case::new(op).input(colours.clone());
        if let Some(amount) = amount {
            case = case.input(amount);
        }
        check_case(&device, &case, (1e-5, 1e-6));
    }
}
