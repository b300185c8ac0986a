//! What a device's libraries do in the place of kernels of our own: convolutions, products with a bias and `Relu`.
//!
//! The libraries are emulated ones, which know cuDNN's layouts and its symmetric padding.

use std::sync::atomic::Ordering;
use std::time::Duration;

use graph_core::op::AttrValue;
use graph_core::session::evaluate::evaluate_node_on;
use graph_core::{DType, PartialShape, Value};
use graph_cuda::cache::Cache;
use graph_cuda::emulator::{ConvolutionLibrary, device_with_library};
use graph_cuda::{ConvolutionKernels, Cuda, DeviceOptions};

use super::convolutions::{CLOSE, Convolution, FUSED, fused_convolution};
use super::{Numbers, assert_close, cast, check_case, check_node, node};
use crate::nn::fused;

/// A device whose convolutions are the library's alone, and the library, whose one algorithm needs memory to work in.
fn device() -> Option<(Cuda, ConvolutionLibrary)> {
    let mut library = ConvolutionLibrary::new("test 1", &[(1, Duration::ZERO)]);
    library.algorithms[0].algorithm.workspace = 1000;
    let options = DeviceOptions {
        convolutions: Some(ConvolutionKernels::Cudnn),
        ..DeviceOptions::default()
    };
    device_with_library(library.clone(), Cache::of_user(), &options)
        .inspect_err(|error| println!("skipped: {error}"))
        .ok()
        .map(|cuda| (cuda, library))
}

#[test]
fn the_library_s_convolutions_are_those_of_the_cpu() {
    let Some((device, library)) = device() else { return };
    let mut numbers = Numbers(1);
    let (mut ran, mut refused) = (0, 0);
    for _ in 0..60 {
        for case in Convolution::any(&mut numbers).cases(&mut numbers) {
            let node = case.node().unwrap();
            let before = library.runs.load(Ordering::Relaxed);
            match evaluate_node_on(&node, &case.inputs, &device.accelerator()) {
                Ok(_) => {
                    check_case(&device, &case, CLOSE);
                    // Once above, twice in the check; a single algorithm is not timed.
                    assert_eq!(
                        library.runs.load(Ordering::Relaxed),
                        before + 3,
                        "the library did not run"
                    );
                    ran += 1;
                }
                Err(error) => {
                    assert_eq!(error.class(), "Unimplemented", "{error}");
                    assert!(error.to_string().contains("padding"), "{error}");
                    refused += 1;
                }
            }
        }
    }
    println!("{ran} convolutions, {refused} that the library does not have");
    assert!(ran > 50 && refused > 10, "{ran} ran, {refused} were refused");
}

#[test]
fn a_fused_convolution_of_the_library_gets_its_bias_relu_and_pool() {
    let Some((device, library)) = device() else { return };
    let mut numbers = Numbers(2);
    let inputs = [
        numbers.tensor(&[2, 6, 6, 4]),
        numbers.tensor(&[3, 3, 4, 5]),
        numbers.tensor(&[5]),
    ];
    let shapes = [[2usize, 6, 6, 5], [2, 3, 3, 5]].map(PartialShape::from);
    for (relu, makes) in FUSED {
        let before = library.runs.load(Ordering::Relaxed);
        let fused = fused_convolution(DType::Float64, "SAME", relu, makes, &shapes);
        check_node(&device, &fused, &inputs, CLOSE, &format!("relu {relu} {makes:?}"));
        assert!(library.runs.load(Ordering::Relaxed) > before, "the library did not run");
    }
}

#[test]
fn a_dense_layer_is_the_same_by_the_library_by_our_kernels_and_on_the_cpu() {
    let Some((with_library, _)) = device() else { return };
    let Some(without) = super::device() else { return };
    let mut numbers = Numbers(3);
    for [rows, columns, inner] in [[5, 7, 9], [1, 33, 4], [17, 1, 3], [3, 4, 0], [0, 4, 3]] {
        for (transpose_a, transpose_b) in [(false, false), (true, false), (false, true), (true, true)] {
            for (dtype, relu, close) in [
                (DType::Float32, true, (1e-5, 1e-6)),
                (DType::Float32, false, (1e-5, 1e-6)),
                (DType::Float64, true, CLOSE),
                (DType::Half, true, (2e-3, 4e-3)),
                (DType::BFloat16, false, (1e-2, 3e-2)),
            ] {
                let a = numbers.tensor(&if transpose_a { [inner, rows] } else { [rows, inner] });
                let b = numbers.tensor(&if transpose_b {
                    [columns, inner]
                } else {
                    [inner, columns]
                });
                let inputs = [a, b, numbers.tensor(&[columns])].map(|value| cast(&value, dtype));
                let attrs = vec![
                    ("T", AttrValue::from(dtype)),
                    ("transpose_a", AttrValue::from(transpose_a)),
                    ("transpose_b", AttrValue::from(transpose_b)),
                    ("relu", AttrValue::from(relu)),
                    ("shapes", AttrValue::from(vec![PartialShape::from([rows, columns])])),
                ];
                let layer = node(fused::mat_mul(), attrs, &[dtype]);
                let label = format!("[{rows}, {inner}] x [{inner}, {columns}] {dtype} {transpose_a} {transpose_b}");
                let run = |device: &Cuda| evaluate_node_on(&layer, &inputs, &device.accelerator()).unwrap();
                let (one, other): (Vec<Value>, Vec<Value>) = (run(&with_library), run(&without));
                if matches!(dtype, DType::Half | DType::BFloat16) {
                    // The library does not round the product before it adds the bias.
                    assert_close(&one[0], &other[0], close, &label);
                } else {
                    assert_eq!(one[0].bytes(), other[0].bytes(), "{label}");
                }
                check_node(&with_library, &layer, &inputs, close, &label);
            }
        }
    }
}
