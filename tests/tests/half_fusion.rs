//! Fused operations of 16 bits compute what the operations that they stand for compute one by one, on the host and on an emulated
//! GPU: bit for bit, but for sums in another order.

use std::collections::BTreeSet;

use graph_core::session::{Feeds, RewriteOptions, RunOptions, SessionOptions};
use graph_core::{DType, Element, Graph, Session, Tensor, Value, Variable, feed, gradients};
use graph_cuda::Cuda;
use graph_ops::train::{AdamOptimizer, Optimizer};
use graph_ops::{array, math, nn, state};
use half::{bf16, f16};

/// A number of 16 bits.
trait Half: Element {
    /// What neighbours are apart, relatively.
    const EPSILON: f64;
    fn of(x: f64) -> Self;
    fn to(self) -> f64;
}

impl Half for f16 {
    const EPSILON: f64 = 1.0 / 1024.0;
    fn of(x: f64) -> Self {
        Self::from_f64(x)
    }
    fn to(self) -> f64 {
        self.to_f64()
    }
}

impl Half for bf16 {
    const EPSILON: f64 = 1.0 / 128.0;
    fn of(x: f64) -> Self {
        Self::from_f64(x)
    }
    fn to(self) -> f64 {
        self.to_f64()
    }
}

/// Numbers between -2 and 2.
fn numbers<T: Half>(shape: &[usize], seed: f64) -> Value {
    let count = shape.iter().product::<usize>();
    let number = |i: usize| T::of(((i as f64 + 1.0) * seed).sin() * 2.0);
    Value::from_vec(shape.to_vec(), (0..count).map(number).collect::<Vec<T>>()).unwrap()
}

fn floats(shape: &[usize], seed: f64) -> Value {
    let count = shape.iter().product::<usize>();
    let number = |i: usize| ((i as f64 + 1.0) * seed).sin() as f32 * 2.0;
    Value::from_vec(shape.to_vec(), (0..count).map(number).collect::<Vec<f32>>()).unwrap()
}

/// The devices that there are: the host, and the emulated GPU.
fn devices() -> Vec<Option<Cuda>> {
    let gpu = graph_cuda::emulator::device().inspect_err(|error| println!("skipped: {error}"));
    [None].into_iter().chain(gpu.ok().map(Some)).collect()
}

fn session(graph: &Graph, rewrites: RewriteOptions, device: &Option<Cuda>) -> Session {
    let options = SessionOptions::new()
        .rewrites(rewrites)
        .accelerators(device.iter().map(Cuda::accelerator).collect());
    Session::with_options(graph, options).unwrap()
}

/// What is fetched, and the ops that ran.
fn run(session: &Session, fetches: &[Tensor], feeds: Feeds) -> (Vec<Value>, BTreeSet<&'static str>) {
    let options = RunOptions {
        trace: true,
        ..RunOptions::default()
    };
    let (values, metadata) = session.run_with::<Vec<Value>>(fetches, feeds, &options).unwrap();
    (values, metadata.nodes.iter().map(|node| node.op).collect())
}

/// What is fetched with all fusions and without any, and the ops that ran with them.
fn fused_and_plain(
    graph: &Graph,
    fetches: &[Tensor],
    feeds: impl Fn() -> Feeds,
    device: &Option<Cuda>,
) -> ([Vec<Value>; 2], BTreeSet<&'static str>) {
    let (fused, ops) = run(&session(graph, RewriteOptions::all(), device), fetches, feeds());
    let (plain, _) = run(&session(graph, RewriteOptions::none(), device), fetches, feeds());
    ([fused, plain], ops)
}

/// Equal, or neighbours: sums in another order, rounded once.
#[track_caller]
fn assert_neighbours<T: Half>(got: &Value, expected: &Value) {
    let (got, expected) = (got.as_slice::<T>().unwrap(), expected.as_slice::<T>().unwrap());
    for (&got, &expected) in got.iter().zip(expected) {
        let apart = (got.to() - expected.to()).abs();
        assert!(apart <= T::EPSILON * expected.to().abs(), "{got:?} and {expected:?}");
    }
}

/// A chain of most kinds of operations, which leaves 16 bits for `float` and comes back.
fn chains_are_their_operations<T: Half>() {
    graph_ops::install();
    let graph = Graph::new();
    let _default = graph.as_default();
    let x = array::placeholder::<T>([None, None]).build().unwrap();
    let column = array::placeholder::<T>([None, Some(1)]).build().unwrap();
    let row = array::placeholder::<T>([None]).build().unwrap();
    let wide = array::placeholder::<f32>([None, None]).build().unwrap();
    let shifted = math::subtract(math::multiply(&x, &column), &row).build().unwrap();
    let kept = math::cast(math::greater(&shifted, &x), T::DTYPE);
    let squashed = math::multiply(math::tanh(&shifted), kept).build().unwrap();
    let terms = [
        squashed.clone(),
        math::sigmoid(&x).build().unwrap(),
        math::square(math::subtract(&x, &row)).build().unwrap(),
        nn::relu(&shifted).build().unwrap(),
    ];
    let sum = math::add_n(terms).build().unwrap();
    let float = math::add(math::cast(&sum, DType::Float32), &wide).build().unwrap();
    let back = math::cast(&float, T::DTYPE).build().unwrap();
    let y = math::maximum(math::divide(&back, math::add(math::abs(&x), &column)), &row)
        .build()
        .unwrap();
    for device in devices() {
        for (rows, columns) in [(1, 1), (1, 7), (5, 1), (37, 53), (300, 700), (0, 3)] {
            if device.is_some() && rows * columns > 10_000 {
                continue;
            }
            let feeds = || {
                feed! {
                    x => numbers::<T>(&[rows, columns], 0.7),
                    column => numbers::<T>(&[rows, 1], 1.3),
                    row => numbers::<T>(&[columns], 2.1),
                    wide => floats(&[rows, columns], 0.3)
                }
            };
            let ([fused, plain], ops) = fused_and_plain(&graph, std::slice::from_ref(&y), feeds, &device);
            assert_eq!(
                fused[0].bytes(),
                plain[0].bytes(),
                "[{rows}, {columns}] of {}",
                T::DTYPE
            );
            assert!(ops.contains("_FusedElementwise"), "{ops:?}");
            for op in ["Mul", "AddN", "Tanh", "Cast", "Greater"] {
                assert!(!ops.contains(op), "{op} in {ops:?}");
            }
        }
    }
}

#[test]
fn chains_in_16_bits_have_the_bits_of_their_operations() {
    chains_are_their_operations::<f16>();
    chains_are_their_operations::<bf16>();
}

/// A convolutional layer with its pool and a dense one, and their gradients.
fn layers_are_their_operations<T: Half>() {
    graph_ops::install();
    let graph = Graph::new();
    let _default = graph.as_default();
    let given = |shape: &[usize]| {
        let shape = graph_core::PartialShape::from_dims(shape.iter().map(|&dim| Some(dim)));
        array::placeholder::<T>(shape).build().unwrap()
    };
    let images = array::placeholder::<T>([None, Some(9), Some(8), Some(3)])
        .build()
        .unwrap();
    let (filter, bias) = (given(&[3, 3, 3, 5]), given(&[5]));
    let (inner, inner_bias) = (given(&[45, 6]), given(&[6]));
    let (outer, outer_bias) = (given(&[6, 3]), given(&[3]));
    let convolution = nn::conv2d(&images, &filter).strides([1; 4]).padding("VALID");
    let activity = nn::relu(nn::bias_add(convolution.build().unwrap(), &bias))
        .build()
        .unwrap();
    let pooled = nn::max_pool(&activity)
        .ksize([1, 2, 2, 1])
        .strides([1, 2, 2, 1])
        .padding("VALID");
    let flat = array::reshape(pooled.build().unwrap(), [-1, 45]).build().unwrap();
    let hidden = nn::relu(nn::bias_add(math::matmul(&flat, &inner), &inner_bias));
    let logits = nn::bias_add(math::matmul(hidden.build().unwrap(), &outer), &outer_bias)
        .build()
        .unwrap();
    let parameters = [&filter, &bias, &inner, &inner_bias];
    let gradients = gradients([&logits], parameters).unwrap().build().unwrap();
    let gradients = gradients.into_iter().map(Option::unwrap);
    let fetches: Vec<Tensor> = [logits].into_iter().chain(gradients).collect();
    for device in devices() {
        for batch in [1, 4, 7] {
            let feeds = || {
                feed! {
                    images => numbers::<T>(&[batch, 9, 8, 3], 0.7),
                    filter => numbers::<T>(&[3, 3, 3, 5], 1.1),
                    bias => numbers::<T>(&[5], 0.4),
                    inner => numbers::<T>(&[45, 6], 1.9),
                    inner_bias => numbers::<T>(&[6], 0.6),
                    outer => numbers::<T>(&[6, 3], 2.3),
                    outer_bias => numbers::<T>(&[3], 0.9)
                }
            };
            let ([fused, plain], ops) = fused_and_plain(&graph, &fetches, feeds, &device);
            for op in ["_FusedConv2D", "_FusedMatMul", "_MaxPoolReluGrad"] {
                assert!(ops.contains(op), "no {op} in {ops:?}");
            }
            for (index, (fused, plain)) in fused.iter().zip(&plain).enumerate() {
                match index {
                    // The bias's gradient, which the host sums by rows of windows.
                    2 => assert_neighbours::<T>(fused, plain),
                    _ => assert_eq!(
                        fused.bytes(),
                        plain.bytes(),
                        "result {index}, {batch} images of {}",
                        T::DTYPE
                    ),
                }
            }
            // Where nothing is trained, the activity before the pool is nowhere.
            let ([fused, plain], ops) = fused_and_plain(&graph, &fetches[..1], feeds, &device);
            assert!(!ops.contains("MaxPool"), "{ops:?}");
            assert_eq!(
                fused[0].bytes(),
                plain[0].bytes(),
                "logits, {batch} images of {}",
                T::DTYPE
            );
        }
    }
}

#[test]
fn layers_in_16_bits_have_the_bits_of_their_operations() {
    layers_are_their_operations::<f16>();
    layers_are_their_operations::<bf16>();
}

/// Dropout, an outer product in a chain, and sums over all elements.
fn masks_products_and_sums_are_their_operations<T: Half>() {
    graph_ops::install();
    let graph = Graph::new();
    graph.set_random_seed(3);
    let _default = graph.as_default();
    let x = array::placeholder::<T>([None, None]).build().unwrap();
    let (column, row) = (
        array::placeholder::<T>([None, Some(1)]).build().unwrap(),
        array::placeholder::<T>([Some(1), None]).build().unwrap(),
    );
    let dropped = nn::dropout(&x, 0.5).build().unwrap();
    let product = math::add(math::matmul(&column, &row), &x).build().unwrap();
    let cast = math::cast(&x, DType::Float32);
    let sums = [
        nn::l2_loss(&x).build().unwrap(),
        math::reduce_sum(math::tanh(&x)).build().unwrap(),
        math::cast(math::reduce_sum(math::square(cast)), T::DTYPE)
            .build()
            .unwrap(),
    ];
    let fetches: Vec<Tensor> = [dropped, product].into_iter().chain(sums).collect();
    for device in devices() {
        for (rows, columns) in [(3, 5), (61, 67)] {
            let feeds = || {
                feed! {
                    x => numbers::<T>(&[rows, columns], 0.7),
                    column => numbers::<T>(&[rows, 1], 1.3),
                    row => numbers::<T>(&[1, columns], 2.1)
                }
            };
            let ([fused, plain], ops) = fused_and_plain(&graph, &fetches, feeds, &device);
            for op in ["_RandomMask", "_FusedSum", "_FusedElementwise"] {
                assert!(ops.contains(op), "no {op} in {ops:?}");
            }
            for op in ["RandomUniform", "MatMul", "L2Loss", "Sum"] {
                assert!(!ops.contains(op), "{op} in {ops:?}");
            }
            for (index, (fused, plain)) in fused.iter().zip(&plain).enumerate() {
                match index {
                    0 | 1 => assert_eq!(fused.bytes(), plain.bytes(), "result {index} of {}", T::DTYPE),
                    _ => assert_neighbours::<T>(fused, plain),
                }
            }
        }
    }
}

#[test]
fn masks_products_and_sums_in_16_bits_are_those_of_their_operations() {
    masks_products_and_sums_are_their_operations::<f16>();
    masks_products_and_sums_are_their_operations::<bf16>();
}

/// A variable in `float` whose gradient is but a `Cast` from 16 bits, and one with a regularizer.
fn updates_are_their_operations<T: Half>() {
    graph_ops::install();
    let graph = Graph::new();
    let _default = graph.as_default();
    let [x, z] = [0; 2].map(|_| array::placeholder::<T>([Some(6), Some(9)]).build().unwrap());
    let variable = |name: &str, seed: f64| Variable::new(floats(&[9, 5], seed)).name(name).build().unwrap();
    let (plain, regularized) = (variable("plain", 0.3), variable("regularized", 0.8));
    let products = [(&x, &plain), (&z, &regularized)]
        .map(|(x, variable)| math::matmul(x, math::cast(variable, T::DTYPE)).build().unwrap());
    let sum = math::tanh(math::add(&products[0], &products[1]));
    let cost = math::reduce_sum(math::square(math::cast(sum, DType::Float32)));
    let norm = math::multiply(nn::l2_loss(&regularized), 0.1f32);
    let loss = math::add(cost, norm).build().unwrap();
    let step = AdamOptimizer::new(0.01)
        .minimize(&loss, &state::trainable_variables().unwrap())
        .unwrap();
    let trained = |device: &Option<Cuda>, rewrites: RewriteOptions| {
        let session = session(&graph, rewrites, device);
        session.run(state::global_variables_initializer().unwrap(), ()).unwrap();
        let options = RunOptions {
            trace: true,
            ..RunOptions::default()
        };
        let mut ops = Vec::new();
        for turn in 0..3 {
            let numbers = |seed: f64| numbers::<T>(&[6, 9], seed + f64::from(turn));
            let feeds = feed! { x => numbers(0.7), z => numbers(0.2) };
            let ((), metadata) = session.run_with::<()>(&step, feeds, &options).unwrap();
            ops = metadata.nodes.iter().map(|node| node.op).collect();
        }
        let values: [Value; 2] = [&plain, &regularized].map(|variable| session.run(variable, ()).unwrap());
        (values, ops)
    };
    for device in devices() {
        let (fused, ops) = trained(&device, RewriteOptions::all());
        let (plain, _) = trained(&device, RewriteOptions::none());
        let updates = ops.iter().filter(|&&op| op == "_FusedApplyAdam").count();
        assert_eq!(updates, 2, "{ops:?}");
        for (fused, plain) in fused.iter().zip(&plain) {
            let pairs = fused
                .as_slice::<f32>()
                .unwrap()
                .iter()
                .zip(plain.as_slice::<f32>().unwrap());
            for (x, y) in pairs {
                assert!((x - y).abs() <= 2e-6 * (1.0 + y.abs()), "{x} and {y}");
            }
        }
    }
}

#[test]
fn updates_take_gradients_of_16_bits() {
    updates_are_their_operations::<f16>();
    updates_are_their_operations::<bf16>();
}
