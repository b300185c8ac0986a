//! While loops that `tensorflow/make_loop_fixture.py` builds too, in the same order.

use graph_core::graph::scope::control_dependencies;
use graph_core::graph::{Graph, Tensor};
use graph_core::session::{Feeds, Session};
use graph_core::{DType, PartialShape, Result, Value, gradients};
use graph_ops::control::{TensorArray, cond, no_op, while_loop};
use graph_ops::{array, math};

/// A loop in a graph, and what is fetched of it.
pub type Case = (&'static str, fn() -> Result<Vec<Tensor>>);

/// All cases.
pub const CASES: &[Case] = &[
    ("counting", counting),
    ("options", options),
    ("what_comes_in", what_comes_in),
    ("growing", growing),
    ("newton", newton),
    ("power_iteration", power_iteration),
    ("unused", unused),
    ("unknown_shapes", unknown_shapes),
    ("nested", nested),
    ("branch_inside", branch_inside),
    ("inside_a_branch", inside_a_branch),
    ("array", array_of_rows),
];

/// What is fed to the placeholders that a graph has.
///
/// # Errors
/// None, as long as the placeholders are those of the cases.
pub fn feeds(graph: &Graph) -> Result<Feeds> {
    let mut feeds = Feeds::new();
    for operation in graph.operations() {
        if operation.op_type() != "Placeholder" {
            continue;
        }
        let value: Value = match operation.name().as_str() {
            "a" => 2.0f32.into(),
            "b" => (-0.5f32).into(),
            "x" => 1.5f32.into(),
            "n" => 4i32.into(),
            "flag" => true.into(),
            "matrix" => [[2.0f32, 1.0], [0.5, 1.0]].into(),
            "vector" => [[1.0f32], [-0.5]].into(),
            _ => [0.5f32, -1.0, 2.0].into(),
        };
        feeds = feeds.with(operation.output(0), value);
    }
    Ok(feeds)
}

/// What a case's fetches are.
///
/// # Errors
/// The session's.
pub fn run(session: &Session, graph: &Graph, fetches: &[Tensor]) -> Result<Vec<Value>> {
    session.run(fetches, feeds(graph)?)
}

fn scalar(name: &str) -> Result<Tensor> {
    array::placeholder::<f32>(()).name(name).build()
}

fn matrix(name: &str, shape: impl Into<PartialShape>) -> Result<Tensor> {
    array::placeholder::<f32>(shape).name(name).build()
}

/// `y`, and its derivatives by the `xs`, on which it depends.
fn with_gradients(y: Tensor, xs: [&Tensor; 2]) -> Result<Vec<Tensor>> {
    let slopes = gradients([&y], xs)?.build()?;
    Ok(std::iter::once(y).chain(slopes.into_iter().flatten()).collect())
}

fn counting() -> Result<Vec<Tensor>> {
    let start = array::constant(0i32).build()?;
    let end = while_loop(|i| Ok(math::less(i, 10)), |i| i + 3, &start);
    Ok(vec![end.build()?])
}

fn options() -> Result<Vec<Tensor>> {
    let x = scalar("x")?;
    let n = array::placeholder::<i32>(()).name("n").build()?;
    let (i, y) = while_loop(
        |(i, _)| Ok(math::less(i, &n)),
        |(i, y)| Ok((math::add(i, 1).build()?, math::multiply(&y, &y))),
        (0, &x),
    )
    .parallel_iterations(1)
    .swap_memory(true)
    .maximum_iterations(3)
    .name("power")
    .build()?;
    Ok(vec![i, y])
}

fn what_comes_in() -> Result<Vec<Tensor>> {
    let (a, x) = (scalar("a")?, scalar("x")?);
    let before = no_op("before")?;
    let product = math::multiply(&a, &x).name("product").build()?.op();
    let _after = control_dependencies([&before, &product])?;
    let body = |y: Tensor| {
        let twice = math::multiply(&a, &a).build()?;
        let one = {
            let _after = control_dependencies([&twice.op()])?;
            array::constant(1.0f32).name("one").build()?
        };
        math::add(math::multiply(y, twice), one).build()
    };
    let end = while_loop(|y| Ok(math::less(y, 100.0f32)), body, &x);
    Ok(vec![end.build()?])
}

fn growing() -> Result<Vec<Tensor>> {
    let x = matrix("rows", [3])?;
    let start = array::constant(0i32).build()?;
    let (count, rows) = while_loop(
        |(i, _)| Ok(math::less(i, 2)),
        |(i, rows)| Ok((math::add(i, 1).build()?, array::concat([&rows, &rows], 0).build()?)),
        (&start, &x),
    )
    .shape_invariants([PartialShape::scalar(), PartialShape::unknown_of_rank(1)])
    .build()?;
    Ok(vec![count, rows])
}

fn newton() -> Result<Vec<Tensor>> {
    let (a, x) = (scalar("a")?, scalar("x")?);
    let (_, root) = while_loop(
        |(i, _)| Ok(math::less(i, 3)),
        |(i, y)| {
            let i = math::add(i, 1).build()?;
            Ok((i, math::multiply(math::add(&y, math::divide(&a, &y)), 0.5f32)))
        },
        (0, &x),
    )
    .build()?;
    with_gradients(root, [&a, &x])
}

fn power_iteration() -> Result<Vec<Tensor>> {
    let (a, v) = (matrix("matrix", [2, 2])?, matrix("vector", [2, 1])?);
    let n = array::placeholder::<i32>(()).name("n").build()?;
    let (_, v_n) = while_loop(
        |(i, _)| Ok(math::less(i, &n)),
        |(i, v)| Ok((math::add(i, 1).build()?, math::tanh(math::matmul(&a, &v)))),
        (0, &v),
    )
    .swap_memory(true)
    .build()?;
    with_gradients(v_n, [&a, &v])
}

fn unused() -> Result<Vec<Tensor>> {
    let (a, x) = (scalar("a")?, scalar("x")?);
    let (_, y, _, _) = while_loop(
        |(i, ..)| Ok(math::less(i, 3)),
        |(i, y, z, _)| {
            let i = math::add(i, 1).build()?;
            Ok((i, math::multiply(&z, &a), math::square(&z), math::multiply(&y, &z)))
        },
        (0, &x, &x, &a),
    )
    .build()?;
    with_gradients(y, [&a, &x])
}

fn unknown_shapes() -> Result<Vec<Tensor>> {
    let (a, x) = (matrix("rows", [None])?, matrix("vector", [None, Some(1)])?);
    let (_, y) = while_loop(
        |(i, _)| Ok(math::less(i, 3)),
        |(i, y)| Ok((math::add(i, 1).build()?, math::multiply(math::sin(&y), &a))),
        (0, &x),
    )
    .shape_invariants([PartialShape::scalar(), PartialShape::unknown_of_rank(2)])
    .build()?;
    with_gradients(y, [&a, &x])
}

fn nested() -> Result<Vec<Tensor>> {
    let (a, x) = (scalar("a")?, scalar("x")?);
    let body = |(i, y): (Tensor, Tensor)| {
        let (_, z) = while_loop(
            |(j, _)| Ok(math::less(j, &i)),
            |(j, z)| Ok((math::add(j, 1).build()?, math::multiply(math::sin(&z), &a))),
            (0, &y),
        )
        .build()?;
        Ok((math::add(&i, 1).build()?, math::multiply(z, &y)))
    };
    let (_, y) = while_loop(|(i, _)| Ok(math::less(i, 3)), body, (0, &x)).build()?;
    with_gradients(y, [&a, &x])
}

fn branch_inside() -> Result<Vec<Tensor>> {
    let (a, x) = (scalar("a")?, scalar("x")?);
    let body = |(i, y): (Tensor, Tensor)| {
        let small = math::less(&y, 2.0f32);
        let y = cond(small, || math::multiply(&y, &a).build(), || math::sin(&y).build()).build()?;
        Ok((math::add(&i, 1).build()?, y))
    };
    let (_, y) = while_loop(|(i, _)| Ok(math::less(i, 4)), body, (0, &x)).build()?;
    with_gradients(y, [&a, &x])
}

fn inside_a_branch() -> Result<Vec<Tensor>> {
    let (a, x) = (scalar("a")?, scalar("x")?);
    let flag = array::placeholder::<bool>(()).name("flag").build()?;
    let repeated = || {
        let (_, y) = while_loop(
            |(i, _)| Ok(math::less(i, 3)),
            |(i, y)| Ok((math::add(i, 1).build()?, math::multiply(math::sin(&y), &a))),
            (0, &x),
        )
        .build()?;
        Ok(y)
    };
    let y = cond(&flag, repeated, || math::multiply(&x, &a).build()).build()?;
    with_gradients(y, [&a, &x])
}

fn array_of_rows() -> Result<Vec<Tensor>> {
    let (x, a) = (matrix("rows", [3])?, scalar("a")?);
    let named = |name: &'static str| {
        TensorArray::with(DType::Float32, 3, move |op| {
            op.name(name).attr("identical_element_shapes", true)
        })
    };
    let taken = named("taken")?.unstack(&x)?;
    let given = named("given")?;
    let body = |(i, y, given): (Tensor, Tensor, TensorArray)| {
        let row = taken.read(&i)?;
        row.set_shape(())?;
        let y = math::multiply(math::add(&y, row), &a).build()?;
        let next = math::add(&i, 1).build()?;
        let given = given.write(&i, &y)?;
        Ok((next, y, given))
    };
    let (_, _, given) = while_loop(|(i, ..)| Ok(math::less(i, 3)), body, (0, &a, &given)).build()?;
    with_gradients(given.stack()?, [&a, &x])
}
