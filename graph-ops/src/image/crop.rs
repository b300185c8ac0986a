//! `CropAndResize` and its gradients

use graph_core::gradients::GradientContext;
use graph_core::graph::{IntoOperand, Tensor};
use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{DType, Element, Error, PartialShape, Result, Value, typed_builder};
use graph_cuda::{Source, source};
use half::f16;
use num_traits::NumCast;

use super::resize::{Pixel, size_of_input};
use crate::cpu::element::Real;
use crate::cuda::launch::{Launch, Work};
use crate::cuda::type_name;
use crate::math::nodes::Nodes;

const PICTURES: &str = "T: {uint8, uint16, int8, int16, int32, int64, half, float, double}";

/// A kernel for each dtype of pictures that can be cropped.
macro_rules! kernels {
    ($definition:expr, $kernel:ident: $($dtype:ident $type:ty),*) => {
        $definition$(.kernel(KernelDefinition::cpu($kernel::<$type>).types("T", &[DType::$dtype])))*
    };
    ($definition:expr, $kernel:ident) => {
        kernels!(
            $definition, $kernel:
            Int8 i8, UInt8 u8, Int16 i16, UInt16 u16, Int32 i32, Int64 i64, Half f16, Float32 f32, Float64 f64
        )
    };
}

/// `CropAndResize`
pub(crate) fn crop_op() -> OpDefinition {
    let definition = OpDefinition::new(
        "CropAndResize",
        "Parts of pictures, given as boxes in relative coordinates [y1, x1, y2, x2], all resized to one size.",
    )
    .input("image: T")
    .input("boxes: float")
    .input("box_ind: int32")
    .input("crop_size: int32")
    .output("crops: float")
    .attr(PICTURES)
    .attr("method: {'bilinear', 'nearest'} = 'bilinear'")
    .attr("extrapolation_value: float = 0.0")
    .may_fail()
    .plan_time_inputs(&[3])
    .shape(|context| {
        let image = context.with_rank(0, 4)?;
        let count = boxes_shape(context, 1)?;
        let [rows, columns] = size_of_input(context, 3, 1)?;
        context.set_output(0, PartialShape::from([count, rows, columns, image.dim(3)]));
        Ok(())
    })
    .gradient(gradient);
    kernels!(definition, crop_kernel).kernel(KernelDefinition::cuda(|request| {
        let crops = Crops::new(
            request,
            request.input_shape(0),
            request.output_shape(0)?,
            is_nearest(request)?,
        )?;
        let launch = crops.launch(request, "crop", (request.input_dtype(0), 1), Work::Elements)?;
        Ok(launch.over(&[0, 1, 2]))
    }))
}

/// `CropAndResizeGradImage`
pub(crate) fn grad_image_op() -> OpDefinition {
    let definition = OpDefinition::new(
        "CropAndResizeGradImage",
        "The gradient of CropAndResize with respect to the pictures.",
    )
    .input("grads: float")
    .input("boxes: float")
    .input("box_ind: int32")
    .input("image_size: int32")
    .output("output: T")
    .attr("T: {float, half, double}")
    .attr("method: {'bilinear', 'nearest'} = 'bilinear'")
    .may_fail()
    .plan_time_inputs(&[3])
    .shape(|context| {
        context.with_rank(0, 4)?;
        boxes_shape(context, 1)?;
        let shape = context.shape_from_input(3)?.merge(&PartialShape::unknown_of_rank(4))?;
        context.set_output(0, shape);
        Ok(())
    })
    .no_gradient();
    kernels!(definition, grad_image_kernel: Half f16, Float32 f32, Float64 f64).kernel(KernelDefinition::cuda(
        |request| {
            let crops = Crops::new(
                request,
                request.output_shape(0)?,
                request.input_shape(0),
                is_nearest(request)?,
            )?;
            check_count(request, 1)?;
            let launch = crops.launch(
                request,
                "crop_back_to_image",
                (request.output_dtype(0), 1),
                Work::Elements,
            )?;
            Ok(launch.over(&[0, 1, 2]))
        },
    ))
}

/// `CropAndResizeGradBoxes`
pub(crate) fn grad_boxes_op() -> OpDefinition {
    let definition = OpDefinition::new(
        "CropAndResizeGradBoxes",
        "The gradient of CropAndResize with respect to the boxes.",
    )
    .input("grads: float")
    .input("image: T")
    .input("boxes: float")
    .input("box_ind: int32")
    .output("output: float")
    .attr(PICTURES)
    .attr("method: {'bilinear'} = 'bilinear'")
    .may_fail()
    .shape(|context| {
        context.with_rank(0, 4)?;
        context.with_rank(1, 4)?;
        boxes_shape(context, 2)?;
        context.set_output(0, context.input(2));
        Ok(())
    })
    .no_gradient();
    kernels!(definition, grad_boxes_kernel).kernel(KernelDefinition::cuda(|request| {
        let crops = Crops::new(request, request.input_shape(1), request.input_shape(0), false)?;
        check_count(request, 2)?;
        let launch = crops.launch(request, "crop_back_to_boxes", (request.input_dtype(1), 2), Work::Blocks)?;
        Ok(launch.over(&[0, 1, 2, 3]))
    }))
}

/// The number of boxes in inputs `index` and the next one, which says the picture of each.
fn boxes_shape(context: &InferenceContext<'_>, index: usize) -> Result<Option<usize>> {
    let (boxes, pictures) = (context.with_rank(index, 2)?, context.with_rank(index + 1, 1)?);
    context.merge_dims(Some(4), boxes.dim(1), "four and the columns of the boxes")?;
    context.merge_dims(
        boxes.dim(0),
        pictures.dim(0),
        "the boxes and the numbers of their pictures",
    )
}

/// Pictures and crops of them.
#[derive(Clone, Copy)]
struct Crops {
    batch: usize,
    rows: usize,
    columns: usize,
    channels: usize,
    crop_rows: usize,
    crop_columns: usize,
    nearest: bool,
}

/// Where the pixels of a crop lie along one axis of its picture.
#[derive(Clone, Copy)]
struct Line {
    start: f32,
    end: f32,
    /// The last pixel of the picture.
    last: f32,
    pixels: usize,
}

impl Line {
    /// Pixels of the picture from one of the crop to the next, for a box as large as the picture.
    fn ratio(&self) -> f32 {
        self.last / (self.pixels as f32 - 1.0)
    }

    /// The place of a pixel; `None` outside of the picture.
    fn place(&self, pixel: usize) -> Option<f32> {
        let place = if self.pixels > 1 {
            let step = (self.end - self.start) * self.last / (self.pixels as f32 - 1.0);
            self.start * self.last + pixel as f32 * step
        } else {
            0.5 * (self.start + self.end) * self.last
        };
        (0.0..=self.last).contains(&place).then_some(place)
    }

    /// How the place moves with the start and with the end.
    fn slopes(&self, pixel: usize) -> [f32; 2] {
        if self.pixels > 1 {
            let moved = pixel as f32 * self.ratio();
            [self.last - moved, moved]
        } else {
            [0.5 * self.last; 2]
        }
    }
}

/// The corners around a place, and how near it is to the last one: rows, then columns.
#[derive(Clone, Copy)]
struct Corners {
    rows: [usize; 2],
    columns: [usize; 2],
    row_part: f32,
    column_part: f32,
}

impl Corners {
    fn of(y: f32, x: f32) -> Self {
        Self {
            rows: [y.floor() as usize, y.ceil() as usize],
            columns: [x.floor() as usize, x.ceil() as usize],
            row_part: y - y.floor(),
            column_part: x - x.floor(),
        }
    }
}

impl Crops {
    fn new(request: &KernelRequest<'_>, image: &[usize], crops: &[usize], nearest: bool) -> Result<Self> {
        let (&[batch, rows, columns, channels], &[_, crop_rows, crop_columns, crop_channels]) = (image, crops) else {
            return Err(Error::invalid_argument("pictures and crops must have four axes").got(format!("{image:?}")));
        };
        if rows == 0 || columns == 0 {
            return Err(Error::invalid_argument("image dimensions must be positive").got(format!("{image:?}")));
        }
        if channels != crop_channels {
            return Err(
                Error::invalid_argument("the crops have another number of channels than the pictures")
                    .expected(channels)
                    .got(crop_channels)
                    .context(format!("cropping {} boxes", request.input_shape(1))),
            );
        }
        Ok(Self {
            batch,
            rows,
            columns,
            channels,
            crop_rows,
            crop_columns,
            nearest,
        })
    }

    /// A kernel of `crop.cu` over the elements of output 0 (or blocks for them), of pictures of a dtype, by the boxes in input
    /// `boxes`.
    fn launch(
        &self,
        request: &KernelRequest<'_>,
        name: &str,
        (dtype, boxes): (DType, usize),
        work: fn(usize) -> Work,
    ) -> Result<Launch> {
        const SOURCE: Source = source!("crop.cu");
        let outside: f32 = match request.attrs.get("extrapolation_value") {
            Some(_) => request.attr("extrapolation_value")?,
            None => 0.0,
        };
        let outside = format!("bits_float({:#x}u)", outside.to_bits());
        let defines = [
            ("T", type_name(dtype)?),
            ("NEAREST", if self.nearest { "true" } else { "false" }),
            ("OUTSIDE", outside.as_str()),
        ];
        let n = request.output_shape(0)?.num_elements();
        let structure = [
            self.batch,
            self.rows,
            self.columns,
            self.channels,
            self.crop_rows,
            self.crop_columns,
            request.input_shape(boxes)[0],
        ];
        let launch = Launch::new(request, &SOURCE, name, &defines, work(n), &[n])?;
        Ok(launch.with_structure(&structure))
    }

    /// Calls `f` with each box's number, its picture, and its lines.
    fn each_box(&self, boxes: &[f32], pictures: &[i32], mut f: impl FnMut(usize, usize, [Line; 2])) -> Result<()> {
        for (index, (corner, &picture)) in boxes.as_chunks::<4>().0.iter().zip(pictures).enumerate() {
            let picture = usize::try_from(picture)
                .ok()
                .filter(|&picture| picture < self.batch)
                .ok_or_else(|| {
                    Error::out_of_range("box_index has values outside [0, batch_size)")
                        .expected(format!("0 to {}", self.batch as i64 - 1))
                        .got(picture)
                })?;
            let line = |start, end, len: usize, pixels| Line {
                start,
                end,
                last: len as f32 - 1.0,
                pixels,
            };
            let [y1, x1, y2, x2] = *corner;
            let lines = [
                line(y1, y2, self.rows, self.crop_rows),
                line(x1, x2, self.columns, self.crop_columns),
            ];
            f(index, picture, lines);
        }
        Ok(())
    }

    /// The first channel's place of a picture's pixel.
    fn pixel(&self, picture: usize, row: usize, column: usize) -> usize {
        ((picture * self.rows + row) * self.columns + column) * self.channels
    }

    /// The first channel's place of a crop's pixel.
    fn crop_pixel(&self, crop: usize, row: usize, column: usize) -> usize {
        ((crop * self.crop_rows + row) * self.crop_columns + column) * self.channels
    }

    /// Calls `f` with the places of each pixel of a crop, and where in the picture they lie.
    fn each_pixel(
        &self,
        crop: usize,
        [rows, columns]: [Line; 2],
        mut f: impl FnMut([usize; 2], usize, Option<[f32; 2]>),
    ) {
        for y in 0..self.crop_rows {
            let row = rows.place(y);
            for x in 0..self.crop_columns {
                let place = row.and_then(|row| Some([row, columns.place(x)?]));
                f([y, x], self.crop_pixel(crop, y, x), place);
            }
        }
    }
}

fn is_nearest(request: &KernelRequest<'_>) -> Result<bool> {
    Ok(request.attr::<String>("method")? == "nearest")
}

fn crop_kernel<T: Pixel>(request: &KernelRequest<'_>) -> Result<Planned> {
    let nearest = is_nearest(request)?;
    let crops = Crops::new(request, request.input_shape(0), request.output_shape(0)?, nearest)?;
    let outside: f32 = request.attr("extrapolation_value")?;
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let (image, boxes, pictures) = (
            context.input::<T>(0)?,
            context.input::<f32>(1)?,
            context.input::<i32>(2)?,
        );
        let out = context.output::<f32>(0)?;
        let channels = crops.channels;
        crops.each_box(boxes, pictures, |crop, picture, lines| {
            crops.each_pixel(crop, lines, |_, to, place| {
                let out = &mut out[to..to + channels];
                let Some([y, x]) = place else { return out.fill(outside) };
                let from = |row, column| &image[crops.pixel(picture, row, column)..][..channels];
                if crops.nearest {
                    let nearest = from(y.round() as usize, x.round() as usize);
                    out.iter_mut().zip(nearest).for_each(|(out, x)| *out = x.single());
                    return;
                }
                let at = Corners::of(y, x);
                let corners = at.rows.map(|row| at.columns.map(|column| from(row, column)));
                for (c, out) in out.iter_mut().enumerate() {
                    let [top, bottom] = corners.map(|[left, right]| {
                        let (left, right) = (left[c].single(), right[c].single());
                        left + (right - left) * at.column_part
                    });
                    *out = top + (bottom - top) * at.row_part;
                }
            });
        })
    }))
}

fn grad_image_kernel<T: Real + Element>(request: &KernelRequest<'_>) -> Result<Planned> {
    let nearest = is_nearest(request)?;
    let crops = Crops::new(request, request.output_shape(0)?, request.input_shape(0), nearest)?;
    check_count(request, 1)?;
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let (gradient, boxes) = (context.input::<f32>(0)?, context.input::<f32>(1)?);
        let (pictures, out) = (context.input::<i32>(2)?, context.output::<T>(0)?);
        let zero = T::Wide::default();
        let mut wide = vec![zero; out.len()];
        crops.each_box(boxes, pictures, |crop, picture, lines| {
            crops.each_pixel(crop, lines, |_, at, place| {
                let Some([y, x]) = place else { return };
                let gradient = &gradient[at..at + crops.channels];
                let mut add = |row: usize, column: usize, weight: f32| {
                    let to = &mut wide[crops.pixel(picture, row, column)..][..crops.channels];
                    let pairs = to.iter_mut().zip(gradient);
                    pairs.for_each(|(to, &x)| *to += NumCast::from(x * weight).unwrap_or(zero));
                };
                if crops.nearest {
                    return add(y.round() as usize, x.round() as usize, 1.0);
                }
                let at = Corners::of(y, x);
                for (row, row_weight) in at.rows.into_iter().zip([1.0 - at.row_part, at.row_part]) {
                    for (column, weight) in at.columns.into_iter().zip([1.0 - at.column_part, at.column_part]) {
                        add(row, column, row_weight * weight);
                    }
                }
            });
        })?;
        out.iter_mut().zip(wide).for_each(|(out, x)| *out = T::narrow(x));
        Ok(())
    }))
}

/// An error unless the gradient in input 0 has a crop for each box in input `boxes`.
fn check_count(request: &KernelRequest<'_>, boxes: usize) -> Result<()> {
    let (crops, boxes) = (request.input_shape(0)[0], request.input_shape(boxes)[0]);
    if crops == boxes {
        return Ok(());
    }
    Err(Error::invalid_argument("boxes and grads have incompatible shape")
        .expected(boxes)
        .got(crops))
}

fn grad_boxes_kernel<T: Pixel>(request: &KernelRequest<'_>) -> Result<Planned> {
    let crops = Crops::new(request, request.input_shape(1), request.input_shape(0), false)?;
    check_count(request, 2)?;
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let (gradient, image) = (context.input::<f32>(0)?, context.input::<T>(1)?);
        let (boxes, pictures) = (context.input::<f32>(2)?, context.input::<i32>(3)?);
        let out = context.output::<f32>(0)?;
        out.fill(0.0);
        let channels = crops.channels;
        crops.each_box(boxes, pictures, |crop, picture, lines| {
            let out = &mut out[crop * 4..crop * 4 + 4];
            crops.each_pixel(crop, lines, |pixel, at, place| {
                let Some([y, x]) = place else { return };
                let corners = Corners::of(y, x);
                let from = |row, column| &image[crops.pixel(picture, row, column)..][..channels];
                let values = corners.rows.map(|row| corners.columns.map(|column| from(row, column)));
                let (mut by_row, mut by_column) = (0.0, 0.0);
                for (c, gradient) in gradient[at..at + channels].iter().enumerate() {
                    let [[a, b], [d, e]] = values.map(|row| row.map(|pixel| pixel[c].single()));
                    let (row, column) = (corners.row_part, corners.column_part);
                    by_row += gradient * ((1.0 - column) * (d - a) + column * (e - b));
                    by_column += gradient * ((1.0 - row) * (b - a) + row * (e - d));
                }
                let (rows, columns) = (lines[0].slopes(pixel[0]), lines[1].slopes(pixel[1]));
                for (side, out) in out.iter_mut().enumerate() {
                    // Both starts, then both ends.
                    *out += if side % 2 == 0 {
                        by_row * rows[side / 2]
                    } else {
                        by_column * columns[side / 2]
                    };
                }
            });
        })
    }))
}

fn gradient(context: &mut GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
    let nodes = Nodes::of(context);
    let (image, boxes, pictures) = (context.input(0), context.input(1), context.input(2));
    let gradient = context.gradient(0)?;
    let to_image = if image.dtype().is_floating() {
        let size = match image.shape().to_shape() {
            Some(shape) => nodes.constant(Value::int32_vector(shape.iter().map(|&dim| dim as i32)), "image_size")?,
            None => nodes.shape(&image)?,
        };
        let node = nodes
            .node("CropAndResizeGradImage")
            .input(&gradient)
            .input(&boxes)
            .input(&pictures);
        let node = node.input(&size).attr("T", image.dtype());
        Some(node.attr("method", context.attr_value("method")?).build()?)
    } else {
        None
    };
    let node = nodes.node("CropAndResizeGradBoxes").input(&gradient).input(&image);
    let to_boxes = node.input(&boxes).input(&pictures).build()?;
    Ok(vec![to_image, Some(to_boxes), None, None])
}

typed_builder! {
    /// Crops of pictures about to be made; see [`crop_and_resize`].
    pub struct CropAndResize;
}

impl CropAndResize {
    /// `"bilinear"` (without this) or `"nearest"`.
    pub fn method(self, method: &str) -> Self {
        Self(self.0.attr("method", method))
    }

    /// What stands outside of the pictures; 0 without.
    pub fn extrapolation_value(self, value: f32) -> Self {
        Self(self.0.attr("extrapolation_value", value))
    }
}

/// Parts of pictures of shape [batch, rows, columns, channels], all resized to `crop_size` (two `int32`), as `float` of shape
/// [boxes, crop rows, crop columns, channels]. A row of `boxes`, `float` of shape [boxes, 4], is `[y1, x1, y2, x2]` in parts
/// of the picture's sides; `box_ind` (`int32`) says the picture of each.
#[track_caller]
pub fn crop_and_resize(
    image: impl IntoOperand,
    boxes: impl IntoOperand,
    box_ind: impl IntoOperand,
    crop_size: impl IntoOperand,
) -> CropAndResize {
    let node = crate::op("CropAndResize").input(image).input(boxes);
    CropAndResize(node.input(box_ind).input(crop_size))
}

#[cfg(test)]
pub(crate) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    let picture = [[[[1.0f32], [2.0], [3.0]], [[4.0], [5.0], [6.0]], [[7.0], [8.0], [9.0]]]];
    let crop = || {
        Case::new("CropAndResize")
            .input(picture)
            .input([[0.0f32, 0.0, 1.0, 1.0], [0.25, 0.5, 0.75, 1.5]])
            .input([0i32, 0])
            .input([2i32, 2])
    };
    let mut cases = vec![
        crop()
            .attr("extrapolation_value", -1.0f32)
            .expect([[[[1.0f32], [3.0]], [[7.0], [9.0]]], [[[3.5], [-1.0]], [[6.5], [-1.0]]]]),
        crop()
            .attr("method", "nearest")
            .expect([[[[1.0f32], [3.0]], [[7.0], [9.0]]], [[[5.0], [0.0]], [[8.0], [0.0]]]]),
        Case::new("CropAndResize")
            .input([[[[1u8, 2], [3, 4]]]])
            .input([[0.0f32, 0.0, 1.0, 1.0]])
            .input([0i32])
            .input([1i32, 1])
            .expect([[[[2.0f32, 3.0]]]]),
        Case::new("CropAndResizeGradBoxes")
            .input([[[[1.0f32], [2.0]], [[3.0], [4.0]]]])
            .input(picture)
            .input([[0.25f32, 0.25, 0.75, 0.75]])
            .input([0i32])
            .expect([[18.0f32, 8.0, 42.0, 12.0]]),
    ];
    for dtype in [DType::Float32, DType::Float64, DType::Half] {
        let expected = Value::from([[[[1.0f32], [3.0], [2.0]]]])
            .cast_exactly(dtype)
            .expect("small numbers");
        cases.push(
            Case::new("CropAndResizeGradImage")
                .input([[[[2.0f32], [4.0]]]])
                .input([[0.0f32, 0.25, 1.0, 0.75]])
                .input([0i32])
                .input([1i32, 1, 3, 1])
                .attr("T", dtype)
                .expect(expected),
        );
    }
    cases
}

#[cfg(test)]
pub(crate) fn gradient_cases() -> Vec<crate::testing::GradientCase> {
    use crate::testing::GradientCase;
    let picture: Vec<f64> = (0..18).map(|i| (i as f64 * 0.9).sin()).collect();
    let case = |size: [i32; 2]| {
        GradientCase::new("CropAndResize")
            .input(Value::from_vec([1, 3, 3, 2], &picture).expect("a value"))
            .input([[0.05f32, 0.1, 0.9, 0.8], [0.15, 0.2, 0.6, 1.3]])
            .input([0i32, 0])
            .input(size)
            .first_order_only()
    };
    vec![
        case([2, 2]).with_respect_to(&[0]).tolerance(1e-2, 1e-3, 1e-1),
        case([2, 3]).with_respect_to(&[1]).tolerance(2e-2, 2e-3, 1e-3),
        case([1, 2])
            .attr("method", "nearest")
            .with_respect_to(&[0])
            .tolerance(1e-2, 1e-3, 1e-1),
    ]
}

#[cfg(test)]
mod tests {
    use crate::testing::Case;

    #[test]
    fn a_box_needs_a_picture() {
        for picture in [-1i32, 1] {
            let case = Case::new("CropAndResize")
                .input([[[[1.0f32]]]])
                .input([[0.0f32, 0.0, 1.0, 1.0]]);
            assert!(case.input([picture]).input([1i32, 1]).run().is_err());
        }
    }
}
