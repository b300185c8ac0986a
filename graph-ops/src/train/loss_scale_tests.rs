//! The optimizer that scales the loss: its nodes and the way of its variables are TensorFlow's, on the host and on a GPU.

use graph_core::session::{RewriteOptions, RunOptions, Session, SessionOptions};
use graph_core::{Graph, Operation, Result, Tensor, Value, Variable, feed};
use graph_cuda::Cuda;

use super::tests::assert_listing;
use super::*;
use crate::array::{constant, placeholder};
use crate::control::cond;
use crate::math::{multiply, reduce_sum};
use crate::state::{
    assign, assign_add, global_variables, global_variables_initializer, is_variable_initialized, variable_scope,
};
use crate::testing::{assert_close, gpu};

/// By TensorFlow; `tests/tensorflow/make_loss_scale_fixture.py` tells what is in it.
const FIXTURE: &str = include_str!("../../../tests/fixtures/loss_scale.txt");

/// The lines of the fixture behind this heading.
fn lines(heading: &str) -> Vec<&'static str> {
    let is_heading = |line: &str| line.starts_with("graph ") || line.starts_with("steps ");
    let lines = FIXTURE.lines().skip_while(|line| *line != heading).skip(1);
    let lines: Vec<&str> = lines.take_while(|line| !is_heading(line)).collect();
    assert!(!lines.is_empty(), "the fixture has no '{heading}'");
    lines
}

/// The fixture's model: a variable whose gradient is fed.
struct Model {
    graph: Graph,
    gradient: Tensor,
    train: Operation,
    /// The loss scale, the good steps (those of a scale that changes), the variable, its slot, the counter.
    watched: Vec<Variable>,
}

fn model(make: impl FnOnce() -> Result<Box<dyn LossScale>>) -> Model {
    let graph = Graph::new();
    let _default = graph.as_default();
    crate::install();
    let variable = Variable::new([1.0f32, 2.0]).name("v").build().unwrap();
    let start = constant(0i64).build().unwrap();
    let step = Variable::new(start).name("step").trainable(false).build().unwrap();
    let gradient = placeholder::<f32>([2]).name("gradient").build().unwrap();
    let loss = reduce_sum(multiply(&variable, &gradient).name("mul").build().unwrap());
    let loss = loss.build().unwrap();
    let inner = MomentumOptimizer::new(0.5, 0.75).name("momentum");
    let optimizer = MixedPrecisionLossScaleOptimizer::of(Box::new(inner), make().unwrap());
    let options = MinimizeOptions::new().global_step(&step);
    let train = optimizer
        .minimize_with(&loss, std::slice::from_ref(&variable), &options)
        .unwrap();
    let slot = optimizer.get_slot(&variable, "momentum").unwrap();
    let mut watched = optimizer.loss_scale().variables();
    assert_eq!(optimizer.variables(&graph).len(), 1 + watched.len());
    watched.extend([variable, slot, step]);
    Model {
        graph: graph.clone(),
        gradient,
        train,
        watched,
    }
}

fn dynamic(initial: f64, period: i64, multiplier: f64) -> Result<Box<dyn LossScale>> {
    let scale = DynamicLossScale::new().initial_loss_scale(initial);
    let scale = scale.increment_period(period).multiplier(multiplier).build()?;
    scale.into_loss_scale()
}

/// The graph of an optimizer that has variables of its own, in a scope.
fn adam_in_a_scope() -> Graph {
    let graph = Graph::new();
    let _default = graph.as_default();
    crate::install();
    let variable = Variable::new([1.0f32, 2.0]).name("v").build().unwrap();
    let start = constant(0i64).build().unwrap();
    Variable::new(start).name("step").trainable(false).build().unwrap();
    let gradient = placeholder::<f32>([2]).name("gradient").build().unwrap();
    let loss = reduce_sum(multiply(&variable, &gradient).name("mul").build().unwrap());
    let loss = loss.build().unwrap();
    let _scope = variable_scope("train").unwrap();
    let inner = AdamOptimizer::new(0.5).name("adam");
    let optimizer = MixedPrecisionLossScaleOptimizer::new(inner, "dynamic").unwrap();
    optimizer.minimize(&loss, &[variable]).unwrap();
    graph.clone()
}

fn models() -> [(&'static str, Model); 4] {
    [
        ("dynamic", model(|| dynamic(8.0, 3, 2.0))),
        ("large", model(|| dynamic(2f64.powi(126), 2, 2.0))),
        ("thrice", model(|| dynamic(10.0, 1, 3.0))),
        ("fixed", model(|| 16.into_loss_scale())),
    ]
}

/// The ways to run a graph: as it runs by default, `cond` and all as it is built, and on a GPU where there is one.
fn ways() -> Vec<(&'static str, SessionOptions, Option<Cuda>)> {
    let host = || SessionOptions::new().accelerators(Vec::new());
    let mut ways = vec![
        ("the host", host(), None),
        ("the host, as built", host().rewrites(RewriteOptions::none()), None),
        (
            "the host, with branches",
            host().rewrites(RewriteOptions::all().without("masked_updates")),
            None,
        ),
    ];
    match gpu() {
        Ok(device) => {
            let options = SessionOptions::new().accelerators(vec![device.accelerator()]);
            ways.push(("the device", options, Some(device)));
        }
        Err(error) => println!("skipped: {error}"),
    }
    ways
}

#[test]
fn nodes_are_tensorflows_one_by_one() {
    let graphs = models().map(|(kind, model)| (kind, model.graph)).into_iter();
    let graphs = graphs.filter(|(kind, _)| ["dynamic", "fixed"].contains(kind));
    for (kind, graph) in graphs.chain([("adam", adam_in_a_scope())]) {
        let ours = |operation: &Operation| {
            let (name, others) = (operation.name(), ["v", "step", "gradient", "train/gradient"]);
            !others.iter().any(|other| name.starts_with(other))
        };
        let made: Vec<Operation> = graph.operations().into_iter().filter(ours).collect();
        assert_listing(&made, &lines(&format!("graph {kind}")).join("\n"));
    }
}

#[test]
fn variables_go_tensorflows_way_over_gradients_that_are_not_finite() {
    for (kind, model) in models() {
        for (way, options, _device) in ways() {
            let session = Session::with_options(&model.graph, options).unwrap();
            let initialize = {
                let _default = model.graph.as_default();
                global_variables_initializer().unwrap()
            };
            session.run(&initialize, ()).unwrap();
            for (number, line) in lines(&format!("steps {kind}")).into_iter().enumerate() {
                let numbers: Vec<f64> = line.split(' ').map(|number| number.parse().unwrap()).collect();
                let fed = Value::from([numbers[0] as f32, numbers[1] as f32]);
                session.run(&model.train, feed! { &model.gradient => fed }).unwrap();
                let label = format!("{kind} on {way}, step {number}");
                let mut values: Vec<Value> = session.run(&model.watched, ()).unwrap();
                if kind == "fixed" {
                    values.splice(0..0, [Value::scalar(16f32), Value::scalar(0i64)]);
                }
                let floats = |range: std::ops::Range<usize>| -> Vec<f32> {
                    numbers[range].iter().map(|&number| number as f32).collect()
                };
                assert_eq!(values[0], Value::scalar(numbers[2] as f32), "{label}: the scale");
                assert_eq!(values[1], Value::scalar(numbers[3] as i64), "{label}: good steps");
                let close = (1e-6, 1e-7);
                assert_close(&values[2], &Value::from(floats(4..6)), close, &label);
                assert_close(&values[3], &Value::from(floats(6..8)), close, &label);
                assert_eq!(values[4], Value::scalar(numbers[8] as i64), "{label}: the counter");
            }
        }
    }
}

type MakeOptimizer = fn() -> Box<dyn Optimizer>;

const OPTIMIZERS: [(&str, MakeOptimizer); 10] = [
    ("sgd", || Box::new(GradientDescentOptimizer::new(0.1))),
    ("momentum", || {
        Box::new(MomentumOptimizer::new(0.1, 0.9).use_nesterov(true))
    }),
    ("adam", || Box::new(AdamOptimizer::new(0.1))),
    ("adagrad", || Box::new(AdagradOptimizer::new(0.1))),
    ("adadelta", || Box::new(AdadeltaOptimizer::new(0.1))),
    ("rmsprop", || Box::new(RmsPropOptimizer::new(0.1).momentum(0.5))),
    ("centered", || Box::new(RmsPropOptimizer::new(0.1).centered(true))),
    ("ftrl", || Box::new(FtrlOptimizer::new(0.1))),
    ("proximal", || {
        Box::new(ProximalGradientDescentOptimizer::new(0.1).l1_regularization_strength(0.1))
    }),
    ("proximal_adagrad", || {
        Box::new(ProximalAdagradOptimizer::new(0.1).l2_regularization_strength(0.1))
    }),
];

/// Feeds each gradient and gives all of the optimizer's variables and the trained one after each step, by name; with a scale or
/// without.
fn steps(optimizer: MakeOptimizer, resource: bool, scaled: bool, options: SessionOptions) -> Vec<Vec<(String, Value)>> {
    const FED: [[f32; 2]; 5] = [
        [0.5, -1.0],
        [f32::INFINITY, 1.0],
        [f32::NAN, 0.0],
        [0.25, 2.0],
        [0.0, f32::NEG_INFINITY],
    ];
    let graph = Graph::new();
    let _default = graph.as_default();
    crate::install();
    let variable = Variable::new([1.0f32, -2.0])
        .name("v")
        .use_resource(resource)
        .build()
        .unwrap();
    let gradient = placeholder::<f32>([2]).build().unwrap();
    let loss = reduce_sum(multiply(&variable, &gradient)).build().unwrap();
    let optimizer = optimizer();
    let optimizer: Box<dyn Optimizer> = match scaled {
        true => Box::new(MixedPrecisionLossScaleOptimizer::of(
            optimizer,
            dynamic(1024.0, 2, 2.0).unwrap(),
        )),
        false => optimizer,
    };
    let train = optimizer.minimize(&loss, std::slice::from_ref(&variable)).unwrap();
    let session = Session::with_options(&graph, options).unwrap();
    session.run(global_variables_initializer().unwrap(), ()).unwrap();
    let mut all = global_variables().unwrap();
    all.retain(|variable| !variable.name().ends_with("_loss_scale:0") && variable.name() != "good_steps:0");
    let mut states = Vec::new();
    for fed in FED
        .into_iter()
        .filter(|fed| scaled || fed.iter().all(|x| x.is_finite()))
    {
        session.run(&train, feed! { &gradient => fed }).unwrap();
        let values: Vec<Value> = session.run(&all, ()).unwrap();
        // What is no slot is made in the branch's scope.
        let name = |variable: &Variable| variable.name().trim_start_matches("cond_1/").to_owned();
        states.push(all.iter().map(name).zip(values).collect());
    }
    states
}

#[test]
fn a_step_that_is_left_out_changes_no_variable_of_any_optimizer() {
    for (name, optimizer) in OPTIMIZERS {
        for resource in [false, true] {
            for (way, options, _device) in ways() {
                let label = format!("{name} on {way}, resource variables: {resource}");
                let [plain, scaled] = [false, true].map(|scaled| steps(optimizer, resource, scaled, options.clone()));
                // Steps 1, 2 and 4 are left out; scales of powers of two change no bit.
                for (index, expected) in [(0, 0), (1, 0), (2, 0), (3, 1), (4, 1)] {
                    assert_eq!(scaled[index], plain[expected], "{label}, step {index}");
                }
            }
        }
    }
}

#[test]
fn the_step_is_one_piece_of_work_on_a_device() {
    let Some((_, options, Some(device))) = ways().pop() else {
        return;
    };
    let model = model(|| dynamic(8.0, 3, 2.0));
    let session = Session::with_options(&model.graph, options).unwrap();
    let _default = model.graph.as_default();
    session.run(global_variables_initializer().unwrap(), ()).unwrap();
    let step = || {
        let fed = feed! { &model.gradient => [1.0f32, f32::INFINITY] };
        session.run(&model.train, fed).unwrap()
    };
    // One by one, then recorded.
    step();
    step();
    let before = device.work();
    step();
    let after = device.work();
    assert_eq!(after.recorded - before.recorded, 1);
    assert_eq!(after.kernels, before.kernels, "kernels run one by one");
    assert_eq!(after.uploads - before.uploads, 1, "the gradient that is fed");
    assert_eq!(
        (after.downloads, after.waits),
        (before.downloads, before.waits),
        "the host waits"
    );
    let trace = RunOptions {
        trace: true,
        ..RunOptions::default()
    };
    let fed = feed! { &model.gradient => [1.0f32, 1.0] };
    let ((), metadata) = session.run_with(&model.train, fed, &trace).unwrap();
    let ops: Vec<&str> = metadata.nodes.iter().map(|node| node.op).collect();
    assert!(ops.contains(&"_MaskedApplyMomentum"), "{ops:?}");
    assert!(ops.contains(&"_MaskedAssignAddVariableOp"), "{ops:?}");
    assert!(!ops.contains(&"Switch") && !ops.contains(&"Merge"), "{ops:?}");
}

#[test]
fn other_conditions_stay_branches() {
    for (way, options, _device) in ways() {
        let graph = Graph::new();
        let _default = graph.as_default();
        let variable = Variable::new(3.0f32).name("v").build().unwrap();
        // Reads a variable only where it has a value.
        let initialized = is_variable_initialized(&variable).build().unwrap();
        let known = cond(
            initialized,
            || Ok(assign_add(&variable, 1.0f32).build()?.op()),
            || Ok(assign(&variable, 3.0f32).build()?.op()),
        );
        let known = known.build().unwrap();
        let session = Session::with_options(&graph, options).unwrap();
        session.run(&known, ()).unwrap();
        session.run(&known, ()).unwrap();
        assert_eq!(session.run::<f32>(&variable, ()).unwrap(), 4.0, "{way}");
    }
}

#[test]
fn branches_that_finiteness_decides_about_give_what_they_gave() {
    for (way, options, _device) in ways() {
        let graph = Graph::new();
        let _default = graph.as_default();
        let x = placeholder::<f32>([2]).build().unwrap();
        let count = Variable::new(0i64).name("count").build().unwrap();
        let finite = crate::math::reduce_all(crate::math::is_finite(&x)).build().unwrap();
        // A value from inside, updates in both branches, a branch that is decided about otherwise inside.
        let result = cond(
            &finite,
            || {
                let added = assign_add(&count, 1i64).build_operation()?;
                let _after = graph_core::graph::scope::control_dependencies([&added])?;
                let large = crate::math::greater(reduce_sum(&x), 10.0f32);
                cond(
                    large,
                    || constant([1.0f32, 1.0]).build(),
                    || multiply(&x, 2.0f32).build(),
                )
                .build()
            },
            || {
                let added = assign_add(&count, 100i64).build_operation()?;
                let _after = graph_core::graph::scope::control_dependencies([&added])?;
                constant([-1.0f32, -1.0]).build()
            },
        );
        let result = multiply(result.build().unwrap(), 1.0f32).build().unwrap();
        let session = Session::with_options(&graph, options).unwrap();
        session.run(count.initializer(), ()).unwrap();
        let cases = [
            ([1.0, 2.0], [2.0, 4.0], 1),
            ([8.0, 9.0], [1.0, 1.0], 2),
            ([f32::NAN, 1.0], [-1.0, -1.0], 102),
        ];
        for (fed, expected, counted) in cases {
            let got: Vec<f32> = session.run(&result, feed! { &x => fed }).unwrap();
            assert_eq!(got, expected, "{way}");
            assert_eq!(session.run::<i64>(&count, ()).unwrap(), counted, "{way}");
        }
    }
}

#[test]
fn what_is_no_loss_scale_is_an_error() {
    for value in [0.5, 0.0, -1.0, f64::NAN, f64::INFINITY, 1e39] {
        let error = FixedLossScale::new(value).unwrap_err().to_string();
        assert!(error.contains("at least 1"), "{value}: {error}");
    }
    let graph = Graph::new();
    let _default = graph.as_default();
    let error = MixedPrecisionLossScaleOptimizer::new(AdamOptimizer::new(0.1), "static").map(|_| ());
    assert!(error.unwrap_err().to_string().contains("'static'"));
    let wrapped = enable_mixed_precision_graph_rewrite(AdamOptimizer::new(0.1), "dynamic").unwrap();
    assert_eq!(graph.rewrites(), ["auto_mixed_precision"]);
    let again = enable_mixed_precision_graph_rewrite(wrapped, 8.0).map(|_| ());
    assert!(again.unwrap_err().to_string().contains("already"));
    disable_mixed_precision_graph_rewrite();
    assert!(graph.rewrites().is_empty());
}

#[test]
fn a_rewrite_that_nobody_knows_is_an_error() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let one = constant(1.0f32).build().unwrap();
    let rewrites = RewriteOptions::all().with("auto_mixed_precisoin");
    let session = Session::with_options(&graph, SessionOptions::new().rewrites(rewrites)).unwrap();
    let error = session.run::<f32>(&one, ()).unwrap_err();
    assert!(error.to_string().contains("'auto_mixed_precisoin'"), "{error}");
}
