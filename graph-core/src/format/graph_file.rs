//! Files that hold a graph, whatever their form: a GraphDef, a MetaGraph or a SavedModel, binary or text.

use std::fs;
use std::path::{Path, PathBuf};

use prost::Message;

use super::checkpoint::write_file;
use super::proto::{GraphDef, MetaGraphDef, SavedModel};
use super::{parse_message, text};
use crate::error::{Error, Result};

/// The names that a SavedModel's file has in its folder.
const SAVED_MODEL_FILES: [&str; 2] = ["saved_model.pb", "saved_model.pbtxt"];

/// What a file holds.
#[derive(Clone, Debug, PartialEq)]
pub enum GraphFile {
    /// A graph alone.
    GraphDef(Box<GraphDef>),
    /// A graph with its collections (`.meta`).
    MetaGraph(Box<MetaGraphDef>),
    /// Graphs with tags and signatures (`saved_model.pb`).
    SavedModel(SavedModel),
}

/// The three messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    GraphDef,
    MetaGraph,
    SavedModel,
}

impl GraphFile {
    /// Reads a file, or the SavedModel in a folder. What the file holds is told from its content; a name that ends in
    /// `.meta` is a MetaGraph's, and `saved_model.pb` a SavedModel's.
    ///
    /// # Errors
    /// Whatever the operating system refuses, and those of [`GraphFile::parse`], with the path.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let path = match path.is_dir() {
            true => saved_model_path(path)?,
            false => path.to_path_buf(),
        };
        let bytes = fs::read(&path).map_err(|error| Error::io(&path, error))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let kind = match () {
            () if name.ends_with(".meta") => Kind::MetaGraph,
            () if SAVED_MODEL_FILES.contains(&name.as_str()) => Kind::SavedModel,
            () => kind_of(&bytes),
        };
        parse_as(kind, &bytes).map_err(|error| error.context(format!("reading {}", path.display())))
    }

    /// Reads the bytes of a file, binary or text, of any of the three kinds.
    ///
    /// # Errors
    /// `DataLoss` for bytes that are none of them, `InvalidArgument` for a text that is not right.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        parse_as(kind_of(bytes), bytes)
    }

    /// `GraphDef`, `MetaGraph` or `SavedModel`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::GraphDef(_) => "GraphDef",
            Self::MetaGraph(_) => "MetaGraph",
            Self::SavedModel(_) => "SavedModel",
        }
    }

    /// The MetaGraphs: none of a GraphDef, one of a `.meta` file, all of a SavedModel.
    pub fn meta_graphs(&self) -> &[MetaGraphDef] {
        match self {
            Self::GraphDef(_) => &[],
            Self::MetaGraph(meta) => std::slice::from_ref(meta),
            Self::SavedModel(model) => &model.meta_graphs,
        }
    }

    /// The one MetaGraph: of a SavedModel with several the one for serving.
    ///
    /// # Errors
    /// `FailedPrecondition` for a GraphDef, and where there are several and not exactly one has the tag `serve`.
    pub fn meta_graph(&self) -> Result<&MetaGraphDef> {
        let tags = |meta: &MetaGraphDef| meta.meta_info_def.clone().unwrap_or_default().tags;
        match self.meta_graphs() {
            [] => Err(Error::failed_precondition(format!(
                "the file is a {}, which holds no MetaGraph",
                self.kind()
            ))),
            [meta] => Ok(meta),
            several => {
                let serving: Vec<_> = several
                    .iter()
                    .filter(|meta| tags(meta).iter().any(|tag| tag == "serve"))
                    .collect();
                match serving[..] {
                    [meta] => Ok(meta),
                    _ => Err(Error::failed_precondition("the SavedModel holds several graphs")
                        .expected("one with the tag 'serve'")
                        .got(
                            several
                                .iter()
                                .map(|m| format!("{:?}", tags(m)))
                                .collect::<Vec<_>>()
                                .join(", "),
                        )),
                }
            }
        }
    }

    /// The one graph.
    ///
    /// # Errors
    /// Those of [`GraphFile::meta_graph`], and `FailedPrecondition` for a MetaGraph without a graph.
    pub fn graph_def(&self) -> Result<&GraphDef> {
        match self {
            Self::GraphDef(graph) => Ok(graph),
            _ => self
                .meta_graph()?
                .graph_def
                .as_ref()
                .ok_or_else(|| Error::failed_precondition("the MetaGraph holds no graph")),
        }
    }

    /// Its bytes in protobuf's binary or text format.
    ///
    /// # Errors
    /// Those of [`text::to_text`].
    pub fn to_bytes(&self, text: bool) -> Result<Vec<u8>> {
        Ok(match (self, text) {
            (Self::GraphDef(message), false) => message.encode_to_vec(),
            (Self::MetaGraph(message), false) => message.encode_to_vec(),
            (Self::SavedModel(message), false) => message.encode_to_vec(),
            (Self::GraphDef(message), true) => text::to_text(message.as_ref())?.into_bytes(),
            (Self::MetaGraph(message), true) => text::to_text(message.as_ref())?.into_bytes(),
            (Self::SavedModel(message), true) => text::to_text(message)?.into_bytes(),
        })
    }

    /// Writes it in protobuf's binary or text format. The file appears complete or not at all.
    ///
    /// # Errors
    /// Whatever the operating system refuses, with the path.
    pub fn write(&self, path: impl AsRef<Path>, text: bool) -> Result<()> {
        write_file(path.as_ref(), &self.to_bytes(text)?)
    }
}

fn saved_model_path(folder: &Path) -> Result<PathBuf> {
    let mut paths = SAVED_MODEL_FILES.iter().map(|name| folder.join(name));
    paths.find(|path| path.is_file()).ok_or_else(|| {
        Error::not_found(format!("{}: the folder holds no saved_model.pb", folder.display()))
            .hint("name a file, or the folder of a SavedModel")
    })
}

fn parse_as(kind: Kind, bytes: &[u8]) -> Result<GraphFile> {
    if bytes.is_empty() {
        return Err(Error::data_loss("the file is empty").expected("a graph"));
    }
    Ok(match kind {
        Kind::GraphDef => GraphFile::GraphDef(Box::new(parse_message(bytes)?)),
        Kind::MetaGraph => GraphFile::MetaGraph(Box::new(parse_message(bytes)?)),
        Kind::SavedModel => GraphFile::SavedModel(parse_message(bytes)?),
    })
}

/// What the bytes most likely are. Only a SavedModel begins with a number; the text of each begins with one of its fields;
/// and bytes that are a MetaGraph with nodes are hardly ever a GraphDef too.
fn kind_of(bytes: &[u8]) -> Kind {
    const SCHEMA_VERSION: u8 = 1 << 3;
    if bytes.first() == Some(&SCHEMA_VERSION) {
        return Kind::SavedModel;
    }
    if let Some(kind) = first_word(bytes).and_then(kind_of_field) {
        return kind;
    }
    let good = |graph: &GraphDef| {
        graph
            .node
            .iter()
            .all(|node| !node.name.is_empty() && !node.op.is_empty())
    };
    match (GraphDef::decode(bytes), MetaGraphDef::decode(bytes)) {
        (Ok(graph), _) if good(&graph) => Kind::GraphDef,
        (_, Ok(meta)) if meta.graph_def.as_ref().is_some_and(good) => Kind::MetaGraph,
        _ => Kind::GraphDef,
    }
}

/// The kind that has a field of this name, for those that only one has.
fn kind_of_field(name: &str) -> Option<Kind> {
    match name {
        "node" | "library" | "version" | "versions" | "debug_info" => Some(Kind::GraphDef),
        "meta_info_def" | "graph_def" | "saver_def" | "collection_def" | "signature_def" | "asset_file_def"
        | "object_graph_def" => Some(Kind::MetaGraph),
        "saved_model_schema_version" | "meta_graphs" => Some(Kind::SavedModel),
        _ => None,
    }
}

/// The first word of a text, after spaces and comments.
fn first_word(bytes: &[u8]) -> Option<&str> {
    let mut rest = bytes.trim_ascii_start();
    while rest.first() == Some(&b'#') {
        let end = rest.iter().position(|&byte| byte == b'\n')?;
        rest = rest[end..].trim_ascii_start();
    }
    let end = rest
        .iter()
        .position(|byte| !byte.is_ascii_alphanumeric() && *byte != b'_')?;
    std::str::from_utf8(&rest[..end]).ok()
}

#[cfg(test)]
mod tests {
    use super::super::proto::meta_graph_def::MetaInfoDef;
    use super::super::proto::{NodeDef, OpDef, OpList, VersionDef};
    use super::*;

    fn graph() -> GraphDef {
        let node = |name: &str, op: &str| NodeDef {
            name: name.to_owned(),
            op: op.to_owned(),
            ..Default::default()
        };
        GraphDef {
            node: vec![node("x", "Placeholder"), node("y", "Unheard")],
            versions: Some(VersionDef {
                producer: 134,
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn meta(tag: &str) -> MetaGraphDef {
        let op = OpDef {
            name: "Placeholder".to_owned(),
            ..Default::default()
        };
        MetaGraphDef {
            meta_info_def: Some(MetaInfoDef {
                meta_graph_version: "1".to_owned(),
                stripped_op_list: Some(OpList { op: vec![op] }),
                tags: vec![tag.to_owned()],
                tensorflow_version: "1.15.0".to_owned(),
                ..Default::default()
            }),
            graph_def: Some(graph()),
            ..Default::default()
        }
    }

    fn all_kinds() -> [GraphFile; 5] {
        let model = |tags: &[&str]| SavedModel {
            saved_model_schema_version: 1,
            meta_graphs: tags.iter().map(|tag| meta(tag)).collect(),
        };
        let bare = MetaGraphDef {
            meta_info_def: None,
            ..meta("")
        };
        [
            GraphFile::GraphDef(Box::new(graph())),
            GraphFile::MetaGraph(Box::new(meta("train"))),
            GraphFile::MetaGraph(Box::new(bare)),
            GraphFile::SavedModel(model(&["serve"])),
            GraphFile::SavedModel(model(&["train", "serve"])),
        ]
    }

    #[test]
    fn a_file_tells_what_it_is() {
        for file in all_kinds() {
            for text in [false, true] {
                let bytes = file.to_bytes(text).unwrap();
                assert_eq!(GraphFile::parse(&bytes).unwrap(), file);
            }
            assert_eq!(*file.graph_def().unwrap(), graph());
        }
        let text = b"# a graph\n\n  node { name: \"x\" op: \"X\" }";
        assert_eq!(GraphFile::parse(text).unwrap().kind(), "GraphDef");
    }

    #[test]
    fn files_and_folders_are_read() {
        let dir = tempfile::tempdir().unwrap();
        for (index, file) in all_kinds().into_iter().enumerate() {
            let path = dir.path().join(format!("{index}.pb"));
            file.write(&path, false).unwrap();
            assert_eq!(GraphFile::read(&path).unwrap(), file);
        }
        let error = GraphFile::read(dir.path()).unwrap_err();
        assert!(error.to_string().contains("saved_model.pb"), "{error}");
        let [.., model] = all_kinds();
        model.write(dir.path().join("saved_model.pb"), false).unwrap();
        assert_eq!(GraphFile::read(dir.path()).unwrap(), model);
    }

    #[test]
    fn what_is_no_graph_is_refused() {
        for bytes in [&b""[..], &[0xff; 10], &graph().encode_to_vec()[..20], b"nonsense { }"] {
            assert!(GraphFile::parse(bytes).is_err(), "{bytes:?}");
        }
        let twins = SavedModel {
            saved_model_schema_version: 1,
            meta_graphs: vec![meta("a"), meta("b")],
        };
        let error = GraphFile::SavedModel(twins).graph_def().unwrap_err().to_string();
        assert!(error.contains("[\"a\"], [\"b\"]"), "{error}");
    }
}
