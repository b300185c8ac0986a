//! Pictures: tensors of shape [batch, rows, columns, channels]. All ops are of the feature `full`.

#[cfg(feature = "full")]
mod bicubic;
#[cfg(feature = "full")]
mod bilinear;
#[cfg(feature = "full")]
mod color;
mod convert;
#[cfg(feature = "full")]
mod crop;
#[cfg(feature = "full")]
mod nearest;
#[cfg(feature = "full")]
mod patches;
#[cfg(feature = "full")]
mod resize;
#[cfg(feature = "full")]
mod translate;

#[cfg(feature = "full")]
pub use bicubic::{ResizeBicubic, resize_bicubic};
#[cfg(feature = "full")]
pub use bilinear::{ResizeBilinear, resize_bilinear};
#[cfg(feature = "full")]
pub use color::{adjust_contrast, adjust_hue, adjust_saturation, hsv_to_rgb, rgb_to_hsv};
pub use convert::{ConvertImageDtype, convert_image_dtype};
#[cfg(feature = "full")]
pub use crop::{CropAndResize, crop_and_resize};
#[cfg(feature = "full")]
pub use nearest::{ResizeArea, ResizeNearestNeighbor, resize_area, resize_nearest_neighbor};
#[cfg(feature = "full")]
pub use patches::{ExtractImagePatches, extract_image_patches};
#[cfg(feature = "full")]
pub use translate::{ScaleAndTranslate, scale_and_translate};

#[cfg(feature = "full")]
use graph_core::op::OpDefinition;

#[cfg(all(test, feature = "full"))]
use crate::testing::{Case, GradientCase};

/// The family's op definitions.
#[cfg(feature = "full")]
pub(crate) const OPS: &[fn() -> OpDefinition] = &[
    bicubic::resize_op,
    bicubic::grad_op,
    bilinear::resize_op,
    bilinear::grad_op,
    color::rgb_to_hsv_op,
    color::hsv_to_rgb_op,
    color::adjust_hue_op,
    color::adjust_saturation_op,
    color::adjust_contrast_op,
    crop::crop_op,
    crop::grad_image_op,
    crop::grad_boxes_op,
    nearest::resize_op,
    nearest::grad_op,
    nearest::area_op,
    patches::definition,
    translate::translate_op,
    translate::grad_op,
];

/// The family's numeric test cases.
#[cfg(all(test, feature = "full"))]
pub(crate) const CASES: &[fn() -> Vec<Case>] = &[
    bicubic::cases,
    bilinear::cases,
    color::cases,
    crop::cases,
    nearest::cases,
    patches::cases,
    translate::cases,
];

/// The family's gradient test cases.
#[cfg(all(test, feature = "full"))]
pub(crate) const GRADIENT_CASES: &[fn() -> Vec<GradientCase>] = &[
    bicubic::gradient_cases,
    bilinear::gradient_cases,
    color::gradient_cases,
    crop::gradient_cases,
    nearest::gradient_cases,
    patches::gradient_cases,
    translate::gradient_cases,
];
