//! Collections: lists of things kept with the graph under a key.

use crate::graph::{Operation, Tensor};
use crate::variable::Variable;

/// The keys that the library itself uses; any other key is the user's.
pub mod keys {
    /// All variables that a session initializes and a checkpoint saves.
    pub const GLOBAL_VARIABLES: &str = "variables";
    /// Variables that belong to one process.
    pub const LOCAL_VARIABLES: &str = "local_variables";
    /// The variables that optimizers update.
    pub const TRAINABLE_VARIABLES: &str = "trainable_variables";
    /// Summaries, for `merge_all`.
    pub const SUMMARIES: &str = "summaries";
    /// Losses to add up.
    pub const LOSSES: &str = "losses";
    /// Losses that keep weights small.
    pub const REGULARIZATION_LOSSES: &str = "regularization_losses";
    /// Operations to run with a training step.
    pub const UPDATE_OPS: &str = "update_ops";
    /// The operations of training steps.
    pub const TRAIN_OP: &str = "train_op";
    /// The counter of training steps.
    pub const GLOBAL_STEP: &str = "global_step";
    /// The contexts of `cond`.
    pub const COND_CONTEXT: &str = "cond_context";
}

/// A thing in a collection.
#[derive(Clone, Debug, PartialEq)]
pub enum CollectionItem {
    /// A tensor.
    Tensor(Tensor),
    /// An operation.
    Operation(Operation),
    /// A variable.
    Variable(Variable),
    /// Bytes, such as a message of an imported graph.
    Bytes(Vec<u8>),
    /// A number.
    Int(i64),
    /// A number.
    Float(f32),
}

impl From<&CollectionItem> for CollectionItem {
    fn from(item: &CollectionItem) -> Self {
        item.clone()
    }
}

/// A type of thing that collections hold.
pub trait Collectable: Sized {
    /// The thing as an item.
    fn to_item(&self) -> CollectionItem;
    /// The thing in the item, if it is of this type. A variable is also the tensor of its value.
    fn from_item(item: &CollectionItem) -> Option<Self>;
}

impl Collectable for CollectionItem {
    fn to_item(&self) -> CollectionItem {
        self.clone()
    }
    fn from_item(item: &CollectionItem) -> Option<Self> {
        Some(item.clone())
    }
}

impl Collectable for Tensor {
    fn to_item(&self) -> CollectionItem {
        CollectionItem::Tensor(self.clone())
    }
    fn from_item(item: &CollectionItem) -> Option<Self> {
        match item {
            CollectionItem::Tensor(tensor) => Some(tensor.clone()),
            CollectionItem::Variable(variable) => Some(variable.value().clone()),
            _ => None,
        }
    }
}

impl Collectable for Operation {
    fn to_item(&self) -> CollectionItem {
        CollectionItem::Operation(self.clone())
    }
    fn from_item(item: &CollectionItem) -> Option<Self> {
        match item {
            CollectionItem::Operation(operation) => Some(operation.clone()),
            _ => None,
        }
    }
}

impl Collectable for Variable {
    fn to_item(&self) -> CollectionItem {
        CollectionItem::Variable(self.clone())
    }
    fn from_item(item: &CollectionItem) -> Option<Self> {
        match item {
            CollectionItem::Variable(variable) => Some(variable.clone()),
            _ => None,
        }
    }
}
