use graph_core::format::events::EventWriter;
use graph_core::format::histogram::Histogram;
use graph_core::format::proto::summary::{Image, Value, value};
use graph_core::format::proto::{GraphDef, RunMetadata, Summary};

use super::*;

fn summary(tag: &str, value: value::Value) -> Summary {
    Summary {
        value: vec![Value {
            tag: tag.to_owned(),
            value: Some(value),
            ..Default::default()
        }],
    }
}

/// A run with two steps of a loss, a histogram, an image, a graph and the figures of a run.
fn write_run(folder: &Path) -> PathBuf {
    let mut writer = EventWriter::create(folder).unwrap();
    let path = writer.path().to_path_buf();
    writer.add_graph(&GraphDef::default()).unwrap();
    for (step, loss) in [(10, 0.5f32), (20, 0.25)] {
        writer
            .add_summary(summary("loss", value::Value::SimpleValue(loss)), step)
            .unwrap();
    }
    let image = Image {
        height: 2,
        width: 3,
        encoded_image_string: vec![0; 5],
        ..Default::default()
    };
    writer
        .add_summary(summary("picture, one", value::Value::Image(image)), 10)
        .unwrap();
    let mut histogram = Histogram::new();
    histogram.add([1.0, 2.0, 6.0]).unwrap();
    writer
        .add_summary(summary("weights", value::Value::Histo(histogram.to_proto())), 20)
        .unwrap();
    writer.add_run_metadata(&RunMetadata::default(), "step 10", 10).unwrap();
    writer.close().unwrap();
    path
}

fn events(path: &Path, options: &[&str]) -> Output {
    let start = ["events".as_ref(), path.as_os_str()];
    graph(start.into_iter().chain(options.iter().map(|option| option.as_ref())))
}

#[test]
fn tags_are_listed_with_kinds_and_steps() {
    let folder = tempfile::tempdir().unwrap();
    let path = write_run(folder.path());
    let out = stdout(events(folder.path(), &[]));
    assert_eq!(out.lines().next(), Some("1 file, 7 events, steps 10 to 20, 1 graph"));
    assert_eq!(line(&out, "loss"), "loss scalar 2 10 20 0.25");
    assert_eq!(
        line(&out, "weights"),
        "weights histogram 1 20 20 3 numbers, 1 to 6, mean 3"
    );
    assert_eq!(line(&out, "picture"), "picture, one image 1 10 10 3 x 2");
    assert_eq!(line(&out, "run metadata"), "run metadata: step 10");
    assert_eq!(stdout(events(&path, &[])), out);
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(stdout(graph_reading(["events", "-"], &bytes)), out);
    let report = json(events(&path, &["--json"]));
    assert_eq!(report["runs"][0]["tags"][0]["last_step"], 20);
}

#[test]
fn a_tags_values_are_a_table() {
    let folder = tempfile::tempdir().unwrap();
    write_run(folder.path());
    let out = stdout(events(folder.path(), &["--tag", "loss"]));
    let rows: Vec<Vec<&str>> = out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["step", "seconds", "value"]);
    assert_eq!(
        (rows[1][0], rows[1][2], rows[2][0], rows[2][2]),
        ("10", "0.5", "20", "0.25")
    );
    let csv = stdout(events(folder.path(), &["--tag", "loss", "--csv"]));
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines[0], "wall_time,step,value");
    assert!(lines[2].ends_with(",20,0.25") && lines.len() == 3, "{csv}");
    let values = json(events(folder.path(), &["--tag", "weights", "--json"]));
    assert_eq!(values["runs"][0]["points"][0]["max"], 6.0);
    assert_eq!(values["runs"][0]["kind"], "histogram");
    let image = stdout(events(folder.path(), &["--tag", "picture, one", "--csv"]));
    assert!(
        image.starts_with("wall_time,step,width,height,bytes\n") && image.ends_with(",10,3,2,5\n"),
        "{image}"
    );
}

#[test]
fn folders_below_are_runs() {
    let folder = tempfile::tempdir().unwrap();
    write_run(&folder.path().join("train"));
    write_run(&folder.path().join("test"));
    let out = stdout(events(folder.path(), &[]));
    let runs: Vec<&str> = out.lines().filter(|line| line.starts_with("run ")).collect();
    assert_eq!(&runs[..1], ["run test"]);
    assert!(runs.contains(&"run train"), "{out}");
    let csv = stdout(events(folder.path(), &["--tag", "loss", "--csv"]));
    assert_eq!(csv.lines().count(), 5);
    assert!(csv.starts_with("run,wall_time,step,value\ntest,"), "{csv}");
}

#[test]
fn a_file_cut_short_is_read_as_far_as_it_goes() {
    let folder = tempfile::tempdir().unwrap();
    let path = write_run(folder.path());
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    let output = events(&path, &[]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(line(&text_of(&output.stdout), "loss"), "loss scalar 2 10 20 0.25");
    let (error, _) = failure(output);
    assert!(error.contains("DataLoss") && error.contains("offset"), "{error}");
}

#[test]
fn unknown_tags_and_empty_folders_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let (error, code) = failure(events(folder.path(), &[]));
    assert!(code == 1 && error.contains("tfevents"), "{error}");
    write_run(folder.path());
    let (error, code) = failure(events(folder.path(), &["--tag", "lost"]));
    assert!(code == 1 && error.contains("did you mean 'loss'"), "{error}");
}
