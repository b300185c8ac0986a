//! The choice of convolutions on a device whose library and clock the test has in its hand.

use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use graph_core::accelerator::DeviceAddress;
use graph_core::{DType, Error, Result};

use crate::cache::Cache;
use crate::choice::{ConvolutionKernels, Method};
use crate::convolution::{Algorithm, Convolution, ConvolutionOp};
use crate::emulator::{ConvolutionLibrary, device_with_library};
use crate::{Cuda, DeviceOptions};

const SMALL: Convolution = Convolution {
    op: ConvolutionOp::Forward,
    dtype: DType::Float32,
    channels_last: true,
    images: [1, 3, 3, 1],
    taps: [2, 2],
    outputs: [2, 2, 1],
    padding: [0, 0],
    strides: [1, 1],
    dilations: [1, 1],
};

const SLOW: Duration = Duration::from_millis(8);
const FAST: Duration = Duration::ZERO;

/// The number of what stands for the engine's own kernels: an algorithm of the library that it does not offer.
const OWN: [i32; 2] = [-1, -2];

/// A device with this library that keeps its choices in `folder`; none without a C++ compiler, which is told.
fn device(library: &ConvolutionLibrary, folder: &Path, kernels: Option<ConvolutionKernels>) -> Option<Cuda> {
    let options = DeviceOptions {
        convolutions: kernels,
        convolution_workspace: Some(1 << 10),
        ..DeviceOptions::default()
    };
    let mut library = library.clone();
    for (number, delay) in OWN.into_iter().zip([FAST, SLOW]) {
        let mut own = ConvolutionLibrary::new("", &[(number, delay)]).algorithms[0];
        own.hidden = true;
        library.algorithms.push(own);
    }
    device_with_library(library, Cache::in_folder(folder), &options)
        .inspect_err(|error| println!("skipped: {error}"))
        .ok()
}

/// The choice for [`SMALL`] where the own kernels take `own`, and which methods were tried, in their order.
fn choose(cuda: &Cuda, own: Duration) -> (Result<Method>, Vec<Method>) {
    let tried = RefCell::new(Vec::new());
    let gpu = cuda.accelerator();
    let chosen = cuda.choose_convolution(Some(&SMALL), |workspace| {
        let memory = [36, 16, 16, workspace].map(|bytes| gpu.allocate(bytes).expect("memory"));
        let tried = &tried;
        Ok(Box::new(move |method| {
            tried.borrow_mut().push(method);
            let algorithm = match (method, own) {
                (Method::Library(algorithm), _) => algorithm,
                (Method::Own, FAST) => numbered(OWN[0]),
                (Method::Own, _) => numbered(OWN[1]),
            };
            let [images, filter, outputs, workspace] = memory;
            // SAFETY: the memory is as large as the tensors and the workspace.
            unsafe { cuda.convolve(&SMALL, algorithm, [images, filter, outputs], workspace) }
        }))
    });
    (chosen, tried.into_inner())
}

fn numbered(number: i32) -> Algorithm {
    Algorithm {
        number,
        math: 0,
        workspace: 0,
    }
}

fn algorithm(number: i32) -> Method {
    Method::Library(numbered(number))
}

#[test]
fn the_fastest_is_chosen_and_kept_for_other_processes() {
    let folder = tempfile::tempdir().unwrap();
    let library = ConvolutionLibrary::new("test 1", &[(5, SLOW), (7, FAST)]);
    let Some(cuda) = device(&library, folder.path(), None) else {
        return;
    };
    let (chosen, tried) = choose(&cuda, SLOW);
    assert_eq!(chosen.unwrap(), algorithm(7));
    for method in [Method::Own, algorithm(5), algorithm(7)] {
        assert!(
            tried.iter().filter(|&&one| one == method).count() >= 3,
            "{method:?} was not timed"
        );
    }
    // Nothing is measured again, by this device or by that of another process, even if times would be others.
    let runs = library.runs.load(Ordering::Relaxed);
    for cuda in [cuda, device(&library, folder.path(), None).unwrap()] {
        let (chosen, tried) = choose(&cuda, FAST);
        assert_eq!((chosen.unwrap(), tried), (algorithm(7), Vec::new()));
    }
    assert_eq!(library.runs.load(Ordering::Relaxed), runs);
    // Another version of the library is another matter.
    let newer = ConvolutionLibrary::new("test 2", &[(5, SLOW), (7, SLOW)]);
    let (chosen, tried) = choose(&device(&newer, folder.path(), None).unwrap(), FAST);
    assert_eq!(chosen.unwrap(), Method::Own);
    assert!(!tried.is_empty());
}

#[test]
fn a_choice_can_be_forced() {
    let folder = tempfile::tempdir().unwrap();
    let library = ConvolutionLibrary::new("test 1", &[(5, SLOW), (7, Duration::from_millis(4))]);
    let Some(own) = device(&library, folder.path(), Some(ConvolutionKernels::Own)) else {
        return;
    };
    let (chosen, tried) = choose(&own, SLOW);
    assert_eq!((chosen.unwrap(), tried), (Method::Own, Vec::new()));
    // The library alone, though its own kernels would be faster.
    let cudnn = device(&library, folder.path(), Some(ConvolutionKernels::Cudnn)).unwrap();
    let (chosen, tried) = choose(&cudnn, FAST);
    assert_eq!(chosen.unwrap(), algorithm(7));
    assert!(!tried.contains(&Method::Own));
    let error = cudnn
        .choose_convolution(None, |_| unreachable!("there is nothing to try"))
        .unwrap_err();
    assert_eq!(error.class(), "Unimplemented");
    // What was kept for one is none of the other's.
    let free = device(&library, folder.path(), None).unwrap();
    assert_eq!(choose(&free, FAST).0.unwrap(), Method::Own);
    for (text, kernels) in [
        ("own", ConvolutionKernels::Own),
        ("cudnn", ConvolutionKernels::Cudnn),
        ("faster", ConvolutionKernels::Faster),
    ] {
        assert_eq!(text.parse::<ConvolutionKernels>().unwrap(), kernels);
    }
    assert_eq!(
        "cuddn".parse::<ConvolutionKernels>().unwrap_err().class(),
        "InvalidArgument"
    );
}

#[test]
fn without_a_library_convolutions_are_our_own_unless_it_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let mut library = ConvolutionLibrary::new("", &[(5, FAST)]);
    library.version = Err("cuDNN is not there".to_owned());
    let Some(free) = device(&library, folder.path(), None) else {
        return;
    };
    let (chosen, tried) = choose(&free, SLOW);
    assert_eq!((chosen.unwrap(), tried), (Method::Own, Vec::new()));
    let asked = device(&library, folder.path(), Some(ConvolutionKernels::Cudnn)).unwrap();
    let error = choose(&asked, SLOW).0.unwrap_err();
    assert_eq!(error.class(), "Unavailable");
    assert!(error.to_string().contains("cuDNN is not there"), "{error}");
}

#[test]
fn algorithms_that_fail_or_want_too_much_memory_are_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let mut library = ConvolutionLibrary::new("test 1", &[(1, FAST), (2, FAST), (3, FAST)]);
    library.algorithms[0].fails = true;
    library.algorithms[1].algorithm.workspace = 1 << 20;
    library.algorithms[2].algorithm.workspace = 1 << 10;
    let Some(cuda) = device(&library, folder.path(), None) else {
        return;
    };
    let chosen = choose(&cuda, SLOW).0.unwrap();
    assert_eq!(chosen, Method::Library(library.algorithms[2].algorithm));
    // If all fail, or there is none, it is ours, or an error where it may not be.
    library.algorithms[2].fails = true;
    for (offered, class) in [(3, "Internal"), (0, "Unimplemented")] {
        library.algorithms.truncate(offered);
        library.version = Ok(format!("with {offered}"));
        let free = device(&library, folder.path(), None).unwrap();
        assert_eq!(choose(&free, SLOW).0.unwrap(), Method::Own);
        let asked = device(&library, folder.path(), Some(ConvolutionKernels::Cudnn)).unwrap();
        assert_eq!(choose(&asked, SLOW).0.unwrap_err().class(), class);
    }
}

#[test]
fn a_damaged_choice_is_measured_again() {
    let folder = tempfile::tempdir().unwrap();
    let library = ConvolutionLibrary::new("test 1", &[(7, FAST)]);
    let Some(cuda) = device(&library, folder.path(), None) else {
        return;
    };
    assert_eq!(choose(&cuda, SLOW).0.unwrap(), algorithm(7));
    let mut files = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|file| file.unwrap().path());
    let (file, None) = (files.next().unwrap(), files.next()) else {
        panic!("more than the choice was kept");
    };
    let whole = std::fs::read(&file).unwrap();
    let text = String::from_utf8(whole.clone()).unwrap();
    let replaced = |choice: &str| text.replace("library 7 0 0", choice).into_bytes();
    for damaged in [
        whole[..whole.len() - 3].to_vec(),
        whole[..10].to_vec(),
        Vec::new(),
        replaced("library 7 0 0 0"),
        replaced("library 99 0 0"),
        replaced("library x 0 0"),
        replaced("\u{fffd}"),
    ] {
        assert_ne!(damaged, whole);
        std::fs::write(&file, &damaged).unwrap();
        let (chosen, tried) = choose(&device(&library, folder.path(), None).unwrap(), SLOW);
        assert_eq!(chosen.unwrap(), algorithm(7));
        assert!(!tried.is_empty(), "{damaged:?} was taken for a choice");
        assert_eq!(std::fs::read(&file).unwrap(), whole, "it is not whole again");
    }
}

#[test]
fn without_memory_to_measure_it_is_ours() {
    let folder = tempfile::tempdir().unwrap();
    let library = ConvolutionLibrary::new("test 1", &[(7, FAST)]);
    let Some(cuda) = device(&library, folder.path(), None) else {
        return;
    };
    let chosen = cuda.choose_convolution(Some(&SMALL), |_| Err(Error::resource_exhausted("no memory")));
    assert_eq!(chosen.unwrap(), Method::Own);
    // That says nothing of the next time.
    assert_eq!(choose(&cuda, SLOW).0.unwrap(), algorithm(7));
}

#[test]
fn threads_that_choose_at_the_same_time_measure_once() {
    let folder = tempfile::tempdir().unwrap();
    let library = ConvolutionLibrary::new("test 1", &[(7, FAST)]);
    let Some(cuda) = device(&library, folder.path(), None) else {
        return;
    };
    let counts: Vec<usize> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let (chosen, tried) = choose(&cuda, SLOW);
                    assert_eq!(chosen.unwrap(), algorithm(7));
                    tried.len()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(counts.iter().filter(|&&count| count > 0).count(), 1, "{counts:?}");
}

#[test]
fn a_library_s_convolution_is_recorded_as_kernels_are() {
    let folder = tempfile::tempdir().unwrap();
    let library = ConvolutionLibrary::new("test 1", &[(7, FAST)]);
    let Some(cuda) = device(&library, folder.path(), None) else {
        return;
    };
    let gpu = cuda.accelerator();
    let put = |numbers: &[f32]| {
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_ne_bytes()).collect();
        let address = gpu.allocate(bytes.len()).unwrap();
        gpu.upload(&bytes, address).unwrap();
        address
    };
    let images = put(&[1., 2., 3., 4., 5., 6., 7., 8., 9.]);
    let (filter, outputs) = (put(&[1., 10., 100., 1000.]), put(&[0.; 4]));
    let Method::Library(algorithm) = algorithm(7) else {
        unreachable!()
    };
    let get = || {
        let mut bytes = [0; 16];
        gpu.download(outputs, &mut bytes).unwrap();
        let (numbers, _) = bytes.as_chunks::<4>();
        numbers
            .iter()
            .map(|&bytes| f32::from_ne_bytes(bytes))
            .collect::<Vec<_>>()
    };
    gpu.begin_capture().unwrap();
    // SAFETY: the tensors are of these sizes, and there is no workspace.
    unsafe { cuda.convolve(&SMALL, algorithm, [images, filter, outputs], DeviceAddress(0)) }.unwrap();
    let work = Arc::clone(&gpu).end_capture().unwrap();
    assert_eq!(get(), [0.; 4]);
    work.launch().unwrap();
    // Not flipped: 1 * 1 + 2 * 10 + 4 * 100 + 5 * 1000, and so on.
    assert_eq!(get(), [5421., 6532., 8754., 9865.]);
}
