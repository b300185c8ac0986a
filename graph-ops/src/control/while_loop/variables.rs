//! What a loop can have as its variables: tensors and what becomes tensors, TensorArrays, vectors and tuples of all these.

use graph_core::graph::{IntoOperand, OpBuilder, Operand, Tensor};
use graph_core::variable::Variable;
use graph_core::{Error, Result};

use crate::control::TensorArray;

/// Variables of a loop: tensors, variables (for their values), builders and numbers, each of which is a [`Tensor`] inside;
/// a [`TensorArray`]; a vector, a pair, or up to six of these.
pub trait LoopVariables {
    /// What stands for them inside the loop, and behind it.
    type Inside;
    /// What it takes to put them together again.
    type Form;
    /// Adds the values one by one.
    fn split(self, values: &mut Vec<Operand>) -> Self::Form;
    /// What these tensors stand for, of which as many are taken as [`LoopVariables::split`] added.
    ///
    /// # Errors
    /// `Internal` for too few tensors.
    fn join(form: &Self::Form, tensors: &mut dyn Iterator<Item = Tensor>) -> Result<Self::Inside>;
}

fn take(tensors: &mut dyn Iterator<Item = Tensor>) -> Result<Tensor> {
    let too_few = || Error::internal("the loop has more variables than tensors");
    tensors.next().ok_or_else(too_few)
}

macro_rules! single_values {
    ($($type:ty),*) => {$(
        impl LoopVariables for $type {
            type Inside = Tensor;
            type Form = ();
            fn split(self, values: &mut Vec<Operand>) {
                values.push(self.into_operand());
            }
            fn join((): &(), tensors: &mut dyn Iterator<Item = Tensor>) -> Result<Tensor> {
                take(tensors)
            }
        }
    )*};
}

single_values!(
    Tensor, &Tensor, Variable, &Variable, OpBuilder, Operand, f32, f64, i32, i64, bool, &str
);

impl LoopVariables for TensorArray {
    type Inside = TensorArray;
    type Form = TensorArray;
    fn split(self, values: &mut Vec<Operand>) -> TensorArray {
        values.push(self.flow().into_operand());
        self
    }
    fn join(form: &TensorArray, tensors: &mut dyn Iterator<Item = Tensor>) -> Result<TensorArray> {
        Ok(form.with_flow(take(tensors)?))
    }
}

impl LoopVariables for &TensorArray {
    type Inside = TensorArray;
    type Form = TensorArray;
    fn split(self, values: &mut Vec<Operand>) -> TensorArray {
        self.clone().split(values)
    }
    fn join(form: &TensorArray, tensors: &mut dyn Iterator<Item = Tensor>) -> Result<TensorArray> {
        TensorArray::join(form, tensors)
    }
}

impl<V: LoopVariables> LoopVariables for Vec<V> {
    type Inside = Vec<V::Inside>;
    type Form = Vec<V::Form>;
    fn split(self, values: &mut Vec<Operand>) -> Self::Form {
        self.into_iter().map(|variable| variable.split(values)).collect()
    }
    fn join(form: &Self::Form, tensors: &mut dyn Iterator<Item = Tensor>) -> Result<Self::Inside> {
        form.iter().map(|form| V::join(form, tensors)).collect()
    }
}

macro_rules! tuples {
    ($($($name:ident $index:tt),+;)*) => {$(
        impl<$($name: LoopVariables),+> LoopVariables for ($($name,)+) {
            type Inside = ($($name::Inside,)+);
            type Form = ($($name::Form,)+);
            fn split(self, values: &mut Vec<Operand>) -> Self::Form {
                ($(self.$index.split(values),)+)
            }
            fn join(form: &Self::Form, tensors: &mut dyn Iterator<Item = Tensor>) -> Result<Self::Inside> {
                Ok(($($name::join(&form.$index, tensors)?,)+))
            }
        }
    )*};
}

tuples! {
    A 0;
    A 0, B 1;
    A 0, B 1, C 2;
    A 0, B 1, C 2, D 3;
    A 0, B 1, C 2, D 3, E 4;
    A 0, B 1, C 2, D 3, E 4, F 5;
}
