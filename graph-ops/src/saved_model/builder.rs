//! Writing a SavedModel.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use graph_core::format::meta_graph::MetaGraphOptions;
use graph_core::format::proto::{AssetFileDef, MetaGraphDef, SavedModel, SignatureDef};
use graph_core::format::write_message;
use graph_core::{Error, Operation, Result, Session, Tensor, Value};

use super::signature::{build_tensor_info, predict_signature_def};
use super::signature_constants::DEFAULT_SERVING_SIGNATURE_DEF_KEY;
use super::{ASSET_FILEPATHS, ASSETS, FILE, LEGACY_INIT_OP, MAIN_OP, SCHEMA_VERSION, TEXT_FILE, VARIABLES, tags};
use crate::state;
use crate::train::{SaveOptions, Saver};

/// Writes a SavedModel: the graphs one by one, the variables with the first, and then all of it with [`Builder::save`].
///
/// ```
/// use graph_core::{Graph, Session, Value, Variable, feed};
/// use graph_ops::saved_model::{self, Builder, predict_signature_def, tags};
/// use graph_ops::{array, state};
/// # let folder = tempfile::tempdir().unwrap();
/// # let folder = folder.path().join("model");
/// let graph = Graph::new();
/// let _default = graph.as_default();
/// let x = array::placeholder::<f32>([None]).name("x").build()?;
/// let v = Variable::new(2.0f32).name("v").build()?;
/// let y = (&x * v.value())?;
/// let session = Session::new(&graph)?;
/// session.run(state::global_variables_initializer()?, ())?;
///
/// let mut builder = Builder::new(&folder)?;
/// let signature = predict_signature_def([("x", &x)], [("y", &y)]);
/// builder.add_meta_graph_and_variables(&session, [tags::SERVING], [("serving_default", signature)])?;
/// builder.save(false)?;
///
/// let other = Session::new(&Graph::new())?;
/// saved_model::load(&other, &[tags::SERVING], &folder)?;
/// let (x, y) = (other.graph().tensor("x")?, other.graph().tensor(&y.name())?);
/// assert_eq!(other.run::<Vec<f32>>(&y, feed! { x => [1.0f32, 3.0] })?, [2.0, 6.0]);
/// # Ok::<(), graph_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Builder {
    folder: PathBuf,
    model: SavedModel,
    main_op: Option<Operation>,
}

impl Builder {
    /// A SavedModel to be written into `folder`, which is made.
    ///
    /// # Errors
    /// `AlreadyExists` if there is such a folder and it is not empty, and whatever the operating system refuses.
    pub fn new(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref().to_path_buf();
        fs::create_dir_all(&folder).map_err(|error| Error::io(&folder, error))?;
        let mut entries = fs::read_dir(&folder).map_err(|error| Error::io(&folder, error))?;
        if entries.next().is_some() {
            return Err(
                Error::already_exists(format!("the folder {} is not empty", folder.display()))
                    .hint("a SavedModel is written into a folder of its own"),
            );
        }
        Ok(Self {
            folder,
            model: SavedModel {
                saved_model_schema_version: SCHEMA_VERSION,
                meta_graphs: Vec::new(),
            },
            main_op: None,
        })
    }

    /// The operation to run after the next graphs are loaded, such as one that fills tables.
    pub fn main_op(&mut self, operation: &Operation) -> &mut Self {
        self.main_op = Some(operation.clone());
        self
    }

    /// Adds the graph of `session` and saves the session's variables, both local and global. A saver for them is added to
    /// the graph.
    ///
    /// # Errors
    /// `FailedPrecondition` if variables are not initialized, if a graph was added before or if the graph is finalized;
    /// `InvalidArgument` without tags; those of [`graph_core::Graph::to_meta_graph`] and of the file system.
    pub fn add_meta_graph_and_variables<T: Into<String>, K: Into<String>>(
        &mut self,
        session: &Session,
        tags: impl IntoIterator<Item = T>,
        signatures: impl IntoIterator<Item = (K, SignatureDef)>,
    ) -> Result<()> {
        if !self.model.meta_graphs.is_empty() {
            return Err(Error::failed_precondition("the variables are saved already")
                .hint("add the other graphs with add_meta_graph"));
        }
        let graph = session.graph();
        let _default = graph.as_default();
        let mut variables = state::global_variables()?;
        variables.extend(state::local_variables()?);
        let saver = match variables.is_empty() {
            true => None,
            false => {
                let mut saver = Saver::new().variables(&variables).build()?;
                let folder = self.folder.join(VARIABLES);
                fs::create_dir_all(&folder).map_err(|error| Error::io(&folder, error))?;
                let options = SaveOptions {
                    write_meta_graph: false,
                    write_state: false,
                    ..SaveOptions::default()
                };
                saver.save_with(session, folder.join(VARIABLES), &options)?;
                Some(saver)
            }
        };
        self.add(session, tags, signatures, saver.as_ref())
    }

    /// Adds the graph of `session` once more, for other tags: the same variables under other signatures, or another graph of
    /// them.
    ///
    /// # Errors
    /// `FailedPrecondition` if none was added with its variables; else as for
    /// [`Builder::add_meta_graph_and_variables`].
    pub fn add_meta_graph<T: Into<String>, K: Into<String>>(
        &mut self,
        session: &Session,
        tags: impl IntoIterator<Item = T>,
        signatures: impl IntoIterator<Item = (K, SignatureDef)>,
    ) -> Result<()> {
        if self.model.meta_graphs.is_empty() {
            return Err(Error::failed_precondition("no variables are saved yet")
                .hint("add the first graph with add_meta_graph_and_variables"));
        }
        let _default = session.graph().as_default();
        let mut variables = state::global_variables()?;
        variables.extend(state::local_variables()?);
        let saver = match variables.is_empty() {
            true => None,
            false => Some(Saver::new().variables(&variables).build()?),
        };
        self.add(session, tags, signatures, saver.as_ref())
    }

    fn add<T: Into<String>, K: Into<String>>(
        &mut self,
        session: &Session,
        tags: impl IntoIterator<Item = T>,
        signatures: impl IntoIterator<Item = (K, SignatureDef)>,
        saver: Option<&Saver>,
    ) -> Result<()> {
        let graph = session.graph();
        let tags: Vec<String> = tags.into_iter().map(Into::into).collect();
        if tags.is_empty() {
            return Err(
                Error::invalid_argument("a graph of a SavedModel needs a tag").hint("tags::SERVING is the usual one")
            );
        }
        if let Some(main_op) = &self.main_op {
            for key in [MAIN_OP, LEGACY_INIT_OP] {
                if !graph.get_collection::<Operation>(key)?.is_empty() {
                    return Err(Error::failed_precondition(format!(
                        "the collection '{key}' already holds an operation to run after loading"
                    )));
                }
            }
            graph.add_to_collection(MAIN_OP, main_op);
        }
        let signatures: BTreeMap<String, SignatureDef> = signatures
            .into_iter()
            .map(|(key, signature)| (key.into(), signature))
            .collect();
        let mut meta: MetaGraphDef = graph.to_meta_graph(&MetaGraphOptions {
            tags,
            signatures,
            saver: saver.map(Saver::saver_def),
            ..MetaGraphOptions::default()
        })?;
        meta.asset_file_def = self.copy_assets(session)?;
        self.model.meta_graphs.push(meta);
        Ok(())
    }

    /// Copies the files that the tensors in the collection `asset_filepaths` name.
    fn copy_assets(&self, session: &Session) -> Result<Vec<AssetFileDef>> {
        let mut assets = Vec::new();
        for tensor in session.graph().get_collection::<Tensor>(ASSET_FILEPATHS)? {
            let value: Value = session.run(&tensor, ())?;
            let [path] = value.as_strings()? else {
                return Err(Error::invalid_argument("the name of an asset must be one string")
                    .got(value.shape())
                    .at(tensor.op().site()));
            };
            let path = PathBuf::from(String::from_utf8_lossy(path).into_owned());
            let filename = path.file_name().ok_or_else(|| {
                Error::invalid_argument(format!("'{}' is not the name of a file", path.display()))
                    .at(tensor.op().site())
            })?;
            let folder = self.folder.join(ASSETS);
            fs::create_dir_all(&folder).map_err(|error| Error::io(&folder, error))?;
            fs::copy(&path, folder.join(filename)).map_err(|error| Error::io(&path, error))?;
            assets.push(AssetFileDef {
                tensor_info: Some(build_tensor_info(&tensor)),
                filename: filename.to_string_lossy().into_owned(),
            });
        }
        Ok(assets)
    }

    /// Writes the graphs, as protobuf's binary or text format, when everything else is there: a folder with this file is
    /// whole. The path of the file.
    ///
    /// # Errors
    /// `FailedPrecondition` if no graph was added, and whatever the operating system refuses.
    pub fn save(&self, as_text: bool) -> Result<PathBuf> {
        if self.model.meta_graphs.is_empty() {
            return Err(Error::failed_precondition("the SavedModel holds no graph")
                .hint("add one with add_meta_graph_and_variables"));
        }
        let path = self.folder.join(if as_text { TEXT_FILE } else { FILE });
        write_message(&path, &self.model, as_text)?;
        Ok(path)
    }
}

/// Writes a SavedModel with one graph, for serving, and one signature, of these inputs and outputs.
///
/// # Errors
/// Those of [`Builder`].
pub fn simple_save<'a>(
    session: &Session,
    folder: impl AsRef<Path>,
    inputs: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
    outputs: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
) -> Result<()> {
    let mut builder = Builder::new(folder)?;
    let signature = predict_signature_def(inputs, outputs);
    let signatures = [(DEFAULT_SERVING_SIGNATURE_DEF_KEY, signature)];
    builder.add_meta_graph_and_variables(session, [tags::SERVING], signatures)?;
    builder.save(false).map(drop)
}
