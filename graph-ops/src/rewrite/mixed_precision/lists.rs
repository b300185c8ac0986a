//! Which ops may be calculated in 16 bits: the lists of TensorFlow 1.15's `auto_mixed_precision`, where CUDA is 9.1 or later. It
//! calls them white (here allow), black (deny), gray (infer) and clear.

/// How far an op may be calculated in 16 bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Safe, and what the time goes into: always.
    Allow,
    /// Unsafe, and what follows from it is unsafe too: never.
    Deny,
    /// Safe unless it follows from something unsafe: where it lies between two that are allowed.
    Infer,
    /// Changes no number in a way that matters: where a neighbour is allowed.
    Clear,
}

/// What the lists say of an op, if it is in one.
pub(super) fn kind(op: &str) -> Option<Kind> {
    let lists = [
        (ALLOW, Kind::Allow),
        (DENY, Kind::Deny),
        (INFER, Kind::Infer),
        (CLEAR, Kind::Clear),
    ];
    let found = lists.into_iter().find(|(list, _)| list.contains(&op));
    found.map(|(_, kind)| kind)
}

#[rustfmt::skip]
pub(super) const ALLOW: &[&str] = &[
    "BatchMatMul", "BatchMatMulV2", "BlockLSTM", "BlockLSTMGrad", "Conv2D", "Conv2DBackpropFilter", "Conv2DBackpropInput",
    "CudnnRNN", "CudnnRNNBackprop", "CudnnRNNBackpropV2", "CudnnRNNBackpropV3", "CudnnRNNV2", "CudnnRNNV3", "GRUBlockCell",
    "GRUBlockCellGrad", "LSTMBlockCell", "LSTMBlockCellGrad", "MatMul",
];

#[rustfmt::skip]
pub(super) const DENY: &[&str] = &[
    "Exp", "Expm1", "L2Loss", "Log", "Log1p", "LogSoftmax", "Mean", "Pow", "SaveV2", "Softmax",
    "SoftmaxCrossEntropyWithLogits", "SparseSoftmaxCrossEntropyWithLogits", "Sum",
];

#[rustfmt::skip]
pub(super) const INFER: &[&str] = &[
    "Add", "AddN", "AddV2", "AvgPool", "AvgPool3D", "AvgPool3DGrad", "AvgPoolGrad", "BiasAdd", "BiasAddGrad", "BiasAddV1",
    "Elu", "EluGrad", "Erf", "Erfc", "FloorDiv", "FusedBatchNormGradV2", "FusedBatchNormGradV3", "FusedBatchNormV2",
    "FusedBatchNormV3", "Inv", "LeakyRelu", "LeakyReluGrad", "Mul", "Prod", "RealDiv", "Reciprocal", "Sigmoid",
    "SigmoidGrad", "Softplus", "SoftplusGrad", "Sqrt", "Sub", "Tanh", "TanhGrad", "_FusedBatchNormEx",
];

#[rustfmt::skip]
pub(super) const CLEAR: &[&str] = &[
    "Abs", "ArgMax", "ArgMin", "BatchToSpace", "BatchToSpaceND", "BroadcastTo", "Ceil", "CheckNumerics", "ClipByValue",
    "Concat", "ConcatV2", "DepthToSpace", "DynamicPartition", "DynamicStitch", "Enter", "EnsureShape", "Equal", "Exit",
    "ExpandDims", "Fill", "Floor", "Gather", "GatherNd", "GatherV2", "Greater", "GreaterEqual", "Identity", "IdentityN",
    "IsFinite", "IsInf", "IsNan", "Less", "LessEqual", "Max", "MaxPool", "MaxPool3D", "MaxPool3DGrad", "MaxPool3DGradGrad",
    "MaxPoolGrad", "MaxPoolGradGrad", "MaxPoolGradGradV2", "MaxPoolGradV2", "MaxPoolV2", "Maximum", "Merge", "Min",
    "Minimum", "MirrorPad", "MirrorPadGrad", "Neg", "NextIteration", "NotEqual", "OneHot", "OnesLike", "Pack", "Pad",
    "PadV2", "PreventGradient", "Rank", "Relu", "Relu6", "Relu6Grad", "ReluGrad", "Reshape", "ResizeNearestNeighbor",
    "ResizeNearestNeighborGrad", "Reverse", "ReverseSequence", "ReverseV2", "Round", "Select", "Shape", "ShapeN", "Sign",
    "Size", "Slice", "Snapshot", "SpaceToBatch", "SpaceToBatchND", "SpaceToDepth", "Split", "SplitV", "Squeeze",
    "StackPopV2", "StackPushV2", "StopGradient", "StridedSlice", "StridedSliceGrad", "Switch", "TensorArrayConcatV3",
    "TensorArrayGatherV3", "TensorArrayReadV3", "TensorArrayScatterV3", "TensorArraySplitV3", "TensorArrayWriteV3", "Tile",
    "TopK", "TopKV2", "Transpose", "Where", "ZerosLike",
];
