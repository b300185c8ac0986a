//! Conversion of pictures between dtypes, each with its own range of brightness.

use graph_core::graph::{IntoOperand, Operand, Tensor};
use graph_core::{DType, Error, Result, Value};

use crate::composite::Composite;

/// A conversion about to be made; see [`convert_image_dtype`].
#[must_use = "an operation is made by `build`"]
pub struct ConvertImageDtype {
    image: Operand,
    dtype: DType,
    saturate: bool,
    name: Option<String>,
    site: Composite,
}

/// Pictures in another dtype, scaled to its range: floating-point brightness lies in [0, 1), an integer's between 0 and its
/// greatest number.
///
/// From floating-point to integers the factor is the greatest number plus a half and the cast truncates; what lies outside
/// [0, 1) overflows unless `.saturate(true)`.
#[track_caller]
pub fn convert_image_dtype(image: impl IntoOperand, dtype: DType) -> ConvertImageDtype {
    let image = image.into_operand();
    let site = Composite::of(&[&image]);
    ConvertImageDtype {
        image,
        dtype,
        saturate: false,
        name: None,
        site,
    }
}

impl ConvertImageDtype {
    /// Clips to the new dtype's range first.
    pub fn saturate(mut self, saturate: bool) -> Self {
        self.saturate = saturate;
        self
    }

    /// Names the operation.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Makes the operations.
    ///
    /// # Errors
    /// The image's own, and `InvalidArgument` for dtypes that are neither integers nor floating-point.
    pub fn build(self) -> Result<Tensor> {
        let site = &self.site;
        let image = site.tensor(&self.image, None, "image")?;
        let (from, to) = (image.dtype(), self.dtype);
        if from == to {
            return site
                .node("Identity")
                .input(&image)
                .name(self.name.as_deref().unwrap_or("Identity"))
                .build();
        }
        let scope = site.scope(self.name.as_deref().unwrap_or("convert_image"))?;
        let name = scope.scope_name();
        match (Range::of(from)?, Range::of(to)?) {
            (Range::Unit, Range::Unit) => cast(site, &image, to, &name),
            (Range::Integer { greatest, .. }, Range::Unit) => {
                let image = cast(site, &image, to, "Cast")?;
                site.binary("Mul", &image, 1.0 / greatest as f64, &name)
            }
            (Range::Unit, Range::Integer { greatest, .. }) => {
                let scaled = site.binary("Mul", &image, greatest as f64 + 0.5, "Mul")?;
                self.cast(&scaled, &name)
            }
            (Range::Integer { greatest: from, .. }, Range::Integer { greatest, .. }) if from > greatest => {
                let divisor = Value::scalar(((from + 1) / (greatest + 1)) as i64).cast_exactly(image.dtype())?;
                let scaled = site.binary("FloorDiv", &image, divisor, "div")?;
                self.cast(&scaled, &name)
            }
            (Range::Integer { greatest: from, .. }, Range::Integer { greatest, .. }) => {
                let image = self.cast(&image, if self.saturate { "saturate_cast" } else { "Cast" })?;
                let factor = Value::scalar(((greatest + 1) / (from + 1)) as i64).cast_exactly(to)?;
                site.binary("Mul", &image, factor, &name)
            }
        }
    }

    fn cast(&self, image: &Tensor, name: &str) -> Result<Tensor> {
        if self.saturate {
            saturate_cast(&self.site, image, self.dtype, name)
        } else {
            cast(&self.site, image, self.dtype, name)
        }
    }
}

impl IntoOperand for ConvertImageDtype {
    fn into_operand(self) -> Operand {
        self.build().into_operand()
    }
}

/// The range of brightness of a dtype.
enum Range {
    /// [0, 1)
    Unit,
    /// From 0; `least` is the dtype's own least number.
    Integer { least: i128, greatest: i128 },
}

impl Range {
    fn of(dtype: DType) -> Result<Self> {
        let (least, greatest) = match dtype {
            _ if dtype.is_floating() => return Ok(Self::Unit),
            DType::Int8 => (i8::MIN.into(), i8::MAX.into()),
            DType::Int16 => (i16::MIN.into(), i16::MAX.into()),
            DType::Int32 => (i32::MIN.into(), i32::MAX.into()),
            DType::Int64 => (i64::MIN.into(), i64::MAX.into()),
            DType::UInt8 => (0, u8::MAX.into()),
            DType::UInt16 => (0, u16::MAX.into()),
            DType::UInt32 => (0, u32::MAX.into()),
            DType::UInt64 => (0, u64::MAX.into()),
            _ => {
                return Err(
                    Error::invalid_argument("pictures are made of integers or floating-point numbers").got(dtype),
                );
            }
        };
        Ok(Self::Integer { least, greatest })
    }
}

fn cast(site: &Composite, image: &Tensor, dtype: DType, name: &str) -> Result<Tensor> {
    site.node("Cast").input(image).attr("DstT", dtype).name(name).build()
}

/// A cast whose input is clipped to the range of `dtype`.
fn saturate_cast(site: &Composite, image: &Tensor, dtype: DType, name: &str) -> Result<Tensor> {
    let scope = site.scope(name)?;
    let mut image = image.clone();
    if let Range::Integer { least, greatest } = Range::of(dtype)? {
        let (own_least, own_greatest) = match Range::of(image.dtype())? {
            Range::Integer { least, greatest } => (least, greatest),
            Range::Unit => (i128::MIN, i128::MAX),
        };
        let bound = |bound: i128, dtype: DType| match dtype.is_floating() {
            true => Value::scalar(bound as f64).cast_exactly(dtype),
            false => Value::scalar(bound as i64).cast_exactly(dtype),
        };
        if own_least < least {
            let least = site.constant(bound(least, image.dtype())?, "min")?;
            image = site.binary("Maximum", &image, &least, "Maximum")?;
        }
        if own_greatest > greatest {
            let greatest = site.constant(bound(greatest, image.dtype())?, "max")?;
            image = site.binary("Minimum", &image, &greatest, "Minimum")?;
        }
    }
    cast(site, &image, dtype, &scope.scope_name())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::array::constant;
    use crate::testing::listing;
    use graph_core::graph::Graph;
    use graph_core::session::Session;

    fn convert<T: graph_core::FromValue>(image: impl IntoOperand, dtype: DType, saturate: bool) -> T {
        let graph = Graph::new();
        let _default = graph.as_default();
        let converted = convert_image_dtype(image, dtype).saturate(saturate).build().unwrap();
        Session::new(&graph).unwrap().run(&converted, ()).unwrap()
    }

    #[test]
    fn brightness_is_scaled_to_the_range_of_the_dtype() {
        let bytes: Vec<u8> = convert([0.0f32, 0.5, 1.0], DType::UInt8, false);
        assert_eq!(bytes, [0, 127, 255]);
        let bytes: Vec<u8> = convert([-1.0f32, 0.5, 2.0], DType::UInt8, true);
        assert_eq!(bytes, [0, 127, 255]);
        let floats: Vec<f32> = convert([0u8, 51, 255], DType::Float32, false);
        assert_eq!(floats, [0.0, 51.0 * (1.0 / 255.0), 1.0]);
        let words: Vec<i32> = convert([1u8, 255], DType::Int32, false);
        assert_eq!(words, [1 << 23, 255 << 23]);
        let bytes: Vec<u8> = convert([1 << 23, i32::MAX], DType::UInt8, false);
        assert_eq!(bytes, [1, 255]);
        let doubles: Vec<f64> = convert([0.5f32], DType::Float64, false);
        assert_eq!(doubles, [0.5]);
        assert!(convert_image_dtype(true, DType::Float32).build().is_err());
    }

    #[test]
    fn the_nodes_are_tensorflows() {
        let graph = Graph::new();
        let _default = graph.as_default();
        let image = constant([0.5f32]).name("x").build().unwrap();
        convert_image_dtype(&image, DType::UInt8).build().unwrap();
        let expected = [
            "Const convert_image/Mul/y <- ",
            "Mul convert_image/Mul <- x, convert_image/Mul/y",
            "Cast convert_image <- convert_image/Mul",
        ];
        assert_eq!(listing(&graph)[1..], expected);
        let same = convert_image_dtype(&image, DType::Float32).build().unwrap();
        assert_eq!(same.op().op_type(), "Identity");
    }
}
