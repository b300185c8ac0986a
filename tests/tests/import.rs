//! Graphs come back from TensorFlow's messages as they were, and what does not fit is refused whole.

use graph_core::format::graph_def::ExportOptions;
use graph_core::format::import::{ImportOptions, ImportedElement};
use graph_core::format::proto::GraphDef;
use graph_core::format::{Message, parse_message, text};
use graph_core::{Error, Graph, Session, Value, feed};
use graph_ops::control::cond;
use graph_ops::state::global_variables_initializer;
use graph_ops::{array, math, nn};
use lenet::dataset::{CLASSES, PIXELS};
use lenet::global_definitions::OptimizerName;
use system_tests::{tutorial_graph, tutorial_trainer};

fn import(text: &str) -> Result<Graph, Error> {
    graph_ops::install();
    let graph = Graph::new();
    graph.import(&text::from_text::<GraphDef>(text)?, &ImportOptions::verbatim())?;
    Ok(graph)
}

fn refused(text: &str, class: &str, parts: &[&str]) {
    let error = import(text).expect_err("the graph must be refused");
    assert_eq!(error.class(), class, "{error}");
    for part in parts {
        assert!(error.to_string().contains(part), "no '{part}' in: {error}");
    }
}

#[test]
fn an_imported_graph_exports_the_same_bytes() {
    for optimizer in [OptimizerName::Adam, OptimizerName::RmsProp, OptimizerName::Sgd] {
        let (graph, ..) = tutorial_graph(optimizer).unwrap();
        for output_shapes in [true, false] {
            let options = ExportOptions { output_shapes };
            let message = graph.to_graph_def(options);
            let copy = Graph::new();
            copy.import(&message, &ImportOptions::verbatim()).unwrap();
            assert_eq!(copy.to_graph_def(options).encode_to_vec(), message.encode_to_vec());
        }
    }
}

#[test]
fn an_imported_graph_trains_to_the_same_bits() {
    let built = tutorial_trainer(OptimizerName::Sgd, None).unwrap();
    let message = built.session.graph().to_graph_def(ExportOptions::default());
    let graph = Graph::new();
    graph.import(&message, &ImportOptions::new().prefix("net")).unwrap();
    let session = Session::new(&graph).unwrap();
    session.run(graph.operation("net/init").unwrap(), ()).unwrap();
    let tensor = |name: &str| graph.tensor(&format!("net/{name}")).unwrap();
    let training = built.network.training().unwrap();
    let (step, obj) = (
        graph.operation(&format!("net/{}", training.back_prop.name())).unwrap(),
        tensor(&training.obj.name()),
    );
    for batch in 0..3 {
        let rows = batch * 20..(batch + 1) * 20;
        let images = built.dataset.train.images(rows.clone()).unwrap();
        let labels = built.dataset.train.labels(rows).unwrap();
        let images = Value::from_vec([20, PIXELS], &*images).unwrap();
        let labels = Value::from_vec([20, CLASSES], &*labels).unwrap();
        let (expected, _) = built.bp_step_on(images.clone(), labels.clone()).unwrap();
        let feeds = feed! {
            tensor(&built.network.images.name()) => images,
            tensor(&training.labels.name()) => labels,
            tensor(&built.network.dropout_prob.name()) => 0.5f32
        };
        let ((), got): ((), f32) = session.run((&step, &obj), feeds).unwrap();
        assert_eq!(got.to_bits(), expected.to_bits(), "step {batch}: {got} and {expected}");
    }
}

#[test]
fn nodes_keep_their_order_though_it_is_not_one_of_execution() {
    let graph = Graph::new();
    let _default = graph.as_default();
    let x = array::placeholder::<f32>([2]).name("x").build().unwrap();
    let flag = array::placeholder::<bool>(graph_core::Shape::default())
        .name("flag")
        .build()
        .unwrap();
    let y = cond(&flag, || math::square(&x).build(), || math::negative(&x).build())
        .build()
        .unwrap();
    let message = graph.to_graph_def(ExportOptions::default());
    let copy = Graph::new();
    copy.import(&message, &ImportOptions::verbatim()).unwrap();
    assert_eq!(copy.to_graph_def(ExportOptions::default()), message);
    // Backwards, every input comes after what takes it.
    let mut reversed = message.clone();
    reversed.node.reverse();
    let backwards = Graph::new();
    backwards.import(&reversed, &ImportOptions::verbatim()).unwrap();
    for graph in [copy, backwards] {
        let session = Session::new(&graph).unwrap();
        let tensor = |name: &str| graph.tensor(name).unwrap();
        let result: Vec<f32> = session
            .run(
                tensor(&y.name()),
                feed! { tensor("x") => [2.0f32, 3.0], tensor("flag") => false },
            )
            .unwrap();
        assert_eq!(result, [-2.0, -3.0]);
        assert_eq!(tensor(&y.name()).shape(), y.shape());
    }
}

#[test]
fn inputs_are_mapped_and_elements_returned() {
    let source = Graph::new();
    let message = {
        let _default = source.as_default();
        let x = array::placeholder::<f32>([None, Some(2)]).name("x").build().unwrap();
        let y = (&x * 3.0f32).unwrap();
        nn::relu(y).name("out").build().unwrap();
        source.to_graph_def(ExportOptions::default())
    };
    let graph = Graph::new();
    let _default = graph.as_default();
    let mine = array::constant([[1.0f32, -1.0]]).name("mine").build().unwrap();
    let options = ImportOptions::new()
        .map_input("x", &mine)
        .return_elements(["out:0", "mul"]);
    for scope in ["import", "import_1"] {
        let found = graph.import(&message, &options).unwrap();
        assert_eq!(found[0].tensor().unwrap().name(), format!("{scope}/out:0"));
        assert_eq!(found[0].tensor().unwrap().shape(), [1, 2].into());
        assert!(matches!(&found[1], ImportedElement::Operation(operation) if operation.op_type() == "Mul"));
        let result: Value = Session::new(&graph)
            .unwrap()
            .run(found[0].tensor().unwrap(), ())
            .unwrap();
        assert_eq!(result, Value::from([[3.0f32, 0.0]]));
    }
    let nodes = graph.num_operations();
    let unused = ImportOptions::new().map_input("mul:7", &mine).return_element("nowhere");
    let error = graph.import(&message, &unused).unwrap_err().to_string();
    assert!(error.contains("mul:7") && error.contains("nowhere"), "{error}");
    assert_eq!(graph.num_operations(), nodes);
}

#[test]
fn all_problems_of_a_graph_are_listed() {
    refused(
        r#"
        node { name: "a" op: "Warp" }
        node { name: "b" op: "Flux" }
        node { name: "c" op: "NoOp" attr { key: "speed" value { i: 9 } } }
        node { name: "c" op: "NoOp" }
        node { name: "d e" op: "NoOp" }
        node { name: "f" op: "Placeholder" }
        "#,
        "InvalidArgument",
        &[
            "6 problems",
            "'a' (Warp)",
            "'b' (Flux)",
            "'c' (NoOp)",
            "speed",
            "not unique",
            "'d e'",
        ],
    );
    refused(r#"node { name: "a" op: "Warp" }"#, "NotFound", &["Warp"]);
}

#[test]
fn inputs_must_fit() {
    let x = r#"node { name: "x" op: "Placeholder" attr { key: "dtype" value { type: DT_FLOAT } } }"#;
    let neg = |input: &str| {
        format!(r#"{x} node {{ name: "y" op: "Neg" {input} attr {{ key: "T" value {{ type: DT_INT32 }} }} }}"#)
    };
    refused(
        &neg(r#"input: "x""#),
        "InvalidArgument",
        &["wrong dtype", "int32", "float"],
    );
    refused(&neg(r#"input: "z""#), "InvalidArgument", &["unknown node 'z'"]);
    refused(&neg(r#"input: "x:1""#), "InvalidArgument", &["'x' has 1 outputs"]);
    refused(
        &neg(r#"input: "x:-1""#),
        "InvalidArgument",
        &["not the name of an input"],
    );
    refused(&neg(""), "InvalidArgument", &["wrong number of inputs"]);
    refused(
        &neg(r#"input: "x" input: "x""#),
        "InvalidArgument",
        &["wrong number of inputs"],
    );
    refused(
        &neg(r#"input: "^x" input: "x""#),
        "InvalidArgument",
        &["behind a control input"],
    );
    refused(
        &format!(
            r#"{x} node {{ name: "y" op: "NoOp" attr {{ key: "_class" value {{ list {{ s: "loc:@gone" }} }} }} }}"#
        ),
        "InvalidArgument",
        &["unknown node 'gone'"],
    );
    refused(
        &format!(
            r#"{x} node {{ name: "a" op: "Assign" input: "x" input: "x" attr {{ key: "T" value {{ type: DT_FLOAT }} }} }}"#
        ),
        "InvalidArgument",
        &["must be a reference"],
    );
}

#[test]
fn a_constant_is_of_the_dtype_it_says() {
    refused(
        r#"node { name: "a" op: "Const" attr { key: "dtype" value { type: DT_FLOAT } }
                  attr { key: "value" value { tensor { dtype: DT_INT64 tensor_shape { } int64_val: 7 } } } }"#,
        "InvalidArgument",
        &["'a' (Const)", "another dtype", "int64"],
    );
}

#[test]
fn many_small_messages_cannot_ask_for_much_memory() {
    let nodes: String = (0..6)
        .map(|index| {
            format!(
                r#"node {{ name: "c{index}" op: "Const" attr {{ key: "dtype" value {{ type: DT_UINT8 }} }}
                           attr {{ key: "value" value {{ tensor {{ dtype: DT_UINT8 int_val: 1
                           tensor_shape {{ dim {{ size: 268435456 }} }} }} }} }} }}"#
            )
        })
        .collect();
    refused(&nodes, "ResourceExhausted", &["'c4' (Const)", "repeat"]);
}

#[test]
fn a_cycle_without_a_loop_is_refused() {
    refused(
        r#"
        node { name: "a" op: "Neg" input: "b" attr { key: "T" value { type: DT_FLOAT } } }
        node { name: "b" op: "Neg" input: "a" attr { key: "T" value { type: DT_FLOAT } } }
        "#,
        "InvalidArgument",
        &["cycle"],
    );
}

#[test]
fn a_number_in_a_file_does_not_decide_how_much_memory_is_asked_for() {
    for (op, attr) in [("Unpack", "num"), ("Split", "num_split"), ("AddN", "N")] {
        let inputs = r#"input: "i" input: "x""#;
        let text = format!(
            r#"
            node {{ name: "i" op: "Placeholder" attr {{ key: "dtype" value {{ type: DT_INT32 }} }} }}
            node {{ name: "x" op: "Placeholder" attr {{ key: "dtype" value {{ type: DT_FLOAT }} }} }}
            node {{ name: "y" op: "{op}" {inputs} attr {{ key: "T" value {{ type: DT_FLOAT }} }}
                    attr {{ key: "{attr}" value {{ i: 4611686018427387904 }} }} }}
            "#
        );
        refused(&text, "InvalidArgument", &[]);
    }
}

#[test]
fn shapes_that_do_not_fit_leave_the_graph_as_it_was() {
    let text = r#"
        node { name: "x" op: "Placeholder" attr { key: "dtype" value { type: DT_FLOAT } }
               attr { key: "shape" value { shape { dim { size: 2 } dim { size: 3 } } } } }
        node { name: "y" op: "MatMul" input: "x" input: "x" attr { key: "T" value { type: DT_FLOAT } } }
    "#;
    refused(text, "InvalidArgument", &["'y' (MatMul)", "[2,3]"]);
    let graph = Graph::new();
    let message = text::from_text::<GraphDef>(text).unwrap();
    assert!(graph.import(&message, &ImportOptions::verbatim()).is_err());
    assert_eq!(graph.num_operations(), 0);
    assert!(graph.operation("x").is_err());
    assert_eq!(graph.unique_name("x"), "x");
    let said = text.replace("MatMul", "Add").replace(
        r#"attr { key: "T""#,
        r#"attr { key: "_output_shapes" value { list { shape { dim { size: 5 } } } } } attr { key: "T""#,
    );
    refused(&said, "InvalidArgument", &["_output_shapes", "[5]"]);
}

#[test]
fn versions_and_functions_are_respected() {
    refused(
        "versions { producer: 2000 min_consumer: 1999 }",
        "InvalidArgument",
        &["1999"],
    );
    refused(
        r#"node { name: "a" op: "f" } library { function { signature { name: "f" } } }"#,
        "Unimplemented",
        &["graph function 'f'"],
    );
    // Up to version 21 a placeholder without a shape was written like a scalar one.
    let graph = import(
        r#"node { name: "x" op: "Placeholder" attr { key: "dtype" value { type: DT_FLOAT } }
                  attr { key: "shape" value { shape { } } } } versions { producer: 21 }"#,
    )
    .unwrap();
    assert_eq!(graph.tensor("x").unwrap().shape().rank(), None);
}

#[test]
fn a_finalized_graph_takes_no_import() {
    let graph = Graph::new();
    graph.finalize();
    let error = graph.import(&GraphDef::default(), &ImportOptions::new()).unwrap_err();
    assert_eq!(error.class(), "FailedPrecondition");
}

#[test]
fn binary_and_text_are_told_apart() {
    let (graph, ..) = tutorial_graph(OptimizerName::Sgd).unwrap();
    let message = graph.to_graph_def(ExportOptions::default());
    let binary = message.encode_to_vec();
    assert_eq!(parse_message::<GraphDef>(&binary).unwrap(), message);
    assert_eq!(
        parse_message::<GraphDef>(text::to_text(&message).unwrap().as_bytes()).unwrap(),
        message
    );
    assert_eq!(
        parse_message::<GraphDef>(&binary[..binary.len() - 1])
            .unwrap_err()
            .class(),
        "DataLoss"
    );
    assert_eq!(
        parse_message::<GraphDef>(b"nodes { }").unwrap_err().class(),
        "InvalidArgument"
    );
}

#[test]
fn collections_are_no_part_of_a_graph_def() {
    let (built, ..) = tutorial_graph(OptimizerName::Sgd).unwrap();
    let message = built.to_graph_def(ExportOptions::default());
    let graph = Graph::new();
    graph.import(&message, &ImportOptions::verbatim()).unwrap();
    let _default = graph.as_default();
    let init = global_variables_initializer().unwrap();
    let session = Session::new(&graph).unwrap();
    session.run(&init, ()).unwrap();
    let weights = graph.tensor("dot_1/weights/read").unwrap();
    let error = session.run::<Value>(&weights, ()).unwrap_err();
    assert_eq!(error.class(), "FailedPrecondition");
}

#[test]
fn attributes_of_later_versions_may_say_what_was_so_before() {
    let top_k = |attr: &str| {
        format!(
            r#"node {{ name: "x" op: "Placeholder" attr {{ key: "dtype" value {{ type: DT_FLOAT }} }} }}
            node {{ name: "k" op: "Placeholder" attr {{ key: "dtype" value {{ type: DT_INT32 }} }} }}
            node {{ name: "top" op: "TopKV2" input: "x" input: "k" attr {{ key: "T" value {{ type: DT_FLOAT }} }}
            attr {{ {attr} }} }}"#
        )
    };
    for name in ["Tk", "index_type"] {
        let graph = import(&top_k(&format!(r#"key: "{name}" value {{ type: DT_INT32 }}"#))).unwrap();
        assert_eq!(graph.operation("top").unwrap().attr_value(name), None);
        let other = top_k(&format!(r#"key: "{name}" value {{ type: DT_INT64 }}"#));
        refused(
            &other,
            "InvalidArgument",
            &["'top' (TopKV2)", &format!("no attribute '{name}'")],
        );
    }
}
