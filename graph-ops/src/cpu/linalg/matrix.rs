//! A matrix that owns its elements.

use std::ops::{Index, IndexMut};

use num_traits::{Float, Zero};

use super::rows::subtract_rows;
use super::scalar::Scalar;

/// A row-major matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix<T> {
    rows: usize,
    columns: usize,
    elements: Vec<T>,
}

impl<T> Index<(usize, usize)> for Matrix<T> {
    type Output = T;
    fn index(&self, (row, column): (usize, usize)) -> &T {
        &self.elements[row * self.columns + column]
    }
}

impl<T> IndexMut<(usize, usize)> for Matrix<T> {
    fn index_mut(&mut self, (row, column): (usize, usize)) -> &mut T {
        &mut self.elements[row * self.columns + column]
    }
}

impl<T: Scalar> Matrix<T> {
    /// A copy of `rows * columns` elements.
    pub fn new(rows: usize, columns: usize, elements: &[T]) -> Self {
        assert_eq!(elements.len(), rows * columns);
        Self {
            rows,
            columns,
            elements: elements.to_vec(),
        }
    }

    /// Zeros.
    pub fn zeros(rows: usize, columns: usize) -> Self {
        Self {
            rows,
            columns,
            elements: vec![T::zero(); rows * columns],
        }
    }

    /// Ones on the diagonal, else zeros.
    pub fn identity(rows: usize, columns: usize) -> Self {
        let mut identity = Self::zeros(rows, columns);
        (0..rows.min(columns)).for_each(|i| identity[(i, i)] = T::one());
        identity
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The number of columns.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The elements, row by row.
    pub fn elements(&self) -> &[T] {
        &self.elements
    }

    /// The elements, row by row, for writing.
    pub fn elements_mut(&mut self) -> &mut [T] {
        &mut self.elements
    }

    /// One row.
    pub fn row_mut(&mut self, row: usize) -> &mut [T] {
        &mut self.elements[row * self.columns..(row + 1) * self.columns]
    }

    /// Two different rows.
    pub fn rows_mut(&mut self, first: usize, second: usize) -> (&mut [T], &mut [T]) {
        let columns = self.columns;
        let (low, high) = (first.min(second), first.max(second));
        let (before, after) = self.elements.split_at_mut(high * columns);
        let (low, high) = (&mut before[low * columns..(low + 1) * columns], &mut after[..columns]);
        if first < second { (low, high) } else { (high, low) }
    }

    /// Exchanges two rows.
    pub fn swap_rows(&mut self, first: usize, second: usize) {
        if first != second {
            let (first, second) = self.rows_mut(first, second);
            first.swap_with_slice(second);
        }
    }

    /// Exchanges two columns.
    pub fn swap_columns(&mut self, first: usize, second: usize) {
        for row in self.elements.chunks_exact_mut(self.columns.max(1)) {
            row.swap(first, second);
        }
    }

    /// The conjugate transpose.
    pub fn adjoint(&self) -> Self {
        let mut adjoint = Self::zeros(self.columns, self.rows);
        for row in 0..self.rows {
            for column in 0..self.columns {
                adjoint[(column, row)] = self[(row, column)].conj();
            }
        }
        adjoint
    }

    /// The matrix product.
    pub fn times(&self, other: &Self) -> Self {
        assert_eq!(self.columns, other.rows);
        let mut product = Self::zeros(self.rows, other.columns);
        let negative: Vec<T> = self.elements.iter().map(|&x| -x).collect();
        for (row, factors) in negative.chunks_exact(self.columns.max(1)).enumerate() {
            subtract_rows(product.row_mut(row), factors, &other.elements, other.columns);
        }
        product
    }

    /// The first `columns` columns.
    pub fn first_columns(&self, columns: usize) -> Self {
        let mut part = Self::zeros(self.rows, columns);
        for row in 0..self.rows {
            part.row_mut(row)
                .copy_from_slice(&self.elements[row * self.columns..][..columns]);
        }
        part
    }

    /// The greatest absolute value; NaN if there is one.
    pub fn greatest(&self) -> T::Real {
        self.elements
            .iter()
            .map(|x| x.modulus())
            .fold(
                T::Real::zero(),
                |greatest, x| if x > greatest || x.is_nan() { x } else { greatest },
            )
    }
}
