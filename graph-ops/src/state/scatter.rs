//! `ScatterUpdate`, `ScatterAdd`, ... and `ScatterNdUpdate`, `ScatterNdAdd`, `ScatterNdSub`, over references and over handles:
//! parts of variables are changed.

use graph_core::graph::IntoOperand;
use graph_core::op::{
    InferenceContext, KernelContext, KernelDefinition, KernelRequest, OpDefinition, Planned, kernel::MakeKernel,
};
use graph_core::{Complex, DType, Element, Error, PartialShape, Result, Shape};
use half::{bf16, f16};

use crate::cpu::scatter::scatter_rows;
use crate::cuda::FLOATS;
use crate::cuda::scatter::{self, Depth, Extent, Scatter};

use super::assign::variable_shape;
use super::update::{Update, hand_on, update_builder};

/// What happens where a part of the variable meets an update.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Change {
    Update,
    Add,
    Sub,
    Mul,
    Div,
    Min,
    Max,
}

/// Changes the elements of a row by those of another.
type RowChange<T> = fn(&mut [T], &[T]);

/// As a [`RowChange`], what becomes of an old element and a new one.
macro_rules! change {
    (|$old:pat_param, $new:pat_param| $e:expr) => {
        |old, new| {
            old.iter_mut().zip(new).for_each(|(old, new)| {
                let ($old, $new) = (*old, *new);
                *old = $e;
            })
        }
    };
}

/// A type that can be scattered.
trait Scattered: Element {
    /// What a change does to a row; `None` where the type has no such.
    fn function(change: Change) -> Option<RowChange<Self>>;
    /// Whether dividing by it fails.
    fn is_bad_divisor(self) -> bool;
}

macro_rules! scattered {
    (floats $($type:ty),*) => {$(
        impl Scattered for $type {
            fn function(change: Change) -> Option<RowChange<Self>> {
                Some(match change {
                    Change::Update => change!(|_, new| new),
                    Change::Add => change!(|old, new| old + new),
                    Change::Sub => change!(|old, new| old - new),
                    Change::Mul => change!(|old, new| old * new),
                    Change::Div => change!(|old, new| old / new),
                    Change::Min => change!(|old, new| if new < old { new } else { old }),
                    Change::Max => change!(|old, new| if new > old { new } else { old }),
                })
            }
            fn is_bad_divisor(self) -> bool {
                false
            }
        }
    )*};
    (integers $($type:ty),*) => {$(
        impl Scattered for $type {
            fn function(change: Change) -> Option<RowChange<Self>> {
                Some(match change {
                    Change::Update => change!(|_, new| new),
                    Change::Add => change!(|old, new| old.wrapping_add(new)),
                    Change::Sub => change!(|old, new| old.wrapping_sub(new)),
                    Change::Mul => change!(|old, new| old.wrapping_mul(new)),
                    Change::Div => change!(|old, new| old.wrapping_div(new)),
                    Change::Min => change!(|old, new| old.min(new)),
                    Change::Max => change!(|old, new| old.max(new)),
                })
            }
            fn is_bad_divisor(self) -> bool {
                self == 0
            }
        }
    )*};
    (complex $($type:ty),*) => {$(
        impl Scattered for $type {
            fn function(change: Change) -> Option<RowChange<Self>> {
                Some(match change {
                    Change::Update => change!(|_, new| new),
                    Change::Add => change!(|old, new| old + new),
                    Change::Sub => change!(|old, new| old - new),
                    Change::Mul => change!(|old, new| old * new),
                    Change::Div => change!(|old, new| old / new),
                    Change::Min | Change::Max => return None,
                })
            }
            fn is_bad_divisor(self) -> bool {
                false
            }
        }
    )*};
}

scattered!(floats f32, f64, f16, bf16);
scattered!(integers i8, i16, i32, i64, u8, u16, u32, u64);
scattered!(complex Complex<f32>, Complex<f64>);

impl Scattered for bool {
    fn function(change: Change) -> Option<RowChange<Self>> {
        (change == Change::Update).then_some(change!(|_, new| new) as RowChange<Self>)
    }
    fn is_bad_divisor(self) -> bool {
        false
    }
}

/// How an op says which parts it changes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Addressing {
    /// By rows: each index is a position along the first dimension.
    Rows,
    /// By points: the last dimension of the indices is a position along the first dimensions.
    Points,
}

/// For each change the op over a reference and the op over a handle, with a kernel for each dtype that has the change.
macro_rules! definitions {
    ($($reference:ident $handle:ident: $name:literal $addressing:ident $change:ident
        ($types:literal, $locking:literal) ($handle_types:literal $(, $handle_locking:literal)?) $summary:literal;)*) => {$(
        #[doc = concat!("`", $name, "`")]
        pub(crate) fn $reference() -> OpDefinition {
            let definition = OpDefinition::new($name, $summary)
                .input("ref: Ref(T)")
                .input("indices: Tindices")
                .input("updates: T")
                .output("output_ref: Ref(T)")
                .attr($types)
                .attr("Tindices: {int32, int64}")
                .attr($locking);
            let definition = finish(definition, Addressing::$addressing, kernels!($addressing $change));
            let attr = definition.attrs[0].name;
            let make: MakeKernel = |request| on_device(request, Addressing::$addressing, Change::$change);
            definition.kernel(KernelDefinition::cuda(make).types(attr, FLOATS))
        }

        #[doc = concat!("`Resource", $name, "`")]
        pub(crate) fn $handle() -> OpDefinition {
            let mut definition = OpDefinition::new(concat!("Resource", $name), $summary).stateful();
            definition = match Addressing::$addressing {
                Addressing::Rows => definition.input("resource: resource"),
                Addressing::Points => definition.input("ref: resource"),
            };
            definition = match Addressing::$addressing {
                Addressing::Rows => definition.input("indices: Tindices").input("updates: dtype"),
                Addressing::Points => definition.input("indices: Tindices").input("updates: T"),
            };
            definition = definition.attr($handle_types).attr("Tindices: {int32, int64}")$(.attr($handle_locking))?;
            let definition = finish(definition, Addressing::$addressing, kernels!($addressing $change));
            let attr = definition.attrs[0].name;
            let make: MakeKernel = |request| on_device(request, Addressing::$addressing, Change::$change);
            definition.kernel(KernelDefinition::cuda(make).types(attr, FLOATS))
        }
    )*};
}

macro_rules! kernels {
    ($addressing:ident $change:ident) => {
        kernels!(@ $addressing $change; f32, f64, f16, bf16, i8, i16, i32, i64, u8, u16, u32, u64, Complex<f32>,
            Complex<f64>, bool)
    };
    (@ $addressing:ident $change:ident; $($type:ty),*) => {
        [$((&[<$type>::DTYPE], |_| kernel::<$type>(Addressing::$addressing, Change::$change))),*]
    };
}

definitions! {
    update_definition resource_update_definition: "ScatterUpdate" Rows Update
        ("T: type", "use_locking: bool = true") ("dtype: type")
        "Sets rows of a variable: ref[indices[i]] = updates[i]; of several updates of a row the last counts.";
    add_definition resource_add_definition: "ScatterAdd" Rows Add
        ("T: numbertype", "use_locking: bool = false") ("dtype: numbertype")
        "Adds to rows of a variable: ref[indices[i]] += updates[i].";
    sub_definition resource_sub_definition: "ScatterSub" Rows Sub
        ("T: numbertype", "use_locking: bool = false") ("dtype: numbertype")
        "Subtracts from rows of a variable: ref[indices[i]] -= updates[i].";
    mul_definition resource_mul_definition: "ScatterMul" Rows Mul
        ("T: numbertype", "use_locking: bool = false") ("dtype: numbertype")
        "Multiplies rows of a variable: ref[indices[i]] *= updates[i].";
    div_definition resource_div_definition: "ScatterDiv" Rows Div
        ("T: numbertype", "use_locking: bool = false") ("dtype: numbertype")
        "Divides rows of a variable: ref[indices[i]] /= updates[i].";
    min_definition resource_min_definition: "ScatterMin" Rows Min
        ("T: {half, bfloat16, float, double, int32, int64}", "use_locking: bool = false") ("dtype: numbertype")
        "Lowers rows of a variable: ref[indices[i]] = min(ref[indices[i]], updates[i]).";
    max_definition resource_max_definition: "ScatterMax" Rows Max
        ("T: {half, bfloat16, float, double, int32, int64}", "use_locking: bool = false") ("dtype: numbertype")
        "Raises rows of a variable: ref[indices[i]] = max(ref[indices[i]], updates[i]).";
    nd_update_definition resource_nd_update_definition: "ScatterNdUpdate" Points Update
        ("T: type", "use_locking: bool = true") ("T: type", "use_locking: bool = true")
        "Sets parts of a variable, each at the position that a row of indices says.";
    nd_add_definition resource_nd_add_definition: "ScatterNdAdd" Points Add
        ("T: numbertype", "use_locking: bool = false") ("T: numbertype", "use_locking: bool = true")
        "Adds to parts of a variable, each at the position that a row of indices says.";
    nd_sub_definition resource_nd_sub_definition: "ScatterNdSub" Points Sub
        ("T: numbertype", "use_locking: bool = false") ("T: numbertype", "use_locking: bool = true")
        "Subtracts from parts of a variable, each at the position that a row of indices says.";
}

fn finish(
    definition: OpDefinition,
    addressing: Addressing,
    kernels: [(&'static [DType], MakeKernel); 15],
) -> OpDefinition {
    let mut definition = definition.may_fail().not_differentiable().shape(match addressing {
        Addressing::Rows => |context| shape(context, Addressing::Rows),
        Addressing::Points => |context| shape(context, Addressing::Points),
    });
    let attr = &definition.attrs[0];
    let (attr, allowed) = (attr.name, attr.allowed_types.clone());
    for (dtypes, make) in kernels {
        if allowed.is_empty() || allowed.contains(&dtypes[0]) {
            definition = definition.kernel(KernelDefinition::cpu(make).types(attr, dtypes));
        }
    }
    definition
}

/// Rows or points on a device, where numbers that name none are left out.
fn on_device(request: &KernelRequest<'_>, addressing: Addressing, change: Change) -> Result<Planned> {
    let change = match change {
        Change::Update => "update",
        Change::Add => "old + update",
        Change::Sub => "old - update",
        Change::Mul => "old * update",
        Change::Div => "old / update",
        Change::Min => "update < old ? update : old",
        Change::Max => "update > old ? update : old",
    };
    let (numbers, updates) = (request.input_shape(1).clone(), request.input_shape(2).clone());
    let (depth, count) = match (addressing, numbers.split_last()) {
        (Addressing::Rows, _) => (1, numbers.num_elements()),
        (Addressing::Points, Some((&depth, places))) => (depth, places.iter().product()),
        (Addressing::Points, None) => return Err(Error::invalid_argument("the indices must have at least rank 1")),
    };
    let scatter = Scatter::new(request, request.input_dtype(2), request.input_dtype(1), count, change)?;
    let planned = Planned::new(move |context: &mut KernelContext<'_>| {
        let (variable, scratch) = (context.variable_address(0)?, context.scratch_address());
        let shape = match context.variable(0)?.extent() {
            Some((_, shape)) => shape,
            None => return Err(Error::failed_precondition("the variable is not initialized")),
        };
        let expected = updates_shape(&shape.into(), &(&numbers).into(), addressing)?;
        check_updates(&expected, &(&updates).into(), addressing)?;
        let extent = Extent {
            dims: Depth::new(shape.get(..depth).unwrap_or_default())?,
            inner: shape.iter().skip(depth).product(),
            repeated: updates.rank() == 0 && addressing == Addressing::Rows,
        };
        // SAFETY: the sizes are those of the tensors (checked).
        unsafe {
            scatter.run(
                variable,
                context.input_address(1),
                context.input_address(2),
                extent,
                scratch,
            )?;
        }
        hand_on(context);
        Ok(())
    });
    Ok(planned.with_scratch(scatter::scratch(count)))
}

/// The shape that updates must have: as many parts as there are indices, each of the shape of a part.
pub(super) fn updates_shape(
    variable: &PartialShape,
    indices: &PartialShape,
    addressing: Addressing,
) -> Result<PartialShape> {
    let (Some(variable), Some(indices)) = (variable.dims(), indices.dims()) else {
        return Ok(PartialShape::unknown());
    };
    let (places, depth) = match addressing {
        Addressing::Rows => (indices, Some(1)),
        Addressing::Points => match indices.split_last() {
            Some((depth, places)) => (places, *depth),
            None => return Err(Error::invalid_argument("the indices must have at least rank 1")),
        },
    };
    let Some(depth) = depth else {
        return Ok(PartialShape::unknown());
    };
    if depth > variable.len() {
        return Err(
            Error::invalid_argument("an index has more numbers than the variable dimensions")
                .expected(format!("at most {}", variable.len()))
                .got(depth),
        );
    }
    Ok(PartialShape::from_dims(
        places.iter().chain(&variable[depth..]).copied(),
    ))
}

fn shape(context: &mut InferenceContext<'_>, addressing: Addressing) -> Result<()> {
    let variable = context.variable_of(0, context.input_dtype(2))?;
    let expected = updates_shape(&variable, context.input(1), addressing)?;
    check_updates(&expected, context.input(2), addressing)?;
    if context.num_outputs() > 0 {
        context.set_output(0, variable);
    }
    Ok(())
}

/// Rows may also all meet one scalar.
fn check_updates(expected: &PartialShape, updates: &PartialShape, addressing: Addressing) -> Result<()> {
    let scalar = addressing == Addressing::Rows && updates.rank() == Some(0);
    if scalar || expected.is_compatible_with(updates) {
        return Ok(());
    }
    Err(Error::invalid_argument(
        "the updates must have the shape of the indices, followed by that of a part of the variable",
    )
    .expected(expected)
    .got(updates))
}

fn kernel<T: Scattered>(addressing: Addressing, change: Change) -> Result<Planned> {
    let function = T::function(change)
        .ok_or_else(|| Error::unimplemented(format!("{change:?} of {} is not defined", T::DTYPE)))?;
    Ok(Planned::new(move |context| {
        let shape = variable_shape(context, 0)?;
        let expected = updates_shape(&(&shape).into(), &context.input_shape(1).into(), addressing)?;
        check_updates(&expected, &context.input_shape(2).into(), addressing)?;
        let updates = context.input::<T>(2)?;
        if change == Change::Div && updates.iter().any(|update| update.is_bad_divisor()) {
            return Err(Error::invalid_argument("Integer division by zero"));
        }
        let (offsets, len) = match context.input_dtype(1) {
            DType::Int32 => places(context, context.input::<i32>(1)?, &shape, addressing)?,
            _ => places(context, context.input::<i64>(1)?, &shape, addressing)?,
        };
        let variable = context.variable_mut::<T>(0)?;
        if context.input_shape(2).rank() == 0 && addressing == Addressing::Rows {
            scatter_rows(&offsets, len, &vec![updates[0]; len], variable, function);
        } else {
            scatter_rows(&offsets, len, updates, variable, function);
        }
        hand_on(context);
        Ok(())
    }))
}

/// Where each part begins in the variable, and how long a part is; all indices are checked before anything is changed.
pub(super) fn places<I: Element + Into<i64>>(
    context: &KernelContext<'_>,
    indices: &[I],
    shape: &Shape,
    addressing: Addressing,
) -> Result<(Vec<usize>, usize)> {
    let depth = match addressing {
        Addressing::Rows => 1,
        Addressing::Points => context.input_shape(1).last().copied().unwrap_or(0),
    };
    if depth > shape.rank() {
        return Err(Error::invalid_argument(
            "the variable has fewer dimensions than an index has numbers",
        ));
    }
    let len = shape[depth..].iter().product();
    if depth == 0 {
        // Every empty index is the whole variable.
        let count = context.input_shape(1).iter().rev().skip(1).product();
        return Ok((vec![0; count], len));
    }
    let strides = shape.strides();
    let offset = |(number, index): (usize, &[I])| {
        index
            .iter()
            .zip(shape.iter())
            .zip(&strides)
            .try_fold(0, |offset, ((&index, &dim), &stride)| {
                let position: i64 = index.into();
                match usize::try_from(position) {
                    Ok(position) if position < dim => Ok(offset + position * stride),
                    _ => Err(Error::invalid_argument(format!(
                        "indices[{number}] = {position} is not in [0, {dim})"
                    ))),
                }
            })
    };
    let offsets = indices.chunks(depth).enumerate().map(offset).collect::<Result<_>>()?;
    Ok((offsets, len))
}

macro_rules! builders {
    ($($(#[$doc:meta])* $function:ident $builder:ident $name:literal;)*) => {$(
        update_builder! {
            #[doc = concat!("A change about to be made; see [`", stringify!($function), "`].")]
            pub struct $builder;
        }

        impl $builder {
            /// Sets the attribute of the name, which means nothing here: runs of a session take turns.
            pub fn use_locking(self, lock: bool) -> Self {
                Self(self.0.reference_attr("use_locking", lock))
            }
        }

        $(#[$doc])*
        ///
        /// Its output is the variable's new value, as for [`assign`](super::assign). Updates of one element are done in the order of the
        /// indices.
        ///
        /// # Errors
        /// `InvalidArgument` for shapes that do not fit together, and in a run for indices outside of the variable.
        #[track_caller]
        pub fn $function(
            variable: impl IntoOperand,
            indices: impl IntoOperand,
            updates: impl IntoOperand,
        ) -> $builder {
            let update = Update::new(variable, $name, concat!("Resource", $name));
            $builder(update.input(indices).value(updates))
        }
    )*};
}

builders! {
    /// Sets rows of `variable`: `variable[indices[i]] = updates[i]`. `updates` has the shape of `indices` followed by that of
    /// a row, or is a scalar.
    scatter_update ScatterUpdate "ScatterUpdate";
    /// Adds to rows of `variable`: `variable[indices[i]] += updates[i]`.
    scatter_add ScatterAdd "ScatterAdd";
    /// Subtracts from rows of `variable`: `variable[indices[i]] -= updates[i]`.
    scatter_sub ScatterSub "ScatterSub";
    /// Multiplies rows of `variable`: `variable[indices[i]] *= updates[i]`.
    scatter_mul ScatterMul "ScatterMul";
    /// Divides rows of `variable`: `variable[indices[i]] /= updates[i]`; integers are rounded to 0.
    scatter_div ScatterDiv "ScatterDiv";
    /// Lowers rows of `variable` to `updates`.
    scatter_min ScatterMin "ScatterMin";
    /// Raises rows of `variable` to `updates`.
    scatter_max ScatterMax "ScatterMax";
    /// Sets parts of `variable`, each at the position that a row of `indices` says.
    scatter_nd_update ScatterNdUpdate "ScatterNdUpdate";
    /// Adds to parts of `variable`, each at the position that a row of `indices` says.
    scatter_nd_add ScatterNdAdd "ScatterNdAdd";
    /// Subtracts from parts of `variable`, each at the position that a row of `indices` says.
    scatter_nd_sub ScatterNdSub "ScatterNdSub";
}
