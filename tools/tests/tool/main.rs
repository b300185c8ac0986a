//! The `graph` program from outside: what it prints, for people and for programs, and how it exits.

mod checkpoint;
mod convert;
mod diff;
mod dot;
mod events;
mod inspect;
mod ops;

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use graph_core::format::proto::GraphDef;
use graph_core::format::{Message, text};
use tempfile::TempDir;

/// A small network: y = relu(x w) with a summary, an initializer, an update, and an op that the engine does not know.
const NETWORK: &str = r#"
node { name: "x" op: "Placeholder" attr { key: "dtype" value { type: DT_FLOAT } }
       attr { key: "shape" value { shape { dim { size: -1 } dim { size: 2 } } } }
       attr { key: "_output_shapes" value { list { shape { dim { size: -1 } dim { size: 2 } } } } } }
node { name: "zeros" op: "Const" attr { key: "dtype" value { type: DT_FLOAT } }
       attr { key: "value" value { tensor { dtype: DT_FLOAT tensor_shape { dim { size: 2 } dim { size: 3 } } float_val: 0 } } } }
node { name: "layer/w" op: "VariableV2" device: "/device:CPU:0" attr { key: "dtype" value { type: DT_FLOAT } }
       attr { key: "shape" value { shape { dim { size: 2 } dim { size: 3 } } } } }
node { name: "layer/w/Assign" op: "Assign" input: "layer/w" input: "zeros" attr { key: "T" value { type: DT_FLOAT } } }
node { name: "layer/w/read" op: "Identity" input: "layer/w" attr { key: "T" value { type: DT_FLOAT } }
       attr { key: "_class" value { list { s: "loc:@layer/w" } } } }
node { name: "layer/dot" op: "MatMul" input: "x" input: "layer/w/read" attr { key: "T" value { type: DT_FLOAT } }
       attr { key: "transpose_a" value { b: false } } }
node { name: "layer/relu" op: "Relu" input: "layer/dot" attr { key: "T" value { type: DT_FLOAT } } }
node { name: "odd" op: "OddOp" input: "layer/relu:0" input: "^layer/w/read" attr { key: "T" value { type: DT_FLOAT } } }
node { name: "tag" op: "Const" attr { key: "dtype" value { type: DT_STRING } }
       attr { key: "value" value { tensor { dtype: DT_STRING tensor_shape { } string_val: "relu" } } } }
node { name: "summary" op: "HistogramSummary" input: "tag" input: "layer/relu" attr { key: "T" value { type: DT_FLOAT } } }
node { name: "init" op: "NoOp" input: "^layer/w/Assign" }
versions { producer: 134 }
"#;

/// Runs `graph` to its end.
fn graph<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Output {
    graph_reading(arguments, b"")
}

/// Runs `graph` with something on its standard input.
fn graph_reading<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>, input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_graph"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    // A program that does not read its input is no failure of the test.
    let _ = child.stdin.take().map(|mut stdin| stdin.write_all(input));
    child.wait_with_output().expect("the program ends")
}

/// What a run that went well printed.
#[track_caller]
fn stdout(output: Output) -> String {
    let (out, err) = (text_of(&output.stdout), text_of(&output.stderr));
    assert!(output.status.success(), "exit {:?}\n{out}\n{err}", output.status.code());
    assert_eq!(err, "");
    out
}

/// What a run that failed said, and its exit code.
#[track_caller]
fn failure(output: Output) -> (String, i32) {
    let err = text_of(&output.stderr);
    assert!(!output.status.success() && !err.contains("panicked"), "{err}");
    (err, output.status.code().expect("no signal"))
}

/// JSON that a run that went well printed.
#[track_caller]
fn json(output: Output) -> serde_json::Value {
    serde_json::from_str(&stdout(output)).expect("JSON")
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// The line that begins with these words, its spaces collapsed.
#[track_caller]
fn line(text: &str, beginning: &str) -> String {
    let mut lines = text
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    let found = lines.find(|line| line.starts_with(beginning));
    found.unwrap_or_else(|| panic!("no line begins with `{beginning}`:\n{text}"))
}

/// A folder with the network as `network.pb` and `network.pbtxt`.
fn network_folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let message: GraphDef = text::from_text(NETWORK).expect("the text");
    std::fs::write(folder.path().join("network.pbtxt"), NETWORK).expect("a file");
    std::fs::write(folder.path().join("network.pb"), message.encode_to_vec()).expect("a file");
    folder
}

/// Writes a graph of this text as a binary file.
fn write_graph(folder: &Path, name: &str, graph: &str) -> PathBuf {
    let message: GraphDef = text::from_text(graph).expect("the text");
    let path = folder.join(name);
    std::fs::write(&path, message.encode_to_vec()).expect("a file");
    path
}

fn read_graph(path: &Path) -> GraphDef {
    GraphDef::decode(std::fs::read(path).expect("a file").as_slice()).expect("a graph")
}

fn node_names(graph: &GraphDef) -> Vec<&str> {
    graph.node.iter().map(|node| node.name.as_str()).collect()
}

#[test]
fn every_subcommand_has_help_with_an_example() {
    let help = stdout(graph(["--help"]));
    for command in ["inspect", "diff", "dot", "convert", "checkpoint", "events", "ops"] {
        assert!(help.contains(&format!("  {command} ")), "{help}");
        let help = stdout(graph([command, "--help"]));
        let example = format!("\n  graph {command}");
        assert!(
            help.contains("Example") && help.contains(&example) && help.contains("--json"),
            "{help}"
        );
    }
}

#[test]
fn a_command_line_that_is_wrong_exits_with_two() {
    for arguments in [
        &["nonsense"][..],
        &["inspect"],
        &["diff", "a"],
        &["events", "a", "--csv"],
    ] {
        let (error, code) = failure(graph(arguments));
        assert!(code == 2 && error.contains("Usage"), "{error}");
    }
}

#[test]
fn errors_name_the_file_and_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    for command in ["inspect", "dot", "checkpoint", "events"] {
        let (error, code) = failure(graph([command, "/nowhere/file"]));
        assert!(code == 1 && error.contains("/nowhere/file"), "{command}: {error}");
        assert!(error.starts_with("error: NotFound"), "{command}: {error}");
        let (error, code) = failure(graph([OsStr::new(command), folder.path().as_os_str()]));
        assert!(code == 1 && error.contains(folder.path().to_str().unwrap()), "{error}");
    }
}

#[test]
#[cfg(unix)]
fn a_reader_that_goes_away_is_no_error() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_graph"))
        .args(["ops", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}
