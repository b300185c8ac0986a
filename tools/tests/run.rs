//! `graph run` and `graph replay`, from the outside.

use std::path::Path;
use std::process::{Command, Output};

use graph_core::format::graph_def::ExportOptions;
use graph_core::{Graph, Session, SessionOptions, Value, Variable, feed};
use graph_ops::train::Saver;
use graph_ops::{array, math, state};
use graph_record::{Recorder, npy, npz};

fn graph(folder: &Path, arguments: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_graph"))
        .args(arguments)
        .current_dir(folder)
        .output();
    output.expect("the tool starts")
}

fn succeeds(folder: &Path, arguments: &[&str]) -> String {
    let output = graph(folder, arguments);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

fn fails(folder: &Path, arguments: &[&str]) -> String {
    let output = graph(folder, arguments);
    assert!(!output.status.success(), "{arguments:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// `y = x * w + 1` with `w` in a checkpoint, as `model.pb` and `model.ckpt`; the session that saved it is recorded.
fn model(folder: &Path) {
    let graph = Graph::new();
    let _default = graph.as_default();
    let x = array::placeholder::<f32>([None, Some(2)]).name("x").build().unwrap();
    let w = Variable::new([10.0f32, 100.0]).name("w").build().unwrap();
    let scaled = math::multiply(&x, &w).build().unwrap();
    let y = math::add(&scaled, 1.0f32).name("y").build().unwrap();
    let big = math::greater(&y, 20.0f32).name("big").build().unwrap();
    let mut saver = Saver::new().build().unwrap();
    let recorder = Recorder::create(folder.join("recorded")).unwrap();
    let session = Session::with_options(&graph, SessionOptions::new().observer(recorder)).unwrap();
    session.run(state::global_variables_initializer().unwrap(), ()).unwrap();
    let _: (Value, Value) = session.run((&y, &big), feed! { x => [[1.0f32, 2.0]] }).unwrap();
    saver.save(&session, folder.join("model.ckpt")).unwrap();
    graph
        .write_graph_def(folder.join("model.pb"), false, ExportOptions::default())
        .unwrap();
}

/// A device that is named and cannot be used is an error: nothing computes elsewhere in silence.
#[test]
fn a_device_that_is_not_there_is_an_error() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path();
    model(folder);
    let replay = |device: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_graph"))
            .args(["replay", "recorded"])
            .env("GRAPH_DEVICE", device)
            .current_dir(folder)
            .output();
        output.expect("the tool starts")
    };
    assert!(replay("cpu").status.success());
    for device in ["toaster", "gpu:4000"] {
        let output = replay(device);
        let told = [output.stdout, output.stderr].concat();
        let told = String::from_utf8_lossy(&told);
        assert!(!output.status.success(), "{device}: {told}");
        assert!(
            told.contains("using the device that GRAPH_DEVICE names"),
            "{device}: {told}"
        );
    }
}

#[test]
fn a_profile_tells_what_each_operation_took() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path();
    model(folder);
    let asked = [
        "run",
        "model.pb",
        "--checkpoint",
        "model.ckpt",
        "--feed",
        "x=[[1,2]]",
        "--fetch",
        "y",
    ];
    let output = graph(folder, &[&asked[..], &["--device", "cpu", "--profile"]].concat());
    assert!(output.status.success());
    assert_eq!(output.stdout, succeeds(folder, &asked).into_bytes());
    let told = String::from_utf8(output.stderr).unwrap();
    let mut lines = told.lines();
    assert!(lines.next().unwrap().contains("time, us"), "{told}");
    assert!(lines.any(|line| line.contains("on /device:CPU:0")), "{told}");
    assert!(told.trim_end().ends_with(" all"), "{told}");
}

#[test]
fn a_graph_runs_with_values_from_the_command_line_and_from_files() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path();
    model(folder);
    let restored = ["run", "model.pb", "--checkpoint", "model.ckpt"];
    let printed = succeeds(
        folder,
        &[
            &restored[..],
            &["--feed", "x=[[1,2],[3,4]]", "--fetch", "y", "--fetch", "big:0"],
        ]
        .concat(),
    );
    assert_eq!(
        printed,
        "y:0 float [2,2]\n[[11, 201],\n [31, 401]]\nbig:0 bool [2,2]\n[[false, true],\n [true, true]]\n"
    );

    std::fs::write(folder.join("x.npy"), npy::write(&Value::from([[5.0f32, 6.0]])).unwrap()).unwrap();
    let written = succeeds(
        folder,
        &[
            &restored[..],
            &["--feed", "x=x.npy", "--fetch", "y:0", "--out", "y.npz"],
        ]
        .concat(),
    );
    assert_eq!(written, "");
    let arrays = npz::parse_named(&std::fs::read(folder.join("y.npz")).unwrap()).unwrap();
    assert_eq!(arrays, [("y:0".to_owned(), Value::from([[51.0f32, 601.0]]))]);

    let json = succeeds(
        folder,
        &[
            &restored[..],
            &["--feed", "y=[[\"nan\",0.5]]", "--fetch", "y", "--json"],
        ]
        .concat(),
    );
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        json[0],
        serde_json::json!({"name": "y:0", "dtype": "float", "shape": [1, 2], "value": [[null, 0.5]]})
    );
}

#[test]
fn targets_run_without_fetches() {
    let scratch = tempfile::tempdir().unwrap();
    model(scratch.path());
    assert_eq!(
        succeeds(scratch.path(), &["run", "model.pb", "--target", "w/Assign"]),
        ""
    );
}

#[test]
fn what_cannot_run_says_why() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path();
    model(folder);
    let run = |rest: &[&str]| fails(folder, &[&["run", "model.pb"][..], rest].concat());
    assert!(run(&[]).contains("nothing to run"));
    assert!(run(&[]).contains("big"), "the ends of the graph are told");
    assert!(run(&["--fetch", "z"]).contains("no operation named 'z'"));
    assert!(run(&["--fetch", "y"]).contains("You must feed"));
    assert!(run(&["--fetch", "y", "--feed", "x=[[1,2]]"]).contains("uninitialized value w"));
    assert!(run(&["--fetch", "y", "--feed", "x"]).contains("NAME=VALUE"));
    assert!(run(&["--fetch", "y", "--feed", "x=[[1],[2,3]]"]).contains("ragged"));
    assert!(run(&["--fetch", "y", "--feed", "x=[1,2,3]"]).contains("wrong shape"));
    assert!(run(&["--fetch", "y", "--feed", "x=missing.npy"]).contains("NotFound"));
    assert!(run(&["--fetch", "y", "--checkpoint", "none"]).contains("NotFound"));
}

#[test]
fn a_recorded_session_is_replayed_line_by_line() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path();
    model(folder);
    // Saving is a run too, but another machine has not its folder.
    let trace = folder.join("recorded/trace.json");
    let text = std::fs::read_to_string(&trace).unwrap();
    let kept: Vec<&str> = text.lines().filter(|line| !line.contains("save/")).collect();
    std::fs::write(&trace, kept.join("\n").replace("},\n ]", "}\n ]")).unwrap();
    assert_eq!(
        succeeds(folder, &["replay", "recorded"]),
        "recorded: ok\nreplayed 1: 1 ok, 0 differ, 0 unsupported\n"
    );
    let path = folder.join("recorded/1.fetches.npz");
    let mut values = npz::read(&path).unwrap();
    values[0].as_mut_slice::<f32>().unwrap()[1] += 0.5;
    std::fs::write(&path, npz::pack(&values).unwrap()).unwrap();
    let output = graph(folder, &["replay", "."]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "./recorded: run 1, fetch y:0, index [0,1], got 201, expected 201.5\nreplayed 1: 0 ok, 1 differ, 0 unsupported\n"
    );
    assert!(succeeds(folder, &["replay", ".", "--rtol", "0.01"]).contains("1 ok"));
    let json: serde_json::Value = serde_json::from_slice(&graph(folder, &["replay", ".", "--json"]).stdout).unwrap();
    assert_eq!(
        (&json["differ"], &json["folders"][0]["status"]),
        (&1.into(), &"differs".into())
    );
    assert_eq!(json["folders"][0]["difference"]["index"], serde_json::json!([0, 1]));
    assert!(fails(folder, &["replay", "model.pb"]).contains("error"));
}
