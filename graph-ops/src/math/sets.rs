//! Operations on sets, the last axes of tensors: `DenseToDenseSetOperation`, `DenseToSparseSetOperation`,
//! `SparseToSparseSetOperation` and `SetSize`.
//!
//! A sparse operand lists its elements by positions, in the order of rows; each position's last index is its place in a set.

use std::collections::{BTreeMap, BTreeSet};

use graph_core::graph::{IntoOperand, OpBuilder, Tensor};
use graph_core::op::{InferenceContext, KernelContext, KernelDefinition, KernelRequest, OpDefinition, Planned};
use graph_core::{DType, Error, PartialShape, Result, Shape, Value};

const TYPES: &str = "T: {int8, int16, int32, int64, uint8, uint16, string}";

/// A kernel for each dtype.
macro_rules! kernels {
    ($definition:expr, $kernel:ident) => {
        kernels!(
            $definition, $kernel:
            Int8 i8, Int16 i16, Int32 i32, Int64 i64, UInt8 u8, UInt16 u16, String Text
        )
    };
    ($definition:expr, $kernel:ident: $($dtype:ident $type:ty),*) => {
        $definition$(.kernel(
            KernelDefinition::cpu($kernel::<$type>).types("T", &[DType::$dtype]).data_dependent(),
        ))*
    };
}

/// Adds a dense operand.
fn dense(definition: OpDefinition, values: &'static str) -> OpDefinition {
    definition.input(values)
}

/// Adds a sparse operand.
fn sparse(definition: OpDefinition, [indices, values, shape]: [&'static str; 3]) -> OpDefinition {
    definition.input(indices).input(values).input(shape)
}

const SPARSE_SET_1: [&str; 3] = ["set1_indices: int64", "set1_values: T", "set1_shape: int64"];
const SPARSE_SET_2: [&str; 3] = ["set2_indices: int64", "set2_values: T", "set2_shape: int64"];

fn operation(definition: OpDefinition) -> OpDefinition {
    definition
        .output("result_indices: int64")
        .output("result_values: T")
        .output("result_shape: int64")
        .attr("set_operation: string")
        .attr("validate_indices: bool = true")
        .attr(TYPES)
        .may_fail()
        .not_differentiable()
}

/// `DenseToDenseSetOperation`
pub(crate) fn dense_to_dense() -> OpDefinition {
    let definition = OpDefinition::new(
        "DenseToDenseSetOperation",
        "The union, intersection or difference of the sets along the last axes, as a sparse tensor of sorted sets.",
    );
    let definition = operation(dense(dense(definition, "set1: T"), "set2: T")).shape(dense_shape);
    kernels!(definition, dense_dense_kernel)
}

/// `DenseToSparseSetOperation`
pub(crate) fn dense_to_sparse() -> OpDefinition {
    let definition = OpDefinition::new(
        "DenseToSparseSetOperation",
        "DenseToDenseSetOperation with a sparse second operand.",
    );
    let definition = operation(sparse(dense(definition, "set1: T"), SPARSE_SET_2)).shape(|context| {
        let rank = context.with_rank_at_least(0, 2)?.rank();
        set_outputs(context, rank);
        Ok(())
    });
    kernels!(definition, dense_sparse_kernel)
}

/// `SparseToSparseSetOperation`
pub(crate) fn sparse_to_sparse() -> OpDefinition {
    let definition = OpDefinition::new(
        "SparseToSparseSetOperation",
        "DenseToDenseSetOperation with two sparse operands.",
    );
    let definition = operation(sparse(sparse(definition, SPARSE_SET_1), SPARSE_SET_2)).shape(|context| {
        let rank = context.with_rank(2, 1)?.dim(0).or(context.with_rank(5, 1)?.dim(0));
        set_outputs(context, rank);
        Ok(())
    });
    kernels!(definition, sparse_sparse_kernel)
}

/// `SetSize`
pub(crate) fn set_size_op() -> OpDefinition {
    let definition = OpDefinition::new(
        "SetSize",
        "The number of different elements in each set of a sparse tensor.",
    );
    let definition = sparse(definition, ["set_indices: int64", "set_values: T", "set_shape: int64"])
        .output("size: int32")
        .attr("validate_indices: bool = true")
        .attr(TYPES)
        .may_fail()
        .not_differentiable()
        .shape(|context| {
            let shape = context.shape_from_input(2)?;
            if let Some(dims) = shape.dims().and_then(|dims| dims.split_last()) {
                context.set_output(0, PartialShape::from_dims(dims.1.iter().copied()));
            }
            Ok(())
        });
    kernels!(definition, size_kernel)
}

fn dense_shape(context: &mut InferenceContext<'_>) -> Result<()> {
    let (first, second) = (context.with_rank_at_least(0, 2)?, context.with_rank_at_least(1, 2)?);
    if let (Some(a), Some(b)) = (first.dims(), second.dims()) {
        let groups = |dims: &[graph_core::Dim]| PartialShape::from_dims(dims[..dims.len() - 1].iter().copied());
        groups(a)
            .merge(&groups(b))
            .map_err(|error| error.context("matching the sets of two tensors"))?;
    }
    set_outputs(context, first.rank().or(second.rank()));
    Ok(())
}

fn set_outputs(context: &mut InferenceContext<'_>, rank: Option<usize>) {
    context.set_output(0, PartialShape::from([None, rank]));
    context.set_output(1, PartialShape::unknown_of_rank(1));
    context.set_output(2, PartialShape::from([rank]));
}

/// Elements of sets: numbers as they are, byte strings by value.
trait Member: Ord + Clone + Send + Sync + 'static {
    fn read(context: &KernelContext<'_>, input: usize) -> Result<Vec<Self>>;
    fn value(members: Vec<Self>) -> Result<Value>;
}

macro_rules! numbers {
    ($($type:ty),*) => {$(
        impl Member for $type {
            fn read(context: &KernelContext<'_>, input: usize) -> Result<Vec<Self>> {
                Ok(context.input::<$type>(input)?.to_vec())
            }
            fn value(members: Vec<Self>) -> Result<Value> {
                Value::from_vec([members.len()], members)
            }
        }
    )*};
}
numbers!(i8, i16, i32, i64, u8, u16);

/// A byte string.
type Text = Vec<u8>;

impl Member for Text {
    fn read(context: &KernelContext<'_>, input: usize) -> Result<Vec<Self>> {
        Ok(context.input_strings(input)?.to_vec())
    }
    fn value(members: Vec<Self>) -> Result<Value> {
        Value::from_strings([members.len()], members)
    }
}

/// The sets of a tensor: by the position of each that is not empty, and the shape of the positions.
struct Sets<M> {
    groups: Vec<i64>,
    sets: BTreeMap<Vec<i64>, BTreeSet<M>>,
}

fn dense_sets<M: Member>(context: &KernelContext<'_>, input: usize) -> Result<Sets<M>> {
    let shape: &Shape = context.input_shape(input);
    let Some((&len, groups)) = shape.split_last().filter(|(_, groups)| !groups.is_empty()) else {
        return Err(Error::invalid_argument("sets are the last of at least two axes").got(format!("shape {shape}")));
    };
    let members = M::read(context, input)?;
    let mut sets = BTreeMap::new();
    for (at, set) in members.chunks(len.max(1)).enumerate() {
        let mut rest = at;
        let mut position: Vec<i64> = groups
            .iter()
            .rev()
            .map(|&dim| {
                let index = rest % dim;
                rest /= dim;
                index as i64
            })
            .collect();
        position.reverse();
        sets.insert(position, set.iter().cloned().collect());
    }
    Ok(Sets {
        groups: groups.iter().map(|&dim| dim as i64).collect(),
        sets,
    })
}

/// The sets of the sparse tensor in three inputs from `first` on.
fn sparse_sets<M: Member>(context: &KernelContext<'_>, first: usize, validate: bool) -> Result<Sets<M>> {
    let (indices, shape) = (context.input::<i64>(first)?, context.input::<i64>(first + 2)?);
    let members = M::read(context, first + 1)?;
    let rank = shape.len();
    if rank < 2 {
        return Err(Error::invalid_argument("a sparse tensor of sets has at least two axes").got(rank));
    }
    if context.input_shape(first).dims() != [members.len(), rank] {
        return Err(
            Error::invalid_argument("the positions of a sparse tensor do not fit its values")
                .expected(format!("shape [{},{rank}]", members.len()))
                .got(format!("shape {}", context.input_shape(first))),
        );
    }
    let mut sets: BTreeMap<Vec<i64>, BTreeSet<M>> = BTreeMap::new();
    let mut before: Option<&[i64]> = None;
    for (position, member) in indices.chunks_exact(rank).zip(members) {
        if position
            .iter()
            .zip(shape)
            .any(|(&index, &dim)| index < 0 || index >= dim)
        {
            return Err(Error::invalid_argument("a position is outside of the sparse tensor")
                .expected(format!("below {shape:?}"))
                .got(format!("{position:?}")));
        }
        if validate && before.is_some_and(|before| before >= position) {
            return Err(
                Error::invalid_argument("the positions of a sparse tensor are not in order, or repeat")
                    .got(format!("{position:?} after {before:?}")),
            );
        }
        before = Some(position);
        sets.entry(position[..rank - 1].to_vec()).or_default().insert(member);
    }
    Ok(Sets {
        groups: shape[..rank - 1].to_vec(),
        sets,
    })
}

/// What is done with two sets.
#[derive(Clone, Copy)]
enum Operation {
    FirstWithoutSecond,
    SecondWithoutFirst,
    Intersection,
    Union,
}

impl Operation {
    fn of(request: &KernelRequest<'_>) -> Result<Self> {
        let name: String = request.attr("set_operation")?;
        match name.to_lowercase().as_str() {
            "a-b" => Ok(Self::FirstWithoutSecond),
            "b-a" => Ok(Self::SecondWithoutFirst),
            "intersection" => Ok(Self::Intersection),
            "union" => Ok(Self::Union),
            _ => Err(Error::invalid_argument("there is no such operation on sets")
                .expected("a-b, b-a, intersection or union")
                .got(name)),
        }
    }

    fn apply<M: Member>(self, a: &BTreeSet<M>, b: &BTreeSet<M>) -> Vec<M> {
        match self {
            Self::FirstWithoutSecond => a.difference(b).cloned().collect(),
            Self::SecondWithoutFirst => b.difference(a).cloned().collect(),
            Self::Intersection => a.intersection(b).cloned().collect(),
            Self::Union => a.union(b).cloned().collect(),
        }
    }
}

/// Reads the sets of an operand.
type Read<M> = fn(&KernelContext<'_>, usize, bool) -> Result<Sets<M>>;

fn dense_dense_kernel<M: Member>(request: &KernelRequest<'_>) -> Result<Planned> {
    let dense: Read<M> = |context, input, _| dense_sets(context, input);
    kernel(request, [(dense, 0), (dense, 1)])
}

fn dense_sparse_kernel<M: Member>(request: &KernelRequest<'_>) -> Result<Planned> {
    let dense: Read<M> = |context, input, _| dense_sets(context, input);
    kernel(request, [(dense, 0), (sparse_sets, 1)])
}

fn sparse_sparse_kernel<M: Member>(request: &KernelRequest<'_>) -> Result<Planned> {
    kernel::<M>(request, [(sparse_sets, 0), (sparse_sets, 3)])
}

fn kernel<M: Member>(request: &KernelRequest<'_>, operands: [(Read<M>, usize); 2]) -> Result<Planned> {
    let operation = Operation::of(request)?;
    let validate: bool = request.attr("validate_indices")?;
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let [first, second] = operands.map(|(read, input)| read(context, input, validate));
        let (first, second) = (first?, second?);
        if first.groups != second.groups {
            return Err(
                Error::invalid_argument("the two operands have different numbers of sets")
                    .expected(format!("{:?}", first.groups))
                    .got(format!("{:?}", second.groups)),
            );
        }
        let nothing = BTreeSet::new();
        let positions: BTreeSet<&Vec<i64>> = first.sets.keys().chain(second.sets.keys()).collect();
        let (mut indices, mut members, mut longest) = (Vec::new(), Vec::new(), 0);
        for position in positions {
            let of = |sets: &Sets<M>| sets.sets.get(position).cloned();
            let (a, b) = (of(&first), of(&second));
            let result = operation.apply(a.as_ref().unwrap_or(&nothing), b.as_ref().unwrap_or(&nothing));
            longest = longest.max(result.len());
            for (at, member) in result.into_iter().enumerate() {
                indices.extend_from_slice(position);
                indices.push(at as i64);
                members.push(member);
            }
        }
        let shape: Vec<i64> = first.groups.iter().copied().chain([longest as i64]).collect();
        context.set_output(0, Value::from_vec([members.len(), shape.len()], indices)?);
        context.set_output(1, M::value(members)?);
        context.set_output(2, Value::from_vec([shape.len()], shape)?);
        Ok(())
    }))
}

fn size_kernel<M: Member>(request: &KernelRequest<'_>) -> Result<Planned> {
    let validate: bool = request.attr("validate_indices")?;
    Ok(Planned::new(move |context: &mut KernelContext<'_>| {
        let sets = sparse_sets::<M>(context, 0, validate)?;
        let dims: Option<Vec<usize>> = sets.groups.iter().map(|&dim| usize::try_from(dim).ok()).collect();
        let shape = dims.map(|dims| Shape::new(&dims));
        let shape = shape
            .filter(|shape| shape.checked_num_elements().is_some())
            .ok_or_else(|| {
                Error::invalid_argument("the shape of the sparse tensor is none").got(format!("{:?}", sets.groups))
            })?;
        let strides = shape.strides();
        let sizes = context.allocate_output::<i32>(0, shape)?;
        for (position, set) in sets.sets {
            let place: usize = position
                .iter()
                .zip(&strides)
                .map(|(&index, &stride)| index as usize * stride)
                .sum();
            sizes[place] = set.len() as i32;
        }
        Ok(())
    }))
}

/// A sparse tensor: the positions of its elements, the elements, and its shape.
pub type SparseParts = (Tensor, Tensor, Tensor);

/// The result of `set_operation` (`"a-b"`, `"b-a"`, `"intersection"` or `"union"`) on the sets along the last axes of `a` and
/// `b`, whose other axes are the same, as a sparse tensor whose sets are sorted. Of integers or byte strings.
///
/// # Errors
/// The operands' own; `InvalidArgument` if the shapes do not fit. An operation of another name is an error in the run.
#[track_caller]
pub fn dense_set_operation(a: impl IntoOperand, b: impl IntoOperand, set_operation: &str) -> Result<SparseParts> {
    let node: OpBuilder = crate::op("DenseToDenseSetOperation").input(a).input(b);
    let operation = node.attr("set_operation", set_operation).build_operation()?;
    Ok((operation.output(0), operation.output(1), operation.output(2)))
}

#[cfg(test)]
pub(crate) fn cases() -> Vec<crate::testing::Case> {
    use crate::testing::Case;
    let words = |shape: &[usize], words: &[&str]| {
        Value::from_strings(shape, words.iter().map(|word| word.as_bytes().to_vec()).collect()).expect("strings")
    };
    let dense = |operation: &str| {
        Case::new("DenseToDenseSetOperation")
            .attr("set_operation", operation)
            .input([[3i64, 1, 1], [5, 5, 2]])
            .input([[1i64, 4], [7, 5]])
    };
    let sparse_set = [[0i64, 0], [0, 1], [1, 0]];
    vec![
        dense("a-b")
            .expect([[0i64, 0], [1, 0]])
            .expect([3i64, 2])
            .expect([2i64, 1]),
        dense("b-a")
            .expect([[0i64, 0], [1, 0]])
            .expect([4i64, 7])
            .expect([2i64, 1]),
        dense("intersection")
            .expect([[0i64, 0], [1, 0]])
            .expect([1i64, 5])
            .expect([2i64, 1]),
        dense("union")
            .expect([[0i64, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]])
            .expect([1i64, 3, 4, 2, 5, 7])
            .expect([2i64, 3]),
        Case::new("DenseToDenseSetOperation")
            .attr("set_operation", "union")
            .input(words(&[1, 2], &["b", "a"]))
            .input(words(&[1, 1], &["b"]))
            .expect([[0i64, 0], [0, 1]])
            .expect(words(&[2], &["a", "b"]))
            .expect([1i64, 2]),
        Case::new("DenseToDenseSetOperation")
            .attr("set_operation", "a-b")
            .input([[[3u8, 1]]])
            .input([[[3u8, 1]]])
            .expect(Value::zeros(DType::Int64, [0, 3]).expect("a value"))
            .expect(Vec::<u8>::new())
            .expect([1i64, 1, 0]),
        Case::new("DenseToSparseSetOperation")
            .attr("set_operation", "intersection")
            .input([[3i32, 1], [5, 2]])
            .input(sparse_set)
            .input([1i32, 3, 7])
            .input([2i64, 4])
            .expect([[0i64, 0], [0, 1]])
            .expect([1i32, 3])
            .expect([2i64, 2]),
        Case::new("SparseToSparseSetOperation")
            .attr("set_operation", "union")
            .input(sparse_set)
            .input([1i16, 3, 7])
            .input([3i64, 4])
            .input([[2i64, 0]])
            .input([9i16])
            .input([3i64, 1])
            .expect([[0i64, 0], [0, 1], [1, 0], [2, 0]])
            .expect([1i16, 3, 7, 9])
            .expect([3i64, 2]),
        Case::new("SetSize")
            .input(sparse_set)
            .input([3i8, 3, 7])
            .input([3i64, 4])
            .expect([1i32, 1, 0]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Case;

    #[test]
    fn what_is_no_set_operation_is_an_error() {
        let dense = |operation: &str, a: Value, b: Value| {
            let case = Case::new("DenseToDenseSetOperation").attr("set_operation", operation);
            case.input(a).input(b).run().expect_err(operation).class()
        };
        assert_eq!(dense("xor", [[1i32]].into(), [[1i32]].into()), "InvalidArgument");
        assert_eq!(dense("union", [[1i32], [2]].into(), [[1i32]].into()), "InvalidArgument");
        assert_eq!(dense("union", [1i32].into(), [1i32].into()), "InvalidArgument");
    }

    #[test]
    fn positions_must_be_in_order_and_inside() {
        let size = |indices: [[i64; 2]; 2], validate: bool| {
            let case = Case::new("SetSize").attr("validate_indices", validate).input(indices);
            case.input([1i32, 2]).input([2i64, 2]).run()
        };
        assert!(size([[0, 0], [0, 1]], true).is_ok());
        assert!(size([[0, 1], [0, 0]], true).is_err() && size([[0, 1], [0, 0]], false).is_ok());
        assert!(size([[0, 0], [2, 0]], false).is_err() && size([[0, -1], [0, 0]], false).is_err());
    }
}
