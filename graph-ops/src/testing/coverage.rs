//! Which ops have no CUDA kernel, and why: a closed list, held against the registry and against `docs/cuda.md`.

use std::collections::BTreeMap;

use graph_core::op::OpDefinition;
use graph_core::op::kernel::DeviceKind;

/// Reasons, and the ops that each holds for.
#[rustfmt::skip]
const WITHOUT: &[(&str, &[&str])] = &[
    (
        "what is shown to people, strings and files",
        &["Assert", "HistogramSummary", "ImageSummary", "MergeSummary", "MergeV2Checkpoints", "Print", "PrintV2", "RegexFullMatch", "RestoreV2", "SaveV2", "ScalarSummary", "ShardedFilename", "ShardedFilespec", "StaticRegexFullMatch", "StringFormat", "StringJoin"],
    ),
    (
        "they decide what runs, or make and drop lists of tensors: the schedule's, which is the host's",
        &["Abort", "ControlTrigger", "Merge", "NoOp", "RefMerge", "RefSwitch", "StackCloseV2", "StackV2", "Switch", "TensorArrayCloseV3", "TensorArrayV3"],
    ),
    (
        "the engine brings what they stand for to the GPU itself: feeds, constants, variables and their handles",
        &["Const", "CountUpTo", "DestroyResourceOp", "IsVariableInitialized", "Placeholder", "PlaceholderV2", "ReadVariableOp", "ResourceCountUpTo", "VarHandleOp", "VarIsInitializedOp", "Variable", "VariableV2"],
    ),
    (
        "shapes, axes and ranges, which are worked out when a plan is made, or by the host",
        &["BroadcastArgs", "BroadcastGradientArgs", "ConcatOffset", "InvertPermutation", "LinSpace", "Range", "Rank", "Shape", "ShapeN", "Size", "VariableShape"],
    ),
    (
        "sets, of which only the data tells the result's shape",
        &["DenseToDenseSetOperation", "DenseToSparseSetOperation", "ListDiff", "SparseToSparseSetOperation", "Unique", "UniqueV2", "UniqueWithCounts", "UniqueWithCountsV2"],
    ),
    (
        "what they are for is an error that the data decides, and a GPU's kernel cannot come back with one",
        &["TruncateDiv"],
    ),
    (
        "complex numbers, which no kernel calculates with",
        &["Angle", "Complex", "ComplexAbs", "Conj", "Imag", "Real"],
    ),
    (
        "TensorFlow 1.15 has none either",
        &["AllCandidateSampler", "CholeskyGrad", "ComputeAccidentalHits", "FixedUnigramCandidateSampler", "LearnedUnigramCandidateSampler", "LogUniformCandidateSampler", "MatrixSolveLs", "NthElement", "RandomGamma", "RandomShuffle", "ScaleAndTranslate", "ScaleAndTranslateGrad", "SetSize", "ThreadUnsafeUnigramCandidateSampler", "UniformCandidateSampler"],
    ),
    (
        "orthogonal factorizations, which would be cuSOLVER's",
        &["Qr", "SelfAdjointEig", "SelfAdjointEigV2", "Svd"],
    ),
];

/// The table of `docs/cuda.md`.
fn table() -> String {
    let mut table = String::from("| why | ops |\n|---|---|\n");
    for (reason, ops) in WITHOUT {
        let ops: Vec<String> = ops.iter().map(|op| format!("`{op}`")).collect();
        table.push_str(&format!("| {reason} | {} |\n", ops.join(", ")));
    }
    table
}

/// Whether a kernel of the op runs on a GPU.
fn runs_there(op: &OpDefinition) -> bool {
    let mut kernels = op.kernels.iter();
    kernels.any(|kernel| kernel.device == DeviceKind::Cuda || kernel.alias.is_some())
}

#[test]
fn every_op_has_a_cuda_kernel_or_a_reason_to_have_none() {
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for op in WITHOUT.iter().flat_map(|(_, ops)| ops.iter().copied()) {
        *reasons.entry(op).or_default() += 1;
    }
    let mut wrong = Vec::new();
    // What loops are made of has no kernel anywhere.
    for op in crate::install().ops().into_iter().filter(|op| !op.kernels.is_empty()) {
        match (runs_there(op), reasons.remove(op.name)) {
            (true, Some(_)) => wrong.push(format!("{} has a CUDA kernel", op.name)),
            (false, None) => wrong.push(format!("{} has neither a CUDA kernel nor a reason", op.name)),
            (false, Some(count)) if count > 1 => wrong.push(format!("{} has {count} reasons", op.name)),
            _ => {}
        }
    }
    wrong.extend(reasons.into_keys().map(|op| format!("there is no op {op}")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_documentation_says_which_ops_have_no_cuda_kernel() {
    let text = include_str!("../../../docs/cuda.md");
    let (_, rest) = text
        .split_once("<!-- begin: ops without a CUDA kernel -->\n")
        .expect("where the table begins");
    let (told, _) = rest.split_once("<!-- end -->").expect("where it ends");
    assert_eq!(told, table(), "docs/cuda.md is to have this table:\n{}", table());
}
