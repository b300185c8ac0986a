//! Mixed precision: which tensors become of 16 bits, and that what is computed stays the same within their rounding.

use std::collections::{BTreeMap, BTreeSet};

use graph_core::graph::Node;
use graph_core::op::registry;
use graph_core::session::evaluate::evaluate_node;
use graph_core::session::{RewriteOptions, RunOptions, SessionOptions};
use graph_core::{DType, Element, Graph, Session, Tensor, Value, Variable, feed};
use half::{bf16, f16};

use super::MixedPrecision;
use super::lists::{ALLOW, CLEAR, DENY, INFER};
use super::types::{TypeAttr, node_could_be, of_inputs, of_outputs};
use crate::array::{constant, placeholder, reshape};
use crate::control::cond;
use crate::control::loop_tests::{binary, inside, repeat};
use crate::state::global_variables_initializer;
use crate::testing::{all_cases, floats};
use crate::train::{
    GradientDescentOptimizer, Optimizer, disable_mixed_precision_graph_rewrite, enable_mixed_precision_graph_rewrite,
};
use crate::{math, nn};

/// Ops of the lists that are here and never become of 16 bits.
#[rustfmt::skip]
const NEVER: &[&str] = &[
    // Of `float` alone, by their definitions.
    "GRUBlockCell", "GRUBlockCellGrad",
    // Its kernels take images and gradients of one dtype, which are two attributes.
    "MaxPool3DGrad",
    // They keep state.
    "StackPopV2", "StackPushV2", "TensorArrayConcatV3", "TensorArrayGatherV3", "TensorArrayReadV3", "TensorArrayScatterV3",
    "TensorArraySplitV3", "TensorArrayWriteV3",
];

/// Those that become `f16` and never `bf16`, by their definitions.
#[rustfmt::skip]
const NEVER_BFLOAT16: &[&str] = &[
    "BlockLSTM", "BlockLSTMGrad", "LSTMBlockCell", "LSTMBlockCellGrad", "Reverse",
];

/// What a graph decides about, of which there are no cases by themselves; tests below go through them.
const BRANCHES: [&str; 2] = ["Merge", "Switch"];

fn rounded(value: &Value, dtype: DType) -> Value {
    let numbers = value.as_slice::<f32>().unwrap().iter();
    let shape = value.shape().clone();
    match dtype {
        DType::Half => Value::from_vec(shape, numbers.map(|&x| f16::from_f32(x)).collect::<Vec<_>>()),
        _ => Value::from_vec(shape, numbers.map(|&x| bf16::from_f32(x)).collect::<Vec<_>>()),
    }
    .unwrap()
}

fn widened(value: &Value) -> Value {
    let numbers: Vec<f32> = floats(value).unwrap().into_iter().map(|x| x as f32).collect();
    Value::from_vec(value.shape().clone(), numbers).unwrap()
}

fn as_floats<T: Element>(value: &Value, float: impl Fn(&T) -> f32) -> Value {
    let numbers = value.as_slice::<T>().unwrap().iter();
    Value::from_vec(value.shape().clone(), numbers.map(float).collect::<Vec<f32>>()).unwrap()
}

/// The node with these attributes changed.
fn changed(node: &Node, attrs: &[TypeAttr], dtype: DType) -> Node {
    let mut changed = node.clone();
    for attr in attrs {
        attr.set(&mut changed.attrs, dtype);
    }
    let outputs: Vec<_> = of_outputs(node).collect();
    for (output, attr) in changed.outputs.iter_mut().zip(outputs) {
        if attr.is_some_and(|attr| attrs.contains(&attr)) {
            output.dtype = dtype;
        }
    }
    changed
}

/// The case over `float`, whatever numbers it is over, as far as its op can.
fn over_floats(node: &Node, inputs: &[Value]) -> (Node, Vec<Value>) {
    let mut attrs: Vec<TypeAttr> = of_inputs(node).chain(of_outputs(node)).flatten().collect();
    attrs.retain(|attr| {
        let number = matches!(
            attr.get(&node.attrs),
            Some(DType::Float64 | DType::Int32 | DType::Int64)
        );
        number && node_could_be(node, *attr, DType::Float32)
    });
    let cast = |(attr, value): (Option<TypeAttr>, &Value)| match attr.is_some_and(|attr| attrs.contains(&attr)) {
        true => match value.dtype() {
            DType::Int32 => as_floats(value, |&x: &i32| x as f32),
            DType::Int64 => as_floats(value, |&x: &i64| x as f32),
            _ => widened(value),
        },
        false => value.clone(),
    };
    let inputs = of_inputs(node).zip(inputs).map(cast).collect();
    (changed(node, &attrs, DType::Float32), inputs)
}

/// The attributes of a node that say `float` and could say `dtype`.
fn changeable(node: &Node, dtype: DType) -> Vec<TypeAttr> {
    let mut attrs: Vec<TypeAttr> = of_inputs(node).chain(of_outputs(node)).flatten().collect();
    attrs.sort_unstable();
    attrs.dedup();
    attrs.retain(|attr| attr.get(&node.attrs) == Some(DType::Float32) && node_could_be(node, *attr, dtype));
    attrs
}

#[test]
fn every_op_of_the_lists_computes_the_same_in_16_bits_within_their_rounding() {
    let mut exercised: BTreeSet<(&str, DType)> = BTreeSet::new();
    let mut possible = exercised.clone();
    for case in all_cases() {
        if !ALLOW.contains(&case.op) && !INFER.contains(&case.op) && !CLEAR.contains(&case.op) {
            continue;
        }
        let (node, case_inputs) = over_floats(&case.node().unwrap(), &case.inputs);
        for (dtype, epsilon) in [(DType::Half, 1.0 / 1024.0), (DType::BFloat16, 1.0 / 128.0)] {
            let attrs = changeable(&node, dtype);
            if node.definition.stateful || attrs.is_empty() {
                continue;
            }
            possible.insert((case.op, dtype));
            let is_changed = |attr: Option<TypeAttr>| attr.is_some_and(|attr| attrs.contains(&attr));
            let narrow = |(attr, value): (_, &Value)| match is_changed(attr) {
                true => rounded(value, dtype),
                false => value.clone(),
            };
            let inputs: Vec<Value> = of_inputs(&node).zip(&case_inputs).map(narrow).collect();
            // What the numbers are that a tensor of 16 bits can hold, 32 bits compute the same with.
            let wide = |(attr, value): (_, &Value)| match is_changed(attr) {
                true => widened(value),
                false => value.clone(),
            };
            let wide: Vec<Value> = of_inputs(&node).zip(&inputs).map(wide).collect();
            let label = format!("{} of {dtype}", case.op);
            let Ok(expected) = evaluate_node(&node, &wide) else {
                continue;
            };
            let got = evaluate_node(&changed(&node, &attrs, dtype), &inputs);
            let got = got.unwrap_or_else(|error| panic!("{label}: {error}"));
            assert_eq!(got.len(), expected.len(), "{label}");
            for (slot, (got, expected)) in got.iter().zip(&expected).enumerate() {
                assert_eq!(got.shape(), expected.shape(), "{label}, output {slot}");
                let (Some(got), Some(expected)) = (floats(got), floats(expected)) else {
                    assert_eq!(got, expected, "{label}, output {slot}");
                    continue;
                };
                let finite = expected.iter().filter(|x| x.is_finite());
                let scale = finite.fold(0.0f64, |largest, x| largest.max(x.abs()));
                for (got, expected) in got.into_iter().zip(expected) {
                    let same = got == expected || (got.is_nan() && expected.is_nan());
                    let close = (got - expected).abs() <= 4.0 * epsilon * scale.max(1e-3);
                    assert!(same || close, "{label}, output {slot}: {got}, expected {expected}");
                }
            }
            exercised.insert((case.op, dtype));
        }
    }
    let registry = registry().unwrap();
    let here = |op: &&str| registry.op(op).is_ok();
    for precision in MixedPrecision::ALL {
        let lists = ALLOW.iter().chain(INFER).chain(CLEAR).copied();
        let not_exercised = lists
            .filter(here)
            .filter(|op| !exercised.contains(&(op, precision.dtype())));
        let not_exercised: Vec<&str> = not_exercised.filter(|op| !BRANCHES.contains(op)).collect();
        let missed: Vec<&&str> = not_exercised
            .iter()
            .filter(|op| possible.contains(&(op, precision.dtype())))
            .collect();
        assert!(missed.is_empty(), "of {precision}, no case runs {missed:?}");
        let mut never: BTreeSet<&str> = NEVER.iter().copied().collect();
        if precision == MixedPrecision::BFloat16 {
            never.extend(NEVER_BFLOAT16);
        }
        assert_eq!(
            not_exercised.into_iter().collect::<BTreeSet<_>>(),
            never,
            "of {precision}"
        );
    }
}

#[test]
fn no_op_is_in_two_lists() {
    let mut all: Vec<&str> = [ALLOW, DENY, INFER, CLEAR].into_iter().flatten().copied().collect();
    let count = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), count);
}

/// The dtype of the first output of each operation of a run, by the operation's name, with no other rewrite.
fn dtypes(
    fetch: &Tensor,
    feeds: impl Into<graph_core::session::Feeds>,
    precision: MixedPrecision,
) -> BTreeMap<String, DType> {
    let rewrites = RewriteOptions::none().with(precision.rewrite());
    let options = SessionOptions::new().accelerators(Vec::new()).rewrites(rewrites);
    let session = Session::with_options(fetch.graph(), options).unwrap();
    session.run(global_variables_initializer().unwrap(), ()).unwrap();
    let trace = RunOptions {
        trace: true,
        ..RunOptions::default()
    };
    let (value, metadata): (Value, _) = session.run_with(fetch, feeds, &trace).unwrap();
    assert_eq!(value.dtype(), fetch.dtype());
    let nodes = metadata.nodes.into_iter();
    let first = nodes.filter_map(|node| Some((node.name.clone(), node.outputs.first()?.0)));
    first.collect()
}

fn numbers(shape: &[usize], step: usize) -> Value {
    let len = shape.iter().product::<usize>();
    let number = |index: usize| ((index * step) % 23) as f32 / 23.0 - 0.4;
    Value::from_vec(shape.to_vec(), (0..len).map(number).collect::<Vec<_>>()).unwrap()
}

fn variable(name: &str, shape: &[usize], step: usize) -> Variable {
    Variable::new(numbers(shape, step)).name(name).build().unwrap()
}

#[test]
fn products_and_what_lies_between_them_are_of_16_bits_and_nothing_else() {
    for precision in MixedPrecision::ALL {
        let graph = Graph::new();
        let _default = graph.as_default();
        let x = placeholder::<f32>([4, 6]).name("x").build().unwrap();
        let hidden = math::matmul(
            reshape(&x, [4, 6]).name("flat").build().unwrap(),
            variable("w1", &[6, 5], 7),
        );
        let hidden = nn::bias_add(hidden.name("product_1"), variable("b1", &[5], 3)).name("sum_1");
        let hidden = nn::relu(hidden.build().unwrap()).name("relu_1").build().unwrap();
        let logits = math::matmul(&hidden, variable("w2", &[5, 3], 5)).name("product_2");
        let logits = nn::bias_add(logits, variable("b2", &[3], 2))
            .name("sum_2")
            .build()
            .unwrap();
        let softmax = nn::softmax(&logits).name("softmax").build().unwrap();
        let result = math::reduce_sum(math::matmul(softmax, variable("w3", &[3, 2], 11)).name("product_3"));
        let result = result.name("result").build().unwrap();
        let got = dtypes(&result, feed! { &x => numbers(&[4, 6], 5) }, precision);
        let half = ["flat", "product_1", "sum_1", "relu_1", "product_2", "product_3"];
        let float = ["sum_2", "softmax", "result"];
        for (names, dtype) in [(&half[..], precision.dtype()), (&float[..], DType::Float32)] {
            for name in names {
                assert_eq!(got[*name], dtype, "{name} with {precision}");
            }
        }
        let casts = got.keys().filter(|name| name.contains("-CastTo")).count();
        // The image, two biases' and weights'; two products back; the softmax.
        assert_eq!(casts, 1 + 4 + 2 + 1, "{got:?}");
    }
}

#[test]
fn branches_and_casts_between_products_are_of_16_bits() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let x = placeholder::<f32>([2, 2]).name("x").build().unwrap();
    let first = math::matmul(&x, variable("w1", &[2, 2], 7))
        .name("first")
        .build()
        .unwrap();
    let positive = math::greater(math::reduce_sum(&x), 0.0f32).build().unwrap();
    let chosen = cond(
        positive,
        || math::negative(&first).name("negative").build(),
        || math::abs(&first).name("absolute").build(),
    );
    let chosen = chosen.build().unwrap();
    let mask = math::cast(math::greater(&x, 0.1f32), DType::Float32)
        .name("mask")
        .build()
        .unwrap();
    let masked = math::multiply(&chosen, &mask).name("masked").build().unwrap();
    let second = math::matmul(&masked, &masked).name("second").build().unwrap();
    let result = math::reduce_sum(second).build().unwrap();
    let got = dtypes(
        &result,
        feed! { &x => [[0.5f32, -0.25], [1.0, 0.125]] },
        MixedPrecision::Half,
    );
    for name in ["first", "cond/negative", "cond/Merge", "mask", "masked", "second"] {
        assert_eq!(got[name], DType::Half, "{name} of {got:?}");
    }
}

#[test]
fn what_is_fetched_and_what_loops_compute_stays_float() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let x = placeholder::<f32>([2, 2]).name("x").build().unwrap();
    let product = math::matmul(&x, &x).name("product").build().unwrap();
    let fed = || feed! { &x => [[0.1f32, 0.2], [0.3, 0.4]] };
    assert_eq!(dtypes(&product, fed(), MixedPrecision::Half)["product"], DType::Float32);
    let looped = repeat(
        "loop",
        &[constant(0i32).build().unwrap(), x.clone()],
        |state| binary("Less", &state[0], inside("loop", constant(2i32))),
        |state| {
            let next = binary("AddV2", &state[0], inside("loop", constant(1i32)));
            vec![next, binary("MatMul", &state[1], inside("loop", &x))]
        },
    );
    let looped = math::reduce_sum(&looped[1]).build().unwrap();
    let got = dtypes(&looped, fed(), MixedPrecision::Half);
    assert!(got.values().all(|dtype| *dtype != DType::Half), "{got:?}");
}

#[test]
fn batch_normalization_between_convolutions_takes_images_of_16_bits_and_numbers_of_32() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let x = placeholder::<f32>([2, 5, 5, 2]).name("x").build().unwrap();
    let convolve = |input: &Tensor, name: &str, step: usize| {
        let filter = variable(&format!("{name}_filter"), &[2, 2, 2, 2], step);
        nn::conv2d(input, filter)
            .strides([1; 4])
            .padding("SAME")
            .name(name)
            .build()
            .unwrap()
    };
    let first = convolve(&x, "first", 5);
    let normalized = crate::op("FusedBatchNorm")
        .input(&first)
        .input([1.0f32, 2.0])
        .input([0.5f32, -0.5])
        .input(constant(Value::zeros(DType::Float32, [0]).unwrap()))
        .input(constant(Value::zeros(DType::Float32, [0]).unwrap()))
        .name("normalized")
        .build_operation()
        .unwrap();
    let second = convolve(&normalized.output(0), "second", 3);
    let result = math::reduce_sum(second).build().unwrap();
    let got = dtypes(
        &result,
        feed! { &x => numbers(&[2, 5, 5, 2], 7) },
        MixedPrecision::BFloat16,
    );
    for name in ["first", "normalized", "second"] {
        assert_eq!(got[name], DType::BFloat16, "{name}");
    }
}

#[test]
fn the_graph_asks_for_it_and_options_may_refuse() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let weights = variable("weights", &[1, 1], 4);
    let third = constant([[1.0f32 / 3.0]]).build().unwrap();
    let product = math::matmul(&third, &weights).build().unwrap();
    let sum = math::reduce_sum(&product).build().unwrap();
    let value = |options: SessionOptions| -> f32 {
        let session = Session::with_options(&graph, options).unwrap();
        session.run(weights.initializer(), ()).unwrap();
        session.run(&sum, ()).unwrap()
    };
    let plain = value(SessionOptions::new());
    assert_eq!(plain, (1.0f32 / 3.0) * -0.4);
    let optimizer = GradientDescentOptimizer::new(0.1);
    let optimizer = enable_mixed_precision_graph_rewrite(optimizer, "dynamic").unwrap();
    optimizer.minimize(&sum, std::slice::from_ref(&weights)).unwrap();
    let half = f16::from_f32(f16::from_f32(-0.4).to_f32() * f16::from_f32(1.0 / 3.0).to_f32()).to_f32();
    assert_eq!(value(SessionOptions::new()), half);
    let refused = RewriteOptions::all().without("auto_mixed_precision");
    assert_eq!(value(SessionOptions::new().rewrites(refused)), plain);
    disable_mixed_precision_graph_rewrite();
    assert_eq!(value(SessionOptions::new()), plain);
}

#[test]
fn words_are_told_apart() {
    for precision in MixedPrecision::ALL {
        assert_eq!(precision.to_string().parse::<MixedPrecision>().unwrap(), precision);
    }
    let error = "fp16".parse::<MixedPrecision>().unwrap_err().to_string();
    assert!(error.contains("f16 or bf16"), "{error}");
}
