//! What is recorded replays, and what was changed since is found.

use std::fs;
use std::path::{Path, PathBuf};

use graph_core::session::RewriteOptions;
use graph_core::{Graph, Result, Session, SessionOptions, Value, Variable, feed};
use graph_ops::train::Optimizer;
use graph_ops::{array, math, state, train};
use graph_record::{Outcome, Recorder, ReplayOptions, Trace, find_folders, npz, replay, replay_all};

/// A short training session with a run that fails, recorded into `folder`.
fn record(folder: &Path) -> Result<()> {
    let graph = Graph::new();
    let _default = graph.as_default();
    let x = array::placeholder::<f32>([None, Some(2)]).name("x").build()?;
    let w = Variable::new([[0.5f32], [-1.0]]).name("w").build()?;
    let product = math::matmul(&x, &w).name("product").build()?;
    let loss = math::reduce_mean(math::square(&product)).name("loss").build()?;
    let step = train::GradientDescentOptimizer::new(0.1f32).minimize(&loss, std::slice::from_ref(&w))?;

    let session = Session::with_options(&graph, SessionOptions::new().observer(Recorder::create(folder)?))?;
    let uninitialized: Result<Value> = session.run(&w, ());
    assert_eq!(uninitialized.unwrap_err().class(), "FailedPrecondition");
    session.run(state::global_variables_initializer()?, ())?;
    let batch = [[1.0f32, 2.0], [3.0, 4.0]];
    for _ in 0..2 {
        let _: ((), f32) = session.run((&step, &loss), feed! { x => batch })?;
    }
    let callable = session.make_callable::<Value>(&product, &[&x])?;
    callable.call(&[Value::from(batch)])?;
    Ok(())
}

fn recorded() -> (tempfile::TempDir, PathBuf) {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("session");
    record(&folder).unwrap();
    (scratch, folder)
}

fn outcome(folder: &Path) -> Outcome {
    replay(folder, &ReplayOptions::default())
}

fn edit_trace(folder: &Path, from: &str, to: &str) {
    let path = folder.join("trace.json");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(path, text.replacen(from, to, 1)).unwrap();
}

fn difference(folder: &Path) -> graph_record::Difference {
    match outcome(folder) {
        Outcome::Differs(difference) => *difference,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_recorded_session_replays() {
    let (_scratch, folder) = recorded();
    let trace = Trace::read(&folder).unwrap();
    assert_eq!(trace.runs.len(), 5);
    assert_eq!(trace.runs[0].error.as_deref(), Some("FailedPreconditionError"));
    assert_eq!(trace.runs[2].feeds, ["x:0"]);
    assert_eq!(trace.runs[2].fetches, ["loss:0"]);
    assert_eq!(trace.runs[2].targets.len(), 1);
    assert_eq!(trace.runs[3].fetches_file.as_deref(), Some("3.fetches.npz"));
    assert_eq!(trace.runs[4].fetches, ["product:0"]);
    assert!(trace.ops.iter().any(|op| op == "MatMul"));
    assert_eq!(outcome(&folder), Outcome::Ok);
}

#[test]
fn a_changed_value_is_found() {
    let (_scratch, folder) = recorded();
    let path = folder.join("4.fetches.npz");
    let mut value = npz::read(&path).unwrap().remove(0);
    value.as_mut_slice::<f32>().unwrap()[1] += 1.0;
    fs::write(path, npz::pack([&value]).unwrap()).unwrap();
    let difference = difference(&folder);
    assert_eq!(difference.run, Some(4));
    assert_eq!(difference.fetch.as_deref(), Some("product:0"));
    assert_eq!(difference.index, Some(vec![1, 0]));
    assert_eq!(difference.error, None);
}

#[test]
fn an_error_must_be_of_the_recorded_class() {
    let (_scratch, folder) = recorded();
    edit_trace(&folder, "FailedPreconditionError", "NotFoundError");
    let found = difference(&folder);
    assert_eq!((found.run, found.expected.as_deref()), (Some(0), Some("NotFoundError")));
    assert!(found.error.unwrap().contains("FailedPrecondition"));
    edit_trace(&folder, "\"NotFoundError\"", "null");
    assert!(difference(&folder).error.is_some());
}

#[test]
fn a_run_that_must_fail_may_not_succeed() {
    let (_scratch, folder) = recorded();
    edit_trace(&folder, "\"error\":null", "\"error\":\"InternalError\"");
    assert_eq!(difference(&folder).got.as_deref(), Some("no error"));
}

#[test]
fn ops_that_are_not_known_are_listed() {
    let (_scratch, folder) = recorded();
    let path = folder.join("graph.pb");
    let mut graph = graph_core::format::import::read_graph_def(&path).unwrap();
    for node in &mut graph.node {
        if node.op == "MatMul" || node.op == "Square" {
            node.op.push_str("OfTomorrow");
        }
    }
    use graph_core::format::Message;
    fs::write(&path, graph.encode_to_vec()).unwrap();
    assert_eq!(
        outcome(&folder),
        Outcome::Unsupported(vec!["MatMulOfTomorrow".to_owned(), "SquareOfTomorrow".to_owned()])
    );
}

/// A graph of two constants that do not fit together, and one run for each of `fetches`.
fn misshapen(folder: &Path, runs: &str) {
    fs::create_dir(folder).unwrap();
    let constant = |name: &str, size: usize| {
        format!(
            r#"node {{ name: "{name}" op: "Const" attr {{ key: "dtype" value {{ type: DT_INT32 }} }} attr {{ key: "value"
            value {{ tensor {{ dtype: DT_INT32 tensor_shape {{ dim {{ size: {size} }} }} int_val: 7 }} }} }} }}"#
        )
    };
    let add = r#"node { name: "sum" op: "AddV2" input: "a" input: "b" attr { key: "T" value { type: DT_INT32 } } }"#;
    let text = [constant("a", 2), constant("b", 3), add.to_owned()].concat();
    let graph: graph_core::format::proto::GraphDef = graph_core::format::text::from_text(&text).unwrap();
    use graph_core::format::Message;
    fs::write(folder.join("graph.pb"), graph.encode_to_vec()).unwrap();
    fs::write(folder.join("a.npz"), npz::pack([&Value::from([7i32, 7])]).unwrap()).unwrap();
    fs::write(folder.join("trace.json"), format!(r#"{{"runs": [{runs}]}}"#)).unwrap();
}

#[test]
fn an_expected_error_counts_when_the_graph_is_imported() {
    graph_ops::install();
    let scratch = tempfile::tempdir().unwrap();
    let fails = |class: &str| format!(r#"{{"fetches": ["sum:0"], "error": "{class}"}}"#);
    let works = r#"{"fetches": ["a:0"], "fetches_file": "a.npz"}"#;
    let folder = |name: &str| scratch.path().join(name);

    misshapen(&folder("alone"), &fails("InvalidArgumentError"));
    assert_eq!(outcome(&folder("alone")), Outcome::Ok);
    misshapen(&folder("wrong class"), &fails("NotFoundError"));
    assert_eq!(difference(&folder("wrong class")).run, Some(0));
    misshapen(
        &folder("among others"),
        &[works, &fails("InvalidArgumentError"), works].join(","),
    );
    assert_eq!(outcome(&folder("among others")), Outcome::Ok);
    misshapen(
        &folder("unexpected"),
        &[works, r#"{"fetches": ["sum:0"], "fetches_file": "a.npz"}"#].join(","),
    );
    assert!(
        difference(&folder("unexpected"))
            .error
            .unwrap()
            .contains("InvalidArgument")
    );
    misshapen(&folder("not needed"), works);
    assert_eq!(outcome(&folder("not needed")), Outcome::Ok);
}

#[test]
fn folders_of_folders_are_replayed_together() {
    let (scratch, first) = recorded();
    let second = scratch.path().join("deeper/second");
    record(&second).unwrap();
    edit_trace(&second, "FailedPreconditionError", "NotFoundError");
    fs::write(scratch.path().join("deeper/note.txt"), "no folder").unwrap();
    let folders = find_folders(&[scratch.path().to_owned()]).unwrap();
    assert_eq!(folders, [second.clone(), first.clone()]);
    let mut told = Vec::new();
    let each = |folder: &Path, _: &Outcome| told.push(folder.to_owned());
    let outcomes = replay_all(&folders, &ReplayOptions::default(), 2, each);
    assert_eq!(told, folders);
    assert!(matches!(outcomes[0], Outcome::Differs(_)));
    assert_eq!(outcomes[1], Outcome::Ok);
    assert_eq!(
        find_folders(&[scratch.path().join("deeper/second/none")])
            .unwrap_err()
            .class(),
        "NotFound"
    );
}

#[test]
fn a_folder_that_is_spoiled_is_a_difference() {
    let (_scratch, folder) = recorded();
    for file in ["2.feeds.npz", "graph.pb", "trace.json"] {
        let path = folder.join(file);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        assert!(difference(&folder).error.unwrap().contains("DataLoss"), "{file}");
        fs::remove_file(&path).unwrap();
        assert!(difference(&folder).error.unwrap().contains("NotFound"), "{file}");
        fs::write(&path, &whole).unwrap();
    }
    assert_eq!(outcome(&folder), Outcome::Ok);
}

#[test]
fn a_folder_is_recorded_into_once() {
    let (_scratch, folder) = recorded();
    assert_eq!(Recorder::create(&folder).err().unwrap().class(), "AlreadyExists");
}

#[test]
fn a_recording_that_fails_is_told() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("session");
    let graph = Graph::new();
    let _default = graph.as_default();
    let one = math::add(1.0f32, 0.0f32).build().unwrap();
    let options = SessionOptions::new().rewrites(RewriteOptions::none());
    let session = Session::with_options(&graph, options.observer(Recorder::create(&folder).unwrap())).unwrap();
    fs::remove_dir_all(&folder).unwrap();
    let error = session.run::<f32>(&one, ()).unwrap_err();
    assert!(error.to_string().contains("recording a run into"), "{error}");
}

#[test]
fn a_session_that_tensorflow_ran_gives_the_same_here() {
    graph_ops::install();
    // Made by `tests/tensorflow/record_session.py`.
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recorded_by_tensorflow");
    assert_eq!(outcome(&folder), Outcome::Ok);
    let trace = Trace::read(&folder).unwrap();
    let errors: Vec<&str> = trace.runs.iter().filter_map(|run| run.error.as_deref()).collect();
    assert_eq!(errors, ["FailedPreconditionError", "InvalidArgumentError"]);
}
