//! What a session promises: fetches in any shape, feeds of any tensor, only what is needed runs, reads before updates.

use graph_core::graph::scope::{control_dependencies, name_scope};
use graph_core::session::{Feedable, Feeds, RewriteOptions, RunMetadata, RunOptions, SessionOptions};
use graph_core::{Graph, PartialShape, Session, Tensor, Value, Variable, feed};
use graph_ops::{array, control, math, random, state};

fn scalar(value: f32) -> Tensor {
    array::constant(value).build().unwrap()
}

#[test]
fn fetches_nest_and_come_back_in_their_shape() {
    graph_ops::install();
    let graph = Graph::new();
    let _default = graph.as_default();
    let (a, b) = (scalar(2.0), scalar(3.0));
    let c = math::multiply(&a, &b).build().unwrap();
    let nothing = control::no_op("nothing").unwrap();
    let session = Session::new(&graph).unwrap();
    let ((), (x, list), [y, z]): ((), (f32, Vec<Value>), [f32; 2]) =
        session.run((&nothing, (&a, vec![&b, &c]), [&c, &c]), ()).unwrap();
    assert_eq!((x, y, z), (2.0, 6.0, 6.0));
    assert_eq!(list, [Value::from(3.0f32), Value::from(6.0f32)]);
    session.run(&nothing, ()).unwrap();
    assert!(session.run::<i32>(&a, ()).is_err(), "a float is no int32");
}

#[test]
fn any_tensor_can_be_fed() {
    graph_ops::install();
    let graph = Graph::new();
    let _default = graph.as_default();
    let a = scalar(2.0);
    let b = math::square(&a).build().unwrap();
    let c = math::add(&b, 1.0f32).build().unwrap();
    let v = Variable::new(7.0f32).build().unwrap();
    let d = math::add(&c, &v).build().unwrap();
    let session = Session::new(&graph).unwrap();
    assert_eq!(session.run::<f32>(&c, ()).unwrap(), 5.0);
    assert_eq!(session.run::<f32>(&c, feed! { b => 10.0 }).unwrap(), 11.0);
    assert_eq!(session.run::<f32>(&c, feed! { a => 3 }).unwrap(), 10.0);
    assert_eq!(
        session.run::<f32>(&d, feed! { v => 1.0, c => 1.0 }).unwrap(),
        2.0,
        "v is not initialized, but fed"
    );
    assert_eq!(
        session.run::<f32>(&b, feed! { b => 4.0 }).unwrap(),
        4.0,
        "what is fed can be fetched"
    );
}

#[test]
fn what_waits_for_a_placeholder_does_not_wait_where_that_is_fed() {
    graph_ops::install();
    let graph = Graph::new();
    let _default = graph.as_default();
    let p = array::placeholder::<i32>(()).name("p").build().unwrap();
    let two = {
        let _after = control_dependencies(&[p.op()]);
        array::constant(2i32).build().unwrap()
    };
    let product = math::multiply(&p, &two).build().unwrap();
    let session = Session::new(&graph).unwrap();
    assert_eq!(session.run::<i32>(&product, feed! { p => 17 }).unwrap(), 34);
    let error = session.run::<i32>(&two, ()).unwrap_err();
    assert!(error.to_string().contains("You must feed"), "{error}");
}

#[test]
fn what_does_not_fit_fails_only_in_the_branch_that_is_taken() {
    graph_ops::install();
    let graph = Graph::new();
    let _default = graph.as_default();
    let x = array::placeholder::<f32>(PartialShape::unknown()).build().unwrap();
    let squeezes = array::placeholder::<bool>(()).build().unwrap();
    let squeezed = || Ok(vec![array::squeeze(&x).axis([-1]).build()?]);
    let doubled = || Ok(vec![math::multiply(&x, 2.0f32).build()?]);
    let result = control::cond(&squeezes, squeezed, doubled).build().unwrap().remove(0);
    let session = Session::new(&graph).unwrap();
    let run = |value: Value, taken: bool| session.run::<Value>(&result, feed! { x => value, squeezes => taken });
    assert_eq!(
        run(Value::from([1.0f32, 2.0]), false).unwrap(),
        Value::from([2.0f32, 4.0])
    );
    assert_eq!(
        run(Value::from([[1.0f32], [2.0]]), true).unwrap(),
        Value::from([1.0f32, 2.0])
    );
    assert_eq!(
        run(Value::from([1.0f32, 2.0]), true).unwrap_err().class(),
        "InvalidArgument"
    );
}

#[test]
fn only_what_is_needed_runs() {
    graph_ops::install();
    let graph = Graph::new();
    let _default = graph.as_default();
    let placeholder = array::placeholder::<f32>(()).build().unwrap();
    let unneeded = math::square(&placeholder).build().unwrap();
    let a = scalar(1.0);
    let session = Session::new(&graph).unwrap();
    assert_eq!(session.run::<f32>(&a, ()).unwrap(), 1.0);
    assert!(session.run::<f32>(&unneeded, ()).is_err());
}

#[test]
fn a_read_comes_before_the_run_s_updates() {
    graph_ops::install();
    let graph = Graph::new();
    let _default = graph.as_default();
    let v = Variable::new(1.0f32).name("v").build().unwrap();
    let update = state::assign_add(&v, 10.0f32).build().unwrap().op();
    let before = math::multiply(&v, 2.0f32).build().unwrap();
    let after = {
        let _after = control_dependencies([&update]).unwrap();
        array::identity(v.reference()).build().unwrap()
    };
    for options in [RewriteOptions::all(), RewriteOptions::none()] {
        let session = Session::with_options(&graph, SessionOptions::new().rewrites(options)).unwrap();
        session.run(v.initializer(), ()).unwrap();
        for round in 0..3 {
            let old = 1.0 + 10.0 * round as f32;
            let ((), doubled, value, new): ((), f32, f32, f32) =
                session.run((&update, &before, v.value(), &after), ()).unwrap();
            assert_eq!((doubled, value, new), (2.0 * old, old, old + 10.0));
        }
        assert_eq!(session.run::<f32>(&v, ()).unwrap(), 31.0);
    }
}

#[test]
fn a_run_may_initialize_and_then_read() {
    graph_ops::install();
    let graph = Graph::new();
    let _default = graph.as_default();
    let v = Variable::new([1.0f32, 2.0]).build().unwrap();
    let read = {
        let _after = control_dependencies([v.initializer()]).unwrap();
        array::identity(v.reference()).build().unwrap()
    };
    let session = Session::new(&graph).unwrap();
    assert_eq!(session.run::<Value>(&read, ()).unwrap(), Value::from([1.0f32, 2.0]));
}

#[test]
fn updates_without_a_path_between_them_run_in_order_of_creation() {
    graph_ops::install();
    let graph = Graph::new();
    let _default = graph.as_default();
    let v = Variable::new(1.0f32).build().unwrap();
    let double = state::assign(&v, 5.0f32).build().unwrap().op();
    let add = state::assign_add(&v, 1.0f32).build().unwrap().op();
    let session = Session::new(&graph).unwrap();
    session.run(v.initializer(), ()).unwrap();
    session.run((&add, &double), ()).unwrap();
    assert_eq!(session.run::<f32>(&v, ()).unwrap(), 6.0);
}

#[test]
fn values_of_feeds_constants_and_fetches_are_never_overwritten() {
    graph_ops::install();
    let graph = Graph::new();
    let _default = graph.as_default();
    let x = array::placeholder::<f32>([None]).build().unwrap();
    let mut y = x.clone();
    let mut all = vec![x.clone()];
    for _ in 0..5 {
        y = math::negative(math::square(&y)).build().unwrap();
        all.push(y.clone());
    }
    let session = Session::new(&graph).unwrap();
    let fed = Value::from([1.0f32, -2.0, 0.5]);
    let values: Vec<Value> = session.run(&all, feed! { x => &fed }).unwrap();
    let mut expected: Vec<f32> = vec![1.0, -2.0, 0.5];
    for value in &values {
        assert_eq!(value.as_slice::<f32>().unwrap(), expected);
        expected.iter_mut().for_each(|x| *x = -(*x * *x));
    }
    assert_eq!(fed, Value::from([1.0f32, -2.0, 0.5]));
    let again: Vec<Value> = session
        .run(&all, feed! { x => Value::from([3.0f32, 3.0, 3.0]) })
        .unwrap();
    assert_eq!(
        values[1].as_slice::<f32>().unwrap()[0],
        -1.0,
        "an earlier result stays as it was"
    );
    assert_eq!(again[1].as_slice::<f32>().unwrap()[0], -9.0);
}

#[test]
fn shapes_change_from_run_to_run() {
    graph_ops::install();
    let graph = Graph::new();
    let _default = graph.as_default();
    let x = array::placeholder::<f32>([None, Some(2)]).build().unwrap();
    let sum = math::reduce_sum(math::multiply(&x, 2.0f32)).build().unwrap();
    let session = Session::new(&graph).unwrap();
    for rows in [1usize, 3, 0, 3, 7, 1, 12, 4, 5, 6, 8, 9, 10, 11, 3] {
        let ones = Value::from_vec([rows, 2], vec![1.0f32; rows * 2]).unwrap();
        assert_eq!(
            session.run::<f32>(&sum, feed! { x => ones }).unwrap(),
            4.0 * rows as f32
        );
    }
}

#[test]
fn shapes_that_only_the_run_knows_are_followed() {
    graph_ops::install();
    let graph = Graph::new();
    let _default = graph.as_default();
    let x = array::placeholder::<f32>(PartialShape::unknown()).build().unwrap();
    let shape = array::placeholder::<i32>([None]).build().unwrap();
    let reshaped = array::reshape(&x, &shape).build().unwrap();
    let doubled = math::add(&reshaped, &reshaped).build().unwrap();
    let rows = math::reduce_sum(&doubled).axis(-1).build().unwrap();
    let session = Session::new(&graph).unwrap();
    let fed = Value::from([1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let run = |dims: Vec<i32>| session.run::<Value>(&rows, feed! { x => &fed, shape => Value::from(dims) });
    assert_eq!(run(vec![2, 3]).unwrap(), Value::from([12.0f32, 30.0]));
    assert_eq!(run(vec![-1, 2]).unwrap(), Value::from([6.0f32, 14.0, 22.0]));
    assert_eq!(run(vec![6]).unwrap(), Value::from(42.0f32));
    assert!(run(vec![4, 2]).is_err());
}

#[test]
fn a_callable_runs_like_the_session() {
    graph_ops::install();
    let graph = Graph::new();
    let _default = graph.as_default();
    let x = array::placeholder::<f32>([None]).build().unwrap();
    let y = math::add(&x, 1.0f32).build().unwrap();
    let session = Session::new(&graph).unwrap();
    let callable = session.make_callable::<Value>(&y, &[&x]).unwrap();
    assert_eq!(
        callable.call(&[Value::from([1.0f32])]).unwrap(),
        [Value::from([2.0f32])]
    );
    assert_eq!(
        callable.call(&[Value::from([1.0f32, 5.0])]).unwrap(),
        [Value::from([2.0f32, 6.0])]
    );
    assert!(callable.call(&[]).is_err());
    assert!(callable.call(&[Value::from([1i32])]).is_err());
    // Growth of the graph does not disturb it.
    math::square(&y).build().unwrap();
    assert_eq!(
        callable.call(&[Value::from([1.0f32])]).unwrap(),
        [Value::from([2.0f32])]
    );
}

#[test]
fn a_traced_run_measures_each_operation() {
    graph_ops::install();
    let graph = Graph::new();
    let _default = graph.as_default();
    let x = array::placeholder::<f32>([None, Some(3)]).name("x").build().unwrap();
    let y = math::square(&x).name("y").build().unwrap();
    let session = Session::new(&graph).unwrap();
    let options = RunOptions {
        trace: true,
        ..RunOptions::default()
    };
    let fed = Value::from([[1.0f32, 2.0, 3.0]]);
    let (_, metadata) = session.run_with::<Value>(&y, feed! { x => fed }, &options).unwrap();
    let node = metadata.nodes.iter().find(|node| node.name == "y").expect("y ran");
    assert_eq!((node.op, node.outputs.len()), ("Square", 1));
    assert_eq!(
        metadata.to_proto().step_stats.unwrap().dev_stats[0].node_stats.len(),
        metadata.nodes.len()
    );
}

fn traced(session: &Session, fetch: &Tensor, feeds: Feeds) -> RunMetadata {
    let options = RunOptions {
        trace: true,
        ..RunOptions::default()
    };
    session.run_with::<Value>(fetch, feeds, &options).unwrap().1
}

#[test]
fn plans_are_kept_by_what_is_run_and_by_the_shapes_fed() {
    graph_ops::install();
    let graph = Graph::new();
    let _default = graph.as_default();
    let x = array::placeholder::<f32>([None]).build().unwrap();
    let (y, z) = (math::square(&x).build().unwrap(), math::negative(&x).build().unwrap());
    let session = Session::new(&graph).unwrap();
    let planned = |fetch: &Tensor, len: usize| {
        let fed = Value::from_vec([len], vec![1.0f32; len]).unwrap();
        traced(&session, fetch, feed! { x => fed }).planned
    };
    assert!(planned(&y, 500) && planned(&y, 1000) && planned(&z, 500));
    assert!(!planned(&y, 500) && !planned(&y, 1000) && !planned(&z, 500));
    // A graph that has grown leaves plans as they are.
    let w = math::exp(&y).build().unwrap();
    assert!(!planned(&y, 500) && planned(&w, 500));
    // So many shapes that the first is forgotten, but not the last.
    assert!((1..=8).all(|len| planned(&y, len)));
    assert!(planned(&y, 500) && !planned(&y, 8));
    // What was rewired is planned anew.
    let other = math::abs(&x).build().unwrap();
    graph.set_input(&y.op(), 0, &other).unwrap();
    assert!(planned(&y, 8));
}

#[test]
fn intermediate_results_share_memory() {
    graph_ops::install();
    let graph = Graph::new();
    let _default = graph.as_default();
    const LEN: usize = 1000;
    let x = array::placeholder::<f32>([LEN]).build().unwrap();
    let chain = |length: usize, links: bool| {
        let mut y = math::exp(&x).build().unwrap();
        for _ in 0..length {
            y = match links {
                // Element by element: in the same place.
                true => math::sin(&y).build().unwrap(),
                // Turned round: from one place to another and back.
                false => array::reverse(&y, [0]).build().unwrap(),
            };
        }
        math::reduce_sum(y).build().unwrap()
    };
    let session = Session::new(&graph).unwrap();
    let bytes = |fetch: &Tensor| {
        let fed = Value::from_vec([LEN], vec![0.5f32; LEN]).unwrap();
        traced(&session, fetch, feed! { x => fed }).arena_bytes
    };
    let one = LEN * size_of::<f32>();
    let in_place = bytes(&chain(20, true));
    assert!(
        (one..2 * one).contains(&in_place),
        "{in_place} bytes for 21 results in one place"
    );
    let in_turn = bytes(&chain(20, false));
    assert!(
        (2 * one..3 * one).contains(&in_turn),
        "{in_turn} bytes for 21 results in two places"
    );
}

#[test]
fn a_run_has_a_time_limit() {
    graph_ops::install();
    let graph = Graph::new();
    let _default = graph.as_default();
    let mut x = random::random_uniform([300, 300]).build().unwrap();
    for _ in 0..200 {
        x = math::matmul(&x, &x).build().unwrap();
    }
    let sum = math::reduce_sum(&x).build().unwrap();
    let session = Session::new(&graph).unwrap();
    let limited = |timeout_in_ms| RunOptions {
        timeout_in_ms: Some(timeout_in_ms),
        ..RunOptions::default()
    };
    let error = session.run_with::<f32>(&sum, (), &limited(1)).unwrap_err();
    assert_eq!(error.class(), "DeadlineExceeded", "{error}");
    session.run_with::<f32>(&sum, (), &limited(600_000)).unwrap();
}

#[test]
fn a_callable_takes_feeds_of_its_own_graph_and_each_once() {
    graph_ops::install();
    let (graph, other) = (Graph::new(), Graph::new());
    let stranger = {
        let _default = other.as_default();
        array::placeholder::<f32>(()).build().unwrap()
    };
    let _default = graph.as_default();
    let x = array::placeholder::<f32>(()).build().unwrap();
    let y = math::square(&x).build().unwrap();
    let session = Session::new(&graph).unwrap();
    for feeds in [vec![&x, &stranger], vec![&x, &x]] {
        let feeds: Vec<&dyn Feedable> = feeds.into_iter().map(|feed| feed as &dyn Feedable).collect();
        let error = session.make_callable::<Value>(&y, &feeds).err().expect("an error");
        assert_eq!(error.class(), "InvalidArgument", "{error}");
    }
}

#[test]
fn a_closed_session_refuses_to_run() {
    graph_ops::install();
    let graph = Graph::new();
    let _default = graph.as_default();
    let a = scalar(1.0);
    let session = Session::new(&graph).unwrap();
    session.close();
    assert_eq!(session.run::<f32>(&a, ()).unwrap_err().class(), "FailedPrecondition");
}

#[test]
fn eval_and_run_use_the_default_session() {
    graph_ops::install();
    let graph = Graph::new();
    let _default = graph.as_default();
    let v = Variable::new(4.0f32).build().unwrap();
    let root = math::sqrt(&v).build().unwrap();
    assert!(root.eval::<f32>(()).is_err(), "there is no default session yet");
    let session = Session::new(&graph).unwrap();
    let _session = session.as_default();
    state::global_variables_initializer().unwrap().run(()).unwrap();
    assert_eq!(root.eval::<f32>(()).unwrap(), 2.0);
    assert_eq!(v.eval::<f32>().unwrap(), 4.0);
}

#[test]
fn sessions_keep_their_own_variables() {
    graph_ops::install();
    let graph = Graph::new();
    let _default = graph.as_default();
    let v = Variable::new(0.0f32).build().unwrap();
    let add = state::assign_add(&v, 1.0f32).build().unwrap().op();
    let (a, b) = (Session::new(&graph).unwrap(), Session::new(&graph).unwrap());
    a.run(v.initializer(), ()).unwrap();
    b.run(v.initializer(), ()).unwrap();
    a.run(&add, ()).unwrap();
    assert_eq!(
        (a.run::<f32>(&v, ()).unwrap(), b.run::<f32>(&v, ()).unwrap()),
        (1.0, 0.0)
    );
}

#[test]
fn random_streams_go_on_from_run_to_run_and_begin_anew_with_a_session() {
    graph_ops::install();
    let graph = Graph::new();
    let _default = graph.as_default();
    random::set_random_seed(3);
    let x = random::random_uniform([4]).build().unwrap();
    let draw = || {
        let session = Session::new(&graph).unwrap();
        [
            session.run::<Value>(&x, ()).unwrap(),
            session.run::<Value>(&x, ()).unwrap(),
        ]
    };
    let first = draw();
    assert_ne!(first[0], first[1]);
    assert_eq!(first, draw());
}

#[test]
fn rewrites_change_no_number() {
    graph_ops::install();
    let graph = Graph::new();
    let _default = graph.as_default();
    let x = array::placeholder::<f32>([None, Some(4)]).build().unwrap();
    let scope = name_scope("twice").unwrap();
    let once = math::exp(math::multiply(math::add(&x, 0.0f32), 1.0f32))
        .build()
        .unwrap();
    let again = math::exp(math::multiply(math::add(&x, 0.0f32), 1.0f32))
        .build()
        .unwrap();
    drop(scope);
    let folded = math::reduce_sum(array::constant([1.0f32, 2.0, 3.0])).build().unwrap();
    let y = math::multiply((once + again).unwrap(), folded).build().unwrap();
    let run = |options| {
        let session = Session::with_options(&graph, SessionOptions::new().rewrites(options)).unwrap();
        session
            .run::<Value>(&y, feed! { x => Value::from([[0.1f32, -2.0, 3.0, 0.0]]) })
            .unwrap()
    };
    let plain = run(RewriteOptions::none());
    assert_eq!(run(RewriteOptions::all()), plain);
    for name in [
        "prune",
        "constant_folding",
        "common_subexpressions",
        "algebra",
        "specialization",
        "elementwise_fusion",
    ] {
        assert_eq!(run(RewriteOptions::all().without(name)), plain, "without {name}");
    }
}

#[test]
fn rewrites_leave_out_what_need_not_run() {
    graph_ops::install();
    let graph = Graph::new();
    let _default = graph.as_default();
    let x = array::placeholder::<f32>([2]).name("x").build().unwrap();
    let neutral = math::multiply(math::add(&x, 0.0f32).name("plus_zero"), 1.0f32).name("times_one");
    let once = math::exp(neutral).name("once").build().unwrap();
    let again = math::exp(&x).name("again").build().unwrap();
    let y = math::multiply((once + again).unwrap(), 3.0f32)
        .name("y")
        .build()
        .unwrap();
    let ran = |rewrites| -> Vec<String> {
        let session = Session::with_options(&graph, SessionOptions::new().rewrites(rewrites)).unwrap();
        let options = RunOptions {
            trace: true,
            ..RunOptions::default()
        };
        let feeds = feed! { x => Value::from([0.5f32, 1.0]) };
        let (_, metadata) = session.run_with::<Value>(&y, feeds, &options).unwrap();
        metadata.nodes.into_iter().map(|node| node.name).collect()
    };
    // What is fused runs under the name of its last operation.
    let unfused = || RewriteOptions::all().without("elementwise_fusion");
    let (all, none) = (ran(unfused()), ran(RewriteOptions::none()));
    let runs = |nodes: &[String], name: &str| nodes.iter().any(|node| node == name);
    for name in ["plus_zero", "times_one", "again"] {
        assert!(runs(&none, name), "{name} in {none:?}");
        assert!(!runs(&all, name), "{name} in {all:?}");
    }
    assert!(runs(&all, "once") && runs(&all, "y"));
    assert!(runs(&ran(unfused().without("common_subexpressions")), "again"));
    assert!(runs(&ran(unfused().without("algebra")), "plus_zero"));
    assert_eq!(ran(RewriteOptions::all()), ["y"]);
}

#[test]
fn constants_are_folded_once_and_not_in_each_run() {
    graph_ops::install();
    let graph = Graph::new();
    let _default = graph.as_default();
    // More elements than a plan works out by itself.
    let many = array::constant(vec![0.5f32; 5_000]).build().unwrap();
    let folded = math::exp(&many).name("folded").build().unwrap();
    let x = array::placeholder::<f32>(()).build().unwrap();
    let y = math::multiply(&folded, &x).name("y").build().unwrap();
    let ran = |rewrites| {
        let session = Session::with_options(&graph, SessionOptions::new().rewrites(rewrites)).unwrap();
        let options = RunOptions {
            trace: true,
            ..RunOptions::default()
        };
        let (value, metadata) = session.run_with::<Value>(&y, feed! { x => 2.0f32 }, &options).unwrap();
        let names: Vec<String> = metadata.nodes.into_iter().map(|node| node.name).collect();
        (value, names)
    };
    let unfused = || RewriteOptions::all().without("elementwise_fusion");
    let (value, names) = ran(unfused());
    assert_eq!(names, ["y"]);
    let (plain, names) = ran(unfused().without("constant_folding"));
    assert_eq!(names, ["folded", "y"]);
    assert_eq!(value, plain);
}

#[test]
fn long_chains_do_not_overflow_the_stack() {
    graph_ops::install();
    let graph = Graph::new();
    let _default = graph.as_default();
    let x = array::placeholder::<f32>(()).build().unwrap();
    let mut y = x.clone();
    for _ in 0..20_000 {
        y = math::add(&y, &x).build().unwrap();
    }
    let gradient = graph_core::gradients([&y], [&x]).unwrap().build().unwrap()[0]
        .clone()
        .unwrap();
    let session = Session::new(&graph).unwrap();
    let (sum, slope): (f32, f32) = session.run((&y, &gradient), feed! { x => 1.0 }).unwrap();
    assert_eq!((sum, slope), (20_001.0, 20_001.0));
}

#[test]
fn a_callable_writes_into_the_values_of_an_earlier_call() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let x = array::placeholder::<f32>([None]).build().unwrap();
    let y = math::multiply(&x, 2.0f32).build().unwrap();
    let z = math::reduce_sum(&y).build().unwrap();
    let session = Session::new(&graph).unwrap();
    let callable = session.make_callable::<Vec<Value>>(vec![&y, &z, &x], &[&x]).unwrap();
    let feed = |values: &[f32]| [Value::from(values.to_vec())];
    let address = |value: &Value| value.as_slice::<f32>().unwrap().as_ptr();
    let numbers = |value: &Value| value.as_slice::<f32>().unwrap().to_vec();

    let mut outputs = Vec::new();
    callable.call_into(&feed(&[1.0, 2.0]), &mut outputs).unwrap();
    let places: Vec<_> = outputs.iter().map(address).collect();
    callable.call_into(&feed(&[3.0, 4.0]), &mut outputs).unwrap();
    assert_eq!(outputs[..2].iter().map(address).collect::<Vec<_>>(), places[..2]);
    let got: Vec<_> = outputs.iter().map(numbers).collect();
    assert_eq!(got, [vec![6.0, 8.0], vec![14.0], vec![3.0, 4.0]]);

    // What somebody still holds stays as it is, what has another shape or dtype is replaced, what is too much goes.
    let held = outputs[0].clone();
    outputs[1] = Value::from("text");
    outputs.push(Value::from(1.0f32));
    callable.call_into(&feed(&[5.0, 6.0]), &mut outputs).unwrap();
    assert_eq!(numbers(&held), [6.0, 8.0]);
    let got: Vec<_> = outputs.iter().map(numbers).collect();
    assert_eq!(got, [vec![10.0, 12.0], vec![22.0], vec![5.0, 6.0]]);
    callable.call_into(&feed(&[1.0]), &mut outputs).unwrap();
    assert_eq!(numbers(&outputs[0]), [2.0]);
    for _ in 0..2 {
        callable.call_into(&feed(&[]), &mut outputs).unwrap();
        assert_eq!((outputs[0].num_elements(), numbers(&outputs[1])), (0, vec![0.0]));
    }

    // What was fetched may be fed.
    callable.call_into(&feed(&[1.0, 1.0]), &mut outputs).unwrap();
    for power in 2..5 {
        let fed = outputs[0].clone();
        callable.call_into(&[fed], &mut outputs).unwrap();
        assert_eq!(numbers(&outputs[0]), [2f32.powi(power); 2]);
    }
    assert!(callable.call_into(&[], &mut outputs).is_err());

    let twice = session.make_callable::<[f32; 2]>([&z, &z], &[&x]).unwrap();
    let mut outputs = vec![Value::from(0.0f32), Value::from(0.0f32)];
    for _ in 0..2 {
        twice.call_into(&feed(&[1.0, 2.0]), &mut outputs).unwrap();
        assert_eq!(outputs, [Value::from(6.0f32), Value::from(6.0f32)]);
    }
}
