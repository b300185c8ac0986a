//! Arithmetic, comparison, reduction and matrix products.

mod add_n;
pub(crate) mod all_finite;
mod arg;
mod arithmetic;
#[cfg(feature = "full")]
mod bessel;
#[cfg(feature = "full")]
mod betainc;
pub(crate) mod broadcasting;
mod cast;
pub(crate) mod casts;
mod clip;
mod comparison;
mod complex;
mod confusion;
mod counting;
mod diagonal;
mod division;
pub(crate) mod elementwise;
mod exponential;
mod histogram;
mod logical;
mod matmul;
pub(crate) mod nodes;
pub(crate) mod powers;
mod quotients;
mod range;
mod reduction;
mod rounding;
mod scan;
mod segment;
mod select;
#[cfg(feature = "full")]
mod sets;
mod sparse;
mod special;
mod trigonometry;

pub use add_n::{AddN, accumulate_n, add_n};
pub use arg::{ArgExtremum, argmax, argmin};
pub use arithmetic::{add, maximum, minimum, multiply, multiply_no_nan, squared_difference, subtract};
#[cfg(feature = "full")]
pub use bessel::{bessel_i0e, bessel_i1e};
#[cfg(feature = "full")]
pub use betainc::betainc;
pub use cast::{Cast, bitcast, cast, saturate_cast, to_bfloat16, to_double, to_float, to_int32, to_int64};
pub use clip::{Clip, ClipByGlobalNorm, clip_by_average_norm, clip_by_global_norm, clip_by_norm, global_norm};
pub use comparison::{
    ApproximateEqual, Equality, approximate_equal, equal, greater, greater_equal, less, less_equal, not_equal,
};
pub use complex::{ComplexPart, angle, complex, conj, imag, real};
pub use confusion::{ConfusionMatrix, confusion_matrix};
pub use counting::{Bucketize, Cross, bucketize, cross};
pub use diagonal::{
    Diagonal, Eye, diag, diag_part, eye, matrix_band_part, matrix_diag, matrix_diag_part, matrix_set_diag, trace,
};
pub use exponential::{exp, expm1, log, log1p, sigmoid, tanh};
pub use histogram::{HistogramFixedWidth, histogram_fixed_width};
pub use logical::{
    LogicalXor, bitwise_and, bitwise_or, bitwise_xor, invert, left_shift, logical_and, logical_not, logical_or,
    logical_xor, right_shift,
};
pub use matmul::{MatMul, matmul};
pub(crate) use matmul::{device_product, product_of};
pub use powers::{abs, negative, reciprocal, rsqrt, sign, sqrt, square};
pub use quotients::{
    TrueDivide, atan2, div, div_no_nan, divide, floordiv, floormod, mod_, pow, realdiv, truediv, truncatediv,
    truncatemod, xdivy, xlogy,
};
pub use range::{LinSpace, Range, linspace, range};
pub use reduction::{
    CountNonzero, Reduce, ReduceLogSumExp, count_nonzero, reduce_all, reduce_any, reduce_euclidean_norm,
    reduce_logsumexp, reduce_max, reduce_mean, reduce_min, reduce_prod, reduce_sum,
};
pub use rounding::{ceil, floor, is_finite, is_inf, is_nan, rint, round};
pub use scan::{Scan, cumprod, cumsum, cumulative_logsumexp};
pub use segment::{
    Segment, segment_max, segment_mean, segment_min, segment_prod, segment_sum, sparse_segment_mean,
    sparse_segment_sqrt_n, sparse_segment_sum, unsorted_segment_max, unsorted_segment_min, unsorted_segment_prod,
    unsorted_segment_sum,
};
pub use select::{ClipByValue, clip_by_value, where_select, where_v2};
#[cfg(feature = "full")]
pub use sets::{SparseParts, dense_set_operation};
pub use sparse::{SparseTensorDenseAdd, SparseToDense, sparse_tensor_dense_add, sparse_to_dense};
pub use special::{digamma, erf, erfc, igamma, igammac, lgamma, polygamma, zeta};
pub use trigonometry::{acos, acosh, asin, asinh, atan, atanh, cos, cosh, sin, sinh, tan};

use graph_core::op::OpDefinition;

#[cfg(test)]
use crate::testing::{Case, GradientCase};

/// The family's op definitions.
pub(crate) const OPS: &[fn() -> OpDefinition] = &[
    matmul::definition,
    matmul::batch_mat_mul,
    matmul::batch_mat_mul_v2,
    matmul::sparse_mat_mul,
    histogram::definition,
    arg::arg_max,
    arg::arg_min,
    range::definition,
    range::lin_space,
    scan::cum_sum,
    scan::cum_prod,
    scan::cumulative_log_sum_exp,
    reduction::sum,
    reduction::mean,
    reduction::prod,
    reduction::min,
    reduction::max,
    reduction::all,
    reduction::any,
    reduction::euclidean_norm,
    diagonal::diag_op,
    diagonal::diag_part_op,
    diagonal::matrix_diag_op,
    diagonal::matrix_diag_part_op,
    diagonal::matrix_set_diag_op,
    diagonal::matrix_band_part_op,
    counting::bincount_op,
    counting::bucketize_op,
    counting::cross_op,
    segment::segment_sum_op,
    segment::segment_mean_op,
    segment::segment_prod_op,
    segment::segment_min_op,
    segment::segment_max_op,
    segment::unsorted_segment_sum_op,
    segment::unsorted_segment_prod_op,
    segment::unsorted_segment_min_op,
    segment::unsorted_segment_max_op,
    segment::sparse_sum,
    segment::sparse_mean,
    segment::sparse_sqrt_n,
    segment::sparse_mean_grad,
    segment::sparse_sqrt_n_grad,
    sparse::sparse_tensor_dense_add_op,
    sparse::sparse_to_dense_op,
    add_n::add_n_op,
    add_n::accumulate_n_v2,
    arithmetic::add_op,
    arithmetic::add_v2,
    arithmetic::sub,
    arithmetic::mul,
    arithmetic::mul_no_nan,
    arithmetic::squared_difference_op,
    arithmetic::maximum_op,
    arithmetic::minimum_op,
    broadcasting::broadcast_gradient_args,
    cast::cast_op,
    cast::bitcast_op,
    comparison::equal_op,
    comparison::not_equal_op,
    comparison::less_op,
    comparison::less_equal_op,
    comparison::greater_op,
    comparison::greater_equal_op,
    comparison::approximate_equal_op,
    complex::real_op,
    complex::imag_op,
    complex::complex_abs_op,
    complex::angle_op,
    complex::complex_op,
    complex::conj_op,
    division::real_div,
    division::div,
    division::truncate_div,
    division::floor_div,
    division::floor_mod,
    division::truncate_mod,
    division::mod_op,
    division::div_no_nan_op,
    division::pow_op,
    division::atan2_op,
    division::xdivy_op,
    division::xlogy_op,
    exponential::exp_op,
    exponential::expm1_op,
    exponential::log_op,
    exponential::log1p_op,
    exponential::sigmoid_op,
    exponential::sigmoid_grad,
    exponential::tanh_op,
    exponential::tanh_grad,
    logical::logical_and_op,
    logical::logical_or_op,
    logical::logical_not_op,
    logical::bitwise_and_op,
    logical::bitwise_or_op,
    logical::bitwise_xor_op,
    logical::left_shift_op,
    logical::right_shift_op,
    logical::invert_op,
    powers::neg,
    powers::abs_op,
    powers::sign_op,
    powers::square_op,
    powers::sqrt_op,
    powers::rsqrt_op,
    powers::reciprocal_op,
    powers::inv,
    powers::sqrt_grad,
    powers::rsqrt_grad,
    powers::reciprocal_grad,
    powers::inv_grad,
    rounding::floor_op,
    rounding::ceil_op,
    rounding::rint_op,
    rounding::round_op,
    rounding::is_nan_op,
    rounding::is_inf_op,
    rounding::is_finite_op,
    select::select_op,
    select::select_v2_op,
    select::clip_by_value_op,
    special::erf_op,
    special::erfc_op,
    special::lgamma_op,
    special::digamma_op,
    special::zeta_op,
    special::polygamma_op,
    special::igamma_op,
    special::igammac_op,
    special::igamma_grad_a_op,
    trigonometry::sin_op,
    trigonometry::cos_op,
    trigonometry::tan_op,
    trigonometry::asin_op,
    trigonometry::acos_op,
    trigonometry::atan_op,
    trigonometry::sinh_op,
    trigonometry::cosh_op,
    trigonometry::asinh_op,
    trigonometry::acosh_op,
    trigonometry::atanh_op,
];

/// Those that only the feature `full` has.
#[cfg(feature = "full")]
pub(crate) const MORE_OPS: &[fn() -> OpDefinition] = &[
    sets::dense_to_dense,
    sets::dense_to_sparse,
    sets::sparse_to_sparse,
    sets::set_size_op,
    bessel::i0e_op,
    bessel::i1e_op,
    betainc::definition,
];

/// The family's numeric test cases.
#[cfg(test)]
pub(crate) const CASES: &[fn() -> Vec<Case>] = &[
    matmul::cases,
    histogram::cases,
    arg::cases,
    range::cases,
    scan::cases,
    reduction::cases,
    diagonal::cases,
    counting::cases,
    segment::cases,
    sparse::cases,
    add_n::cases,
    arithmetic::cases,
    broadcasting::cases,
    cast::cases,
    comparison::cases,
    complex::cases,
    division::cases,
    exponential::cases,
    logical::cases,
    powers::cases,
    rounding::cases,
    select::cases,
    special::cases,
    trigonometry::cases,
];

/// The numeric test cases of those.
#[cfg(all(test, feature = "full"))]
pub(crate) const MORE_CASES: &[fn() -> Vec<Case>] = &[sets::cases, bessel::cases, betainc::cases];

/// The family's gradient test cases.
#[cfg(test)]
pub(crate) const GRADIENT_CASES: &[fn() -> Vec<GradientCase>] = &[
    matmul::gradient_cases,
    reduction::gradient_cases,
    scan::gradient_cases,
    diagonal::gradient_cases,
    counting::gradient_cases,
    segment::gradient_cases,
    sparse::gradient_cases,
    add_n::gradient_cases,
    arithmetic::gradient_cases,
    cast::gradient_cases,
    complex::gradient_cases,
    division::gradient_cases,
    exponential::gradient_cases,
    powers::gradient_cases,
    rounding::gradient_cases,
    select::gradient_cases,
    special::gradient_cases,
    trigonometry::gradient_cases,
];

/// The gradient test cases of those.
#[cfg(all(test, feature = "full"))]
pub(crate) const MORE_GRADIENT_CASES: &[fn() -> Vec<GradientCase>] = &[bessel::gradient_cases, betainc::gradient_cases];
