//! What loops compute, and what is refused. That they and their gradients are TensorFlow's node for node is told by the tests
//! of the whole (`tests/tests/while_loop.rs`).

use graph_core::format::graph_def::ExportOptions;
use graph_core::format::import::ImportOptions;
use graph_core::gradients::gradients;
use graph_core::graph::scope::{self, control_dependencies};
use graph_core::session::{Feeds, SessionOptions};
use graph_core::{DType, Error, Graph, PartialShape, Result, Session, Tensor, Value, Variable, feed};

use super::while_loop;
use crate::array::{concat, constant, identity, placeholder};
use crate::control::cond;
use crate::math::{add, less, matmul, multiply, reduce_sum, sin, square, tanh};
use crate::state::{assign_add, global_variables_initializer};
use crate::testing::gpu;

/// The values of the fetches in a session on the host, which are those of a session with a GPU.
fn values(graph: &Graph, fetches: &[Tensor], feeds: &Feeds) -> Vec<Value> {
    let fetches = fetches.to_vec();
    let run = |options: SessionOptions| -> Vec<Value> {
        let session = Session::with_options(graph, options).unwrap();
        let first = session.run(&fetches, feeds.clone()).unwrap();
        let again: Vec<Value> = session.run(&fetches, feeds.clone()).unwrap();
        assert_eq!(again, first, "a run differs from the one before");
        first
    };
    let on_host = run(SessionOptions::new().accelerators(Vec::new()));
    match gpu() {
        Err(error) => println!("skipped: {error}"),
        Ok(gpu) => {
            let on_device = run(SessionOptions::new().accelerators(vec![gpu.accelerator()]));
            for (on_device, on_host) in on_device.iter().zip(&on_host) {
                assert_near(on_device, on_host, 1e-5);
            }
        }
    }
    on_host
}

fn numbers(value: &Value) -> Vec<f64> {
    match value.as_slice::<f32>() {
        Ok(numbers) => numbers.iter().map(|&number| f64::from(number)).collect(),
        Err(_) => value.as_slice::<f64>().unwrap().to_vec(),
    }
}

#[track_caller]
fn assert_near(got: &Value, expected: &Value, relative: f64) {
    assert_eq!(got.shape(), expected.shape());
    if expected.dtype() == DType::Int32 {
        assert_eq!(got, expected);
        return;
    }
    for (a, b) in numbers(got).iter().zip(numbers(expected)) {
        assert!((a - b).abs() <= relative * b.abs().max(1e-3), "{got} and {expected}");
    }
}

fn slopes(ys: &[&Tensor], xs: &[&Tensor]) -> Vec<Tensor> {
    let found = gradients(ys.iter().copied(), xs.iter().copied())
        .unwrap()
        .build()
        .unwrap();
    found.into_iter().map(|found| found.expect("a gradient")).collect()
}

/// The last of `y` and of what `body` makes of it, `times` times.
fn repeated(times: &Tensor, y: &Tensor, body: impl FnOnce(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    let step = |(i, y): (Tensor, Tensor)| Ok((add(i, 1).build()?, body(&y)?));
    let (_, y) = while_loop(|(i, _)| Ok(less(i, times)), step, (0, y)).build()?;
    Ok(y)
}

fn times() -> Tensor {
    placeholder::<i32>(()).build().unwrap()
}

#[test]
fn a_loop_and_its_gradients_are_those_of_the_loop_unrolled() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let (a, x) = (
        placeholder::<f64>([2, 2]).build().unwrap(),
        placeholder::<f64>([2, 3]).build().unwrap(),
    );
    let b = placeholder::<f64>([3]).build().unwrap();
    let body = |y: &Tensor| multiply(tanh(add(matmul(&a, y), &b)), sin(y)).build();
    let count = times();
    let looped = repeated(&count, &x, body).unwrap();
    let mut fetches = vec![looped.clone()];
    fetches.extend(slopes(&[&looped], &[&a, &x, &b]));
    let feeds = |iterations: i32| {
        Feeds::new()
            .with(&count, iterations)
            .with(&a, [[0.9f64, -0.4], [0.3, 1.1]])
            .with(&x, [[0.5f64, -1.0, 2.0], [1.5, 0.25, -0.75]])
            .with(&b, [0.1f64, 0.0, -0.2])
    };
    let mut unrolled = x.clone();
    for iterations in 1..5 {
        unrolled = body(&unrolled).unwrap();
        let mut expected = vec![unrolled.clone()];
        expected.extend(slopes(&[&unrolled], &[&a, &x, &b]));
        let feeds = feeds(iterations);
        for (got, expected) in values(&graph, &fetches, &feeds)
            .iter()
            .zip(values(&graph, &expected, &feeds))
        {
            assert_near(got, &expected, 1e-12);
        }
    }
    // Not once: the value is what it was, and nothing else matters.
    let none = values(&graph, &fetches, &feeds(0));
    assert_eq!(none[0], [[0.5f64, -1.0, 2.0], [1.5, 0.25, -0.75]].into());
    assert_eq!(none[1], Value::zeros(DType::Float64, [2, 2]).unwrap());
    assert_eq!(none[2], [[1.0f64; 3]; 2].into());
    assert_eq!(none[3], Value::zeros(DType::Float64, [3]).unwrap());
}

#[test]
fn gradients_are_those_of_finite_differences() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let (a, x, count) = (
        placeholder::<f64>(()).build().unwrap(),
        placeholder::<f64>(()).build().unwrap(),
        times(),
    );
    // An inner loop that runs more often each time, with a branch, and variables that change places.
    let body = |(i, y, z): (Tensor, Tensor, Tensor)| {
        let inner = repeated(&i, &y, |w| {
            cond(less(w, 1.0f64), || add(multiply(w, &a), &z).build(), || sin(w).build()).build()
        })?;
        Ok((add(&i, 1).build()?, z.clone(), multiply(&inner, 0.5f64).build()?))
    };
    let (_, y, z) = while_loop(|(i, ..)| Ok(less(i, &count)), body, (0, &x, &a))
        .build()
        .unwrap();
    let result = add(&y, square(&z)).build().unwrap();
    let mut fetches = vec![result.clone()];
    fetches.extend(slopes(&[&result], &[&a, &x]));
    let session = Session::with_options(&graph, SessionOptions::new().accelerators(Vec::new())).unwrap();
    for iterations in 0..6 {
        for (a_is, x_is) in [(0.8f64, 0.3f64), (-1.1, 0.7), (0.4, 2.5)] {
            let feeds = |a_is: f64, x_is: f64| Feeds::new().with(&a, a_is).with(&x, x_is).with(&count, iterations);
            let at = |a_is, x_is| session.run::<f64>(&result, feeds(a_is, x_is)).unwrap();
            let found = values(&graph, &fetches, &feeds(a_is, x_is));
            let step = 1e-6;
            let by_a = (at(a_is + step, x_is) - at(a_is - step, x_is)) / (2.0 * step);
            let by_x = (at(a_is, x_is + step) - at(a_is, x_is - step)) / (2.0 * step);
            for (found, expected) in found[1..].iter().zip([by_a, by_x]) {
                let found = numbers(found)[0];
                assert!(
                    (found - expected).abs() < 1e-6 * expected.abs().max(1.0),
                    "{iterations}: {found} and {expected}"
                );
            }
        }
    }
}

#[test]
fn a_loop_in_a_branch_in_a_loop_has_gradients() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let (a, x, count) = (
        placeholder::<f64>(()).build().unwrap(),
        placeholder::<f64>(()).build().unwrap(),
        times(),
    );
    let body = |(i, y): (Tensor, Tensor)| {
        let inner = || repeated(&i, &y, |w| sin(multiply(w, &a)).build());
        let next = cond(less(&y, 0.5f64), || multiply(&y, square(&a)).build(), inner).build()?;
        Ok((add(&i, 1).build()?, next))
    };
    let (_, y) = while_loop(|(i, _)| Ok(less(i, &count)), body, (0, &x)).build().unwrap();
    let mut fetches = vec![y.clone()];
    fetches.extend(slopes(&[&y], &[&a, &x]));
    for iterations in 0..6 {
        let (mut value, mut by_a, mut by_x) = (0.3f64, 0.0f64, 1.0f64);
        let a_is = 1.7f64;
        for i in 0..iterations {
            if value < 0.5 {
                (by_a, by_x) = (by_a * a_is * a_is + 2.0 * a_is * value, by_x * a_is * a_is);
                value *= a_is * a_is;
            } else {
                for _ in 0..i {
                    let slope = (value * a_is).cos();
                    (by_a, by_x) = (slope * (by_a * a_is + value), slope * by_x * a_is);
                    value = (value * a_is).sin();
                }
            }
        }
        let feeds = Feeds::new().with(&a, a_is).with(&x, 0.3f64).with(&count, iterations);
        for (found, expected) in values(&graph, &fetches, &feeds).iter().zip([value, by_a, by_x]) {
            assert_near(found, &expected.into(), 1e-10);
        }
    }
}

#[test]
fn tensors_that_grow_have_gradients() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let (x, count) = (placeholder::<f32>([None]).build().unwrap(), times());
    let step =
        |(i, y): (Tensor, Tensor)| Ok((add(i, 1).build()?, concat([y.clone(), square(&y).build()?], 0).build()?));
    let (_, y) = while_loop(|(i, _)| Ok(less(i, &count)), step, (0, &x))
        .shape_invariants([PartialShape::scalar(), PartialShape::unknown_of_rank(1)])
        .build()
        .unwrap();
    let total = reduce_sum(&y).build().unwrap();
    let mut fetches = vec![y];
    fetches.extend(slopes(&[&total], &[&x]));
    let feeds = |iterations: i32| Feeds::new().with(&count, iterations).with(&x, [1.0f32, 2.0]);
    let found = values(&graph, &fetches, &feeds(2));
    assert_eq!(found[0], [1.0f32, 2.0, 1.0, 4.0, 1.0, 4.0, 1.0, 16.0].into());
    // Of x + x^2 + x^2 + x^4.
    assert_eq!(found[1], [9.0f32, 1.0 + 8.0 + 32.0].into());
    assert_eq!(
        values(&graph, &fetches, &feeds(0)),
        [[1.0f32, 2.0].into(), [1.0f32, 1.0].into()]
    );
}

#[test]
fn several_ends_and_several_calls_share_a_loop() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let (x, y) = (
        placeholder::<f32>(()).build().unwrap(),
        placeholder::<f32>(()).build().unwrap(),
    );
    let body =
        |(i, a, b): (Tensor, Tensor, Tensor)| Ok((add(i, 1).build()?, multiply(&a, &b).build()?, add(&a, &b).build()?));
    let (_, a, b) = while_loop(|(i, ..)| Ok(less(i, 2)), body, (0, &x, &y)).build().unwrap();
    // After two iterations a is xy(x + y) and b is xy + x + y.
    let mut fetches = slopes(&[&a], &[&x, &y]);
    fetches.extend(slopes(&[&b], &[&x, &y]));
    fetches.extend(slopes(&[&a, &b], &[&x, &y]));
    let weighted = gradients([&a, &b], [&x]).unwrap().grad_ys([10.0f32, 0.5]);
    let weighted = weighted.colocate_with_ops(true).gate_by_op(true).build().unwrap();
    fetches.extend(weighted.into_iter().flatten());
    let found = values(&graph, &fetches, &Feeds::new().with(&x, 2.0f32).with(&y, 3.0f32));
    let found: Vec<f64> = found.iter().map(|value| numbers(value)[0]).collect();
    assert_eq!(found, [21.0, 16.0, 4.0, 3.0, 25.0, 19.0, 212.0]);
}

#[test]
fn variables_have_gradients_and_may_be_trained_through_a_loop() {
    use crate::train::Optimizer;
    for resource in [false, true] {
        let graph = Graph::new();
        let _default = graph.as_default();
        let rate = Variable::new(0.5f32).use_resource(resource).build().unwrap();
        let x = constant(1.0f32).build().unwrap();
        // The rate is read inside where it is a resource.
        let step = |(i, y): (Tensor, Tensor)| Ok((add(i, 1).build()?, multiply(&y, &rate).build()?));
        let (_, y) = while_loop(|(i, _)| Ok(less(i, 3)), step, (0, &x)).build().unwrap();
        let loss = square(add(&y, -8.0f32)).build().unwrap();
        let slope = gradients([&y], [&rate]).unwrap().build().unwrap().remove(0).unwrap();
        let train = crate::train::GradientDescentOptimizer::new(1e-3f32)
            .minimize(&loss, std::slice::from_ref(&rate))
            .unwrap();
        let session = Session::with_options(&graph, SessionOptions::new().accelerators(Vec::new())).unwrap();
        session.run(global_variables_initializer().unwrap(), ()).unwrap();
        assert_eq!(session.run::<f32>(&slope, ()).unwrap(), 0.75);
        for _ in 0..500 {
            session.run::<()>(&train, ()).unwrap();
        }
        let rate_is = session.run::<f32>(&rate, ()).unwrap();
        assert!((rate_is - 2.0).abs() < 1e-3, "{rate_is}");
    }
}

#[test]
fn a_body_may_change_a_variable() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let total = Variable::new(1.0f32).build().unwrap();
    let body = |i: Tensor| {
        let changed = assign_add(&total, 2.0f32).build()?;
        let _after = control_dependencies([&changed.op()])?;
        add(&i, 1).build()
    };
    let end = while_loop(|i| Ok(less(i, 4)), body, 0).build().unwrap();
    let session = Session::new(&graph).unwrap();
    session.run(total.initializer(), ()).unwrap();
    assert_eq!(session.run::<i32>(&end, ()).unwrap(), 4);
    assert_eq!(session.run::<f32>(&total, ()).unwrap(), 9.0);
}

#[test]
fn iterations_may_be_limited_and_structures_nest() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let most = placeholder::<i64>(()).build().unwrap();
    let body =
        |(x, pair): (Tensor, Vec<Tensor>)| Ok((add(&x, &pair[0]).build()?, vec![pair[1].clone(), pair[0].clone()]));
    let (x, pair) = while_loop(|_| Ok(true), body, (0.0f32, vec![1.0f32, 10.0]))
        .maximum_iterations(&most)
        .build()
        .unwrap();
    let session = Session::new(&graph).unwrap();
    let at = |most_is: i64| -> (f32, Vec<f32>) { session.run((&x, &pair), feed! { &most => most_is }).unwrap() };
    assert_eq!(at(0), (0.0, vec![1.0, 10.0]));
    assert_eq!(at(3), (12.0, vec![10.0, 1.0]));
    assert_eq!(at(-1), (0.0, vec![1.0, 10.0]));
}

#[test]
fn gradients_may_be_taken_inside_a_body() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let a = placeholder::<f32>(()).build().unwrap();
    // Steps down the slope of (x - a)^2.
    let body = |x: Tensor| {
        let loss = square((&x - &a)?).build()?;
        let slope = gradients([&loss], [&x])?.build()?.remove(0).expect("a gradient");
        &x - multiply(slope, 0.25f32).build()?
    };
    let end = while_loop(|_| Ok(true), body, 8.0f32)
        .maximum_iterations(3)
        .build()
        .unwrap();
    let session = Session::new(&graph).unwrap();
    assert_eq!(session.run::<f32>(&end, feed! { &a => 4.0f32 }).unwrap(), 4.5);
    let mut refused = None;
    let body = |x: Tensor| {
        let y = multiply(&x, &a).build()?;
        refused = gradients([&y], [&a])?.build().err();
        Ok(y)
    };
    while_loop(|_| Ok(true), body, 8.0f32)
        .maximum_iterations(3)
        .build()
        .unwrap();
    assert!(refused.is_none(), "{refused:?}");
}

#[test]
fn without_back_prop_ends_are_constants() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let x = placeholder::<f32>(()).build().unwrap();
    let y = while_loop(|y| Ok(less(y, 100.0f32)), |y| square(y).build(), &x).back_prop(false);
    let y = y.build().unwrap();
    let z = multiply(&y, &x).build().unwrap();
    assert!(gradients([&y], [&x]).unwrap().build().unwrap()[0].is_none());
    let slope = slopes(&[&z], &[&x]);
    let session = Session::new(&graph).unwrap();
    assert_eq!(session.run::<f32>(&slope[0], feed! { &x => 3.0f32 }).unwrap(), 6561.0);
}

fn refused<T>(result: Result<T>, class: &str, told: &[&str]) {
    let error: Error = result.err().expect("an error");
    assert_eq!(error.class(), class, "{error}");
    for part in told {
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
}

#[test]
fn what_is_no_loop_is_refused() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let (x, vector) = (
        placeholder::<f32>(()).name("x").build().unwrap(),
        placeholder::<f32>([2]).name("vector").build().unwrap(),
    );
    let small = |y: Tensor| Ok(less(y, 9.0f32));
    let invalid = "InvalidArgument";
    let doubled = |y: Tensor| add(&y, &y).build();
    refused(
        while_loop(Ok, doubled, &x).build(),
        invalid,
        &["condition of", "bool", "'while/"],
    );
    refused(
        while_loop(|y| Ok(less(y, 1.0f32)), doubled, &vector).build(),
        invalid,
        &["reduce_all", "shape=[2]"],
    );
    refused(
        while_loop(small, |y| crate::math::cast(&y, DType::Float64).build(), &x).build(),
        invalid,
        &["float as of", "'x:0'", "double", "cast"],
    );
    let grows = |y: Tensor| concat([&y, &y], 0).build();
    refused(
        while_loop(|_| Ok(true), grows, &vector).build(),
        invalid,
        &["[2] as of 'vector:0'", "[4]", "shape_invariants"],
    );
    let half = |y: Vec<Tensor>| Ok(vec![y[0].clone()]);
    refused(
        while_loop(|_| Ok(true), half, vec![&x, &x])
            .maximum_iterations(2)
            .build(),
        invalid,
        &["expected: 2", "got: 1"],
    );
    refused(
        while_loop(|_| Ok(true), Ok, Vec::<Tensor>::new()).build(),
        invalid,
        &["at least one variable"],
    );
    let plain = || while_loop(small, doubled, &x);
    refused(plain().parallel_iterations(0).build(), invalid, &["at least 1"]);
    refused(plain().shape_invariants([]).build(), invalid, &["1 shapes", "got: 0"]);
    refused(
        plain().shape_invariants([[2].into()]).build(),
        invalid,
        &["invariant", "'x:0'"],
    );
    refused(
        plain().maximum_iterations(&vector).build(),
        invalid,
        &["maximum_iterations", "int32"],
    );
    refused(
        plain().maximum_iterations(2.5f32).build(),
        invalid,
        &["maximum_iterations"],
    );
    let variable = Variable::new(1.0f32).build().unwrap();
    let reference = variable.reference().clone();
    refused(
        while_loop(small, doubled, &reference).build(),
        invalid,
        &["reference", "variable itself"],
    );
    let failing = |_: Tensor| -> Result<Tensor> { Err(Error::not_found("nothing")) };
    refused(while_loop(small, failing, &x).build(), "NotFound", &["nothing"]);
    // What failed leaves no loop open.
    assert!(scope::current_control_flow_context(&graph).is_none());
    assert!(identity(&x).build().unwrap().op().control_inputs().is_empty());
}

#[test]
fn what_is_inside_is_neither_fed_nor_fetched() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let mut inside = None;
    let body = |y: Tensor| {
        let twice = add(&y, &y).build()?;
        inside = Some(twice.clone());
        Ok(twice)
    };
    let end = while_loop(|y| Ok(less(y, 100.0f32)), body, 1.0f32).build().unwrap();
    let inside = inside.expect("the body was built");
    let session = Session::new(&graph).unwrap();
    let told = ["while/", "cannot be", "TensorArray"];
    refused(session.run::<f32>(&inside, ()), "InvalidArgument", &told);
    refused(session.run::<()>(&inside.op(), ()), "InvalidArgument", &told);
    refused(
        session.run::<f32>(&end, feed! { &inside => 1.0f32 }),
        "InvalidArgument",
        &told,
    );
    assert_eq!(session.run::<f32>(&end, ()).unwrap(), 128.0);
}

#[test]
fn what_is_inside_is_not_used_outside() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let mut inside = None;
    let body = |y: Tensor| {
        inside = Some(y.clone());
        add(&y, &y).build()
    };
    let end = while_loop(|y| Ok(less(y, 100.0f32)), body, 1.0f32).build().unwrap();
    let inside = inside.expect("the body was built");
    let told = ["'while/Identity' is inside", "TensorArray"];
    refused(square(&inside).build(), "InvalidArgument", &told);
    let other = while_loop(|y| Ok(less(y, 9.0f32)), |y| add(&y, &inside).build(), 1.0f32);
    refused(other.build(), "InvalidArgument", &told);
    assert!(square(&end).build().is_ok());
}

#[test]
fn gradients_that_would_be_wrong_are_refused() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let (a, x) = (
        placeholder::<f32>(()).name("a").build().unwrap(),
        placeholder::<f32>(()).name("x").build().unwrap(),
    );
    let step = |(i, y): (Tensor, Tensor)| Ok((add(i, 1).build()?, multiply(&y, square(&a)).build()?));
    let (_, y) = while_loop(|(i, _)| Ok(less(i, 3)), step, (0, &x))
        .name("loop")
        .build()
        .unwrap();
    let found = slopes(&[&y], &[&x, &a]);
    // The first derivative by x is a^6: that it depends on a no edge says, but the stacks.
    for (slope, x) in [(&found[0], &a), (&found[1], &a), (&found[1], &x)] {
        let again = gradients([slope], [x]).unwrap().build();
        refused(again, "Unimplemented", &["no gradients, as in TensorFlow", "unroll"]);
    }
    // A gradient inside the body by what a variable was an iteration ago.
    let mut inside = None;
    let body = |y: Tensor| {
        let z = multiply(&y, &x).build()?;
        inside = Some(gradients([&z], [&a])?.build());
        Ok(z)
    };
    while_loop(|_| Ok(true), body, &a)
        .maximum_iterations(2)
        .build()
        .unwrap();
    refused(
        inside.expect("it was asked for"),
        "InvalidArgument",
        &["what one of its variables was before", "while/Switch"],
    );
    // An imported loop.
    let message = graph.to_graph_def(ExportOptions::default());
    let copy = Graph::new();
    copy.import(&message, &ImportOptions::verbatim()).unwrap();
    let _copy = copy.as_default();
    let (y, x) = (copy.tensor("loop/Exit_1").unwrap(), copy.tensor("x").unwrap());
    refused(
        gradients([&y], [&x]).unwrap().build(),
        "Unimplemented",
        &["imported", "while_loop"],
    );
    // Its own gradients came along.
    let slope = copy.tensor(&found[1].name()).unwrap();
    let feeds = Feeds::new().with(copy.tensor("a").unwrap(), 2.0f32).with(&x, 1.0f32);
    assert_eq!(values(&copy, &[slope], &feeds), [192.0f32.into()]);
}
