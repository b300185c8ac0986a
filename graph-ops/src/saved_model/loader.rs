//! Reading a SavedModel.

use std::collections::BTreeSet;
use std::path::Path;

use graph_core::format::import::ImportOptions;
use graph_core::format::proto::tensor_info::Encoding;
use graph_core::format::proto::{MetaGraphDef, SavedModel, TensorInfo};
use graph_core::format::read_message;
use graph_core::session::Feeds;
use graph_core::{Error, Operation, Result, Session};

use super::signature_constants::INIT_OP_SIGNATURE_KEY;
use super::{ASSETS, FILE, LEGACY_INIT_OP, MAIN_OP, TEXT_FILE, VARIABLES};
use crate::train::{Saver, check_only_reads};

/// Whether there may be a SavedModel in `folder`: whether its file is there.
pub fn maybe_saved_model_directory(folder: impl AsRef<Path>) -> bool {
    let folder = folder.as_ref();
    folder.join(FILE).is_file() || folder.join(TEXT_FILE).is_file()
}

/// Reads the graphs of the SavedModel in `folder`; [`load`] brings one into a session.
///
/// # Errors
/// `NotFound` if there is no SavedModel, and those of [`read_message`].
pub fn read(folder: impl AsRef<Path>) -> Result<SavedModel> {
    let folder = folder.as_ref();
    let path = [FILE, TEXT_FILE]
        .map(|name| folder.join(name))
        .into_iter()
        .find(|path| path.is_file())
        .ok_or_else(|| {
            Error::not_found(format!("there is no SavedModel in {}", folder.display()))
                .expected(format!("a file {FILE} or {TEXT_FILE}"))
        })?;
    read_message(path)
}

/// Adds the graph with exactly these tags to the graph of `session`, gives its variables their saved values and runs its
/// main operation; what the SavedModel says of the graph, signatures among it.
///
/// # Errors
/// `NotFound` if there is no SavedModel, or no graph in it with these tags (all there are are listed); those of
/// [`graph_core::Graph::import_meta_graph`] and [`Saver::restore`], `InvalidArgument` if the main operation would write files,
/// and whatever it reports.
pub fn load(session: &Session, tags: &[&str], folder: impl AsRef<Path>) -> Result<MetaGraphDef> {
    crate::install();
    let folder = folder.as_ref();
    let meta =
        with_tags(read(folder)?, tags).map_err(|error| error.context(format!("loading {}", folder.display())))?;
    let graph = session.graph();
    graph.import_meta_graph(&meta, &ImportOptions::verbatim())?;
    if let Some(saver_def) = &meta.saver_def {
        Saver::from_saver_def(graph, saver_def)?.restore(session, folder.join(VARIABLES).join(VARIABLES))?;
    }
    if let Some(main_op) = main_op(session, &meta)? {
        check_only_reads(&main_op)?;
        session.run(&main_op, assets(session, &meta, folder)?)?;
    }
    Ok(meta)
}

fn with_tags(model: SavedModel, tags: &[&str]) -> Result<MetaGraphDef> {
    let wanted: BTreeSet<&str> = tags.iter().copied().collect();
    let tags_of = |meta: &MetaGraphDef| meta.meta_info_def.clone().unwrap_or_default().tags;
    let all: Vec<String> = model.meta_graphs.iter().map(|meta| tags_of(meta).join(" ")).collect();
    let found = model.meta_graphs.into_iter().find(|meta| {
        let tags = tags_of(meta);
        tags.iter().map(String::as_str).collect::<BTreeSet<_>>() == wanted
    });
    found.ok_or_else(|| {
        Error::not_found(format!(
            "the SavedModel has no graph with the tags '{}'",
            tags.join(" ")
        ))
        .got(format!("graphs with the tags '{}'", all.join("', '")))
    })
}

/// The operation to run after loading.
fn main_op(session: &Session, meta: &MetaGraphDef) -> Result<Option<Operation>> {
    let graph = session.graph();
    if let Some(signature) = meta.signature_def.get(INIT_OP_SIGNATURE_KEY)
        && let Some(Encoding::Name(name)) = signature.outputs.get(INIT_OP_SIGNATURE_KEY).and_then(encoding)
    {
        return graph.operation(name).map(Some);
    }
    for key in [MAIN_OP, LEGACY_INIT_OP] {
        if meta.collection_def.contains_key(key) {
            return match &graph.get_collection::<Operation>(key)?[..] {
                [] => continue,
                [operation] => Ok(Some(operation.clone())),
                several => Err(
                    Error::invalid_argument(format!("the collection '{key}' must hold one operation"))
                        .got(several.len()),
                ),
            };
        }
    }
    Ok(None)
}

fn encoding(info: &TensorInfo) -> Option<&Encoding> {
    info.encoding.as_ref()
}

/// The tensors that hold names of files, fed with where the files are now.
fn assets(session: &Session, meta: &MetaGraphDef, folder: &Path) -> Result<Feeds> {
    let mut feeds = Feeds::new();
    for asset in &meta.asset_file_def {
        let Some(Encoding::Name(name)) = asset.tensor_info.as_ref().and_then(encoding) else {
            return Err(Error::invalid_argument(format!(
                "the asset '{}' belongs to no tensor",
                asset.filename
            )));
        };
        let path = folder.join(ASSETS).join(&asset.filename);
        feeds = feeds.with(&session.graph().tensor(name)?, path.to_string_lossy().into_owned());
    }
    Ok(feeds)
}
