//! The program as a user meets it: what it prints, what it writes, and how it fails.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use graph_core::format::events::{EventReader, event_files};
use graph_core::format::graph_file::GraphFile;
use graph_core::format::proto::Event;
use graph_core::format::proto::event::What;
use lenet::dataset::FILES;

/// Options of a network that a test can wait for.
const SMALL: [&str; 8] = ["--c1", "2", "--c2", "2", "--d1", "8", "--d2", "8"];

fn data_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../data")
}

fn lenet(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lenet"));
    command.args(arguments).stdin(Stdio::null());
    command
}

/// Trains a small network with MNIST; events go to `logdir`.
fn train(logdir: &Path, arguments: &[&str]) -> Command {
    let mut command = lenet(&["train"]);
    command.args(SMALL).args(arguments);
    command.arg("--logdir").arg(logdir).arg("--data-dir").arg(data_dir());
    command
}

fn output(mut command: Command) -> (Output, String, String) {
    let output = command.output().expect("the program starts");
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    (output, stdout, stderr)
}

/// The error that a command ends with.
fn failure(command: Command) -> String {
    let (output, _, stderr) = output(command);
    assert!(!output.status.success(), "{stderr}");
    assert!(output.status.code().is_some_and(|code| code <= 2), "{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    assert_eq!(stderr.matches("error:").count(), 1, "said once: {stderr}");
    stderr
}

/// All events of the only event file of a folder, which must be whole.
fn events(logdir: &Path) -> Vec<Event> {
    let files = event_files(logdir).unwrap();
    assert_eq!(files.len(), 1, "{files:?}");
    EventReader::open(&files[0]).unwrap().collect::<Result<_, _>>().unwrap()
}

/// The words of a line with its numbers, which must be finite, as `#`.
fn form(line: &str) -> String {
    let words = line.split(' ').map(|word| match word.parse::<f64>() {
        Ok(number) => {
            assert!(number.is_finite(), "{line}");
            "#"
        }
        Err(_) => word,
    });
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn a_pipe_gets_plain_lines_and_the_folder_one_event_file() {
    let folder = tempfile::tempdir().unwrap();
    let steps = ["--iter", "3", "--mini-batch-size", "20", "--update-after-iter", "2"];
    let (result, stdout, stderr) = output(train(folder.path(), &steps));
    assert!(result.status.success(), "{stderr}");
    let notes: Vec<&str> = stderr.lines().collect();
    assert!(
        matches!(notes[..], [device] if device.starts_with("computing on ")),
        "no bar in a pipe: {stderr}"
    );
    let lines: Vec<&str> = stdout.lines().collect();
    let measured = " Iter # Objective # Cost # Test Accuracy # Training Accuracy #";
    assert_eq!(
        lines.iter().map(|line| form(line)).collect::<Vec<_>>(),
        [measured, measured, "Final Test Accuracy: #"]
    );
    assert!(
        lines[0].starts_with(" Iter 0 ") && lines[1].starts_with(" Iter 2 "),
        "{stdout}"
    );

    let events = events(folder.path());
    assert!(matches!(events[0].what, Some(What::FileVersion(_))));
    assert!(events.iter().any(|event| matches!(event.what, Some(What::GraphDef(_)))));
    let summaries = events
        .iter()
        .filter(|event| matches!(event.what, Some(What::Summary(_))));
    let steps: Vec<i64> = summaries.map(|event| event.step).collect();
    assert_eq!(steps, [0, 2]);
}

#[test]
fn accuracies_on_training_images_and_summaries_can_be_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let logdir = folder.path().join("events");
    let arguments = [
        "--iter",
        "1",
        "--mini-batch-size",
        "20",
        "--no-training-accuracy",
        "--no-summarize",
    ];
    let (_, stdout, stderr) = output(train(&logdir, &arguments));
    let forms: Vec<String> = stdout.lines().map(form).collect();
    assert_eq!(
        forms,
        [" Iter # Objective # Cost # Test Accuracy #", "Final Test Accuracy: #"],
        "{stderr}"
    );
    assert!(!logdir.exists());
}

#[test]
fn the_seed_decides_what_is_printed() {
    let folder = tempfile::tempdir().unwrap();
    let run = |seed: &str, threads: &str| {
        let arguments = [
            "--iter",
            "4",
            "--mini-batch-size",
            "20",
            "--update-after-iter",
            "1",
            "--no-training-accuracy",
            "--no-summarize",
            "--seed",
            seed,
            "--threads",
            threads,
        ];
        output(train(folder.path(), &arguments)).1
    };
    let first = run("7", "1");
    assert_eq!(first.lines().count(), 5);
    assert_eq!(first, run("7", "2"));
    assert_ne!(first, run("8", "1"));
}

#[test]
fn export_writes_the_graph_that_training_starts_from() {
    let folder = tempfile::tempdir().unwrap();
    let export = |name: &str, arguments: &[&str]| {
        let path = folder.path().join(name);
        let mut command = lenet(&["export", "--graph-def"]);
        command.arg(&path).args(arguments);
        let (result, stdout, stderr) = output(command);
        assert!(result.status.success(), "{stderr}");
        assert_eq!((stdout.as_str(), stderr.as_str()), ("", ""));
        (
            GraphFile::read(&path).unwrap().graph_def().unwrap().clone(),
            std::fs::read(&path).unwrap(),
        )
    };
    let (graph, bytes) = export("graph.pb", &[]);
    assert_eq!(graph.node.len(), 880);
    assert_eq!(bytes, export("again.pb", &["--seed", "1", "--optimizer", "adam"]).1);
    let (from_text, text) = export("graph.pbtxt", &["--text"]);
    assert!(text.starts_with(b"node {"));
    assert_eq!(from_text, graph);
    assert_ne!(bytes, export("seed.pb", &["--seed", "2"]).1);
    assert_eq!(export("sgd.pb", &["--optimizer", "sgd"]).0.node.len(), 769);
    let names = |definition: &str| graph.node.iter().any(|node| node.name == definition);
    assert!(names("init") && names("Merge/MergeSummary") && names("train/adam"));
}

#[test]
fn a_file_that_cannot_be_written_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("missing").join("graph.pb");
    let mut command = lenet(&["export", "--graph-def"]);
    command.arg(&path);
    assert!(failure(command).contains("graph.pb"));

    let file = folder.path().join("file");
    std::fs::write(&file, "mine").unwrap();
    assert!(failure(train(&file, &["--iter", "1"])).contains("file"));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
}

#[test]
fn missing_fashion_images_are_named_with_their_home() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = lenet(&["--dataset", "fashion", "--no-summarize"]);
    command.current_dir(folder.path()).arg("--data-dir").arg(folder.path());
    let message = failure(command);
    for part in FILES
        .iter()
        .chain(&["https://github.com/zalandoresearch/fashion-mnist"])
    {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn a_batch_larger_than_the_training_set_is_refused_before_training() {
    let folder = tempfile::tempdir().unwrap();
    let message = failure(train(folder.path(), &["--mini-batch-size", "55001"]));
    assert!(
        message.contains("between 1 and 55000") && message.contains("got 55001"),
        "{message}"
    );
}

#[test]
fn a_loss_that_is_no_number_is_said_once_with_all_events_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = [
        "--optimizer",
        "sgd",
        "--learning-rate",
        "1e5",
        "--mini-batch-size",
        "20",
        "--no-training-accuracy",
    ];
    let message = failure(train(folder.path(), &arguments));
    assert!(
        message.contains("not a finite number") && message.contains("--learning-rate"),
        "{message}"
    );
    let events = events(folder.path());
    assert!(events.iter().any(|event| matches!(event.what, Some(What::GraphDef(_)))));
    assert!(events.iter().all(|event| event.step == 0));
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_after_the_running_step_with_all_events_on_disk() {
    use std::io::{BufRead, BufReader, Read};
    let folder = tempfile::tempdir().unwrap();
    let arguments = [
        "--iter",
        "100000000",
        "--mini-batch-size",
        "20",
        "--update-after-iter",
        "50",
        "--no-training-accuracy",
    ];
    let mut child = train(folder.path(), &arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut first = String::new();
    stdout.read_line(&mut first).unwrap();
    assert!(first.starts_with(" Iter 0 "), "{first}");
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    let result = child.wait_with_output().unwrap();
    assert!(result.status.success(), "{}", String::from_utf8_lossy(&result.stderr));
    let last = rest.lines().last().unwrap_or_default();
    assert_eq!(form(last), "Final Test Accuracy: #", "{rest}");
    let events = events(folder.path());
    assert!(events.iter().any(|event| matches!(event.what, Some(What::Summary(_)))));
}
