//! Checkpoints: TensorFlow's nodes and files, runs that go on bit for bit, and processes killed while they save.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use graph_core::format::checkpoint::BundleReader;
use graph_core::format::events::{EventReader, event_files};
use graph_core::format::graph_def::ExportOptions;
use graph_core::format::proto::event::What;
use graph_core::{Value, Variable};
use graph_ops::state::get_collection;
use graph_ops::train::{DEFAULT_STATE_FILE, Saver, get_checkpoint_state, latest_checkpoint};
use lenet::checkpoints::{CheckpointOptions, Checkpoints, definitions, find};
use lenet::global_definitions::OptimizerName;
use lenet::network::TRAINABLE_PARAMS;
use lenet::progress::{Measurement, Progress};
use lenet::trainer::{TrainOptions, Trainer, TrainerOptions};
use system_tests::canonical::graph_text;
use system_tests::{fixture, scratch, small, tutorial_graph};

#[test]
fn the_savers_nodes_are_tensorflows() {
    let (graph, _, _) = tutorial_graph(OptimizerName::Adam).unwrap();
    let _default = graph.as_default();
    Saver::new().build().unwrap();
    let parameters = get_collection::<Variable>(TRAINABLE_PARAMS).unwrap();
    Saver::new()
        .variables(&parameters)
        .name("save_weights")
        .build()
        .unwrap();
    let ours = graph_text(&graph.to_graph_def(ExportOptions::default())).unwrap();
    let ours: Vec<&str> = ours.split("\n\n").skip(1 + 880).map(str::trim_end).collect();
    let reference = fixture::read("saver_adam.txt");
    let reference: Vec<&str> = reference.split("\n\n").skip(1).map(str::trim_end).collect();
    assert_eq!((ours.len(), reference.len()), (64, 64));
    for (ours, reference) in ours.iter().zip(reference) {
        assert_eq!(*ours, reference);
    }
}

/// A file of the checkpoint that `tensorflow/make_checkpoint_fixture.py` made.
fn tensorflows(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

#[test]
fn what_tensorflow_saved_predicts_the_same_here() {
    let prefix = tensorflows("small.ckpt");
    let sizes = definitions(&prefix).unwrap();
    assert_eq!(sizes, small::definitions(OptimizerName::Sgd));
    let restored = || TrainerOptions {
        logdir: None,
        restore: Some(prefix.clone()),
        ..TrainerOptions::default()
    };
    let network = small::network(OptimizerName::Sgd).unwrap();
    let trainer = Trainer::with_options(network, system_tests::mnist().unwrap(), restored()).unwrap();
    let expected = fixture::trajectory("small");
    assert_eq!(expected.logits.len(), 8);
    for (ours, theirs) in trainer.test_logits(8).unwrap().iter().zip(&expected.logits) {
        let close = ours
            .iter()
            .zip(theirs)
            .all(|(ours, theirs)| (ours - theirs).abs() <= 1e-4);
        assert!(close && ours.len() == 10, "{ours:?} {theirs:?}");
    }
    let accuracy = f64::from(trainer.test().unwrap());
    assert!(
        (accuracy - expected.test_accuracy).abs() <= 1e-4,
        "{accuracy} {}",
        expected.test_accuracy
    );

    // It has no variables of an optimizer, and tells no place in a run.
    let error = small::trainer(OptimizerName::Adam, restored())
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.contains("train/beta1_power") && error.contains("train/logits_layer/weights/adam_1"),
        "{error}"
    );
    let folder = scratch();
    for part in ["small.ckpt.index", "small.ckpt.data-00000-of-00001"] {
        std::fs::copy(tensorflows(part), folder.path().join(part)).unwrap();
    }
    std::fs::write(
        folder.path().join("checkpoint"),
        "model_checkpoint_path: \"small.ckpt\"\n",
    )
    .unwrap();
    let error = small::trainer(OptimizerName::Sgd, saving(folder.path(), true))
        .err()
        .unwrap();
    assert!(matches!(&error, lenet::Error::Checkpoint { .. }), "{error}");
}

fn saving(folder: &Path, resume: bool) -> TrainerOptions {
    TrainerOptions {
        logdir: None,
        threads: Some(1),
        checkpoints: Some(CheckpointOptions {
            folder: folder.to_owned(),
            save_every: 5,
            resume,
        }),
        ..TrainerOptions::default()
    }
}

/// Keeps what is measured, and stops training at a step.
struct Log {
    measured: Arc<Mutex<Vec<Measurement>>>,
    stop_at: Option<u64>,
    stop: Arc<AtomicBool>,
}

impl Progress for Log {
    fn start(&mut self, _done: u64, _iterations: u64) -> lenet::Result<()> {
        Ok(())
    }

    fn step(&mut self, iter: u64) -> lenet::Result<()> {
        if self.stop_at == Some(iter) {
            self.stop.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    fn measured(&mut self, measurement: &Measurement) -> lenet::Result<()> {
        self.measured.lock().unwrap().push(*measurement);
        Ok(())
    }

    fn finish(&mut self, _test_accuracy: f32) -> lenet::Result<()> {
        Ok(())
    }
}

/// Trains up to `iter` steps in all, or stops after the step `stop_at`; what was measured.
fn train(trainer: &mut Trainer, iter: u64, stop_at: Option<u64>) -> Vec<Measurement> {
    let (measured, stop) = (Arc::default(), Arc::default());
    let log = Log {
        measured: Arc::clone(&measured),
        stop_at,
        stop: Arc::clone(&stop),
    };
    let options = TrainOptions {
        iter,
        mini_batch_size: 7,
        update_after_iter: 4,
        training_accuracy: true,
        stop,
        progress: Box::new(log),
        ..TrainOptions::default()
    };
    trainer.train(options).unwrap();
    measured.lock().unwrap().clone()
}

/// All that a checkpoint holds, every checksum verified.
fn entries(prefix: &Path) -> BTreeMap<String, Value> {
    let reader = BundleReader::open(prefix).unwrap();
    let names = reader.entries().keys();
    names.map(|name| (name.clone(), reader.value(name).unwrap())).collect()
}

/// Fails, by name, where two checkpoints differ in a bit.
fn same_checkpoint(ours: &Path, expected: &Path) {
    let (ours, expected) = (entries(ours), entries(expected));
    assert!(
        ours.keys().eq(expected.keys()),
        "{:?} {:?}",
        ours.keys(),
        expected.keys()
    );
    let differing: Vec<&String> = ours.keys().filter(|&name| ours[name] != expected[name]).collect();
    assert!(differing.is_empty(), "{differing:?}");
}

fn resumes_bit_for_bit(optimizer: OptimizerName) {
    let (straight, resumed) = (scratch(), scratch());
    let expected = train(
        &mut small::trainer(optimizer, saving(straight.path(), false)).unwrap(),
        23,
        None,
    );
    let mut measured = Vec::new();
    // Ended by its number of steps; stopped at a step that is measured; stopped at one that is not.
    for (iter, stop_at) in [(6, None), (23, Some(8)), (23, Some(13)), (23, None)] {
        let mut trainer = small::trainer(optimizer, saving(resumed.path(), true)).unwrap();
        assert_eq!(trainer.resumed_from().is_some(), !measured.is_empty());
        measured.extend(train(&mut trainer, iter, stop_at));
    }
    assert_eq!(measured, expected);
    let last = |folder: &Path| latest_checkpoint(folder).unwrap().unwrap();
    assert!(last(resumed.path()).ends_with("lenet.ckpt-23"));
    same_checkpoint(&last(resumed.path()), &last(straight.path()));
    // The same were kept: those of steps 5 to 20 and the last, here with those where runs ended.
    let kept = |folder: &Path| {
        let state = get_checkpoint_state(folder, DEFAULT_STATE_FILE).unwrap().unwrap();
        let number = |path: &String| path.rsplit_once('-').unwrap().1.to_owned();
        state.all_model_checkpoint_paths.iter().map(number).collect::<Vec<_>>()
    };
    assert_eq!(kept(straight.path()), ["5", "10", "15", "20", "23"]);
    assert_eq!(kept(resumed.path()), ["10", "14", "15", "20", "23"]);
}

#[test]
fn a_resumed_run_of_adam_goes_on_bit_for_bit() {
    resumes_bit_for_bit(OptimizerName::Adam);
}

#[test]
fn a_resumed_run_of_rmsprop_goes_on_bit_for_bit() {
    resumes_bit_for_bit(OptimizerName::RmsProp);
}

#[test]
fn a_run_without_a_checkpoint_to_resume_begins_anew() {
    let folder = scratch();
    let mut trainer = small::trainer(OptimizerName::Sgd, saving(folder.path(), true)).unwrap();
    assert_eq!((trainer.resumed_from(), trainer.iteration()), (None, 0));
    train(&mut trainer, 5, None);
    assert_eq!(trainer.iteration(), 5);
    // One that is done already trains no more.
    let mut trainer = small::trainer(OptimizerName::Sgd, saving(folder.path(), true)).unwrap();
    assert!(train(&mut trainer, 3, None).is_empty());
    assert_eq!(trainer.iteration(), 5);
    // What the folder tells of and is gone is an error, not a new beginning.
    std::fs::remove_file(folder.path().join("lenet.ckpt-5.index")).unwrap();
    let error = small::trainer(OptimizerName::Sgd, saving(folder.path(), true))
        .err()
        .unwrap();
    assert!(matches!(&error, lenet::Error::NoCheckpoint { .. }), "{error}");
    assert!(matches!(find(folder.path()), Err(lenet::Error::NoCheckpoint { .. })));
}

#[test]
fn a_checkpoint_of_another_optimizer_is_refused_with_all_that_differs() {
    let folder = scratch();
    train(
        &mut small::trainer(OptimizerName::RmsProp, saving(folder.path(), false)).unwrap(),
        1,
        None,
    );
    let error = small::trainer(OptimizerName::Adam, saving(folder.path(), true))
        .err()
        .unwrap();
    assert!(
        matches!(&error, lenet::Error::Graph(graph_core::Error::NotFound(_))),
        "{error}"
    );
    let message = error.to_string();
    for key in [
        "train/beta1_power",
        "train/conv_1/bias/adam_1",
        "train/conv_1/bias/rmsprop_1",
    ] {
        assert!(message.contains(&format!("\n    {key}\n")), "{key} in {message}");
    }
    assert!(!message.contains("_lenet"), "{message}");
}

#[test]
fn a_resumed_run_writes_an_event_file_of_its_own() {
    let (folder, logdir) = (scratch(), scratch());
    let logged = |resume| TrainerOptions {
        logdir: Some(logdir.path().to_owned()),
        ..saving(folder.path(), resume)
    };
    train(&mut small::trainer(OptimizerName::Sgd, logged(false)).unwrap(), 6, None);
    train(&mut small::trainer(OptimizerName::Sgd, logged(true)).unwrap(), 13, None);
    let mut runs: Vec<(Vec<i64>, Vec<i64>)> = Vec::new();
    for file in event_files(logdir.path()).unwrap() {
        let (mut summaries, mut starts) = (Vec::new(), Vec::new());
        for event in EventReader::open(file).unwrap().map(Result::unwrap) {
            match event.what {
                Some(What::Summary(_)) => summaries.push(event.step),
                Some(What::SessionLog(_)) => starts.push(event.step),
                _ => {}
            }
        }
        runs.push((summaries, starts));
    }
    runs.sort();
    assert_eq!(runs, [(vec![0, 4], vec![]), (vec![8, 12], vec![6])]);
}

#[test]
fn a_checkpoint_tells_the_position_of_its_run() {
    let folder = scratch();
    let mut trainer = small::trainer(OptimizerName::Sgd, saving(folder.path(), false)).unwrap();
    train(&mut trainer, 1, None);
    let entries = entries(&folder.path().join("lenet.ckpt-1"));
    assert_eq!(entries["_lenet/iteration"], Value::scalar(1i64));
    assert_eq!(entries["_lenet/dataset/train"], [1u64, 0, 7, 30].into());
    let streams = entries.keys().filter(|name| name.starts_with("_session/dropout_"));
    assert_eq!(streams.count(), 3, "{:?}", entries.keys());
    let options = CheckpointOptions {
        folder: folder.path().to_owned(),
        save_every: 1,
        resume: true,
    };
    let mut other = Checkpoints::new(trainer.session.graph(), options).unwrap();
    let (prefix, position) = other.resume(&trainer.session).unwrap().unwrap();
    assert!(prefix.ends_with("lenet.ckpt-1"));
    assert_eq!(
        (position.iteration, position.training_set),
        (1, trainer.dataset.train.state())
    );
}

/// A generator of the moments at which processes are killed: SplitMix64, as `lenet` shuffles with.
struct Moments(u64);

impl Moments {
    fn next(&mut self, below: u64) -> Duration {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Duration::from_micros((mixed ^ (mixed >> 31)) % below)
    }
}

/// Runs the small training until it is killed after `time`, or to its end; the last step that it told of.
fn train_and_kill(folder: &Path, iterations: u64, time: Option<Duration>) -> Option<u64> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_train_small"))
        .arg(folder)
        .arg(iterations.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    if let Some(time) = time {
        std::thread::sleep(time);
        child.kill().unwrap();
    }
    let mut output = String::new();
    child.stdout.take().unwrap().read_to_string(&mut output).unwrap();
    let status = child.wait().unwrap();
    assert!(time.is_some() || status.success(), "{status}");
    // The last line may be cut short.
    let lines = output.rsplit_once('\n').map_or("", |(whole, _)| whole);
    lines.lines().last().map(|line| line.parse().unwrap())
}

/// How many processes are killed: the variable `KILLS`, or few enough for a test among others.
fn kills() -> u32 {
    std::env::var("KILLS").map_or(25, |kills| kills.parse().expect("KILLS is a number"))
}

#[test]
fn a_process_killed_while_saving_leaves_the_last_checkpoint_whole() {
    let folder = scratch();
    let folder = folder.path().join("checkpoints");
    let (mut done, mut saving, mut moments) = (0, 0, Moments(1));
    for _ in 0..kills() {
        let told = train_and_kill(&folder, u64::MAX, Some(moments.next(600_000)));
        let Some(latest) = latest_checkpoint(&folder).unwrap() else {
            assert!(
                !folder.join("checkpoint").exists(),
                "it tells of a checkpoint that is gone"
            );
            assert!(told.is_none_or(|step| step == 0), "step {told:?} was not saved");
            continue;
        };
        let iteration: i64 = entries(&latest)["_lenet/iteration"].to_scalar().unwrap();
        let iteration = iteration as u64;
        assert!(
            iteration >= done && told.is_none_or(|step| iteration >= step),
            "{iteration} {done} {told:?}"
        );
        let state = get_checkpoint_state(&folder, DEFAULT_STATE_FILE).unwrap().unwrap();
        for kept in &state.all_model_checkpoint_paths {
            entries(Path::new(kept));
        }
        let names = std::fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name());
        saving += u32::from(
            names
                .into_iter()
                .any(|name| name.to_string_lossy().contains(".tempstate")),
        );
        done = iteration;
    }
    println!(
        "{} processes killed, {saving} of them while they were writing; {done} steps done",
        kills()
    );
    assert!(done > 0, "no process came to save anything");
    train_and_kill(&folder, done + 3, None);
    let straight = scratch();
    train_and_kill(straight.path(), done + 3, None);
    let name = format!("lenet.ckpt-{}", done + 3);
    same_checkpoint(&folder.join(&name), &straight.path().join(&name));
    let left = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    let left: Vec<_> = left
        .filter(|name| name.to_string_lossy().contains(".tempstate"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}
