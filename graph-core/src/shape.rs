//! Shapes: fully known ones of values, partial ones of tensors in a graph.

use std::fmt;
use std::ops::Deref;

use smallvec::{SmallVec, smallvec};

use crate::error::{Error, Result};

/// The shape of a value: its dimensions, outermost first; empty for a scalar.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Shape(SmallVec<[usize; 4]>);

impl Shape {
    /// The shape of a scalar.
    pub fn scalar() -> Self {
        Self::default()
    }

    /// A shape of these dimensions.
    pub fn new(dims: &[usize]) -> Self {
        Self(SmallVec::from_slice(dims))
    }

    /// The number of dimensions.
    pub fn rank(&self) -> usize {
        self.0.len()
    }

    /// The number of elements; 1 for a scalar.
    pub fn num_elements(&self) -> usize {
        self.0.iter().product()
    }

    /// The number of elements, or `None` where it overflows.
    pub fn checked_num_elements(&self) -> Option<usize> {
        self.0.iter().try_fold(1usize, |count, &dim| count.checked_mul(dim))
    }

    /// The dimensions as a slice.
    pub fn dims(&self) -> &[usize] {
        &self.0
    }

    /// The distances, in elements, between neighbours along each dimension of a row-major array.
    pub fn strides(&self) -> SmallVec<[usize; 4]> {
        let mut strides = smallvec![1; self.rank()];
        for axis in (1..self.rank()).rev() {
            strides[axis - 1] = strides[axis] * self[axis];
        }
        strides
    }

    /// The shape that two shapes broadcast to, as NumPy and TensorFlow do it, or `None`.
    pub fn broadcast(&self, other: &Shape) -> Option<Shape> {
        let rank = self.rank().max(other.rank());
        let mut dims: SmallVec<[usize; 4]> = smallvec![0; rank];
        for (from_end, dim) in dims.iter_mut().rev().enumerate() {
            let a = self.rank().checked_sub(from_end + 1).map_or(1, |axis| self[axis]);
            let b = other.rank().checked_sub(from_end + 1).map_or(1, |axis| other[axis]);
            *dim = match (a, b) {
                (a, b) if a == b => a,
                (1, b) => b,
                (a, 1) => a,
                _ => return None,
            };
        }
        Some(Shape(dims))
    }
}

impl Deref for Shape {
    type Target = [usize];
    fn deref(&self) -> &[usize] {
        &self.0
    }
}

impl FromIterator<usize> for Shape {
    fn from_iter<I: IntoIterator<Item = usize>>(dims: I) -> Self {
        Self(dims.into_iter().collect())
    }
}

impl From<&[usize]> for Shape {
    fn from(dims: &[usize]) -> Self {
        Self::new(dims)
    }
}

impl<const N: usize> From<[usize; N]> for Shape {
    fn from(dims: [usize; N]) -> Self {
        Self::new(&dims)
    }
}

impl From<Vec<usize>> for Shape {
    fn from(dims: Vec<usize>) -> Self {
        Self::new(&dims)
    }
}

impl From<()> for Shape {
    fn from((): ()) -> Self {
        Self::scalar()
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_dims(f, self.0.iter().map(|&dim| Some(dim)))
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn write_dims(f: &mut fmt::Formatter<'_>, dims: impl Iterator<Item = Option<usize>>) -> fmt::Result {
    f.write_str("[")?;
    for (index, dim) in dims.enumerate() {
        if index > 0 {
            f.write_str(",")?;
        }
        match dim {
            Some(dim) => write!(f, "{dim}")?,
            None => f.write_str("?")?,
        }
    }
    f.write_str("]")
}

/// One dimension of a [`PartialShape`]: its size, or `None` where it is not known.
pub type Dim = Option<usize>;

/// What is known of the shape of a tensor in a graph: nothing (unknown rank), or its rank and some of its dimensions.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct PartialShape(Option<SmallVec<[Dim; 4]>>);

impl PartialShape {
    /// A shape of which not even the rank is known.
    pub const fn unknown() -> Self {
        Self(None)
    }

    /// The shape of a scalar.
    pub fn scalar() -> Self {
        Self(Some(SmallVec::new()))
    }

    /// A shape of known rank of which no dimension is known.
    pub fn unknown_of_rank(rank: usize) -> Self {
        Self(Some(smallvec![None; rank]))
    }

    /// A shape of these dimensions.
    pub fn from_dims(dims: impl IntoIterator<Item = Dim>) -> Self {
        Self(Some(dims.into_iter().collect()))
    }

    /// A shape of one known dimension.
    pub fn vector(len: usize) -> Self {
        Self::from_dims([Some(len)])
    }

    /// The dimensions, or `None` for an unknown rank.
    pub fn dims(&self) -> Option<&[Dim]> {
        self.0.as_deref()
    }

    /// The number of dimensions, if known.
    pub fn rank(&self) -> Option<usize> {
        self.0.as_ref().map(SmallVec::len)
    }

    /// Dimension `axis`; `None` where it, or the rank, is not known, or where there is no such dimension.
    pub fn dim(&self, axis: usize) -> Dim {
        self.0.as_ref().and_then(|dims| dims.get(axis).copied().flatten())
    }

    /// The shape, if every dimension is known.
    pub fn to_shape(&self) -> Option<Shape> {
        self.0
            .as_ref()?
            .iter()
            .copied()
            .collect::<Option<SmallVec<_>>>()
            .map(Shape)
    }

    /// Whether every dimension is known.
    pub fn is_fully_defined(&self) -> bool {
        self.0.as_ref().is_some_and(|dims| dims.iter().all(Option::is_some))
    }

    /// The number of elements, if known.
    pub fn num_elements(&self) -> Option<usize> {
        self.to_shape().and_then(|shape| shape.checked_num_elements())
    }

    /// Whether some shape fits both.
    pub fn is_compatible_with(&self, other: &PartialShape) -> bool {
        match (&self.0, &other.0) {
            (Some(a), Some(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.is_none() || b.is_none() || a == b)
            }
            _ => true,
        }
    }

    /// Whether a value of shape `shape` fits.
    pub fn admits(&self, shape: &Shape) -> bool {
        self.is_compatible_with(&PartialShape::from(shape))
    }

    /// What is known of a tensor of which both are known.
    ///
    /// # Errors
    /// `InvalidArgument` if no shape fits both.
    pub fn merge(&self, other: &PartialShape) -> Result<PartialShape> {
        if !self.is_compatible_with(other) {
            return Err(Error::invalid_argument(format!(
                "shapes {self} and {other} are not compatible"
            )));
        }
        Ok(match (&self.0, &other.0) {
            (Some(a), Some(b)) => Self(Some(a.iter().zip(b).map(|(a, b)| a.or(*b)).collect())),
            (Some(_), None) => self.clone(),
            _ => other.clone(),
        })
    }

    /// The dimensions of both, one after the other.
    pub fn concatenate(&self, other: &PartialShape) -> PartialShape {
        match (&self.0, &other.0) {
            (Some(a), Some(b)) => Self(Some(a.iter().chain(b).copied().collect())),
            _ => Self::unknown(),
        }
    }

    /// What is known of the shape that two tensors broadcast to; `None` if they do not.
    ///
    /// An unknown dimension beside one greater than 1 gives that one, as TensorFlow infers it.
    pub fn broadcast(&self, other: &PartialShape) -> Option<PartialShape> {
        let (Some(a), Some(b)) = (&self.0, &other.0) else {
            return Some(Self::unknown());
        };
        let rank = a.len().max(b.len());
        let mut dims: SmallVec<[Dim; 4]> = smallvec![None; rank];
        for (from_end, dim) in dims.iter_mut().rev().enumerate() {
            let a = a.len().checked_sub(from_end + 1).map_or(Some(1), |axis| a[axis]);
            let b = b.len().checked_sub(from_end + 1).map_or(Some(1), |axis| b[axis]);
            *dim = match (a, b) {
                (Some(1), other) | (other, Some(1)) => other,
                (Some(a), Some(b)) if a == b => Some(a),
                (Some(_), Some(_)) => return None,
                (Some(known), None) | (None, Some(known)) => Some(known),
                (None, None) => None,
            };
        }
        Some(Self(Some(dims)))
    }
}

impl From<&Shape> for PartialShape {
    fn from(shape: &Shape) -> Self {
        Self::from_dims(shape.iter().map(|&dim| Some(dim)))
    }
}

impl From<Shape> for PartialShape {
    fn from(shape: Shape) -> Self {
        Self::from(&shape)
    }
}

impl<const N: usize> From<[Dim; N]> for PartialShape {
    fn from(dims: [Dim; N]) -> Self {
        Self::from_dims(dims)
    }
}

impl<const N: usize> From<[usize; N]> for PartialShape {
    fn from(dims: [usize; N]) -> Self {
        Self::from_dims(dims.map(Some))
    }
}

impl From<&[usize]> for PartialShape {
    fn from(dims: &[usize]) -> Self {
        Self::from_dims(dims.iter().map(|&dim| Some(dim)))
    }
}

impl From<Vec<usize>> for PartialShape {
    fn from(dims: Vec<usize>) -> Self {
        Self::from(dims.as_slice())
    }
}

impl From<Vec<Dim>> for PartialShape {
    fn from(dims: Vec<Dim>) -> Self {
        Self::from_dims(dims)
    }
}

impl From<()> for PartialShape {
    fn from((): ()) -> Self {
        Self::scalar()
    }
}

impl From<&PartialShape> for PartialShape {
    fn from(shape: &PartialShape) -> Self {
        shape.clone()
    }
}

impl fmt::Display for PartialShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            None => f.write_str("<unknown>"),
            Some(dims) => write_dims(f, dims.iter().copied()),
        }
    }
}

impl fmt::Debug for PartialShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_broadcast_from_the_right() {
        let shape = |dims: &[usize]| Shape::new(dims);
        assert_eq!(shape(&[2, 1, 3]).broadcast(&shape(&[4, 1])), Some(shape(&[2, 4, 3])));
        assert_eq!(shape(&[]).broadcast(&shape(&[0])), Some(shape(&[0])));
        assert_eq!(shape(&[2]).broadcast(&shape(&[3])), None);
    }

    #[test]
    fn partial_shapes_merge_what_is_known() {
        let a = PartialShape::from([None, Some(3)]);
        let b = PartialShape::from([Some(2), None]);
        assert_eq!(a.merge(&b).unwrap(), PartialShape::from([2, 3]));
        assert_eq!(a.merge(&PartialShape::unknown()).unwrap(), a);
        assert!(a.merge(&PartialShape::from([2])).is_err());
        assert!(a.merge(&PartialShape::from([2, 4])).is_err());
        assert_eq!(a.to_string(), "[?,3]");
    }

    #[test]
    fn partial_shapes_broadcast() {
        let a = PartialShape::from([None, Some(1)]);
        let b = PartialShape::from([Some(5)]);
        assert_eq!(a.broadcast(&b), Some(PartialShape::from([None, Some(5)])));
        assert_eq!(PartialShape::from([2]).broadcast(&PartialShape::from([3])), None);
        assert_eq!(
            PartialShape::from([None]).broadcast(&PartialShape::from([3])),
            Some(PartialShape::from([3]))
        );
    }

    #[test]
    fn strides_are_row_major() {
        assert_eq!(Shape::new(&[2, 3, 4]).strides().as_slice(), &[12, 4, 1]);
        assert!(Shape::scalar().strides().is_empty());
    }
}
