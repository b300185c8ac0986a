//! What `gradients` takes and gives, beyond the single ops.

use graph_core::format::graph_def::ExportOptions;
use graph_core::format::import::ImportOptions;
use graph_core::{Error, Graph, PartialShape, Session, Tensor, Value, Variable, feed, gradients};
use graph_ops::{array, control, math};

fn scalar(name: &str) -> Tensor {
    array::placeholder::<f32>(()).name(name).build().unwrap()
}

fn class<T>(result: Result<T, Error>) -> &'static str {
    result.err().expect("an error").class()
}

#[test]
fn gradients_of_several_ys_add_up() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let x = scalar("x");
    let (square, cube) = (
        math::square(&x).build().unwrap(),
        math::pow(&x, 3.0f32).build().unwrap(),
    );
    let both = gradients([&square, &cube], [&x]).unwrap().build().unwrap();
    let weighted = gradients([&square, &cube], [&x])
        .unwrap()
        .grad_ys([10.0f32, 0.5])
        .build()
        .unwrap();
    let session = Session::new(&graph).unwrap();
    let fetches = (both[0].as_ref().unwrap(), weighted[0].as_ref().unwrap());
    let (both, weighted): (f32, f32) = session.run(fetches, feed! { x => 2.0 }).unwrap();
    assert_eq!((both, weighted), (4.0 + 12.0, 40.0 + 6.0));
}

#[test]
fn what_the_ys_do_not_depend_on_has_no_gradient() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let (x, other) = (scalar("x"), scalar("other"));
    let y = math::square(&x).build().unwrap();
    let through_integers = math::cast(math::cast(&x, graph_core::DType::Int32), graph_core::DType::Float32);
    let through_integers = through_integers.build().unwrap();
    let found = gradients([&y], [&x, &other]).unwrap().build().unwrap();
    assert!(found[0].is_some() && found[1].is_none());
    assert!(gradients([&through_integers], [&x]).unwrap().build().unwrap()[0].is_none());
    let nothing = gradients(Vec::<Tensor>::new(), [&x]).unwrap().build().unwrap();
    assert!(nothing[0].is_none());
}

#[test]
fn stopped_tensors_count_as_constants() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let x = scalar("x");
    let square = math::square(&x).build().unwrap();
    let y = math::multiply(&square, &x).build().unwrap();
    let partial = gradients([&y], [&x])
        .unwrap()
        .stop_gradients([&square])
        .build()
        .unwrap();
    let held = math::multiply(array::stop_gradient(&square), &x).build().unwrap();
    let held = gradients([&held], [&x]).unwrap().build().unwrap();
    let session = Session::new(&graph).unwrap();
    let fetches = (partial[0].as_ref().unwrap(), held[0].as_ref().unwrap());
    assert_eq!(
        session.run::<(f32, f32)>(fetches, feed! { x => 3.0 }).unwrap(),
        (9.0, 9.0)
    );
}

#[test]
fn a_tensor_among_the_xs_may_lie_between() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let x = scalar("x");
    let middle = math::square(&x).build().unwrap();
    let y = math::multiply(&middle, &middle).build().unwrap();
    let found = gradients([&y], [&x, &middle, &y]).unwrap().build().unwrap();
    let found: Vec<Tensor> = found.into_iter().map(Option::unwrap).collect();
    let session = Session::new(&graph).unwrap();
    let values: Vec<f32> = session.run(&found, feed! { x => 2.0 }).unwrap();
    assert_eq!(values, [32.0, 8.0, 1.0]);
}

#[test]
fn gradients_have_gradients() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let x = Variable::new(2.0f32).build().unwrap();
    let mut derivative = math::pow(&x, 4.0f32).build().unwrap();
    let session = Session::new(&graph).unwrap();
    session.run(x.initializer(), ()).unwrap();
    for expected in [32.0f32, 48.0, 48.0, 24.0] {
        derivative = gradients([&derivative], [&x]).unwrap().build().unwrap()[0]
            .clone()
            .unwrap();
        assert!((session.run::<f32>(&derivative, ()).unwrap() - expected).abs() < 1e-3);
    }
}

#[test]
fn what_comes_in_must_fit() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let x = array::placeholder::<f32>([2]).build().unwrap();
    let y = math::square(&x).build().unwrap();
    let ask = |grad_ys: Vec<Value>| gradients([&y], [&x]).unwrap().grad_ys(grad_ys).build();
    assert!(ask(vec![Value::from([1.0f32, 2.0])]).is_ok());
    assert_eq!(class(ask(vec![Value::from([1.0f32, 2.0, 3.0])])), "InvalidArgument");
    assert_eq!(class(ask(vec![Value::from([1.0f64, 2.0])])), "InvalidArgument");
    let two = vec![Value::from([1.0f32, 2.0]), Value::from([1.0f32, 2.0])];
    let error = ask(two).unwrap_err();
    assert!(error.to_string().contains("1 grad_ys"), "{error}");
    let z = array::placeholder::<graph_core::Complex<f32>>(PartialShape::unknown())
        .build()
        .unwrap();
    let product = math::multiply(&z, &z).build().unwrap();
    let error = gradients([&product], [&z]).unwrap().build().unwrap_err();
    assert!(error.to_string().contains("grad_ys"), "{error}");
    let other = Graph::new();
    let stranger = {
        let _other = other.as_default();
        scalar("stranger")
    };
    assert_eq!(class(gradients([&y], [&stranger]).unwrap().build()), "InvalidArgument");
}

#[test]
fn an_op_without_a_gradient_is_named() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let x = array::placeholder::<f32>([1, 2, 2, 1]).build().unwrap();
    let normal = graph_ops::nn::local_response_normalization(&x).build().unwrap();
    let slope = gradients([&normal], [&x]).unwrap().build().unwrap()[0].clone().unwrap();
    let error = gradients([&slope], [&x]).unwrap().build().unwrap_err();
    assert_eq!(error.class(), "NotFound");
    for part in ["'LRNGrad'", "stop_gradient", "gradients.rs"] {
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[test]
fn the_branches_of_an_imported_graph_have_gradients() {
    let graph = Graph::new();
    {
        let _default = graph.as_default();
        let x = array::placeholder::<f32>(()).name("x").build().unwrap();
        let flag = array::placeholder::<bool>(()).name("flag").build().unwrap();
        let choice = control::cond(
            &flag,
            || math::multiply(math::square(&x), &x).build(),
            || math::multiply(&x, 3.0f32).build(),
        );
        math::multiply(choice.build().unwrap(), 2.0f32)
            .name("y")
            .build()
            .unwrap();
    }
    // A GraphDef does not say which of its operations lie in which branch.
    let copy = Graph::new();
    let message = graph.to_graph_def(ExportOptions::default());
    copy.import(&message, &ImportOptions::verbatim()).unwrap();
    for graph in [graph, copy] {
        let _default = graph.as_default();
        let [x, flag, y] = ["x", "flag", "y"].map(|name| graph.tensor(name).unwrap());
        let slope = graph_core::gradients([&y], [&x])
            .unwrap()
            .build()
            .unwrap()
            .remove(0)
            .unwrap();
        let session = Session::new(&graph).unwrap();
        let at = |tensor: &Tensor, taken: bool| session.run::<f32>(tensor, feed! { x => 4.0, flag => taken }).unwrap();
        assert_eq!((at(&y, true), at(&y, false)), (128.0, 24.0));
        assert_eq!((at(&slope, true), at(&slope, false)), (96.0, 6.0));
    }
}
