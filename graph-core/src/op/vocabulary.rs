//! The closed list of op names that the core emits or understands itself; what they compute is said in `graph-ops`.

/// A value known when the graph is built.
pub const CONST: &str = "Const";
/// A value that each run must feed.
pub const PLACEHOLDER: &str = "Placeholder";
/// Nothing, for control edges.
pub const NO_OP: &str = "NoOp";
/// Nothing, for control edges, and alive even where what it waits for is dead.
pub const CONTROL_TRIGGER: &str = "ControlTrigger";
/// Its input, as a node of its own.
pub const IDENTITY: &str = "Identity";
/// A sum of equal shapes, for gradients that meet.
pub const ADD_N: &str = "AddN";
/// A shape as a value.
pub const SHAPE: &str = "Shape";
/// A scalar spread over a shape, for the first gradient.
pub const FILL: &str = "Fill";
/// Zeros of another tensor's shape, for the gradient of an output that nothing depends on.
pub const ZEROS_LIKE: &str = "ZerosLike";
/// A variable of the session.
pub const VARIABLE: &str = "VariableV2";
/// A variable of the session, as graphs before TensorFlow 1.0 write it.
pub const VARIABLE_V1: &str = "Variable";
/// A handle of a variable of the session.
pub const VAR_HANDLE: &str = "VarHandleOp";
/// The value of the variable that a handle names.
pub const READ_VARIABLE: &str = "ReadVariableOp";
/// Sets the variable that a handle names.
pub const ASSIGN_VARIABLE: &str = "AssignVariableOp";
/// Whether the variable that a handle names is initialized.
pub const VAR_IS_INITIALIZED: &str = "VarIsInitializedOp";
/// Sets a variable.
pub const ASSIGN: &str = "Assign";
/// What the session puts in the place of a fed tensor; never leaves it.
pub const FEED: &str = "_Feed";
/// Whether a variable is initialized.
pub const IS_VARIABLE_INITIALIZED: &str = "IsVariableInitialized";
/// Another dtype, for integers that are divided.
pub const CAST: &str = "Cast";
/// The guard of a branch.
pub const SWITCH: &str = "Switch";
/// The end of branches.
pub const MERGE: &str = "Merge";

/// Whether an op of this name is a variable, whose value the session keeps.
pub fn is_variable(op: &str) -> bool {
    matches!(op, VARIABLE | VARIABLE_V1 | VAR_HANDLE)
}

/// The ops behind the arithmetic operators of tensors.
pub mod arithmetic {
    /// `a + b` of numbers
    pub const ADD: &str = "AddV2";
    /// `a + b` of strings
    pub const ADD_STRINGS: &str = "Add";
    /// `a - b`
    pub const SUB: &str = "Sub";
    /// `a * b`
    pub const MUL: &str = "Mul";
    /// `a / b`, of integers cast to floating-point numbers
    pub const REAL_DIV: &str = "RealDiv";
    /// `a % b`, with the sign of `b` as in Python
    pub const FLOOR_MOD: &str = "FloorMod";
    /// `-a`
    pub const NEG: &str = "Neg";
}
