//! Nodes, seeds and streams of random ops in sessions.

use graph_core::graph::{Graph, Tensor};
use graph_core::session::Session;
use graph_core::{DType, Value};

use super::*;
use crate::testing::{assert_close, listing};

fn seeds(tensor: &Tensor, op: &str) -> (i64, i64) {
    let name = format!("{}/{op}", tensor.op().name());
    let operation = tensor.graph().operation(&name).unwrap();
    (operation.attr("seed").unwrap(), operation.attr("seed2").unwrap())
}

#[test]
fn the_nodes_and_seeds_are_tensorflows() {
    let graph = Graph::new();
    graph.set_random_seed(1);
    let _default = graph.as_default();
    let uniform = random_uniform([2, 3]).build().unwrap();
    let normal = truncated_normal([5, 5, 1, 20]).stddev(&uniform).name("init").build();
    assert!(normal.is_err(), "shapes do not fit");
    let start = graph.num_operations();
    let stddev = crate::array::constant(0.1f32).name("stddev").build().unwrap();
    let normal = truncated_normal([5, 5, 1, 20])
        .stddev(&stddev)
        .name("xavier_init")
        .build()
        .unwrap();
    assert_eq!(normal.shape(), [5, 5, 1, 20].into());
    assert_eq!(
        listing(&graph)[..6],
        [
            "Const random_uniform/shape <- ",
            "Const random_uniform/min <- ",
            "Const random_uniform/max <- ",
            "RandomUniform random_uniform/RandomUniform <- random_uniform/shape",
            "Sub random_uniform/sub <- random_uniform/max, random_uniform/min",
            "Mul random_uniform/mul <- random_uniform/RandomUniform, random_uniform/sub",
        ]
    );
    assert_eq!(
        listing(&graph)[start..],
        [
            "Const stddev <- ",
            "Const xavier_init/shape <- ",
            "Const xavier_init/mean <- ",
            "TruncatedNormal xavier_init/TruncatedNormal <- xavier_init/shape",
            "Mul xavier_init/mul <- xavier_init/TruncatedNormal, stddev",
            "Add xavier_init <- xavier_init/mul, xavier_init/mean",
        ]
    );
    assert_eq!(seeds(&uniform, "RandomUniform"), (1, 3));
    assert_eq!(seeds(&normal, "TruncatedNormal"), (1, start as i64 + 3));
    let shape = graph.tensor("xavier_init/shape").unwrap();
    assert_eq!(shape.constant_value(), Some(Value::from([5i32, 5, 1, 20])));
    let integers = random_uniform([4i64])
        .maxval(10)
        .dtype(DType::Int64)
        .seed(5)
        .build()
        .unwrap();
    assert_eq!(
        (integers.op().op_type(), integers.dtype()),
        ("RandomUniformInt", DType::Int64)
    );
    assert_eq!(integers.op().attr::<i64>("seed2").unwrap(), 5);
}

/// What TensorFlow draws in the first and the second run of a session.
#[test]
fn a_stream_goes_on_in_the_next_run() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let node = |op: &str| {
        crate::op(op)
            .attr("seed", 1i64)
            .attr("seed2", 12i64)
            .attr("dtype", DType::Float32)
    };
    let uniform = node("RandomUniform").input([2, 3]).build().unwrap();
    let truncated = node("TruncatedNormal").input([2, 3]).build().unwrap();
    let shuffled = crate::op("RandomShuffle").attr("seed", 3i64).attr("seed2", 4i64);
    let shuffled = shuffled.input([0, 1, 2, 3, 4, 5, 6]).build().unwrap();
    let session = Session::new(&graph).unwrap();
    let runs: Vec<(Value, Value, Value)> = (0..2)
        .map(|_| session.run((&uniform, &truncated, &shuffled), ()).unwrap())
        .collect();
    let second = [
        [0.9413409f32, 0.02593124, 0.24046052],
        [0.7903881, 0.6378293, 0.7678789],
    ];
    assert_close(&runs[1].0, &second.into(), (1e-6, 0.0), "uniform");
    let second = [
        [0.05640177f32, 0.3431015, -1.6342422],
        [0.42385283, 0.7527998, -0.6095121],
    ];
    assert_close(&runs[1].1, &second.into(), (1e-5, 0.0), "truncated");
    assert_eq!(runs[0].2, Value::from([1i32, 5, 3, 0, 2, 4, 6]));
    assert_eq!(runs[1].2, Value::from([3i32, 6, 0, 1, 2, 5, 4]));
    let again: Value = Session::new(&graph).unwrap().run(&uniform, ()).unwrap();
    assert_eq!(again, runs[0].0);
}

#[test]
fn a_stream_goes_on_in_another_session() {
    let graph = Graph::new();
    graph.set_random_seed(7);
    let _default = graph.as_default();
    let uniform = random_uniform([3]).build().unwrap();
    // Without a seed of its own or the graph's, a stream begins anywhere.
    let anywhere = Graph::new();
    let normal = {
        let _default = anywhere.as_default();
        random_normal([2]).build().unwrap()
    };
    for tensor in [&uniform, &normal] {
        let session = Session::new(tensor.graph()).unwrap();
        let _: Value = session.run(tensor, ()).unwrap();
        let states = session.kernel_states().unwrap();
        assert_eq!(states.len(), 1);
        let expected: [Value; 2] = [(); 2].map(|()| session.run(tensor, ()).unwrap());
        let other = Session::new(tensor.graph()).unwrap();
        other.restore_kernel_states(&states).unwrap();
        assert_eq!([(); 2].map(|()| other.run::<Value>(tensor, ()).unwrap()), expected);
        // And back, where the stream is in use already.
        other.restore_kernel_states(&states).unwrap();
        assert_eq!(other.run::<Value>(tensor, ()).unwrap(), expected[0]);
    }
}

#[test]
fn states_that_do_not_fit_change_nothing() {
    let graph = Graph::new();
    graph.set_random_seed(7);
    let _default = graph.as_default();
    let uniform = random_uniform([3]).build().unwrap();
    let session = Session::new(&graph).unwrap();
    let _: Value = session.run(&uniform, ()).unwrap();
    let states = session.kernel_states().unwrap();
    for (name, value, class) in [
        ("absent", Value::from([1u64, 2, 3]), "NotFound"),
        ("random_uniform/shape", Value::from([1u64, 2, 3]), "InvalidArgument"),
        ("zeroth", Value::from([1u64, 2]), "NotFound"),
        (
            "random_uniform/RandomUniform",
            Value::from([1u64, 2]),
            "InvalidArgument",
        ),
        ("random_uniform/RandomUniform", Value::scalar(1i64), "InvalidArgument"),
    ] {
        let mut bad = states.clone();
        bad.insert("random_uniform/RandomUniform".to_owned(), Value::from([1u64, 2, 3]));
        bad.insert(name.to_owned(), value);
        let error = session.restore_kernel_states(&bad).unwrap_err();
        assert_eq!(error.class(), class, "{error}");
    }
    assert_eq!(session.kernel_states().unwrap(), states);
}
