//! An equation as a batch of matrix products.

use std::borrow::Cow;

use graph_core::{Error, Result, Shape};

use super::equation::{Axis, Equation, Subscripts};
use crate::cpu::Short;
use crate::cpu::copy::{CopyAxis, copy_strided, strides};
use crate::cpu::gemm::{GemmElement, Product, gemm};
use crate::cpu::parallel::{for_each_chunk, grain_for};

/// Axes of a walk: how far each goes, and how far apart its elements lie.
pub(super) type Walk = Vec<(usize, usize)>;

/// One operand: how its elements are packed into matrices.
pub(super) struct Packing {
    /// The packed elements' axes, with strides in the operand.
    pub(super) kept: Walk,
    /// Axes that only this operand has, and that are summed.
    pub(super) summed: Walk,
}

/// What is done for an equation and shapes of operands.
pub(super) struct Contraction {
    pub(super) operands: Vec<Packing>,
    pub(super) batches: usize,
    pub(super) product: Product,
    /// The result's elements in the order of the products: batches, then what only the first operand has, then what only the
    /// second one has, with strides in the result.
    pub(super) result: Walk,
}

impl Contraction {
    pub(super) fn new(equation: &Equation, shapes: &[&Shape], output: &Shape) -> Result<Self> {
        let operands: Vec<Vec<Labelled>> = equation
            .inputs
            .iter()
            .zip(shapes)
            .map(|(subscripts, shape)| labelled(subscripts, shape))
            .collect::<Result<_>>()?;
        let result = labelled(&equation.output, output)?;
        let none = Vec::new();
        let (first, second) = (&operands[0], operands.get(1).unwrap_or(&none));
        let find = |list: &[Labelled], axis: Axis| list.iter().find(|other| other.axis == axis).copied();
        let (mut batch, mut left, mut right, mut inner) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for own in first {
            let (other, kept) = (find(second, own.axis), find(&result, own.axis));
            match (other.is_some(), kept.is_some()) {
                (true, true) => batch.push(own.axis),
                (true, false) => inner.push(own.axis),
                (false, true) => left.push(own.axis),
                (false, false) => {}
            }
        }
        for own in second {
            if find(first, own.axis).is_none() && find(&result, own.axis).is_some() {
                right.push(own.axis);
            }
        }
        // Of an axis of the ellipsis the greater dimension counts.
        let size = |axis: Axis| {
            let dims = [find(first, axis), find(second, axis), find(&result, axis)];
            let known = dims.into_iter().flatten().map(|labelled| labelled.dim);
            known.clone().find(|&dim| dim != 1).unwrap_or(1)
        };
        let walk = |list: &[Labelled], axes: &[&[Axis]]| -> Walk {
            let axes = axes.iter().flat_map(|axes| axes.iter().copied());
            axes.map(|axis| {
                let own = find(list, axis);
                // A dimension of 1 is repeated where the other operand has more.
                let stride = own.filter(|own| own.dim != 1).map_or(0, |own| own.stride);
                (size(axis), stride)
            })
            .collect()
        };
        let summed = |list: &[Labelled], other: &[Labelled]| -> Walk {
            let alone = |own: &&Labelled| find(other, own.axis).is_none() && find(&result, own.axis).is_none();
            list.iter().filter(alone).map(|own| (own.dim, own.stride)).collect()
        };
        let count = |axes: &[Axis]| axes.iter().map(|&axis| size(axis)).product::<usize>();
        let mut packings = vec![Packing {
            kept: walk(first, &[&batch, &left, &inner]),
            summed: summed(first, second),
        }];
        if operands.len() > 1 {
            packings.push(Packing {
                kept: walk(second, &[&batch, &inner, &right]),
                summed: summed(second, first),
            });
        }
        Ok(Self {
            operands: packings,
            batches: count(&batch),
            product: Product::new(count(&left), count(&right), count(&inner)),
            result: walk(&result, &[&batch, &left, &right]),
        })
    }

    /// Computes the result.
    pub(super) fn run<T: Number>(&self, operands: &[&[T]], output: &mut [T]) {
        let packed: Vec<Cow<'_, [T]>> = self
            .operands
            .iter()
            .zip(operands)
            .map(|(packing, operand)| packing.pack(operand))
            .collect();
        let in_order = dense(&self.result);
        match packed.as_slice() {
            [first, second] if in_order => self.multiply(first, second, output),
            [first, second] => {
                let mut products = vec![T::default(); self.batches * self.product.m * self.product.n];
                self.multiply(first, second, &mut products);
                self.spread(&products, output);
            }
            [only] => self.spread(only, output),
            _ => {}
        }
    }

    fn multiply<T: Number>(&self, first: &[T], second: &[T], products: &mut [T]) {
        let Product { m, n, k, .. } = self.product;
        if m * n == 0 {
            return;
        }
        let batches = grain_for(m.saturating_mul(n).saturating_mul(k));
        for_each_chunk(products, batches * m * n, |start, products| {
            for (out, batch) in products.chunks_exact_mut(m * n).zip(start / (m * n)..) {
                let (a, b) = (&first[batch * m * k..][..m * k], &second[batch * k * n..][..k * n]);
                gemm(self.product, a, b, out);
            }
        });
    }

    /// Writes the products to their places in the result.
    fn spread<T: Number>(&self, products: &[T], output: &mut [T]) {
        // Where a label is repeated in the result, only its diagonal is written.
        if products.len() != output.len() {
            output.fill(T::default());
        }
        let axes = self.result.iter().zip(strides_of(&self.result));
        let axes = axes.map(|(&(len, to), from)| CopyAxis {
            len,
            from: from as isize,
            to: to as isize,
        });
        copy_strided(products, 0, output, 0, &axes.collect::<Short<_>>());
    }
}

/// How far apart neighbours lie where the elements of a walk follow each other.
pub(super) fn strides_of(walk: &[(usize, usize)]) -> Short<usize> {
    strides(&walk.iter().map(|axis| axis.0).collect::<Short<_>>())
}

/// Whether the elements of a walk follow each other.
pub(super) fn dense(walk: &[(usize, usize)]) -> bool {
    let pairs = walk.iter().zip(strides_of(walk));
    pairs
        .into_iter()
        .all(|(&(len, stride), dense)| len <= 1 || stride == dense)
}

/// A number that can be summed and multiplied.
pub(super) trait Number: GemmElement + Default + Copy {
    /// The sum of many, in a type that is precise enough.
    fn sum(terms: impl Iterator<Item = Self>) -> Self;
}

impl Packing {
    fn pack<'o, T: Number>(&self, operand: &'o [T]) -> Cow<'o, [T]> {
        let count = self.kept.iter().map(|(len, _)| len).product();
        if self.summed.is_empty() {
            if count == operand.len() && dense(&self.kept) {
                return Cow::Borrowed(operand);
            }
            let mut packed = vec![T::default(); count];
            let axes = self.kept.iter().zip(strides_of(&self.kept));
            let axes = axes.map(|(&(len, from), to)| CopyAxis {
                len,
                from: from as isize,
                to: to as isize,
            });
            copy_strided(operand, 0, &mut packed, 0, &axes.collect::<Short<_>>());
            return Cow::Owned(packed);
        }
        let mut packed = Vec::with_capacity(count);
        let mut terms = Vec::new();
        visit(&self.summed, |position| terms.push(position));
        visit(&self.kept, |position| {
            packed.push(T::sum(terms.iter().map(|&term| operand[position + term])));
        });
        Cow::Owned(packed)
    }
}

/// Calls `f` with each position of a walk, the last axis fastest.
fn visit(walk: &[(usize, usize)], mut f: impl FnMut(usize)) {
    let count: usize = walk.iter().map(|(len, _)| len).product();
    let mut index = vec![0; walk.len()];
    let mut position = 0;
    for _ in 0..count {
        f(position);
        for (at, &(len, stride)) in index.iter_mut().zip(walk).rev() {
            *at += 1;
            position += stride;
            if *at < len {
                break;
            }
            position -= len * stride;
            *at = 0;
        }
    }
}

/// An axis, its length, and the distance of its elements; an axis that comes several times is its diagonal.
#[derive(Clone, Copy)]
struct Labelled {
    axis: Axis,
    dim: usize,
    stride: usize,
}

fn labelled(subscripts: &Subscripts, shape: &Shape) -> Result<Vec<Labelled>> {
    let axes = subscripts
        .axes(shape.rank())
        .ok_or_else(|| Error::internal("subscripts of another rank than the shape"))?;
    let mut list: Vec<Labelled> = Vec::new();
    for ((axis, &dim), &stride) in axes.into_iter().zip(shape.dims()).zip(&shape.strides()) {
        match list.iter_mut().find(|other| other.axis == axis) {
            Some(other) => other.stride += stride,
            None => list.push(Labelled { axis, dim, stride }),
        }
    }
    Ok(list)
}
