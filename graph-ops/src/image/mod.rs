//! Pictures.

mod convert;

pub use convert::{ConvertImageDtype, convert_image_dtype};
