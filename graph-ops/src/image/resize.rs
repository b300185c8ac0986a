//! What resizing ops share: where the pixels of a result lie in the picture, and the shapes.

use std::ops::Range;

use graph_core::gradients::GradientContext;
use graph_core::graph::{OpBuilder, Tensor};
use graph_core::op::{FromAttr, InferenceContext, KernelContext, KernelRequest, OpDefinition, Planned};
use graph_core::{DType, Dim, Element, Error, PartialShape, Result};
use graph_cuda::{Source, source};
use half::{bf16, f16};
use num_traits::NumCast;

use crate::cpu::element::Real;
use crate::cpu::parallel::{GRAIN, SharedMut, for_each_chunk, for_each_range, grain_for};
use crate::cpu::scratch::with_scratch;
use crate::cuda::launch::{Launch, Work};
use crate::cuda::type_name;

/// The dtypes of pictures.
pub(super) const PICTURES: &str = "T: {int8, uint8, int16, uint16, int32, int64, half, bfloat16, float, double}";

/// A number of a picture's dtype, computed with in single precision (`double` too, as TensorFlow does).
pub(super) trait Pixel: Element {
    fn single(self) -> f32;
}

macro_rules! pixels {
    ($($type:ty => |$x:ident| $convert:expr;)*) => {$(
        impl Pixel for $type {
            fn single(self) -> f32 {
                let $x = self;
                $convert
            }
        }
    )*};
}

pixels! {
    i8 => |x| x.into();
    u8 => |x| x.into();
    i16 => |x| x.into();
    u16 => |x| x.into();
    i32 => |x| x as f32;
    i64 => |x| x as f32;
    f32 => |x| x;
    f64 => |x| x as f32;
    f16 => |x| x.to_f32();
    bf16 => |x| x.to_f32();
}

/// A kernel for each dtype of pictures.
macro_rules! picture_kernels {
    ($definition:expr, $kernel:ident) => {
        picture_kernels!(
            $definition, $kernel:
            Int8 i8, UInt8 u8, Int16 i16, UInt16 u16, Int32 i32, Int64 i64, Half half::f16, BFloat16 half::bf16,
            Float32 f32, Float64 f64
        )
    };
    ($definition:expr, $kernel:ident: $($dtype:ident $type:ty),*) => {
        $definition$(.kernel(
            graph_core::op::KernelDefinition::cpu($kernel::<$type>).types("T", &[graph_core::DType::$dtype]),
        ))*
    };
}
pub(super) use picture_kernels;

/// The attributes that say where pixels lie.
pub(super) fn with_alignment(definition: OpDefinition) -> OpDefinition {
    definition
        .attr("align_corners: bool = false")
        .attr("half_pixel_centers: bool = false")
}

/// Hands the attributes of [`with_alignment`] on to a gradient.
pub(super) fn same_alignment(context: &GradientContext<'_>, node: OpBuilder) -> Result<OpBuilder> {
    Ok(node
        .attr("align_corners", context.attr_value("align_corners")?)
        .attr("half_pixel_centers", context.attr_value("half_pixel_centers")?))
}

/// How places along one axis of a result map to the picture.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scaler {
    /// Pixels of the picture.
    pub(super) input: usize,
    /// Pixels of the result.
    pub(super) output: usize,
    /// Pixels of the picture for one of the result.
    pub(super) scale: f32,
    /// Whether a pixel lies at its centre, and not at its corner.
    pub(super) centres: bool,
}

impl Scaler {
    pub(super) fn new(input: usize, output: usize, align_corners: bool, centres: bool) -> Self {
        let scale = if align_corners && output > 1 {
            (input as f32 - 1.0) / (output as f32 - 1.0)
        } else {
            input as f32 / output as f32
        };
        Self {
            input,
            output,
            scale,
            centres,
        }
    }

    /// The place in the picture of place `index` of the result.
    pub(super) fn place(&self, index: usize) -> f32 {
        if self.centres {
            (index as f32 + 0.5) * self.scale - 0.5
        } else {
            index as f32 * self.scale
        }
    }
}

/// One attribute of where pixels lie; false for ops without it.
fn flag<T: FromAttr + Default>(request: &KernelRequest<'_>, name: &str) -> Result<T> {
    match request.attrs.get(name) {
        Some(_) => request.attr(name),
        None => Ok(T::default()),
    }
}

/// A resizing as a kernel sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Resizing {
    pub(super) batch: usize,
    pub(super) channels: usize,
    pub(super) rows: Scaler,
    pub(super) columns: Scaler,
}

impl Resizing {
    /// From pictures of shape `from` to pictures of shape `to`, as the attributes say.
    pub(super) fn new(request: &KernelRequest<'_>, from: &[usize], to: &[usize]) -> Result<Self> {
        let (&[batch, in_rows, in_columns, channels], &[_, rows, columns, _]) = (from, to) else {
            return Err(Error::invalid_argument("pictures must have four axes").got(format!("{from:?}")));
        };
        let (corners, centres): (bool, bool) = (flag(request, "align_corners")?, flag(request, "half_pixel_centers")?);
        if corners && centres {
            return Err(Error::invalid_argument(
                "If half_pixel_centers is True, align_corners must be False.",
            ));
        }
        if batch * channels > 0 && rows * columns > 0 && in_rows * in_columns == 0 {
            return Err(Error::invalid_argument("a picture without pixels cannot be resized").got(format!("{from:?}")));
        }
        Ok(Self {
            batch,
            channels,
            rows: Scaler::new(in_rows, rows, corners, centres),
            columns: Scaler::new(in_columns, columns, corners, centres),
        })
    }

    /// Elements of one picture.
    pub(super) fn picture_len(&self) -> usize {
        self.rows.input * self.columns.input * self.channels
    }

    /// Elements of one result.
    pub(super) fn result_len(&self) -> usize {
        self.rows.output * self.columns.output * self.channels
    }
}

/// Fills some rows of the result of one picture, both in single precision.
pub(super) type Resize = Box<dyn Fn(&[f32], Range<usize>, &mut [f32]) + Send + Sync>;

/// A kernel that computes in single precision, whatever the pictures' dtype. What `resize` makes knows nothing of the dtype,
/// so that it is compiled once for all.
pub(super) fn in_single_precision<T: Pixel>(
    request: &KernelRequest<'_>,
    resize: fn(Resizing) -> Resize,
) -> Result<Planned> {
    let resizing = Resizing::new(request, request.input_shape(0), request.output_shape(0)?)?;
    let resize = resize(resizing);
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let out = context.output::<f32>(0)?;
        if out.is_empty() {
            return Ok(());
        }
        if T::DTYPE == DType::Float32 {
            resize_all(&resizing, context.input::<f32>(0)?, &resize, out);
            return Ok(());
        }
        let pictures = context.input::<T>(0)?;
        with_scratch(pictures.len(), |single: &mut [f32]| {
            for_each_chunk(single, GRAIN, |start, chunk| {
                let numbers = chunk.iter_mut().zip(&pictures[start..]);
                numbers.for_each(|(single, x)| *single = x.single());
            });
            resize_all(&resizing, single, &resize, out);
        });
        Ok(())
    }))
}

/// Resizes all pictures, some rows of a result at a time.
fn resize_all(resizing: &Resizing, pictures: &[f32], resize: &Resize, out: &mut [f32]) {
    let rows = resizing.rows.output;
    let row_len = resizing.result_len() / rows;
    let out = SharedMut::new(out);
    for_each_range(resizing.batch * rows, grain_for(row_len * 8), |range| {
        let mut row = range.start;
        while row < range.end {
            let (picture, first) = (row / rows, row % rows);
            let end = range.end.min((picture + 1) * rows);
            // SAFETY: each row of the results belongs to one task.
            let out = unsafe { out.slice(row * row_len..end * row_len) };
            let picture = &pictures[picture * resizing.picture_len()..][..resizing.picture_len()];
            resize(picture, first..first + end - row, out);
            row = end;
        }
    });
}

/// The pixels along one axis that a place is a sum of, and their weights.
pub(super) type Taps<const N: usize> = [(usize, f32); N];

/// The gradient of a resizing whose pixels are weighted sums of `N` by `N`: each of those gets its share.
pub(super) fn gradient_of_taps<T: Real + Element, const N: usize>(
    request: &KernelRequest<'_>,
    taps: fn(&Scaler) -> Vec<Taps<N>>,
) -> Result<Planned> {
    let resizing = Resizing::new(request, request.output_shape(0)?, request.input_shape(0))?;
    let (rows, columns) = (taps(&resizing.rows), taps(&resizing.columns));
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let (gradient, out) = (context.input::<f32>(0)?, context.output::<T>(0)?);
        let zero = T::Wide::default();
        let mut wide = vec![zero; out.len()];
        let (channels, width) = (resizing.channels, resizing.columns.input);
        if !gradient.is_empty() {
            let pictures = wide.chunks_exact_mut(resizing.picture_len());
            for (gradient, picture) in gradient.chunks_exact(resizing.result_len()).zip(pictures) {
                let mut gradient = gradient.chunks_exact(channels);
                for y in &rows {
                    for (x, gradient) in columns.iter().zip(&mut gradient) {
                        for &(row, row_weight) in y {
                            for &(column, weight) in x {
                                let to = &mut picture[(row * width + column) * channels..][..channels];
                                for (to, &gradient) in to.iter_mut().zip(gradient) {
                                    *to += NumCast::from(gradient * row_weight * weight).unwrap_or(zero);
                                }
                            }
                        }
                    }
                }
            }
        }
        out.iter_mut().zip(wide).for_each(|(out, x)| *out = T::narrow(x));
        Ok(())
    }))
}

/// For each place along an axis the pixels that it is a sum of, and their weights, as kernels on a device take them.
pub(super) struct Table {
    starts: Vec<i32>,
    pixels: Vec<i32>,
    weights: Vec<f32>,
}

impl Table {
    /// Of a list of taps for each place.
    pub(super) fn new<L: AsRef<[(usize, f32)]>>(places: &[L]) -> Self {
        let mut table = Self {
            starts: vec![0],
            pixels: Vec::new(),
            weights: Vec::new(),
        };
        for taps in places {
            for &(pixel, weight) in taps.as_ref() {
                table.pixels.push(pixel as i32);
                table.weights.push(weight);
            }
            table.starts.push(table.pixels.len() as i32);
        }
        table
    }

    /// For each of `pixels` pixels the places whose sum it is in, in their order.
    pub(super) fn turned<L: AsRef<[(usize, f32)]>>(places: &[L], pixels: usize) -> Self {
        let mut lists = vec![Vec::new(); pixels];
        for (place, taps) in places.iter().enumerate() {
            for &(pixel, weight) in taps.as_ref() {
                lists[pixel].push((place, weight));
            }
        }
        Self::new(&lists)
    }

    fn words(&self) -> impl Iterator<Item = u32> {
        let numbers = self.starts.iter().chain(&self.pixels).map(|&number| number as u32);
        numbers.chain(self.weights.iter().map(|weight| weight.to_bits()))
    }
}

/// A kernel whose output 0 is a sum of pixels of input 0 by tables of rows and of columns; without weights they are all 1.
pub(super) fn resample(request: &KernelRequest<'_>, rows: &Table, columns: &Table, weighted: bool) -> Result<Planned> {
    const SOURCE: Source = source!("resize.cu");
    let (from, to) = (request.input_shape(0), request.output_shape(0)?);
    let defines = [
        ("T", type_name(request.input_dtype(0))?),
        ("O", type_name(request.output_dtype(0))?),
        ("WEIGHTED", if weighted { "1" } else { "0" }),
    ];
    let n = to.num_elements();
    let taps = [rows.pixels.len(), columns.pixels.len()];
    let numbers = [n, from[1], from[2], to[1], to[2], to[3], taps[0], taps[1]];
    let launch = Launch::new(request, &SOURCE, "resample", &defines, Work::Elements(n), &numbers)?;
    let bytes: Vec<u8> = rows.words().chain(columns.words()).flat_map(u32::to_le_bytes).collect();
    let len = bytes.len();
    let planned = Planned::new(move |context: &mut KernelContext<'_>| {
        let table = context.parameters_address()?;
        // SAFETY: these are the kernel's parameters, which say how many elements each tensor and the table have.
        unsafe { launch.run([context.output_address(0), context.input_address(0), table]) }
    });
    Ok(planned.with_parameters(len, move |_, to| {
        to.copy_from_slice(&bytes);
        Ok(())
    }))
}

/// A kernel on a device of [`in_single_precision`], with the pixels and weights of each place.
pub(super) fn resize_on_device<L: AsRef<[(usize, f32)]>>(
    request: &KernelRequest<'_>,
    taps: impl Fn(&Scaler) -> Vec<L>,
) -> Result<Planned> {
    let resizing = Resizing::new(request, request.input_shape(0), request.output_shape(0)?)?;
    let (rows, columns) = (taps(&resizing.rows), taps(&resizing.columns));
    resample(request, &Table::new(&rows), &Table::new(&columns), true)
}

/// A kernel on a device of [`gradient_of_taps`].
pub(super) fn gradient_on_device<const N: usize>(
    request: &KernelRequest<'_>,
    taps: fn(&Scaler) -> Vec<Taps<N>>,
) -> Result<Planned> {
    let resizing = Resizing::new(request, request.output_shape(0)?, request.input_shape(0))?;
    let turned = |scaler: &Scaler| Table::turned(&taps(scaler), scaler.input);
    resample(request, &turned(&resizing.rows), &turned(&resizing.columns), true)
}

/// The two dimensions that input 1 holds, as far as they are known.
pub(super) fn size_of_input(context: &InferenceContext<'_>, index: usize, minimum: usize) -> Result<[Dim; 2]> {
    let size = context.with_rank(index, 1)?;
    context.merge_dims(Some(2), size.dim(0), "two and the elements of the size")?;
    match context.int_values(index)?.as_deref() {
        Some(&[rows, columns]) => {
            let dim = |size: i64| {
                usize::try_from(size)
                    .ok()
                    .filter(|&size| size >= minimum)
                    .ok_or_else(|| Error::invalid_argument("output dimensions must be positive").got(size))
            };
            Ok([Some(dim(rows)?), Some(dim(columns)?)])
        }
        _ => Ok([None, None]),
    }
}

/// Shape function of ops that resize input 0 to the size in input 1.
pub(super) fn resized_shape(context: &mut InferenceContext<'_>) -> Result<()> {
    let pictures = context.with_rank(0, 4)?;
    let [rows, columns] = size_of_input(context, 1, 1)?;
    context.set_output(0, PartialShape::from([pictures.dim(0), rows, columns, pictures.dim(3)]));
    Ok(())
}

/// Shape function of gradients: the batch and channels of the gradient, the size of the original.
pub(super) fn original_shape(context: &mut InferenceContext<'_>) -> Result<()> {
    let (gradient, original) = (context.with_rank(0, 4)?, context.with_rank(1, 4)?);
    let channels = context.merge_dims(
        gradient.dim(3),
        original.dim(3),
        "the channels of the gradient and of the pictures",
    )?;
    let batch = context.merge_dims(
        gradient.dim(0),
        original.dim(0),
        "the batches of the gradient and of the pictures",
    )?;
    context.set_output(
        0,
        PartialShape::from([batch, original.dim(1), original.dim(2), channels]),
    );
    Ok(())
}

/// A gradient of a resizing op that takes the incoming gradient and the pictures.
pub(super) fn resize_gradient(context: &GradientContext<'_>, op: &str) -> Result<Vec<Option<Tensor>>> {
    let node = context.node(op).input(context.gradient(0)?).input(context.input(0));
    Ok(vec![Some(same_alignment(context, node)?.build()?), None])
}

/// Whether gradients flow to pictures of this dtype.
pub(super) fn is_differentiable(dtype: DType) -> bool {
    dtype.is_floating()
}

/// Defines the builder of a resizing op.
macro_rules! resize_builder {
    ($(#[$struct_doc:meta])* $builder:ident, $(#[$doc:meta])* $function:ident => $op:literal) => {
        graph_core::typed_builder! {
            $(#[$struct_doc])*
            pub struct $builder;
        }

        impl $builder {
            /// Whether the centres of the corner pixels stay where they are; false without.
            pub fn align_corners(self, align: bool) -> Self {
                Self(self.0.attr("align_corners", align))
            }

            /// Whether pixels lie at their centres and not at their corners; false without.
            pub fn half_pixel_centers(self, centres: bool) -> Self {
                Self(self.0.attr("half_pixel_centers", centres))
            }
        }

        $(#[$doc])*
        #[track_caller]
        pub fn $function(
            images: impl graph_core::graph::IntoOperand,
            size: impl graph_core::graph::IntoOperand,
        ) -> $builder {
            $builder(crate::op($op).input(images).input(size))
        }
    };
}
pub(super) use resize_builder;
