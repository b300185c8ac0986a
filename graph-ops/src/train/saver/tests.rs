use std::fs;

use graph_core::PartialShape;
use graph_core::format::checkpoint::BundleReader;
use graph_core::format::import::ImportOptions;
use graph_core::format::meta_graph::read_meta_graph;
use graph_core::graph::scope::name_scope;

use super::*;
use crate::testing::listing;
use crate::train::{AdamOptimizer, Optimizer};

struct Fixture {
    folder: tempfile::TempDir,
    session: Session,
    variables: Vec<Variable>,
}

/// A graph of three variables, made in another order than that of their names, and a session with their values.
fn fixture() -> Fixture {
    crate::install();
    let graph = Graph::new();
    let _default = graph.as_default();
    let b = Variable::new([1.0f32, 2.0]).name("b").build().unwrap();
    let a = Variable::new([[1i32, 2]]).name("s/a").build().unwrap();
    let w = Variable::new("x").name("w").trainable(false).build().unwrap();
    let session = Session::new(&graph).unwrap();
    let variables = vec![b, a, w];
    for variable in &variables {
        session.run(variable.initializer(), ()).unwrap();
    }
    Fixture {
        folder: tempfile::tempdir().unwrap(),
        session,
        variables,
    }
}

impl Fixture {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn saver(&self) -> Saver {
        let _default = self.session.graph().as_default();
        Saver::new().build().unwrap()
    }

    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn indices(&self) -> Vec<String> {
        let names = self.files().into_iter();
        names
            .filter_map(|name| Some(name.strip_suffix(".index")?.to_owned()))
            .collect()
    }
}

fn at_step(step: i64) -> SaveOptions {
    SaveOptions {
        global_step: Some(step),
        write_meta_graph: false,
        ..SaveOptions::default()
    }
}

#[test]
fn the_nodes_are_tensorflows() {
    let fixture = fixture();
    let graph = fixture.session.graph();
    let _default = graph.as_default();
    let start = graph.num_operations();
    let saver = {
        let _scope = name_scope("scope").unwrap();
        Saver::new().build().unwrap()
    };
    let expected = "\
Const scope/save/filename/input <- 
PlaceholderWithDefault scope/save/filename <- scope/save/filename/input
PlaceholderWithDefault scope/save/Const <- scope/save/filename
Const scope/save/SaveV2/tensor_names <- 
Const scope/save/SaveV2/shape_and_slices <- 
SaveV2 scope/save/SaveV2 <- scope/save/Const, scope/save/SaveV2/tensor_names, scope/save/SaveV2/shape_and_slices, b, s/a, w
Identity scope/save/control_dependency <- scope/save/Const, ^scope/save/SaveV2
Const scope/save/RestoreV2/tensor_names <- 
Const scope/save/RestoreV2/shape_and_slices <- 
RestoreV2 scope/save/RestoreV2 <- scope/save/Const, scope/save/RestoreV2/tensor_names, scope/save/RestoreV2/shape_and_slices
Assign scope/save/Assign <- b, scope/save/RestoreV2
Assign scope/save/Assign_1 <- s/a, scope/save/RestoreV2:1
Assign scope/save/Assign_2 <- w, scope/save/RestoreV2:2
NoOp scope/save/restore_all <- ^scope/save/Assign, ^scope/save/Assign_1, ^scope/save/Assign_2";
    assert_eq!(listing(graph)[start..].join("\n"), expected);
    assert_eq!(
        graph.operation("scope/save/RestoreV2").unwrap().device(),
        "/device:CPU:0"
    );
    let assign = graph.operation("scope/save/Assign_1").unwrap();
    assert_eq!(
        (assign.device(), assign.colocation_groups()),
        (String::new(), vec![b"loc:@s/a".to_vec()])
    );
    let def = saver.saver_def();
    assert_eq!(def.filename_tensor_name, "scope/save/Const:0");
    assert_eq!(def.save_tensor_name, "scope/save/control_dependency:0");
    assert_eq!(def.restore_op_name, "scope/save/restore_all");
    assert_eq!((def.max_to_keep, def.keep_checkpoint_every_n_hours), (5, 10_000.0));

    let start = graph.num_operations();
    Saver::new()
        .variables(&fixture.variables[..1])
        .reshape(true)
        .name("mine")
        .build()
        .unwrap();
    let lines = listing(graph)[start..].to_vec();
    assert_eq!(
        lines[lines.len() - 4..],
        [
            "Const mine/Reshape/shape <- ",
            "Reshape mine/Reshape <- mine/RestoreV2, mine/Reshape/shape",
            "Assign mine/Assign <- b, mine/Reshape",
            "NoOp mine/restore_all <- ^mine/Assign",
        ]
    );
    assert!(
        !graph
            .operation("mine/Assign")
            .unwrap()
            .attr::<bool>("validate_shape")
            .unwrap()
    );
}

#[test]
fn variables_come_back_in_another_session() {
    let fixture = fixture();
    let mut saver = fixture.saver();
    let prefix = saver.save(&fixture.session, fixture.path("model.ckpt")).unwrap();
    assert_eq!(prefix, fixture.path("model.ckpt"));
    let names = [
        "checkpoint",
        "model.ckpt.data-00000-of-00001",
        "model.ckpt.index",
        "model.ckpt.meta",
    ];
    assert_eq!(fixture.files(), names);
    let other = Session::new(fixture.session.graph()).unwrap();
    saver.restore(&other, &prefix).unwrap();
    let (b, a, w): (Value, Value, Value) = other
        .run(
            (&fixture.variables[0], &fixture.variables[1], &fixture.variables[2]),
            (),
        )
        .unwrap();
    assert_eq!((b, a, w), ([1.0f32, 2.0].into(), [[1i32, 2]].into(), "x".into()));
}

#[test]
fn resource_variables_are_saved_by_their_reads_and_restored_through_their_handles() {
    crate::install();
    let graph = Graph::new();
    let _default = graph.as_default();
    let a = Variable::new([1.0f32, 2.0]).name("a").build().unwrap();
    let r = Variable::new([3.0f32, 4.0])
        .name("r")
        .use_resource(true)
        .build()
        .unwrap();
    let start = graph.num_operations();
    let mut saver = Saver::new().build().unwrap();
    let expected = "\
SaveV2 save/SaveV2 <- save/Const, save/SaveV2/tensor_names, save/SaveV2/shape_and_slices, a, r/Read/ReadVariableOp
Identity save/control_dependency <- save/Const, ^save/SaveV2
Const save/RestoreV2/tensor_names <- 
Const save/RestoreV2/shape_and_slices <- 
RestoreV2 save/RestoreV2 <- save/Const, save/RestoreV2/tensor_names, save/RestoreV2/shape_and_slices
Assign save/Assign <- a, save/RestoreV2
Identity save/Identity <- save/RestoreV2:1
AssignVariableOp save/AssignVariableOp <- r, save/Identity
NoOp save/restore_all <- ^save/Assign, ^save/AssignVariableOp";
    assert_eq!(listing(&graph)[start + 5..].join("\n"), expected);

    let folder = tempfile::tempdir().unwrap();
    let session = Session::new(&graph).unwrap();
    let init = crate::state::global_variables_initializer().unwrap();
    session.run(&init, ()).unwrap();
    let prefix = saver.save(&session, folder.path().join("m")).unwrap();
    let other = Session::new(&graph).unwrap();
    saver.restore(&other, &prefix).unwrap();
    let restored: (Vec<f32>, Vec<f32>) = other.run((&a, &r), ()).unwrap();
    assert_eq!(restored, (vec![1.0, 2.0], vec![3.0, 4.0]));

    // Another kind of variable of the same name takes the value too, but not one of another shape.
    crate::install();
    let graph = Graph::new();
    let _default = graph.as_default();
    let a = Variable::new([0.0f32, 0.0])
        .name("a")
        .use_resource(true)
        .build()
        .unwrap();
    Variable::new(0.0f32).name("r").use_resource(true).build().unwrap();
    let session = Session::new(&graph).unwrap();
    let only_a = Saver::new().variables([&a]).build().unwrap();
    only_a.restore(&session, &prefix).unwrap();
    assert_eq!(session.run::<Vec<f32>>(&a, ()).unwrap(), [1.0, 2.0]);
    let report = Saver::new().build().unwrap().compare(&prefix).unwrap();
    assert_eq!(report.other_shape, [("r".into(), PartialShape::scalar(), [2].into())]);
}

#[test]
fn an_uninitialized_variable_is_not_saved() {
    let fixture = fixture();
    let mut saver = fixture.saver();
    let empty = Session::new(fixture.session.graph()).unwrap();
    let error = saver.save(&empty, fixture.path("model.ckpt")).unwrap_err();
    assert_eq!(error.class(), "FailedPrecondition");
    assert!(fixture.files().is_empty());
}

#[test]
fn the_slots_of_optimizers_are_saved() {
    crate::install();
    let graph = Graph::new();
    let _default = graph.as_default();
    let v = Variable::new([1.0f32, 2.0]).name("v").build().unwrap();
    let loss = crate::nn::l2_loss(&v).build().unwrap();
    let step = AdamOptimizer::new(0.1)
        .minimize(&loss, std::slice::from_ref(&v))
        .unwrap();
    let init = crate::state::global_variables_initializer().unwrap();
    let mut saver = Saver::new().build().unwrap();
    let run = |session: &Session, steps: usize| -> Vec<f32> {
        (0..steps).for_each(|_| session.run(&step, ()).unwrap());
        session.run(&v, ()).unwrap()
    };
    let folder = tempfile::tempdir().unwrap();
    let first = Session::new(&graph).unwrap();
    first.run(&init, ()).unwrap();
    run(&first, 3);
    let prefix = saver.save(&first, folder.path().join("model.ckpt")).unwrap();
    let names: Vec<String> = BundleReader::open(&prefix).unwrap().entries().keys().cloned().collect();
    assert_eq!(names, ["beta1_power", "beta2_power", "v", "v/Adam", "v/Adam_1"]);
    let second = Session::new(&graph).unwrap();
    saver.restore(&second, &prefix).unwrap();
    assert_eq!(run(&second, 3), run(&first, 3));
}

#[test]
fn a_subset_is_restored_and_names_are_mapped() {
    let fixture = fixture();
    let graph = fixture.session.graph();
    let prefix = fixture
        .saver()
        .save(&fixture.session, fixture.path("model.ckpt"))
        .unwrap();
    let (subset, mapped, c) = {
        let _default = graph.as_default();
        let c = Variable::new([0.0f32, 0.0]).name("c").build().unwrap();
        let subset = Saver::new().variables(&fixture.variables[1..2]).build().unwrap();
        let mapped = Saver::new().renamed([("b", &c)]).build().unwrap();
        (subset, mapped, c)
    };
    let other = Session::new(graph).unwrap();
    subset.restore(&other, &prefix).unwrap();
    assert_eq!(
        other.run::<Value>(&fixture.variables[1], ()).unwrap(),
        [[1i32, 2]].into()
    );
    assert!(other.run::<Value>(&fixture.variables[0], ()).is_err());
    mapped.restore(&other, &prefix).unwrap();
    assert_eq!(other.run::<Vec<f32>>(&c, ()).unwrap(), [1.0, 2.0]);
}

#[test]
fn all_that_does_not_fit_is_told_at_once() {
    let fixture = fixture();
    let prefix = fixture
        .saver()
        .save(&fixture.session, fixture.path("model.ckpt"))
        .unwrap();
    crate::install();
    let graph = Graph::new();
    let _default = graph.as_default();
    let variable = |name: &str, value: Value| Variable::new(value).name(name).build().unwrap();
    let others = [
        variable("b", [1.0f32].into()),
        variable("s/a", [[1.0f32, 2.0]].into()),
        variable("s/b", 1.0f32.into()),
        variable("s/c", 1.0f32.into()),
    ];
    let session = Session::new(&graph).unwrap();
    let saver = Saver::new().build().unwrap();
    let report = saver.compare(&prefix).unwrap();
    assert!(!report.fits());
    assert_eq!(
        (&report.missing[..], &report.extra[..]),
        (&["s/b".into(), "s/c".into()][..], &["w".into()][..])
    );
    assert_eq!(report.other_shape, [("b".into(), [1].into(), [2].into())]);
    let error = saver.restore(&session, &prefix).unwrap_err();
    assert_eq!(error.class(), "NotFound");
    let message = error.to_string();
    for line in [
        "s/b",
        "s/c",
        "b: expected [1], got [2]",
        "s/a: expected float, got int32",
        "w",
    ] {
        assert!(message.contains(&format!("\n    {line}\n")), "{line} in {message}");
    }
    let misshapen = Saver::new().variables(&others[..1]).build().unwrap();
    assert_eq!(
        misshapen.restore(&session, &prefix).unwrap_err().class(),
        "InvalidArgument"
    );
    // As TensorFlow's nodes have it, when they run without the saver's look at the checkpoint.
    let feeds = misshapen.feeds(&prefix).unwrap();
    let error = session.run(&misshapen.restore, feeds).unwrap_err();
    assert_eq!(error.class(), "InvalidArgument");
    assert!(session.run::<Value>(&others[0], ()).is_err(), "nothing was restored");
    assert_eq!(
        saver.restore(&session, fixture.path("absent")).unwrap_err().class(),
        "NotFound"
    );
    let extra = Saver::new()
        .renamed([("b", &variable("d", [0.0f32, 0.0].into()))])
        .build()
        .unwrap();
    assert!(extra.compare(&prefix).unwrap().fits());
}

#[test]
fn another_shape_of_as_many_elements_is_restored_where_asked_for() {
    let fixture = fixture();
    let prefix = fixture
        .saver()
        .save(&fixture.session, fixture.path("model.ckpt"))
        .unwrap();
    crate::install();
    let graph = Graph::new();
    let _default = graph.as_default();
    let v = Variable::new([[0.0f32], [0.0]]).name("b").build().unwrap();
    let saver = Saver::new().reshape(true).build().unwrap();
    let session = Session::new(&graph).unwrap();
    saver.restore(&session, &prefix).unwrap();
    assert_eq!(session.run::<Value>(&v, ()).unwrap(), [[1.0f32], [2.0]].into());
}

#[test]
fn the_oldest_checkpoints_go() {
    let fixture = fixture();
    let _default = fixture.session.graph().as_default();
    let mut saver = Saver::new().max_to_keep(2).build().unwrap();
    let prefix = fixture.path("m");
    for step in [1, 2, 3, 2, 10] {
        saver.save_with(&fixture.session, &prefix, &at_step(step)).unwrap();
    }
    assert_eq!(fixture.indices(), ["m-10", "m-2"]);
    assert_eq!(saver.last_checkpoints(), [fixture.path("m-2"), fixture.path("m-10")]);
    let text = fs::read_to_string(fixture.path("checkpoint")).unwrap();
    let [two, ten] = ["m-2", "m-10"].map(|name| fixture.path(name).display().to_string());
    let expected = format!(
        "model_checkpoint_path: \"{ten}\"\nall_model_checkpoint_paths: \"{two}\"\nall_model_checkpoint_paths: \"{ten}\"\n"
    );
    assert_eq!(text, expected);
    assert_eq!(
        latest_checkpoint(fixture.folder.path()).unwrap(),
        Some(fixture.path("m-10"))
    );

    // A new saver takes over what it is told of.
    let mut next = Saver::new().max_to_keep(2).save_relative_paths(true).build().unwrap();
    next.recover_last_checkpoints([fixture.path("m-1"), fixture.path("m-2"), fixture.path("m-10")]);
    assert_eq!(next.last_checkpoints().len(), 2);
    next.save_with(&fixture.session, &prefix, &at_step(11)).unwrap();
    assert_eq!(fixture.indices(), ["m-10", "m-11"]);
    let text = fs::read_to_string(fixture.path("checkpoint")).unwrap();
    assert!(
        text.starts_with("model_checkpoint_path: \"m-11\"\nall_model_checkpoint_paths: \"m-10\"\n"),
        "{text}"
    );
    assert_eq!(
        latest_checkpoint(fixture.folder.path()).unwrap(),
        Some(fixture.path("m-11"))
    );
}

#[test]
fn checkpoints_stay_where_that_is_asked_for() {
    let fixture = fixture();
    let _default = fixture.session.graph().as_default();
    let mut all = Saver::new().max_to_keep(0).build().unwrap();
    let mut hourly = Saver::new()
        .max_to_keep(1)
        .keep_checkpoint_every_n_hours(0.0)
        .build()
        .unwrap();
    for step in 1..4 {
        all.save_with(&fixture.session, fixture.path("a"), &at_step(step))
            .unwrap();
        hourly
            .save_with(&fixture.session, fixture.path("h"), &at_step(step))
            .unwrap();
    }
    assert_eq!(fixture.indices(), ["a-1", "a-2", "a-3", "h-1", "h-2", "h-3"]);
    assert!(all.last_checkpoints().is_empty());
    assert_eq!(hourly.last_checkpoints(), [fixture.path("h-3")]);
    let mut padded = Saver::new().pad_step_number(true).build().unwrap();
    let prefix = padded
        .save_with(&fixture.session, fixture.path("p"), &at_step(7))
        .unwrap();
    assert_eq!(prefix, fixture.path("p-00000007"));
}

#[test]
fn names_that_would_clash_are_refused() {
    let fixture = fixture();
    let mut saver = fixture.saver();
    let refused = |saver: &mut Saver, prefix: &str, options: &SaveOptions| {
        let error = saver
            .save_with(&fixture.session, fixture.path(prefix), options)
            .unwrap_err();
        assert_eq!(error.class(), "InvalidArgument", "{error}");
    };
    refused(&mut saver, "checkpoint", &SaveOptions::default());
    for name in ["a/b", "", ".."] {
        let options = SaveOptions {
            latest_filename: name.to_owned(),
            ..SaveOptions::default()
        };
        refused(&mut saver, "m", &options);
    }
    let extra = SaveOptions {
        extra: vec![("b".to_owned(), 1i32.into())],
        ..SaveOptions::default()
    };
    refused(&mut saver, "m", &extra);
    assert!(fixture.files().is_empty());

    let _default = fixture.session.graph().as_default();
    let [b, a] = [&fixture.variables[0], &fixture.variables[1]];
    assert!(Saver::new().renamed([("x", b), ("x", a)]).build().is_err());
    assert!(Saver::new().renamed([("x", b), ("y", b)]).build().is_err());
    assert!(Saver::new().variables(&[]).build().is_err());
}

#[test]
fn extra_values_lie_in_the_same_checkpoint() {
    let fixture = fixture();
    let mut saver = fixture.saver();
    let options = SaveOptions {
        extra: vec![("_program/step".to_owned(), 7i64.into())],
        ..SaveOptions::default()
    };
    let prefix = saver.save_with(&fixture.session, fixture.path("m"), &options).unwrap();
    assert_eq!(
        fixture.files(),
        ["checkpoint", "m.data-00000-of-00001", "m.index", "m.meta"]
    );
    let reader = BundleReader::open(&prefix).unwrap();
    assert_eq!(reader.value("_program/step").unwrap(), 7i64.into());
    assert!(saver.compare(&prefix).unwrap().extra.is_empty());
    saver
        .restore(&Session::new(fixture.session.graph()).unwrap(), &prefix)
        .unwrap();
}

#[test]
fn a_saver_is_found_in_an_imported_meta_graph() {
    let fixture = fixture();
    let prefix = fixture.saver().save(&fixture.session, fixture.path("m")).unwrap();
    let meta = read_meta_graph(checkpoint::meta_graph_path(&prefix)).unwrap();
    let graph = Graph::new();
    graph
        .import_meta_graph(&meta, &ImportOptions::default().prefix(""))
        .unwrap();
    let mut saver = Saver::from_saver_def(&graph, meta.saver_def.as_ref().unwrap()).unwrap();
    let session = Session::new(&graph).unwrap();
    saver.restore(&session, &prefix).unwrap();
    let b: Vec<f32> = session.run(graph.tensor("b/read:0").unwrap(), ()).unwrap();
    assert_eq!(b, [1.0, 2.0]);
    saver.save(&session, fixture.path("n")).unwrap();
    let same = |name: &str| fs::read(fixture.path(name)).unwrap();
    assert_eq!(same("m.index"), same("n.index"));
    assert_eq!(same("m.data-00000-of-00001"), same("n.data-00000-of-00001"));
    let absent = SaverDef {
        restore_op_name: "absent".to_owned(),
        ..saver.saver_def()
    };
    assert_eq!(Saver::from_saver_def(&graph, &absent).unwrap_err().class(), "NotFound");
    assert_eq!(
        Saver::from_saver_def(&graph, &SaverDef::default()).unwrap_err().class(),
        "Unimplemented"
    );
}

#[test]
fn the_state_file_is_written_and_read_by_itself() {
    let fixture = fixture();
    let folder = fixture.folder.path();
    assert_eq!(latest_checkpoint(folder).unwrap(), None);
    assert!(get_checkpoint_state(folder, DEFAULT_STATE_FILE).unwrap().is_none());
    update_checkpoint_state(folder, fixture.path("m-2"), &[fixture.path("m-1")], DEFAULT_STATE_FILE).unwrap();
    let state = get_checkpoint_state(folder, DEFAULT_STATE_FILE).unwrap().unwrap();
    let paths = ["m-1", "m-2"].map(|name| fixture.path(name).display().to_string());
    assert_eq!(
        (&state.model_checkpoint_path, &state.all_model_checkpoint_paths[..]),
        (&paths[1], &paths[..])
    );
    assert_eq!(latest_checkpoint(folder).unwrap(), None, "it does not exist");
    assert!(update_checkpoint_state(folder, fixture.path("c"), &[fixture.path("c")], "c").is_err());
    fs::write(fixture.path("checkpoint"), "nonsense {").unwrap();
    assert_eq!(latest_checkpoint(folder).unwrap_err().class(), "InvalidArgument");
    fs::write(fixture.path("checkpoint"), "").unwrap();
    assert!(latest_checkpoint(folder).is_err());
    fs::write(fixture.path("checkpoint"), "model_checkpoint_path: \"m\"").unwrap();
    fs::write(fixture.path("m.index"), "").unwrap();
    assert_eq!(latest_checkpoint(folder).unwrap(), Some(fixture.path("m")));
}
