//! What a run gives back: fetches nest, and each comes back in the same shape.

use crate::error::{Error, Result};
use crate::graph::{Operation, Tensor};
use crate::value::{FromValue, Value};
use crate::variable::Variable;

/// Something to fetch that is no group of others.
#[derive(Clone, Debug)]
pub enum FetchItem {
    /// A tensor's value.
    Tensor(Tensor),
    /// An operation, run for its effects.
    Operation(Operation),
}

/// The values of a run, in the order in which their tensors were asked for.
pub struct FetchedValues(pub(crate) std::vec::IntoIter<Value>);

impl FetchedValues {
    fn next(&mut self) -> Result<Value> {
        self.0
            .next()
            .ok_or_else(|| Error::internal("a run gave fewer values than were fetched"))
    }
}

/// What can be fetched as a `T`: a tensor as anything a [`Value`] converts to, an operation as `()`, tuples, arrays, vectors
/// and slices of such.
pub trait Fetch<T> {
    /// Names what is fetched, in order.
    fn items(&self, items: &mut Vec<FetchItem>);
    /// Takes the values, in the same order.
    ///
    /// # Errors
    /// `InvalidArgument` if a value does not convert to the type asked for.
    fn take(&self, values: &mut FetchedValues) -> Result<T>;
}

impl<T: FromValue> Fetch<T> for Tensor {
    fn items(&self, items: &mut Vec<FetchItem>) {
        items.push(FetchItem::Tensor(self.clone()));
    }

    fn take(&self, values: &mut FetchedValues) -> Result<T> {
        T::from_value(values.next()?).map_err(|error| error.context(format!("taking the fetched '{}'", self.name())))
    }
}

impl<T: FromValue> Fetch<T> for Variable {
    fn items(&self, items: &mut Vec<FetchItem>) {
        Fetch::<T>::items(self.value(), items);
    }

    fn take(&self, values: &mut FetchedValues) -> Result<T> {
        self.value().take(values)
    }
}

impl Fetch<()> for Operation {
    fn items(&self, items: &mut Vec<FetchItem>) {
        items.push(FetchItem::Operation(self.clone()));
    }

    fn take(&self, _values: &mut FetchedValues) -> Result<()> {
        Ok(())
    }
}

impl<T, F: Fetch<T> + ?Sized> Fetch<T> for &F {
    fn items(&self, items: &mut Vec<FetchItem>) {
        (**self).items(items);
    }

    fn take(&self, values: &mut FetchedValues) -> Result<T> {
        (**self).take(values)
    }
}

impl<T, F: Fetch<T>> Fetch<Vec<T>> for [F] {
    fn items(&self, items: &mut Vec<FetchItem>) {
        self.iter().for_each(|fetch| fetch.items(items));
    }

    fn take(&self, values: &mut FetchedValues) -> Result<Vec<T>> {
        self.iter().map(|fetch| fetch.take(values)).collect()
    }
}

impl<T, F: Fetch<T>> Fetch<Vec<T>> for Vec<F> {
    fn items(&self, items: &mut Vec<FetchItem>) {
        self.as_slice().items(items);
    }

    fn take(&self, values: &mut FetchedValues) -> Result<Vec<T>> {
        self.as_slice().take(values)
    }
}

impl<T, F: Fetch<T>, const N: usize> Fetch<[T; N]> for [F; N] {
    fn items(&self, items: &mut Vec<FetchItem>) {
        self.as_slice().items(items);
    }

    fn take(&self, values: &mut FetchedValues) -> Result<[T; N]> {
        let taken: Vec<T> = self.as_slice().take(values)?;
        taken
            .try_into()
            .map_err(|_| Error::internal("an array of fetches gave another number of values"))
    }
}

macro_rules! fetch_tuples {
    ($(($($fetch:ident $type:ident $index:tt),+)),* $(,)?) => {$(
        impl<$($type, $fetch: Fetch<$type>),+> Fetch<($($type,)+)> for ($($fetch,)+) {
            fn items(&self, items: &mut Vec<FetchItem>) {
                $(self.$index.items(items);)+
            }

            fn take(&self, values: &mut FetchedValues) -> Result<($($type,)+)> {
                Ok(($(self.$index.take(values)?,)+))
            }
        }
    )*};
}

fetch_tuples! {
    (A T 0),
    (A T 0, B U 1),
    (A T 0, B U 1, C V 2),
    (A T 0, B U 1, C V 2, D W 3),
    (A T 0, B U 1, C V 2, D W 3, E X 4),
    (A T 0, B U 1, C V 2, D W 3, E X 4, F Y 5),
    (A T 0, B U 1, C V 2, D W 3, E X 4, F Y 5, G Z 6),
    (A T 0, B U 1, C V 2, D W 3, E X 4, F Y 5, G Z 6, H S 7),
}
