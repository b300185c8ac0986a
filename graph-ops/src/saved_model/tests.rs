use graph_core::format::proto::{CollectionDef, MetaGraphDef, SavedModel, collection_def};
use graph_core::format::{Message, read_message};
use graph_core::{Graph, Operation, Session, Tensor, Value, Variable, feed};

use super::*;
use crate::{array, control, math, state};

struct Model {
    x: Tensor,
    y: Tensor,
    counter: Variable,
    session: Session,
}

/// `y = 3 x + counter`, with the counter at 5.
fn model() -> Model {
    let graph = Graph::new();
    let _default = graph.as_default();
    let x = array::placeholder::<f32>([None]).name("x").build().unwrap();
    let slope = Variable::new(3.0f32).name("slope").build().unwrap();
    let counter = Variable::new(0.0f32)
        .name("counter")
        .trainable(false)
        .collections(["local_variables"])
        .build()
        .unwrap();
    let y = math::add(math::multiply(&x, &slope), &counter)
        .name("y")
        .build()
        .unwrap();
    let session = Session::new(&graph).unwrap();
    session.run(slope.initializer(), ()).unwrap();
    session.run(counter.initializer(), ()).unwrap();
    session
        .run(state::assign(&counter, 5.0f32).build().unwrap().op(), ())
        .unwrap();
    Model { x, y, counter, session }
}

fn answer(session: &Session) -> Vec<f32> {
    let tensor = |name: &str| session.graph().tensor(name).unwrap();
    session
        .run(tensor("y:0"), feed! { tensor("x:0") => [1.0f32, 2.0] })
        .unwrap()
}

#[test]
fn a_model_comes_back_with_its_variables_and_signature() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("model");
    let model = model();
    assert!(!maybe_saved_model_directory(&folder));
    simple_save(&model.session, &folder, [("in", &model.x)], [("out", &model.y)]).unwrap();
    assert!(maybe_saved_model_directory(&folder));
    let session = Session::new(&Graph::new()).unwrap();
    let meta = load(&session, &[tags::SERVING], &folder).unwrap();
    assert_eq!(answer(&session), [8.0, 11.0]);
    let signature = &meta.signature_def[signature_constants::DEFAULT_SERVING_SIGNATURE_DEF_KEY];
    assert_eq!(signature.inputs["in"], build_tensor_info(&model.x));
    assert_eq!(signature.outputs["out"], build_tensor_info(&model.y));
    assert_eq!(signature.method_name, signature_constants::PREDICT_METHOD_NAME);
    let local = session.graph().get_collection::<Variable>("local_variables").unwrap();
    assert_eq!(local[0].name(), model.counter.name());
}

#[test]
fn text_and_binary_hold_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let model = model();
    let mut builder = Builder::new(folder.path().join("model")).unwrap();
    let signatures = [("s", predict_signature_def([("x", &model.x)], [("y", &model.y)]))];
    builder
        .add_meta_graph_and_variables(&model.session, ["serve", "cpu"], signatures)
        .unwrap();
    let plain = builder.save(true).unwrap();
    let from_text = read(folder.path().join("model")).unwrap();
    let binary = builder.save(false).unwrap();
    let from_binary: SavedModel = read_message(&binary).unwrap();
    assert_eq!(from_text.encode_to_vec(), from_binary.encode_to_vec());
    assert!(plain.ends_with("saved_model.pbtxt") && binary.ends_with("saved_model.pb"));
}

#[test]
fn a_graph_is_chosen_by_all_of_its_tags() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("model");
    let model = model();
    let mut builder = Builder::new(&folder).unwrap();
    assert_eq!(builder.save(false).unwrap_err().class(), "FailedPrecondition");
    let none: [(&str, _); 0] = [];
    let early = builder.add_meta_graph(&model.session, ["serve"], none.clone());
    assert_eq!(early.unwrap_err().class(), "FailedPrecondition");
    builder
        .add_meta_graph_and_variables(&model.session, ["train", "gpu"], none.clone())
        .unwrap();
    builder.add_meta_graph(&model.session, ["serve"], none.clone()).unwrap();
    let no_tags: [&str; 0] = [];
    assert_eq!(
        builder
            .add_meta_graph(&model.session, no_tags, none)
            .unwrap_err()
            .class(),
        "InvalidArgument"
    );
    builder.save(false).unwrap();
    for tags in [&["serve"][..], &["gpu", "train"]] {
        let session = Session::new(&Graph::new()).unwrap();
        load(&session, tags, &folder).unwrap();
        assert_eq!(answer(&session), [8.0, 11.0], "{tags:?}");
    }
    let session = Session::new(&Graph::new()).unwrap();
    let error = load(&session, &["train"], &folder).unwrap_err();
    assert_eq!(error.class(), "NotFound");
    assert!(error.to_string().contains("'train gpu', 'serve'"), "{error}");
    assert_eq!(session.graph().num_operations(), 0);
}

#[test]
fn assets_come_along_and_the_main_operation_runs() {
    let folder = tempfile::tempdir().unwrap();
    let words = folder.path().join("words.txt");
    std::fs::write(&words, "one two").unwrap();
    let folder = folder.path().join("model");
    let model = model();
    let graph = model.session.graph().clone();
    let _default = graph.as_default();
    let name = array::constant(words.to_str().unwrap()).name("name").build().unwrap();
    graph.add_to_collection("asset_filepaths", &name);
    let place = Variable::new("nowhere").name("place").build().unwrap();
    model.session.run(place.initializer(), ()).unwrap();
    let kept = state::assign(&place, &name).build().unwrap();
    let counted = state::assign(&model.counter, 100.0f32).build().unwrap();
    let main = control::group([&kept.op(), &counted.op()], "main").unwrap();
    let mut builder = Builder::new(&folder).unwrap();
    let none: [(&str, _); 0] = [];
    builder.main_op(&main);
    builder
        .add_meta_graph_and_variables(&model.session, ["serve"], none.clone())
        .unwrap();
    let twice = builder.add_meta_graph(&model.session, ["other"], none);
    assert!(twice.unwrap_err().to_string().contains("saved_model_main_op"));
    builder.save(false).unwrap();
    // The original is gone; the model carries its own.
    std::fs::remove_file(&words).unwrap();
    let session = Session::new(&Graph::new()).unwrap();
    load(&session, &["serve"], &folder).unwrap();
    assert_eq!(answer(&session), [103.0, 106.0]);
    let place: Value = session.run(session.graph().tensor("place:0").unwrap(), ()).unwrap();
    let path = String::from_utf8(place.as_strings().unwrap()[0].clone()).unwrap();
    assert_eq!(std::fs::read_to_string(path).unwrap(), "one two");
    assert_eq!(
        session
            .graph()
            .get_collection::<Operation>("saved_model_main_op")
            .unwrap()
            .len(),
        1
    );
}

#[test]
fn a_model_without_variables_has_no_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("model");
    let graph = Graph::new();
    let _default = graph.as_default();
    let x = array::placeholder::<f32>([None]).name("x").build().unwrap();
    let y = math::square(&x).name("y").build().unwrap();
    simple_save(&Session::new(&graph).unwrap(), &folder, [("x", &x)], [("y", &y)]).unwrap();
    assert!(!folder.join("variables").exists());
    let session = Session::new(&Graph::new()).unwrap();
    load(&session, &["serve"], &folder).unwrap();
    assert_eq!(answer(&session), [1.0, 4.0]);
}

#[test]
fn nothing_is_overwritten_and_nothing_missing_is_guessed() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("mine.txt"), "mine").unwrap();
    assert_eq!(Builder::new(folder.path()).unwrap_err().class(), "AlreadyExists");
    let session = Session::new(&Graph::new()).unwrap();
    let error = load(&session, &["serve"], folder.path()).unwrap_err();
    assert_eq!(error.class(), "NotFound");
    // The graph is whole, but the variables are gone.
    let model = model();
    let whole = folder.path().join("model");
    simple_save(&model.session, &whole, [("x", &model.x)], [("y", &model.y)]).unwrap();
    std::fs::remove_dir_all(whole.join("variables")).unwrap();
    assert_eq!(load(&session, &["serve"], &whole).unwrap_err().class(), "NotFound");
}

#[test]
fn loading_runs_nothing_that_writes() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("model");
    let model = model();
    simple_save(&model.session, &folder, [("x", &model.x)], [("y", &model.y)]).unwrap();
    let index = || std::fs::read(folder.join("variables/variables.index")).unwrap();
    let (whole, before) = (read(&folder).unwrap(), index());
    let refused = |change: &dyn Fn(&mut MetaGraphDef)| {
        let mut hostile = whole.clone();
        change(&mut hostile.meta_graphs[0]);
        std::fs::write(folder.join("saved_model.pb"), hostile.encode_to_vec()).unwrap();
        let session = Session::new(&Graph::new()).unwrap();
        let error = load(&session, &["serve"], &folder).unwrap_err();
        assert_eq!(error.class(), "InvalidArgument", "{error}");
        assert!(error.to_string().contains("SaveV2"), "{error}");
        assert_eq!(index(), before);
    };
    refused(&|meta| meta.saver_def.as_mut().unwrap().restore_op_name = "save/SaveV2".to_owned());
    refused(&|meta| meta.saver_def.as_mut().unwrap().restore_op_name = "save/control_dependency".to_owned());
    refused(&|meta| {
        let names = collection_def::NodeList {
            value: vec!["save/SaveV2".to_owned()],
        };
        let kind = Some(collection_def::Kind::NodeList(names));
        meta.collection_def
            .insert("saved_model_main_op".to_owned(), CollectionDef { kind });
    });
}
