//! Making, shaping, joining and taking apart tensors.

pub(crate) mod axis;
mod bounds;
mod broadcast;
mod check_numerics;
mod concat;
mod constant;
mod dynamic;
mod fill;
pub(crate) mod gather;
mod identity;
mod inplace;
mod mirror_pad;
pub(crate) mod moving;
mod one_hot;
mod pack;
mod pad;
mod parallel_concat;
mod placeholder;
mod reshape;
mod reverse;
pub(crate) mod scatter_nd;
mod sequence_mask;
mod shape;
pub(crate) mod shape_of;
mod slice;
mod space;
mod split;
pub(crate) mod strided_slice;
pub(crate) mod tables;
mod tile;
mod transpose;
mod unique;
mod where_true;

pub use bounds::{lower_bound, upper_bound};
pub use broadcast::{broadcast_dynamic_shape, broadcast_to};
pub use check_numerics::check_numerics;
pub use concat::{Concat, concat};
pub use constant::{Constant, constant};
pub use dynamic::{dynamic_partition, dynamic_stitch};
pub use fill::{Filled, FilledLike, fill, ones, ones_like, zeros, zeros_like};
pub use gather::{Gather, gather};
pub use identity::{ensure_shape, identity, identity_n, prevent_gradient, stop_gradient};
pub use inplace::{deep_copy, inplace_add, inplace_sub, inplace_update};
pub use one_hot::{OneHot, one_hot};
pub use pack::{Stacked, Unstacked, stack, unstack};
pub use pad::{Pad, pad};
pub use parallel_concat::parallel_stack;
pub use placeholder::{Placeholder, placeholder, placeholder_of, placeholder_with_default};
pub use reshape::{Squeeze, expand_dims, reshape, squeeze};
pub use reverse::{ReverseSequence, reverse, reverse_sequence, roll};
pub use scatter_nd::{gather_nd, scatter_nd, tensor_scatter_add, tensor_scatter_sub, tensor_scatter_update};
pub use sequence_mask::{SequenceMask, sequence_mask};
pub use shape::{ShapeQuery, rank, shape, shape_n, size};
pub use slice::slice;
pub use space::{batch_to_space_nd, depth_to_space, space_to_batch_nd, space_to_depth};
pub use split::{Split, split, split_sizes};
pub use strided_slice::{Index, StridedIndex, StridedSlice, index, strided_slice};
pub use tile::tile;
pub use transpose::{Transpose, invert_permutation, transpose};
pub use unique::{setdiff1d, unique, unique_with_counts};
pub use where_true::{BooleanMask, boolean_mask, where_true};

use graph_core::op::OpDefinition;

#[cfg(test)]
use crate::testing::{Case, GradientCase};

/// The family's op definitions.
pub(crate) const OPS: &[fn() -> OpDefinition] = &[
    constant::definition,
    placeholder::placeholder_definition,
    placeholder::placeholder_v2_definition,
    placeholder::with_default_definition,
    identity::definition,
    identity::identity_n_definition,
    identity::snapshot_definition,
    identity::guarantee_const_definition,
    identity::debug_gradient_identity_definition,
    identity::stop_gradient_definition,
    identity::prevent_gradient_definition,
    identity::ensure_shape_definition,
    shape::shape_definition,
    shape::shape_n_definition,
    shape::size_definition,
    shape::rank_definition,
    reshape::reshape_definition,
    reshape::expand_dims_definition,
    reshape::squeeze_definition,
    fill::fill_definition,
    fill::zeros_like_definition,
    fill::ones_like_definition,
    slice::definition,
    concat::concat_definition,
    concat::concat_v2_definition,
    concat::concat_offset_definition,
    pack::pack_definition,
    pack::unpack_definition,
    pad::pad_definition,
    pad::pad_v2_definition,
    tile::definition,
    transpose::transpose_definition,
    transpose::conjugate_transpose_definition,
    transpose::invert_permutation_definition,
    strided_slice::definition,
    strided_slice::grad_definition,
    split::split_definition,
    split::split_v_definition,
    gather::gather_definition,
    gather::gather_v2_definition,
    scatter_nd::gather_nd_definition,
    scatter_nd::scatter_nd_definition,
    scatter_nd::update_definition,
    scatter_nd::add_definition,
    scatter_nd::sub_definition,
    scatter_nd::non_aliasing_add_definition,
    one_hot::definition,
    where_true::definition,
    mirror_pad::definition,
    mirror_pad::grad_definition,
    reverse::reverse_definition,
    reverse::reverse_v2_definition,
    reverse::reverse_sequence_definition,
    reverse::roll_definition,
    unique::unique_definition,
    unique::unique_with_counts_definition,
    unique::unique_v2_definition,
    unique::unique_with_counts_v2_definition,
    unique::list_diff_definition,
    broadcast::to_definition,
    broadcast::args_definition,
    space::space_to_batch_definition,
    space::space_to_batch_nd_definition,
    space::batch_to_space_definition,
    space::batch_to_space_nd_definition,
    space::space_to_depth_definition,
    space::depth_to_space_definition,
    dynamic::stitch_definition,
    dynamic::parallel_stitch_definition,
    dynamic::partition_definition,
    check_numerics::definition,
    bounds::lower_definition,
    bounds::upper_definition,
    inplace::deep_copy_definition,
    inplace::update_definition,
    inplace::add_definition,
    inplace::sub_definition,
    parallel_concat::definition,
];

/// The family's numeric test cases.
#[cfg(test)]
pub(crate) const CASES: &[fn() -> Vec<Case>] = &[
    constant::cases,
    placeholder::cases,
    identity::cases,
    shape::cases,
    reshape::cases,
    fill::cases,
    slice::cases,
    concat::cases,
    pack::cases,
    pad::cases,
    tile::cases,
    transpose::cases,
    strided_slice::cases,
    split::cases,
    gather::cases,
    scatter_nd::cases,
    one_hot::cases,
    where_true::cases,
    mirror_pad::cases,
    reverse::cases,
    unique::cases,
    broadcast::cases,
    space::cases,
    dynamic::cases,
    check_numerics::cases,
    bounds::cases,
    inplace::cases,
    parallel_concat::cases,
];

/// The family's gradient test cases.
#[cfg(test)]
pub(crate) const GRADIENT_CASES: &[fn() -> Vec<GradientCase>] = &[
    placeholder::gradient_cases,
    identity::gradient_cases,
    reshape::gradient_cases,
    fill::gradient_cases,
    slice::gradient_cases,
    concat::gradient_cases,
    pack::gradient_cases,
    pad::gradient_cases,
    tile::gradient_cases,
    transpose::gradient_cases,
    strided_slice::gradient_cases,
    split::gradient_cases,
    gather::gradient_cases,
    scatter_nd::gradient_cases,
    mirror_pad::gradient_cases,
    reverse::gradient_cases,
    broadcast::gradient_cases,
    space::gradient_cases,
    dynamic::gradient_cases,
    check_numerics::gradient_cases,
];
