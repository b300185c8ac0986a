//! Branches and loops on a device: the host decides, and what it decides about stays on the device.

use graph_core::graph::Tensor;
use graph_core::session::{Feeds, NodeStats, RunOptions, Session, SessionOptions};
use graph_core::{DType, Graph, Operation, Result, Value, Variable, feed, gradients};
use graph_cuda::Cuda;

use super::device;
use crate::array::{constant, placeholder};
use crate::control::loop_tests::{binary, inside, repeat};
use crate::control::{TensorArray, cond};
use crate::math::matmul;
use crate::state::{assign_add, global_variables_initializer};

/// A session on the host, and one on the device.
fn sessions(graph: &Graph, device: &Cuda) -> Result<[Session; 2]> {
    let on = |accelerators| Session::with_options(graph, SessionOptions::new().accelerators(accelerators));
    Ok([on(Vec::new())?, on(vec![device.accelerator()])?])
}

/// What a run gives, and its steps.
fn traced(session: &Session, fetches: &[&Tensor], feeds: Feeds) -> Result<(Vec<Value>, Vec<NodeStats>)> {
    let fetches: Vec<Tensor> = fetches.iter().map(|&fetch| fetch.clone()).collect();
    let options = RunOptions {
        trace: true,
        ..RunOptions::default()
    };
    let (values, metadata) = session.run_with(fetches, feeds, &options)?;
    Ok((values, metadata.nodes))
}

/// On which devices the steps of an op ran.
fn devices_of<'a>(steps: &'a [NodeStats], op: &str) -> Vec<&'a str> {
    let of_op = steps.iter().filter(|step| step.op == op);
    of_op.map(|step| step.device.as_str()).collect()
}

const GPU: &str = "/device:GPU:0";
const CPU: &str = "/device:CPU:0";

/// A product in one branch and a constant in the other, before and behind layers that always run; a variable that each branch
/// changes in its way.
#[test]
fn branches_on_a_device_are_those_of_the_host() -> Result<()> {
    let Some(device) = device() else { return Ok(()) };
    let graph = Graph::new();
    let _default = graph.as_default();
    let p = placeholder::<bool>(()).build()?;
    let x = placeholder::<f32>([2, 3]).build()?;
    let weights = Variable::new([[1.0f32, -2.0, 0.5], [0.25, 3.0, -1.0], [2.0, 0.0, 1.5]]).build()?;
    let count = Variable::new([0.0f32, 10.0]).build()?;
    let before = crate::nn::relu(matmul(&x, &weights).build()?).build()?;
    let branched = cond(
        &p,
        || Ok(binary("Mul", &before, matmul(&before, &weights).build()?)),
        || Ok(binary("AddV2", &before, [[1.0f32, 2.0, 3.0]])),
    )
    .build()?;
    let counted: Operation = cond(
        &p,
        || assign_add(&count, [1.0f32, 0.0]).build_operation(),
        || assign_add(&count, [0.0f32, 1.0]).build_operation(),
    )
    .build()?;
    let loss = crate::math::reduce_sum(crate::math::square(&branched).build()?).build()?;
    let slopes = gradients([&loss], [&x])?.build()?.remove(0).expect("a gradient");
    let initialize = global_variables_initializer()?;
    let [host, gpu] = sessions(&graph, &device)?;
    for session in [&host, &gpu] {
        session.run::<()>(&initialize, ())?;
    }
    let fetches = [&branched, &loss, &slopes];
    for (run, taken) in [true, false, false, true, true, true, false].into_iter().enumerate() {
        let values: Vec<f32> = (0..6).map(|at| ((at * 7 + run * 3) % 5) as f32 - 1.5).collect();
        let feeds = || feed! { &p => taken, &x => Value::from_vec([2, 3], values.clone()).expect("a value") };
        let fetched = |session: &Session| -> Result<(Value, Value, Value, ())> {
            session.run((fetches[0], fetches[1], fetches[2], &counted), feeds())
        };
        assert_eq!(fetched(&host)?, fetched(&gpu)?, "run {run}");
        let (_, steps) = traced(&gpu, &fetches, feeds())?;
        for op in ["MatMul", "Mul", "ReluGrad"] {
            assert!(
                devices_of(&steps, op).iter().all(|&device| device == GPU),
                "{op} of run {run}"
            );
        }
    }
    let counts: [Vec<f32>; 2] = [host.run(&count, ())?, gpu.run(&count, ())?];
    assert_eq!(counts, [vec![4.0, 13.0], vec![4.0, 13.0]]);
    Ok(())
}

/// `x` becomes `x w` in each of as many iterations as are fed, and an array keeps them all.
#[test]
fn loops_on_a_device_are_those_of_the_host() -> Result<()> {
    let Some(device) = device() else { return Ok(()) };
    let graph = Graph::new();
    let _default = graph.as_default();
    let limit = placeholder::<i32>(()).build()?;
    let x = placeholder::<f32>([2, 2]).build()?;
    let weights = Variable::new([[0.5f32, 1.0], [-1.0, 0.25]]).build()?;
    let array = TensorArray::new(DType::Float32, &limit)?;
    let (handle, last) = (inside("loop", array.handle()), inside("loop", &limit));
    let held = inside("loop", &weights);
    let ends = repeat(
        "loop",
        &[constant(0i32).build()?, x.clone(), array.flow().clone()],
        |state| binary("Less", &state[0], &last),
        |state| {
            let next = binary("MatMul", &state[1], &held);
            let write = crate::op("TensorArrayWriteV3").input(&handle).input(&state[0]);
            let write = write.input(&next).input(&state[2]).build().expect("a node");
            vec![binary("AddV2", &state[0], inside("loop", constant(1i32))), next, write]
        },
    );
    let stacked = array.with_flow(ends[2].clone()).stack()?;
    let sum = crate::math::reduce_sum(&ends[1]).build()?;
    let initialize = global_variables_initializer()?;
    let [host, gpu] = sessions(&graph, &device)?;
    for session in [&host, &gpu] {
        session.run::<()>(&initialize, ())?;
    }
    for iterations in [3, 1, 5, 3] {
        let feeds = || feed! { &limit => iterations, &x => [[1.0f32, 2.0], [3.0, -4.0]] };
        let fetches = [&ends[0], &ends[1], &stacked, &sum];
        let (expected, _) = traced(&host, &fetches, feeds())?;
        let (got, steps) = traced(&gpu, &fetches, feeds())?;
        assert_eq!(got, expected, "{iterations} iterations");
        assert_eq!(devices_of(&steps, "MatMul"), vec![GPU; iterations as usize + 1]);
        assert!(
            devices_of(&steps, "AddV2").iter().all(|&device| device == CPU),
            "the host counts"
        );
        for op in ["TensorArrayWriteV3", "TensorArrayGatherV3"] {
            assert!(devices_of(&steps, op).iter().all(|&device| device == GPU), "{op}");
        }
        let untraced: Vec<Value> = gpu.run(fetches.map(Tensor::clone).to_vec(), feeds())?;
        assert_eq!(untraced, expected);
    }
    Ok(())
}

/// Variables that change places and shapes from one iteration to the next.
#[test]
fn what_loops_carry_on_a_device_may_change_places_and_shapes() -> Result<()> {
    let Some(device) = device() else { return Ok(()) };
    let graph = Graph::new();
    let _default = graph.as_default();
    let start = [
        constant(0i32).build()?,
        constant([1.0f32]).build()?,
        constant([5.0f32, 2.0]).build()?,
    ];
    let ends = repeat(
        "loop",
        &start,
        |x| binary("Less", &x[0], inside("loop", constant(4i32))),
        |x| {
            let both = crate::op("ConcatV2").input([&x[1], &x[2]]);
            let both = both.input(inside("loop", constant(0i32))).build().expect("a node");
            vec![
                binary("AddV2", &x[0], inside("loop", constant(1i32))),
                x[2].clone(),
                binary("Mul", &both, inside("loop", constant(2.0f32))),
            ]
        },
    );
    let count = crate::op("Size").input(&ends[2]).build()?;
    let fetches = [&ends[1], &ends[2], &count];
    let [host, gpu] = sessions(&graph, &device)?;
    let (expected, _) = traced(&host, &fetches, Feeds::new())?;
    let (got, steps) = traced(&gpu, &fetches, Feeds::new())?;
    assert_eq!(got, expected);
    assert_eq!(devices_of(&steps, "ConcatV2"), vec![GPU; 5]);
    Ok(())
}

/// Shapes that only the data tells are no reason to leave the device.
#[test]
fn shapes_that_the_run_tells_are_computed_with_on_the_device() -> Result<()> {
    let Some(device) = device() else { return Ok(()) };
    let graph = Graph::new();
    let _default = graph.as_default();
    let x = placeholder::<f32>([4]).build()?;
    let positive = binary("Greater", &x, 0.0f32);
    let places = crate::op("Where").input(&positive).build()?;
    let picked = crate::op("GatherNd").input(&x).input(&places).build()?;
    let squares = binary("Mul", &picked, &picked);
    let sum = crate::math::reduce_sum(&squares).build()?;
    let shape = crate::op("Shape").input(&squares).build()?;
    let [host, gpu] = sessions(&graph, &device)?;
    for values in [
        [1.0f32, -1.0, 2.0, 3.0],
        [-1.0, -2.0, -3.0, -4.0],
        [1.0, 2.0, -3.0, 4.0],
    ] {
        let fetches = [&squares, &sum, &shape];
        let (expected, _) = traced(&host, &fetches, feed! { &x => values })?;
        let (got, steps) = traced(&gpu, &fetches, feed! { &x => values })?;
        assert_eq!(got, expected);
        assert_eq!(devices_of(&steps, "Mul"), [GPU]);
        assert_eq!(devices_of(&steps, "Where"), [GPU]);
    }
    Ok(())
}

/// The stream of a branch moves on where that is taken, and nowhere else.
#[test]
fn streams_of_branches_on_a_device_are_those_of_the_host() -> Result<()> {
    let Some(device) = device() else { return Ok(()) };
    let graph = Graph::new();
    let _default = graph.as_default();
    let p = placeholder::<bool>(()).build()?;
    let drawn = cond(
        &p,
        || crate::random::random_uniform([3i32, 2]).seed(7).build(),
        || constant([[0.0f32, 0.0]; 3]).build(),
    )
    .build()?;
    let [host, gpu] = sessions(&graph, &device)?;
    let mut seen = Vec::new();
    for taken in [true, false, true, false, false, true] {
        let run = |session: &Session| session.run::<Value>(&drawn, feed! { &p => taken });
        let (expected, got) = (run(&host)?, run(&gpu)?);
        assert_eq!(got, expected);
        assert!(!taken || !seen.contains(&got), "the same numbers again");
        seen.push(got);
    }
    let (_, steps) = traced(&gpu, &[&drawn], feed! { &p => true })?;
    assert_eq!(devices_of(&steps, "RandomUniform"), [GPU]);
    Ok(())
}

/// What is read of a variable in an iteration is what it was then, whatever the iteration makes of it.
#[test]
fn variables_that_loops_change_are_read_as_they_were() -> Result<()> {
    let Some(device) = device() else { return Ok(()) };
    let graph = Graph::new();
    let _default = graph.as_default();
    let handle = crate::op("VarHandleOp").attr("dtype", DType::Float32);
    let handle = handle.attr("shape", graph_core::PartialShape::from([2usize])).build()?;
    let initialize = crate::op("AssignVariableOp").input(&handle).input([1.0f32, 3.0]);
    let initialize = initialize.build_operation()?;
    let held = inside("loop", &handle);
    let ends = repeat(
        "loop",
        &[constant(0i32).build()?, constant([0.0f32, 0.0]).build()?],
        |x| binary("Less", &x[0], inside("loop", constant(3i32))),
        |x| {
            let read = crate::op("ReadVariableOp").input(&held).attr("dtype", DType::Float32);
            let read = read.control_input(&x[0].op()).build().expect("a node");
            let assign = crate::op("AssignVariableOp").input(&held);
            let assign = assign
                .input(binary("AddV2", &read, &read))
                .build_operation()
                .expect("a node");
            let next = crate::op("AddV2").input(&x[0]).input(inside("loop", constant(1i32)));
            let sum = crate::op("AddV2").input(&x[1]).input(&read).control_input(&assign);
            vec![next.build().expect("a node"), sum.build().expect("a node")]
        },
    );
    let read = crate::op("ReadVariableOp")
        .input(&handle)
        .attr("dtype", DType::Float32)
        .build()?;
    let [host, gpu] = sessions(&graph, &device)?;
    for session in [&host, &gpu] {
        session.run::<()>(&initialize, ())?;
        // 1 + 2 + 4, of each.
        assert_eq!(session.run::<Vec<f32>>(&ends[1], ())?, [7.0, 21.0]);
        assert_eq!(session.run::<Vec<f32>>(&read, ())?, [8.0, 24.0]);
    }
    let (_, steps) = traced(&gpu, &[&ends[1]], Feeds::new())?;
    assert!(
        devices_of(&steps, "AssignVariableOp")
            .iter()
            .all(|&device| device == GPU)
    );
    Ok(())
}

/// Elements of stacks and arrays stay on the device; what is written to one element of gradients adds up there.
#[test]
fn stacks_and_arrays_keep_what_the_device_made() -> Result<()> {
    let Some(device) = device() else { return Ok(()) };
    let graph = Graph::new();
    let _default = graph.as_default();
    let x = placeholder::<f32>([2, 2]).build()?;
    let stack = crate::op("StackV2")
        .input(-1i32)
        .attr("elem_type", DType::Float32)
        .build()?;
    let double = binary("AddV2", &x, &x);
    let pushed = crate::op("StackPushV2").input(&stack).input(&double).build()?;
    let popped = crate::op("StackPopV2").input(&stack).attr("elem_type", DType::Float32);
    let popped = popped.control_input(&pushed.op()).build()?;
    let array = TensorArray::with(DType::Float32, 2, |op| op.attr("clear_after_read", false))?.scatter([0, 1], &x)?;
    let (first, again) = (array.read(0)?, array.read(0)?);
    let sum = binary("AddV2", binary("Mul", &first, &again), array.read(1)?);
    let slopes = gradients([&sum], [&x])?.build()?.remove(0).expect("a gradient");
    let parts = TensorArray::new(DType::Float32, 2)?.split(&x, [1i64, 1])?.concat()?;
    let fetches = [&popped, &sum, &slopes, &parts.0, &parts.1];
    let [host, gpu] = sessions(&graph, &device)?;
    for values in [[[1.0f32, 2.0], [3.0, 4.0]], [[-1.0, 0.5], [2.0, 8.0]]] {
        let (expected, _) = traced(&host, &fetches, feed! { &x => values })?;
        let (got, steps) = traced(&gpu, &fetches, feed! { &x => values })?;
        assert_eq!(got, expected);
        for op in [
            "StackPushV2",
            "StackPopV2",
            "TensorArrayScatterV3",
            "TensorArrayReadV3",
            "TensorArrayConcatV3",
        ] {
            let devices = devices_of(&steps, op);
            assert!(
                !devices.is_empty() && devices.iter().all(|&device| device == GPU),
                "{op}: {devices:?}"
            );
        }
    }
    Ok(())
}

/// A shape that shows in the run alone, and for which the device has no kernel, is the host's to compute with.
#[test]
fn what_the_device_has_no_kernel_for_is_computed_by_the_host() -> Result<()> {
    let Some(device) = device() else { return Ok(()) };
    let graph = Graph::new();
    let _default = graph.as_default();
    // Repeated along more dimensions in turn than kernels have room for.
    let (whole, turns) = ([2usize; 18], std::array::from_fn::<usize, 18, _>(|axis| 1 + axis % 2));
    let x = placeholder::<f32>(whole).build()?;
    let y = inside("loop", placeholder::<f32>(turns).name("y").build()?);
    let fed = graph.operation("y")?.output(0);
    let ends = repeat(
        "loop",
        &[constant(0i32).build()?, x.clone()],
        |state| binary("Less", &state[0], inside("loop", constant(2i32))),
        |state| {
            let next = binary("AddV2", &state[0], inside("loop", constant(1i32)));
            vec![next, binary("Mul", &state[1], &y)]
        },
    );
    let numbers = |shape: &[usize]| {
        let len: usize = shape.iter().product();
        Value::from_vec(shape.to_vec(), (0..len).map(|at| at as f32 * 0.25).collect::<Vec<_>>())
    };
    let feeds = || -> Result<Feeds> { Ok(feed! { &x => numbers(&whole)?, &fed => numbers(&turns)? }) };
    let [host, gpu] = sessions(&graph, &device)?;
    let expected: Value = host.run(&ends[1], feeds()?)?;
    assert_eq!(gpu.run::<Value>(&ends[1], feeds()?)?, expected);
    Ok(())
}
