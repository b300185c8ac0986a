//! `ExtractImagePatches`: the windows of pictures, each as one long pixel.

#[cfg(test)]
use graph_core::DType;
use graph_core::gradients::GradientContext;
use graph_core::graph::{IntoOperand, Operand, Tensor};
use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{Dim, Error, PartialShape, Result, Value, typed_builder};
use graph_cuda::Source;

use crate::array::moving::{Movement, Word, plan};
use crate::cpu::window::{Padding, Window};
use crate::cuda::launch::{Launch, Work};
use crate::cuda::window::{joined_source, window_numbers};
use crate::cuda::{SIZED, word_of};
use crate::math::nodes::Nodes;

/// `ExtractImagePatches`
pub(crate) fn definition() -> OpDefinition {
    OpDefinition::new(
        "ExtractImagePatches",
        "The windows that slide over pictures, each laid out along the channels; zeros outside of the pictures.",
    )
    .input("images: T")
    .output("patches: T")
    .attr("ksizes: list(int) >= 4")
    .attr("strides: list(int) >= 4")
    .attr("rates: list(int) >= 4")
    .attr(
        "T: {bfloat16, half, float, double, int8, int16, int32, int64, uint8, uint16, uint32, uint64, complex64, complex128, \
         bool}",
    )
    .attr("padding: {'SAME', 'VALID'}")
    .shape(shape)
    .gradient(gradient)
    .kernel(KernelDefinition::cpu(kernel))
    .kernel(KernelDefinition::cuda(on_device).types("T", SIZED))
}

/// How windows slide over rows and columns.
struct Sliding {
    sizes: [usize; 2],
    strides: [usize; 2],
    rates: [usize; 2],
    padding: Padding,
}

impl Sliding {
    fn of(read: impl Fn(&str) -> Result<Vec<i64>>, padding: &str) -> Result<Self> {
        let two = |name: &str| {
            let list = read(name)?;
            let wrong = || {
                Error::invalid_argument(format!(
                    "{name} must be four positive numbers, 1 for batch and channels"
                ))
                .got(format!("{list:?}"))
            };
            match list.as_slice() {
                &[1, rows, columns, 1] if rows > 0 && columns > 0 => Ok([rows as usize, columns as usize]),
                _ => Err(wrong()),
            }
        };
        Ok(Self {
            sizes: two("ksizes")?,
            strides: two("strides")?,
            rates: two("rates")?,
            padding: if padding == "SAME" {
                Padding::Same
            } else {
                Padding::Valid
            },
        })
    }

    fn window(&self, axis: usize, pixels: usize) -> Result<Window> {
        Window::new(
            pixels,
            self.sizes[axis],
            self.strides[axis],
            self.rates[axis],
            self.padding,
        )
        .ok_or_else(|| {
            Error::invalid_argument("the windows are larger than the pictures")
                .expected(format!("at most {pixels} pixels"))
                .got(format!("{} taps, {} pixels apart", self.sizes[axis], self.rates[axis]))
        })
    }
}

fn shape(context: &mut InferenceContext<'_>) -> Result<()> {
    let images = context.with_rank(0, 4)?;
    let sliding = Sliding::of(|name| context.attr(name), &context.attr::<String>("padding")?)?;
    let along = |axis: usize| -> Result<Dim> {
        match images.dim(1 + axis) {
            Some(pixels) => Ok(Some(sliding.window(axis, pixels)?.output)),
            None => Ok(None),
        }
    };
    let channels = images
        .dim(3)
        .map(|channels| channels * sliding.sizes[0] * sliding.sizes[1]);
    context.set_output(0, PartialShape::from([images.dim(0), along(0)?, along(1)?, channels]));
    Ok(())
}

struct Patches {
    batch: usize,
    channels: usize,
    rows: Window,
    columns: Window,
}

fn on_device(request: &KernelRequest<'_>) -> Result<Planned> {
    const SOURCE: Source = joined_source!("patches.cu": "../cuda/window.cuh", "patches.cu");
    let patches = Patches::new(request)?;
    let (_, word) = word_of(request.input_dtype(0))?;
    let windows = [&patches.rows, &patches.columns].into_iter().flat_map(window_numbers);
    let structure: Vec<usize> = windows.chain([patches.channels]).collect();
    let n = request.output_shape(0)?.num_elements();
    let launch = Launch::new(request, &SOURCE, "extract", &[("W", word)], Work::Elements(n), &[n])?;
    Ok(launch.with_structure(&structure).over(&[0]))
}

fn kernel(request: &KernelRequest<'_>) -> Result<Planned> {
    plan(request, [0], Patches::new(request)?)
}

impl Patches {
    fn new(request: &KernelRequest<'_>) -> Result<Self> {
        let sliding = Sliding::of(|name| request.attr(name), &request.attr::<String>("padding")?)?;
        let &[batch, rows, columns, channels] = request.input_shape(0).dims() else {
            return Err(Error::invalid_argument("pictures must have four axes").got(request.input_shape(0)));
        };
        Ok(Self {
            batch,
            channels,
            rows: sliding.window(0, rows)?,
            columns: sliding.window(1, columns)?,
        })
    }
}

impl Movement for Patches {
    fn run<T: Word>(&self, _: &KernelContext<'_>, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        if self.channels == 0 {
            return Ok(());
        }
        let mut out = outputs[0].chunks_exact_mut(self.channels);
        let pixel = |window: &Window, index: usize, tap: usize| {
            let place = (index * window.stride + tap * window.dilation).checked_sub(window.before)?;
            (place < window.input).then_some(place)
        };
        let [rows, columns] = [&self.rows, &self.columns];
        for picture in 0..self.batch {
            for y in 0..rows.output {
                for x in 0..columns.output {
                    for i in 0..rows.size {
                        let row = pixel(rows, y, i);
                        for j in 0..columns.size {
                            let Some(out) = out.next() else { return Ok(()) };
                            match row.zip(pixel(columns, x, j)) {
                                Some((row, column)) => {
                                    let at = (picture * rows.input + row) * columns.input + column;
                                    out.copy_from_slice(&inputs[0][at * self.channels..][..self.channels]);
                                }
                                None => out.fill(T::default()),
                            }
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

/// The patches of the pixels' numbers say where each element of the gradient belongs; those of the padding are number 0.
fn gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let nodes = Nodes::of(context);
    let (images, gradient) = (context.input(0), context.gradient(0)?);
    let sizes: Vec<i64> = context.attr("ksizes")?;
    let shape = nodes.shape(&images)?;
    let of = |index: i32| nodes.at_index(&shape, index);
    let [batch, rows, columns, channels] = [of(0)?, of(1)?, of(2)?, of(3)?];
    let pixels = nodes.mul(&rows, &columns)?;
    let count = nodes.add(&pixels, 1i32)?;
    let vector = |dims: Vec<Operand>| nodes.stack(dims);
    let numbers = nodes.range(1, &count)?;
    let picture = vector(vec![
        1i32.into_operand(),
        (&rows).into_operand(),
        (&columns).into_operand(),
        1i32.into_operand(),
    ])?;
    let numbers = nodes.reshape(&numbers, &picture)?;
    let mut node = nodes.node("ExtractImagePatches").input(&numbers);
    for name in ["ksizes", "strides", "rates", "padding"] {
        node = node.attr(name, context.attr_value(name)?);
    }
    let places = nodes.reshape(&node.build()?, Value::from([-1i32]))?;
    // [batch, windows, taps, channels] becomes [windows, taps, batch, channels].
    let taps = (sizes[1] * sizes[2]) as i32;
    let split = vector(vec![
        (&batch).into_operand(),
        (-1i32).into_operand(),
        taps.into_operand(),
        (&channels).into_operand(),
    ])?;
    let split = nodes.reshape(&gradient, &split)?;
    let turned = nodes
        .node("Transpose")
        .input(&split)
        .input(Value::from([1i32, 2, 0, 3]))
        .build()?;
    let row = nodes.mul(&batch, &channels)?;
    let flat = nodes.reshape(&turned, &vector(vec![(-1i32).into_operand(), row.into_operand()])?)?;
    let sums = nodes
        .node("UnsortedSegmentSum")
        .input(&flat)
        .input(&places)
        .input(&count)
        .build()?;
    let inside = nodes.slice(&sums, Some(1), None)?;
    let shaped = vector(vec![
        rows.into_operand(),
        columns.into_operand(),
        batch.into_operand(),
        channels.into_operand(),
    ])?;
    let shaped = nodes.reshape(&inside, &shaped)?;
    let back = nodes
        .node("Transpose")
        .input(&shaped)
        .input(Value::from([2i32, 0, 1, 3]));
    Ok(vec![Some(back.build()?)])
}

typed_builder! {
    /// Patches about to be extracted; see [`extract_image_patches`].
    pub struct ExtractImagePatches;
}

impl ExtractImagePatches {
    /// The size of a patch along each axis; 1 for the batch and the channels. Required.
    pub fn ksizes(self, sizes: [i64; 4]) -> Self {
        Self(self.0.attr("ksizes", sizes))
    }

    /// Pixels from one patch to the next, for each axis; 1 for the batch and the channels. Required.
    pub fn strides(self, strides: [i64; 4]) -> Self {
        Self(self.0.attr("strides", strides))
    }

    /// Pixels from one element of a patch to the next, for each axis; 1 for the batch and the channels. Required.
    pub fn rates(self, rates: [i64; 4]) -> Self {
        Self(self.0.attr("rates", rates))
    }

    /// `"VALID"`: only patches inside the pictures; `"SAME"`: as many as `ceil(pixels / stride)`, with zeros outside. Required.
    pub fn padding(self, padding: &str) -> Self {
        Self(self.0.attr("padding", padding))
    }
}

/// The patches that slide over pictures `images` of shape [batch, rows, columns, channels], of any dtype of numbers: shape
/// [batch, patch rows, patch columns, size * channels], each patch row by row.
#[track_caller]
pub fn extract_image_patches(images: impl IntoOperand) -> ExtractImagePatches {
    ExtractImagePatches(crate::op("ExtractImagePatches").input(images))
}

#[cfg(test)]
fn picture(shape: [usize; 4], dtype: DType) -> Value {
    let count = shape.iter().product::<usize>();
    let elements: Vec<i32> = (0..count).map(|i| i as i32).collect();
    let value = Value::from_vec(shape, elements).expect("a value");
    value.cast_exactly(dtype).expect("small numbers")
}

#[cfg(test)]
pub(crate) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    let case = |padding: &str, rate: i64| {
        Case::new("ExtractImagePatches")
            .attr("ksizes", [1i64, 2, 2, 1])
            .attr("strides", [1i64, 2, 2, 1])
            .attr("rates", [1i64, rate, rate, 1])
            .attr("padding", padding)
    };
    let mut cases = Vec::new();
    for dtype in [DType::Float32, DType::Int64, DType::UInt8, DType::BFloat16] {
        let expected = Value::from([[[[0i32, 2, 8, 10], [2, 0, 10, 0]], [[8, 10, 0, 0], [10, 0, 0, 0]]]]);
        cases.push(
            case("SAME", 2)
                .input(picture([1, 4, 4, 1], dtype))
                .expect(expected.cast_exactly(dtype).expect("small numbers")),
        );
    }
    cases.push(
        case("VALID", 1)
            .input(picture([1, 2, 3, 2], DType::Int32))
            .expect([[[[0i32, 1, 2, 3, 6, 7, 8, 9]]]]),
    );
    cases.push(
        case("VALID", 2)
            .input(picture([1, 4, 4, 1], DType::Float64))
            .expect([[[[0.0f64, 2.0, 8.0, 10.0]]]]),
    );
    cases
}

#[cfg(test)]
pub(crate) fn gradient_cases() -> Vec<crate::testing::GradientCase> {
    use crate::testing::GradientCase;
    [("SAME", 1), ("VALID", 2)]
        .map(|(padding, rate)| {
            GradientCase::new("ExtractImagePatches")
                .attr("ksizes", [1i64, 2, 2, 1])
                .attr("strides", [1i64, 1, 2, 1])
                .attr("rates", [1i64, rate, 1, 1])
                .attr("padding", padding)
                .input(picture([2, 3, 4, 2], DType::Float64))
        })
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Case;

    #[test]
    fn windows_that_make_no_sense_are_refused() {
        let run = |sizes: &[i64]| {
            Case::new("ExtractImagePatches")
                .attr("ksizes", sizes)
                .attr("strides", [1i64; 4])
                .attr("rates", [1i64; 4])
                .attr("padding", "VALID")
                .input(picture([1, 2, 2, 1], DType::Float32))
                .run()
        };
        assert!(run(&[1, 2, 2, 1]).is_ok());
        for sizes in [&[2, 1, 1, 1][..], &[1, 0, 1, 1], &[1, 1, 1], &[1, 4, 1, 1]] {
            assert!(run(sizes).is_err(), "{sizes:?}");
        }
    }
}
