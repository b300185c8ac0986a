//! Fused operations compute what the operations that they stand for compute one by one, in training steps too.

use std::collections::BTreeSet;

use graph_core::session::{RewriteOptions, RunOptions, SessionOptions};
use graph_core::{DType, Graph, Operation, Session, Tensor, Value, Variable, feed};
use graph_ops::train::{AdamOptimizer, GradientDescentOptimizer, MomentumOptimizer, Optimizer, RmsPropOptimizer};
use graph_ops::{array, math, nn, random, state};

/// All fusions, by the names that options know.
const FUSIONS: [&str; 15] = [
    "convolution_fusion",
    "pool_gradient_fusion",
    "pool_place_fusion",
    "pool_lrn_fusion",
    "filter_gradient_fusion",
    "matmul_fusion",
    "mask_fusion",
    "elementwise_fusion",
    "sum_fusion",
    "update_fusion",
    "outer_product",
    "finite_fusion",
    "cast_grouping",
    "sum_grouping",
    "update_grouping",
];

/// A small convolutional network with dropout and regularizers, and what one training step is.
struct Network {
    graph: Graph,
    images: Tensor,
    loss: Tensor,
    logits: Tensor,
    step: Operation,
}

fn variable(name: &str, shape: &[i32]) -> Variable {
    let start = random::truncated_normal(shape.to_vec()).stddev(0.2).build().unwrap();
    Variable::new(start).name(name).build().unwrap()
}

fn network(optimizer: &dyn Optimizer) -> Network {
    graph_ops::install();
    let graph = Graph::new();
    graph.set_random_seed(5);
    let _default = graph.as_default();
    let images = array::placeholder::<f32>([None, Some(8), Some(8), Some(2)])
        .build()
        .unwrap();
    let filter = variable("filter", &[3, 3, 2, 5]);
    let bias = variable("bias", &[5]);
    let sum = nn::bias_add(
        nn::conv2d(&images, &filter)
            .strides([1; 4])
            .padding("VALID")
            .build()
            .unwrap(),
        &bias,
    );
    let activity = nn::relu(sum.build().unwrap()).build().unwrap();
    let pooled = nn::max_pool(&activity)
        .ksize([1, 2, 2, 1])
        .strides([1, 2, 2, 1])
        .padding("VALID")
        .build()
        .unwrap();
    let normalized = nn::local_response_normalization(&pooled)
        .depth_radius(2)
        .build()
        .unwrap();
    let flat = array::reshape(&normalized, [-1, 45]).build().unwrap();
    let dropped = nn::dropout(&flat, 0.5f32).build().unwrap();
    let (inner, inner_bias) = (variable("inner", &[45, 6]), variable("inner_bias", &[6]));
    let inner_sum = nn::bias_add(math::matmul(&dropped, &inner), &inner_bias);
    let hidden = nn::relu(inner_sum.build().unwrap()).build().unwrap();
    let weights = variable("weights", &[6, 3]);
    let logits = nn::bias_add(math::matmul(&hidden, &weights), variable("outer_bias", &[3]))
        .build()
        .unwrap();
    let cost = math::reduce_mean(math::square(&logits)).build().unwrap();
    let norms = math::add_n([
        math::multiply(nn::l2_loss(&weights), 0.01f32).build().unwrap(),
        math::multiply(math::reduce_sum(math::abs(&weights)), 0.001f32)
            .build()
            .unwrap(),
        math::multiply(math::reduce_sum(math::tanh(&filter)), 0.1f32)
            .build()
            .unwrap(),
    ]);
    let loss = math::add(&cost, norms).build().unwrap();
    let step = optimizer
        .minimize(&loss, &state::trainable_variables().unwrap())
        .unwrap();
    Network {
        images,
        loss,
        logits,
        step,
        graph: graph.clone(),
    }
}

fn pictures(count: usize) -> Value {
    let numbers = (0..count * 128)
        .map(|i| ((i * 37 % 101) as f32 - 50.0) / 40.0)
        .collect::<Vec<f32>>();
    Value::from_vec([count, 8, 8, 2], numbers).unwrap()
}

/// The losses and logits of a few steps, batches of three sizes by turns, and the ops that ran.
fn train(network: &Network, rewrites: RewriteOptions) -> (Vec<Value>, BTreeSet<&'static str>) {
    let (results, ops) = train_with(network, SessionOptions::new().rewrites(rewrites));
    (results, ops.into_iter().map(|(op, _)| op).collect())
}

/// [`train`], and on which device each op ran.
fn train_with(network: &Network, options: SessionOptions) -> (Vec<Value>, BTreeSet<(&'static str, String)>) {
    let _default = network.graph.as_default();
    let session = Session::with_options(&network.graph, options).unwrap();
    session.run(state::global_variables_initializer().unwrap(), ()).unwrap();
    let options = RunOptions {
        trace: true,
        ..RunOptions::default()
    };
    let mut results = Vec::new();
    let mut ops = BTreeSet::new();
    for index in 0..6 {
        let feeds = feed! { network.images => pictures([4, 5, 1][index % 3]) };
        let (((), loss, logits), metadata): (((), Value, Value), _) = session
            .run_with((&network.step, &network.loss, &network.logits), feeds, &options)
            .unwrap();
        results.extend([loss, logits]);
        ops.extend(metadata.nodes.iter().map(|node| (node.op, node.device.clone())));
    }
    for variable in state::trainable_variables().unwrap() {
        results.push(session.run(&variable, ()).unwrap());
    }
    (results, ops)
}

#[track_caller]
fn assert_close(got: &[Value], expected: &[Value], what: &str) {
    assert_eq!(got.len(), expected.len());
    for (index, (got, expected)) in got.iter().zip(expected).enumerate() {
        let (got, expected) = (got.as_slice::<f32>().unwrap(), expected.as_slice::<f32>().unwrap());
        for (x, y) in got.iter().zip(expected) {
            assert!(
                (x - y).abs() <= 2e-6 * (1.0 + y.abs()),
                "{what}: result {index}: {x} and {y}"
            );
        }
    }
}

#[test]
fn training_is_the_same_with_and_without_each_fusion() {
    let optimizers: [(&str, Box<dyn Optimizer>); 4] = [
        ("_FusedApplyAdam", Box::new(AdamOptimizer::new(0.01))),
        ("_FusedApplyMomentum", Box::new(MomentumOptimizer::new(0.01, 0.9))),
        ("_FusedApplyRMSProp", Box::new(RmsPropOptimizer::new(0.01))),
        (
            "_FusedApplyGradientDescent",
            Box::new(GradientDescentOptimizer::new(0.05)),
        ),
    ];
    for (update, optimizer) in &optimizers {
        let network = network(optimizer.as_ref());
        let (plain, ops) = train(&network, RewriteOptions::none());
        assert!(ops.iter().all(|op| !op.starts_with('_')), "{ops:?}");
        let (fused, ops) = train(&network, RewriteOptions::all());
        for op in [
            *update,
            "_FusedConv2D",
            "_PoolFilterGrad",
            "_FusedMatMul",
            "_RandomMask",
            "_FusedElementwise",
        ] {
            assert!(ops.contains(op), "{op} in {ops:?}");
        }
        for op in [
            "BiasAdd",
            "Relu",
            "MaxPool",
            "MaxPoolGrad",
            "LRN",
            "RandomUniform",
            "GreaterEqual",
            "AddN",
            "Sign",
            "Tile",
            "Cast",
        ] {
            assert!(!ops.contains(op), "{op} in {ops:?}");
        }
        assert_close(&fused, &plain, update);
        for name in FUSIONS {
            let (without, ops) = train(&network, RewriteOptions::all().without(name));
            assert_eq!(
                ops.contains("_FusedSum"),
                name != "sum_fusion",
                "without {name}: {ops:?}"
            );
            assert_close(&without, &plain, &format!("{update} without {name}"));
        }
    }
}

#[test]
fn what_is_not_trained_is_the_same_with_and_without_each_fusion() {
    let network = network(&GradientDescentOptimizer::new(0.05));
    let _default = network.graph.as_default();
    let run = |rewrites: RewriteOptions| -> Vec<Value> {
        let session = Session::with_options(&network.graph, SessionOptions::new().rewrites(rewrites)).unwrap();
        session.run(state::global_variables_initializer().unwrap(), ()).unwrap();
        let results = (0..3).map(|_| {
            session
                .run(&network.logits, feed! { network.images => pictures(9) })
                .unwrap()
        });
        results.collect()
    };
    let plain = run(RewriteOptions::none());
    assert_close(&run(RewriteOptions::all()), &plain, "all");
    for name in FUSIONS {
        assert_close(&run(RewriteOptions::all().without(name)), &plain, name);
    }
}

#[test]
fn a_mask_that_keeps_all_moves_its_stream_on_as_one_that_does_not() {
    graph_ops::install();
    let graph = Graph::new();
    graph.set_random_seed(3);
    let _default = graph.as_default();
    let (x, keep) = (
        array::placeholder::<f32>([None]).build().unwrap(),
        array::placeholder::<f32>(()).build().unwrap(),
    );
    let y = nn::dropout(&x, &keep).build().unwrap();
    let run = |rewrites: RewriteOptions| -> Vec<Value> {
        let session = Session::with_options(&graph, SessionOptions::new().rewrites(rewrites)).unwrap();
        let feeds = |kept: f32| feed! { x => vec![1.0f32; 1000], keep => kept };
        [0.5, 1.0, 0.3, 0.5]
            .map(|kept| session.run(&y, feeds(kept)).unwrap())
            .to_vec()
    };
    let (fused, plain) = (run(RewriteOptions::all()), run(RewriteOptions::none()));
    assert_eq!(fused, plain);
    assert!(fused[1].as_slice::<f32>().unwrap().iter().all(|&x| x == 1.0));
    assert_ne!(fused[0], fused[3]);
}

#[test]
fn what_is_fetched_or_used_twice_is_computed_for_itself() {
    graph_ops::install();
    let graph = Graph::new();
    let _default = graph.as_default();
    let x = array::placeholder::<f32>([None, Some(3)]).build().unwrap();
    let double = math::add(&x, &x).name("double").build().unwrap();
    let square = math::square(&double).name("square").build().unwrap();
    let root = math::sqrt(&square).name("root").build().unwrap();
    let sum = math::add(&root, &double).name("sum").build().unwrap();
    let session = Session::new(&graph).unwrap();
    let options = RunOptions {
        trace: true,
        ..RunOptions::default()
    };
    let feeds = || feed! { x => Value::from([[1.0f32, -2.0, 3.0]]) };
    let (got, metadata) = session.run_with::<Value>(&sum, feeds(), &options).unwrap();
    assert_eq!(got, Value::from([[4.0f32, 0.0, 12.0]]));
    let names: Vec<String> = metadata.nodes.into_iter().map(|node| node.name).collect();
    assert_eq!(names, ["sum"], "`double` is used twice, but in the same chain");
    let ((square, got), metadata) = session
        .run_with::<(Value, Value)>((&square, &sum), feeds(), &options)
        .unwrap();
    assert_eq!(square, Value::from([[4.0f32, 16.0, 36.0]]));
    assert_eq!(got, Value::from([[4.0f32, 0.0, 12.0]]));
    let names: Vec<String> = metadata.nodes.into_iter().map(|node| node.name).collect();
    assert_eq!(names, ["double", "square", "sum"]);
}

#[test]
fn operands_of_chains_are_broadcast() {
    graph_ops::install();
    let graph = Graph::new();
    let _default = graph.as_default();
    let x = array::placeholder::<f64>([None, None]).build().unwrap();
    let column = array::placeholder::<f64>([None, Some(1)]).build().unwrap();
    let row = array::placeholder::<f64>([None]).build().unwrap();
    let shifted = math::subtract(math::multiply(&x, &column), &row).build().unwrap();
    let kept = math::cast(math::greater(&shifted, &x), DType::Float64);
    let y = math::multiply(math::tanh(&shifted), kept).build().unwrap();
    let run = |rewrites, rows: usize, columns: usize| {
        let numbers = |count: usize, by: f64| (0..count).map(|i| (i as f64 * by).sin() * 2.0).collect::<Vec<f64>>();
        let session = Session::with_options(&graph, SessionOptions::new().rewrites(rewrites)).unwrap();
        let feeds = feed! {
            x => Value::from_vec([rows, columns], numbers(rows * columns, 0.7)).unwrap(),
            column => Value::from_vec([rows, 1], numbers(rows, 1.3)).unwrap(),
            row => Value::from_vec([columns], numbers(columns, 2.1)).unwrap()
        };
        session.run::<Value>(&y, feeds).unwrap()
    };
    for (rows, columns) in [(1, 1), (1, 7), (5, 1), (300, 700), (0, 3)] {
        let (fused, plain) = (
            run(RewriteOptions::all(), rows, columns),
            run(RewriteOptions::none(), rows, columns),
        );
        assert_eq!(fused, plain, "[{rows}, {columns}]");
    }
}

#[test]
fn truth_values_that_are_summed_become_numbers_first() {
    graph_ops::install();
    let graph = Graph::new();
    let _default = graph.as_default();
    let x = array::placeholder::<f32>([5]).build().unwrap();
    let above = math::greater(&x, 0.5f32).build().unwrap();
    let count = math::reduce_sum(math::cast(&above, DType::Float32)).build().unwrap();
    let numbers = [1.0f32, 0.25, 2.0, -1.0, 0.75];
    for rewrites in [RewriteOptions::all(), RewriteOptions::none()] {
        let session = Session::with_options(&graph, SessionOptions::new().rewrites(rewrites)).unwrap();
        assert_eq!(session.run::<f32>(&count, feed! { x => numbers }).unwrap(), 3.0);
        // Fetched, the truth values belong to no chain.
        let (above, count): (Vec<bool>, f32) = session.run((&above, &count), feed! { x => numbers }).unwrap();
        assert_eq!((above, count), (vec![true, false, true, false, true], 3.0));
    }
}

/// Sums of one, two and three, single operations and broadcast operands, as gradients and as new values of the variable.
#[test]
fn variables_are_updated_by_what_is_computed_for_them() {
    graph_ops::install();
    let graph = Graph::new();
    let _default = graph.as_default();
    let (p, row) = (
        array::placeholder::<f32>([3, 4]).build().unwrap(),
        array::placeholder::<f32>([4]).build().unwrap(),
    );
    let variable = |at: usize| {
        let numbers: Vec<f32> = (0..12).map(|i| ((i + 5 * at) as f32 * 0.7).sin()).collect();
        Variable::new(Value::from_vec([3, 4], numbers).unwrap())
            .build()
            .unwrap()
    };
    let gradients: [Tensor; 5] = [
        math::add_n([&p]).build().unwrap(),
        math::add_n([&p, &p]).build().unwrap(),
        math::add_n([&p, &p, &p]).build().unwrap(),
        math::multiply(&p, &row).build().unwrap(),
        math::negative(&row + &p).build().unwrap(),
    ];
    let mut variables: Vec<Variable> = (0..8).map(variable).collect();
    variables.push(Variable::new(2.0f32).build().unwrap());
    let [kept, shifted, squared, scalar] = &variables[5..] else {
        unreachable!("nine variables")
    };
    let mut steps: Vec<Operation> = Vec::new();
    for (variable, gradient) in variables.iter().zip(&gradients) {
        let update = graph_core::graph::OpBuilder::new("ApplyGradientDescent");
        let update = update.input(variable).input(0.25f32).input(gradient);
        steps.push(update.build_operation().unwrap());
    }
    let old = array::identity(kept).build().unwrap();
    {
        let _after = graph_core::graph::scope::control_dependencies([&old.op()]).unwrap();
        let less = math::multiply(kept, 0.5f32).build().unwrap();
        steps.push(state::assign(kept, less).build_operation().unwrap());
    }
    steps.push(state::assign(shifted, shifted + &row).build_operation().unwrap());
    let square = math::square(math::add_n([squared, shifted]).build().unwrap());
    steps.push(
        state::assign(squared, square.build().unwrap())
            .build_operation()
            .unwrap(),
    );
    steps.push(
        state::assign(scalar, math::multiply(scalar, scalar))
            .build_operation()
            .unwrap(),
    );
    // `squared` takes `shifted`, which another of the steps changes.
    let first = graph_ops::control::group(&steps[..7], "first").unwrap();
    let second = graph_ops::control::group(&steps[7..], "second").unwrap();
    // A sum over a sum of one, which nothing else takes; `add_n` would make none.
    let of_one = graph_core::graph::OpBuilder::new("AddN").input([&p]).build().unwrap();
    let total = math::reduce_sum(of_one).build().unwrap();
    let third = math::multiply(math::reduce_sum(math::square(&p)), 1.0f32 / 3.0)
        .build()
        .unwrap();
    let run = |rewrites: RewriteOptions| -> Vec<Value> {
        let session = Session::with_options(&graph, SessionOptions::new().rewrites(rewrites)).unwrap();
        session.run(state::global_variables_initializer().unwrap(), ()).unwrap();
        let numbers: Vec<f32> = (0..12).map(|i| (i as f32 * 1.3).cos()).collect();
        let mut results = Vec::new();
        for step in 0..3 {
            let feeds = feed! {
                &p => Value::from_vec([3, 4], numbers.clone()).unwrap(), &row => [0.5f32, -1.0, 2.0, step as f32]
            };
            let (total, third, old, ()): (Value, Value, Value, ()) =
                session.run((&total, &third, &old, &first), feeds).unwrap();
            results.extend([total, third, old]);
            session.run::<()>(&second, ()).unwrap();
        }
        results.extend(
            variables
                .iter()
                .map(|variable| session.run::<Value>(variable, ()).unwrap()),
        );
        results
    };
    assert_eq!(run(RewriteOptions::all()), run(RewriteOptions::none()));
}

/// What is finite of tensors of each dtype, of none, of long ones; of several at once and of several of several.
#[test]
fn what_is_not_finite_is_found_wherever_it_is() {
    graph_ops::install();
    let graph = Graph::new();
    let _default = graph.as_default();
    let lengths = [3usize, 0, 100_000, 700, 1, 130];
    let dtypes = [
        DType::Float32,
        DType::Float64,
        DType::Half,
        DType::BFloat16,
        DType::Float32,
        DType::Half,
    ];
    let tensors: Vec<Tensor> = lengths
        .iter()
        .map(|&len| array::placeholder::<f32>([len]).build().unwrap())
        .collect();
    let all = |x: &Tensor| math::reduce_all(x).build().unwrap();
    let finite: Vec<Tensor> = tensors
        .iter()
        .zip(dtypes)
        .map(|(tensor, dtype)| {
            let cast = math::cast(tensor, dtype).build().unwrap();
            all(&math::is_finite(cast).build().unwrap())
        })
        .collect();
    let stack = |tensors: &[Tensor]| array::stack(tensors).build().unwrap();
    let halves = [all(&stack(&finite[..3])), all(&stack(&finite[3..]))];
    let whole = all(&stack(&halves));
    // Elements one by one are looked at where someone takes them.
    let elements = math::is_finite(&tensors[3]).build().unwrap();
    let some = all(&elements);
    let rows = math::reduce_all(math::is_finite(
        array::reshape(&tensors[5], [10i32, 13]).build().unwrap(),
    ));
    let kept = rows.keep_dims(true).build().unwrap();
    let gpus = match graph_cuda::emulator::device() {
        Ok(gpu) => vec![gpu.accelerator()],
        Err(error) => {
            println!("on a GPU skipped: {error}");
            Vec::new()
        }
    };
    let mut options = vec![
        SessionOptions::new(),
        SessionOptions::new().rewrites(RewriteOptions::none()),
    ];
    options.extend(
        gpus.into_iter()
            .map(|gpu| SessionOptions::new().accelerators(vec![gpu])),
    );
    let sessions: Vec<Session> = options
        .into_iter()
        .map(|options| Session::with_options(&graph, options).unwrap())
        .collect();
    let places = [
        None,
        Some((0, 2)),
        Some((2, 0)),
        Some((2, 99_999)),
        Some((3, 512)),
        Some((4, 0)),
        Some((5, 129)),
    ];
    for place in places {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let value = |at: usize| {
                let mut numbers: Vec<f32> = (0..lengths[at]).map(|i| (i as f32).sin()).collect();
                if let Some((_, index)) = place.filter(|&(tensor, _)| tensor == at) {
                    numbers[index] = bad;
                }
                Value::from(numbers)
            };
            let feeds = || {
                let pairs = tensors.iter().enumerate();
                pairs.fold(graph_core::session::Feeds::new(), |feeds, (at, tensor)| {
                    feeds.with(tensor, value(at))
                })
            };
            let has = |range: std::ops::Range<usize>| !place.is_some_and(|(tensor, _)| range.contains(&tensor));
            for (number, session) in sessions.iter().enumerate() {
                let label = format!("{bad} at {place:?}, session {number}");
                let got: (bool, bool, bool, Value) = session.run((&whole, &some, &halves[0], &kept), feeds()).unwrap();
                assert_eq!((got.0, got.1, got.2), (has(0..6), has(3..4), has(0..3)), "{label}");
                assert_eq!(got.3, Value::from([[has(5..6)]]), "{label}");
                assert_eq!(
                    session.run::<bool>(&whole, feeds()).unwrap(),
                    has(0..6),
                    "{label}, alone"
                );
                let elements: Vec<bool> = session.run(&elements, feeds()).unwrap();
                assert_eq!(elements.iter().all(|finite| *finite), has(3..4), "{label}, one by one");
            }
        }
    }
    let traced = RunOptions {
        trace: true,
        ..RunOptions::default()
    };
    let feeds = lengths
        .iter()
        .zip(&tensors)
        .fold(graph_core::session::Feeds::new(), |feeds, (&len, tensor)| {
            feeds.with(tensor, vec![1.0f32; len])
        });
    let (_, metadata): (bool, _) = sessions[0].run_with(&whole, feeds, &traced).unwrap();
    let ops: Vec<&str> = metadata.nodes.iter().map(|node| node.op).collect();
    assert!(
        ops.contains(&"_AllFinite") && !ops.contains(&"All") && !ops.contains(&"IsFinite"),
        "{ops:?}"
    );
}

#[test]
fn a_session_with_a_gpu_makes_the_fusions_that_have_kernels_there() {
    let gpu = match graph_cuda::emulator::device() {
        Ok(gpu) => gpu,
        Err(error) => return println!("skipped: {error}"),
    };
    let network = network(&AdamOptimizer::new(0.01));
    let options = || {
        SessionOptions::new()
            .accelerators(vec![gpu.accelerator()])
            .allow_soft_placement(true)
    };
    let (expected, _) = train(&network, RewriteOptions::none());
    let (got, ops) = train_with(&network, options());
    assert_close(&got, &expected, "on the GPU");
    for op in [
        "_FusedConv2D",
        "_PoolFilterGrad",
        "_FusedMatMul",
        "_RandomMask",
        "_FusedApplyAdam",
    ] {
        assert!(
            ops.contains(&(op, "/device:GPU:0".to_owned())),
            "no {op} on the GPU: {ops:?}"
        );
    }
    // Each of them can be left out there too, and changes nothing but the last bits.
    for name in [
        "convolution_fusion",
        "pool_place_fusion",
        "filter_gradient_fusion",
        "matmul_fusion",
        "mask_fusion",
        "outer_product",
        "update_fusion",
        "sum_grouping",
        "update_grouping",
    ] {
        let (without, _) = train_with(&network, options().rewrites(RewriteOptions::all().without(name)));
        assert_close(&without, &expected, name);
    }
}
