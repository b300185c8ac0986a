//! A device's own work, on the emulated one.

use graph_core::accelerator::{Accelerator, CapturedWork, DeviceAddress};
use graph_core::{DType, Error, Result};
use std::sync::Arc;

use crate::driver::LANES;
use crate::emulator::{device, device_with};
use crate::{Cuda, DeviceOptions, Product, Rates, Source, arguments};

const SOURCE: Source = Source {
    name: "tests.cu",
    text: r"
KERNEL(scale, const T* x, T* y, T factor, i64 n) {
  typedef Compute<T>::type C;
  GRID_LOOP(i, n) y[i] = T(C(x[i]) * C(factor));
}

BLOCK_KERNEL(total, 256, const float* x, float* y, i64 n) {
  float sum = 0;
  for (i64 i = threadIdx.x; i < n; i += 256) sum += x[i];
  sum = reduce_block<Add, 256>(sum);
  if (threadIdx.x == 0) *y = sum;
}

KERNEL(round_trip, const float* x, float* halves, float* brains, i64 n) {
  GRID_LOOP(i, n) {
    halves[i] = float(f16(x[i]));
    brains[i] = float(bf16(x[i]));
  }
}
",
};

/// The emulated device; a test without one says why and ends.
fn emulated() -> Option<Cuda> {
    device().inspect_err(|error| println!("skipped: {error}")).ok()
}

fn bytes_of<T: Copy>(elements: &[T]) -> &[u8] {
    // SAFETY: numbers without padding.
    unsafe { std::slice::from_raw_parts(elements.as_ptr().cast(), size_of_val(elements)) }
}

fn put<T: Copy>(gpu: &Arc<dyn Accelerator>, elements: &[T]) -> DeviceAddress {
    let address = gpu.allocate(size_of_val(elements)).unwrap();
    gpu.upload(bytes_of(elements), address).unwrap();
    address
}

fn get<T: Copy + Default>(gpu: &Arc<dyn Accelerator>, address: DeviceAddress, count: usize) -> Vec<T> {
    let mut bytes = vec![0u8; count * size_of::<T>()];
    gpu.download(address, &mut bytes).unwrap();
    let mut elements = vec![T::default(); count];
    // SAFETY: numbers without padding, of as many bytes.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), elements.as_mut_ptr().cast(), bytes.len()) };
    elements
}

#[test]
fn a_kernel_runs_for_each_dtype_it_is_made_for() {
    let Some(cuda) = emulated() else { return };
    let gpu = cuda.accelerator();
    let x: Vec<f32> = (0..1000).map(|i| i as f32).collect();
    let (from, to) = (put(&gpu, &x), gpu.allocate(4000).unwrap());
    let scale = cuda.function(&SOURCE, "scale", &[("T", "float")]).unwrap();
    // SAFETY: the arguments are the kernel's, and the memory is as large.
    unsafe { scale.launch_over(1000, arguments![from, to, 2.5f32, 1000i64]) }.unwrap();
    let expected: Vec<f32> = x.iter().map(|x| x * 2.5).collect();
    assert_eq!(get::<f32>(&gpu, to, 1000), expected);

    let halves: Vec<half::f16> = x.iter().map(|&x| half::f16::from_f32(x)).collect();
    let from = put(&gpu, &halves);
    let scale = cuda.function(&SOURCE, "scale", &[("T", "f16")]).unwrap();
    // SAFETY: as above.
    unsafe { scale.launch_over(1000, arguments![from, to, half::f16::from_f32(0.5), 1000i64]) }.unwrap();
    let expected: Vec<half::f16> = x.iter().map(|&x| half::f16::from_f32(x * 0.5)).collect();
    assert_eq!(get::<half::f16>(&gpu, to, 1000), expected);
}

#[test]
fn threads_of_a_block_wait_for_each_other() {
    let Some(cuda) = emulated() else { return };
    let gpu = cuda.accelerator();
    let x: Vec<f32> = (0..1000).map(|i| i as f32).collect();
    let (from, to) = (put(&gpu, &x), gpu.allocate(4).unwrap());
    let total = cuda.function(&SOURCE, "total", &[("T", "float")]).unwrap();
    // Threads take their turns in another order in every second grid.
    for _ in 0..2 {
        // SAFETY: the arguments are the kernel's, and the memory is as large.
        unsafe { total.launch([1, 1, 1], [256, 1, 1], arguments![from, to, 1000i64]) }.unwrap();
        assert_eq!(get::<f32>(&gpu, to, 1), [499_500.0]);
    }
}

#[test]
fn narrow_floats_are_rounded_as_on_the_host() {
    let Some(cuda) = emulated() else { return };
    let gpu = cuda.accelerator();
    let mut x: Vec<f32> = (0..=u16::MAX)
        .map(|bits| half::bf16::from_bits(bits).to_f32())
        .collect();
    x.extend((0..=u16::MAX).map(|bits| half::f16::from_bits(bits).to_f32()));
    // Between neighbours, at and beside the middle.
    x.extend(
        (0..60_000u32).flat_map(|i| [0x0fff, 0x1000, 0x1001].map(|low| f32::from_bits(0x3300_0000 + (i << 13) + low))),
    );
    let (from, halves, brains) = (
        put(&gpu, &x),
        gpu.allocate(4 * x.len()).unwrap(),
        gpu.allocate(4 * x.len()).unwrap(),
    );
    let round_trip = cuda.function(&SOURCE, "round_trip", &[("T", "float")]).unwrap();
    // SAFETY: the arguments are the kernel's, and the memory is as large.
    unsafe { round_trip.launch_over(x.len(), arguments![from, halves, brains, x.len() as i64]) }.unwrap();
    let (halves, brains) = (get::<f32>(&gpu, halves, x.len()), get::<f32>(&gpu, brains, x.len()));
    for ((&x, half), brain) in x.iter().zip(halves).zip(brains) {
        let expected = (half::f16::from_f32(x).to_f32(), half::bf16::from_f32(x).to_f32());
        if x.is_nan() {
            assert!(half.is_nan() && brain.is_nan());
        } else {
            assert_eq!(
                (half.to_bits(), brain.to_bits()),
                (expected.0.to_bits(), expected.1.to_bits()),
                "{x:e}"
            );
        }
    }
}

#[test]
fn products_take_their_operands_either_way() {
    let Some(cuda) = emulated() else { return };
    let gpu = cuda.accelerator();
    // [2, 3] x [3, 2]
    let (a, b) = ([1f32, 2., 3., 4., 5., 6.], [1f32, 2., 3., 4., 5., 6.]);
    let (ta, tb) = ([1f32, 4., 2., 5., 3., 6.], [1f32, 3., 5., 2., 4., 6.]);
    let c = gpu.allocate(16).unwrap();
    for (transpose_a, transpose_b) in [(false, false), (true, false), (false, true), (true, true)] {
        let a = put(&gpu, if transpose_a { &ta } else { &a });
        let b = put(&gpu, if transpose_b { &tb } else { &b });
        let product = Product::new(DType::Float32, 2, 2, 3).transposed(transpose_a, transpose_b);
        // SAFETY: the matrices lie there.
        unsafe { cuda.multiply(&product, a, b, c) }.unwrap();
        assert_eq!(get::<f32>(&gpu, c, 4), [22., 28., 49., 64.]);
    }
}

#[test]
fn recorded_work_runs_as_often_as_it_is_launched() {
    let Some(cuda) = emulated() else { return };
    let gpu = cuda.accelerator();
    let x = put(&gpu, &[1f32, 2., 3.]);
    let scale = cuda.function(&SOURCE, "scale", &[("T", "float")]).unwrap();
    gpu.begin_capture().unwrap();
    // SAFETY: the arguments are the kernel's, and the memory is as large.
    unsafe { scale.launch_over(3, arguments![x, x, 2f32, 3i64]) }.unwrap();
    // What a GPU refuses while it records, the emulated one refuses too.
    assert_eq!(gpu.allocate(1 << 20).map_err(|error| error.class()), Err("Internal"));
    let work = gpu.clone().end_capture().unwrap();
    assert_eq!(get::<f32>(&gpu, x, 3), [1., 2., 3.]);
    work.launch().unwrap();
    work.launch().unwrap();
    assert_eq!(get::<f32>(&gpu, x, 3), [4., 8., 12.]);
}

#[test]
fn memory_that_is_given_back_is_handed_out_again() {
    let Some(cuda) = emulated() else { return };
    let gpu = cuda.accelerator();
    let first = gpu.allocate(1000).unwrap();
    assert_eq!(cuda.held_bytes(), 1024);
    gpu.free(first);
    assert_eq!(cuda.held_bytes(), 0);
    assert_eq!(gpu.allocate(900).unwrap(), first);
    // Much less than a free block is not taken from it.
    gpu.free(first);
    assert_ne!(gpu.allocate(100).unwrap(), first);
    gpu.free(DeviceAddress(12345));
}

#[test]
fn too_much_memory_is_an_error_that_says_how_much() {
    let options = DeviceOptions {
        memory_limit: Some(1 << 20),
        ..DeviceOptions::default()
    };
    let Ok(cuda) = device_with(0, 4 << 20, &options) else {
        return println!("skipped: no C++ compiler");
    };
    let gpu = cuda.accelerator();
    let report = |error: Error| (error.class(), error.to_string());
    let held = gpu.allocate(600 << 10).unwrap();
    let (class, message) = report(gpu.allocate(600 << 10).unwrap_err());
    assert_eq!(class, "ResourceExhausted");
    for part in ["614400 bytes", "/device:GPU:0", "held", "the limit is 1048576"] {
        assert!(message.contains(part), "{message}");
    }
    // What is free goes back to the driver before anything is refused.
    gpu.free(held);
    assert!(gpu.allocate(1 << 20).is_ok());
    let Ok(small) = device_with(0, 1 << 20, &DeviceOptions::default()) else {
        return;
    };
    let message = small.accelerator().allocate(2 << 20).unwrap_err().to_string();
    assert!(
        message.contains("1048576 are free") || message.contains("are free"),
        "{message}"
    );
}

#[test]
fn large_values_go_up_and_come_down_in_pieces() -> Result<()> {
    let Some(cuda) = emulated() else { return Ok(()) };
    let gpu = cuda.accelerator();
    let x: Vec<u32> = (0..3_000_001).collect();
    let address = put(&gpu, &x);
    assert_eq!(get::<u32>(&gpu, address, x.len()), x);
    // Nothing is a value too.
    gpu.upload(&[], address)?;
    gpu.download(address, &mut [])
}

#[test]
fn values_of_all_sizes_arrive_whole_in_any_sequence() {
    let Some(cuda) = emulated() else { return };
    let gpu = cuda.accelerator();
    // Smaller and larger than blocks that were used before, with a companion on the device and without.
    let sizes = [3usize, 70_000, 9, 3_000_000, 16, 20_000, 65_536, 1, 2_097_152];
    let values: Vec<Vec<u32>> = sizes
        .iter()
        .map(|&size| (size as u32..2 * size as u32).collect())
        .collect();
    for _ in 0..3 {
        let addresses: Vec<DeviceAddress> = values.iter().map(|value| put(&gpu, value)).collect();
        for (address, value) in addresses.into_iter().zip(&values) {
            assert!(
                get::<u32>(&gpu, address, value.len()) == *value,
                "{} numbers",
                value.len()
            );
            gpu.free(address);
        }
    }
}

#[test]
fn what_is_wrong_with_a_source_is_told() {
    let Some(cuda) = emulated() else { return };
    let wrong = Source {
        name: "wrong.cu",
        text: "KERNEL(wrong, int* x) { *x = no_such_name; }",
    };
    let Err(error) = cuda.function(&wrong, "wrong", &[]) else {
        panic!("it compiles");
    };
    let message = error.to_string();
    assert!(
        message.contains("wrong.cu") && message.contains("no_such_name"),
        "{message}"
    );
    let Err(error) = cuda.function(&SOURCE, "missing", &[("T", "float")]) else {
        panic!("it is there");
    };
    assert_eq!(error.class(), "NotFound");
}

#[test]
fn looking_for_devices_is_never_more_than_an_error() {
    match crate::devices() {
        Ok(devices) => println!("{} devices", devices.len()),
        Err(error) => {
            assert!(
                ["Unavailable", "FailedPrecondition"].contains(&error.class()),
                "{error}"
            );
            let Err(error) = crate::open(0, &DeviceOptions::default()) else {
                panic!("a device that is not there was opened");
            };
            assert!(
                ["Unavailable", "FailedPrecondition"].contains(&error.class()),
                "{error}"
            );
        }
    }
}

#[test]
fn what_another_thread_gives_is_not_recorded() {
    let Some(cuda) = emulated() else { return };
    let gpu = cuda.accelerator();
    let scale = cuda.function(&SOURCE, "scale", &[("T", "float")]).unwrap();
    let (mine, others) = (put(&gpu, &[1f32]), put(&gpu, &[1f32]));
    // SAFETY: the arguments are the kernel's, and the memory is as large.
    let double = |x: DeviceAddress| unsafe { scale.launch_over(1, arguments![x, x, 2f32, 1i64]) }.unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..200 {
                double(others);
                double(others);
                gpu.upload(bytes_of(&[1f32]), others).unwrap();
                gpu.free(gpu.allocate(1 << 10).unwrap());
            }
        });
        for _ in 0..100 {
            gpu.begin_capture().unwrap();
            assert_eq!(gpu.begin_capture().unwrap_err().class(), "FailedPrecondition");
            double(mine);
            let work = gpu.clone().end_capture().unwrap();
            gpu.upload(bytes_of(&[1f32]), mine).unwrap();
            work.launch().unwrap();
            assert_eq!(get::<f32>(&gpu, mine, 1), [2.0]);
        }
    });
    assert_eq!(get::<f32>(&gpu, others, 1), [1.0]);
}

#[test]
fn traced_work_is_timed_and_says_what_it_is() {
    let Some(cuda) = emulated() else { return };
    let gpu = cuda.accelerator();
    let x = put(&gpu, &[1f32, 2., 3., 4.]);
    let scale = cuda
        .function(&SOURCE, "scale", &[("T", "float")])
        .unwrap()
        .moving(32)
        .doing(4);
    // SAFETY: the arguments are the kernel's, and the memory is as large.
    let double = || unsafe { scale.launch_over(4, arguments![x, x, 2f32, 4i64]) }.unwrap();
    double();
    gpu.begin_trace().unwrap();
    double();
    let product = Product::new(DType::Float32, 2, 2, 1);
    let c = gpu.allocate(16).unwrap();
    // SAFETY: the matrices lie there.
    unsafe { cuda.multiply(&product, x, x, c) }.unwrap();
    // What another thread gives at the same time is none of the trace's.
    std::thread::scope(|scope| drop(scope.spawn(double).join()));
    get::<f32>(&gpu, c, 4);
    let timed = gpu.end_trace().unwrap();
    let names: Vec<&str> = timed.iter().map(|stats| &*stats.name).collect();
    assert_eq!(names, ["tests.cu/scale", "product 2x1x2 float", "copy to the host"]);
    let [kernel, product, copy] = &timed[..] else {
        panic!("{timed:?}")
    };
    assert_eq!((kernel.blocks, kernel.threads), ([1, 1, 1], [256, 1, 1]));
    assert_eq!((kernel.bytes, kernel.flops), (32, 4));
    assert_eq!((product.bytes, product.flops), (4 * (2 + 2 + 4), 8));
    assert_eq!(copy.bytes, 16);
    assert!(
        timed.iter().all(|stats| stats.time > std::time::Duration::ZERO),
        "{timed:?}"
    );
    // Nothing is timed from here on.
    double();
    gpu.begin_trace().unwrap();
    assert_eq!(gpu.end_trace().unwrap(), []);
}

#[test]
fn a_kernel_s_share_of_what_the_device_can_do_is_its_nearer_limit() {
    let Some(cuda) = emulated() else { return };
    let rates = Rates::measure(&cuda, 1 << 20, 32).unwrap();
    assert!(rates.bytes > 0.0 && rates.flops > 0.0, "{rates:?}");
    assert_eq!(cuda.held_bytes(), 0);
    let rates = Rates {
        bytes: 1e9,
        flops: 1e10,
    };
    let stats = |bytes, flops| graph_core::accelerator::KernelStats {
        name: "kernel".into(),
        blocks: [1; 3],
        threads: [1; 3],
        time: std::time::Duration::from_micros(10),
        bytes,
        flops,
    };
    for (bytes, flops, share) in [
        (5000, 0, Some(0.5)),
        (5000, 90_000, Some(0.9)),
        (9000, 10, Some(0.9)),
        (0, 0, None),
    ] {
        let got = rates.share(&stats(bytes, flops));
        assert_eq!(
            got.map(|share| (share * 1e6).round()),
            share.map(|share: f64| share * 1e6),
            "{bytes} {flops}"
        );
    }
}

/// Records `y = 2x` and `z = 3y` in two lanes, which wait for each other or do not.
fn in_two_lanes(cuda: &Cuda, [x, y, z]: [DeviceAddress; 3], waits: bool) -> Box<dyn CapturedWork> {
    let gpu = cuda.accelerator();
    let scale = cuda.function(&SOURCE, "scale", &[("T", "float")]).unwrap();
    gpu.begin_capture().unwrap();
    gpu.enter_lane(1, &[]).unwrap();
    // SAFETY: the arguments are the kernel's, and the memory is as large.
    unsafe { scale.launch_over(2, arguments![x, y, 2f32, 2i64]) }.unwrap();
    let mark = gpu.mark_lane().unwrap();
    let marks = [mark];
    gpu.enter_lane(0, if waits { &marks } else { &[] }).unwrap();
    // SAFETY: as above.
    unsafe { scale.launch_over(2, arguments![y, z, 3f32, 2i64]) }.unwrap();
    gpu.end_capture().unwrap()
}

#[test]
fn lanes_wait_for_each_other_where_they_are_told_to_and_nowhere_else() {
    let Some(cuda) = emulated() else { return };
    let gpu = cuda.accelerator();
    assert_eq!(gpu.lanes().most(), LANES);
    let tensors = [&[1f32, 2.], &[0., 0.], &[0., 0.]].map(|elements| put(&gpu, elements));
    for waits in [true, false] {
        let work = in_two_lanes(&cuda, tensors, waits);
        let mut right = 0;
        for _ in 0..20 {
            gpu.upload(bytes_of(&[0f32, 0.]), tensors[1]).unwrap();
            work.launch().unwrap();
            right += usize::from(get::<f32>(&gpu, tensors[2], 2) == [6., 12.]);
        }
        match waits {
            true => assert_eq!(right, 20),
            // What does not wait runs in both orders, so that tests see what is missing.
            false => assert!((1..20).contains(&right), "{right}"),
        }
    }
}

#[test]
fn a_lane_without_work_hands_on_what_it_waits_for() {
    let Some(cuda) = emulated() else { return };
    let gpu = cuda.accelerator();
    let [x, y] = [&[1f32], &[0.]].map(|elements| put(&gpu, elements));
    let scale = cuda.function(&SOURCE, "scale", &[("T", "float")]).unwrap();
    gpu.begin_capture().unwrap();
    // SAFETY: the arguments are the kernel's, and the memory is as large.
    unsafe { scale.launch_over(1, arguments![x, y, 2f32, 1i64]) }.unwrap();
    let first = gpu.mark_lane().unwrap();
    gpu.enter_lane(1, &[first]).unwrap();
    let second = gpu.mark_lane().unwrap();
    gpu.enter_lane(2, &[second]).unwrap();
    // SAFETY: as above.
    unsafe { scale.launch_over(1, arguments![y, y, 2f32, 1i64]) }.unwrap();
    let work = gpu.clone().end_capture().unwrap();
    for _ in 0..20 {
        gpu.upload(bytes_of(&[0f32]), y).unwrap();
        work.launch().unwrap();
        assert_eq!(get::<f32>(&gpu, y, 1), [4.]);
    }
    // Lanes are a recording's, and there are so many.
    assert_eq!(gpu.enter_lane(1, &[]).unwrap_err().class(), "FailedPrecondition");
    assert_eq!(gpu.enter_lane(LANES, &[]).unwrap_err().class(), "Internal");
}
