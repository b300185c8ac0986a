//! What a TensorArray holds while a run lasts.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use graph_core::accelerator::StoredTensor;
use graph_core::{DType, Error, PartialShape, Result, Shape, Value};

use super::parts::added;

/// What the op that makes an array says of it.
#[derive(Clone)]
pub(super) struct Traits {
    pub(super) dtype: DType,
    /// What the elements' shapes agree with.
    pub(super) element_shape: PartialShape,
    /// Whether a write behind the end makes the array longer.
    pub(super) dynamic_size: bool,
    /// Whether a read takes the element away.
    pub(super) clear_after_read: bool,
    /// Whether all elements have the shape of the first one that is written.
    pub(super) identical_element_shapes: bool,
}

/// An element that has been thought of; others are there, but empty.
enum Item {
    /// Zeros of this shape until something is added.
    Zeros(Shape),
    /// In the memory of the device that wrote it.
    Written(StoredTensor),
    Cleared,
}

/// The elements of an array.
pub(super) struct Elements {
    traits: Traits,
    size: usize,
    items: BTreeMap<usize, Item>,
    /// Whether writes add up, as they do in an array of gradients.
    adds: bool,
    closed: bool,
    /// The arrays of gradients, by the gradient computation that they belong to.
    gradients: BTreeMap<String, Arc<TensorArrayCell>>,
}

/// Elements that handles name.
pub(super) struct TensorArrayCell(Mutex<Elements>);

impl TensorArrayCell {
    pub(super) fn new(traits: Traits, size: i32) -> Result<Self> {
        let size = usize::try_from(size)
            .map_err(|_| Error::invalid_argument("the size of a TensorArray is negative").got(size))?;
        Ok(Self::of(Elements {
            traits,
            size,
            items: BTreeMap::new(),
            adds: false,
            closed: false,
            gradients: BTreeMap::new(),
        }))
    }

    fn of(elements: Elements) -> Self {
        Self(Mutex::new(elements))
    }

    /// The elements of an array that is not closed.
    pub(super) fn open(&self) -> Result<MutexGuard<'_, Elements>> {
        let elements = self.0.lock().unwrap_or_else(|poison| poison.into_inner());
        if elements.closed {
            return Err(Error::invalid_argument("the TensorArray is closed"));
        }
        Ok(elements)
    }
}

impl Elements {
    pub(super) fn size(&self) -> usize {
        self.size
    }

    pub(super) fn dynamic_size(&self) -> bool {
        self.traits.dynamic_size
    }

    pub(super) fn element_shape(&self) -> &PartialShape {
        &self.traits.element_shape
    }

    /// Drops all elements; nothing can be done with the array any more.
    pub(super) fn close(&mut self) {
        self.items.clear();
        self.closed = true;
    }

    fn place(&self, index: i64) -> Result<usize> {
        usize::try_from(index)
            .ok()
            .filter(|&place| place < self.size)
            .ok_or_else(|| {
                Error::invalid_argument("the index is outside of the TensorArray")
                    .expected(format!("0 to {} (exclusive)", self.size))
                    .got(index)
            })
    }

    /// Makes the array `size` long, if it may be longer than it is.
    pub(super) fn grow(&mut self, size: usize) {
        if self.traits.dynamic_size {
            self.size = self.size.max(size);
        }
    }

    pub(super) fn write(&mut self, index: i64, value: StoredTensor) -> Result<()> {
        let shape = value.shape().clone();
        if value.dtype() != self.traits.dtype {
            return Err(
                Error::invalid_argument("the value has another dtype than the TensorArray")
                    .expected(self.traits.dtype)
                    .got(value.dtype()),
            );
        }
        self.grow(usize::try_from(index).map_or(0, |index| index + 1));
        let place = self.place(index)?;
        if !self.traits.element_shape.admits(&shape) {
            return Err(
                Error::invalid_argument("the value has another shape than the TensorArray's elements")
                    .expected(&self.traits.element_shape)
                    .got(shape),
            );
        }
        if self.traits.identical_element_shapes {
            self.traits.element_shape = PartialShape::from(&shape);
        }
        let written = match self.items.remove(&place) {
            None => value,
            Some(Item::Zeros(expected)) if expected == shape => value,
            Some(Item::Written(sum)) if self.adds && *sum.shape() == shape => added(&sum, &value)?,
            Some(Item::Written(earlier)) if !self.adds => {
                self.items.insert(place, Item::Written(earlier));
                return Err(Error::invalid_argument(format!("element {index} was written before")));
            }
            Some(Item::Cleared) => {
                self.items.insert(place, Item::Cleared);
                return Err(Error::invalid_argument(format!(
                    "element {index} was read before it is written"
                )));
            }
            Some(Item::Zeros(expected)) => {
                return Err(Error::invalid_argument(format!("element {index} has another shape"))
                    .expected(expected)
                    .got(shape));
            }
            Some(Item::Written(sum)) => {
                return Err(
                    Error::invalid_argument(format!("what is added to element {index} has another shape"))
                        .expected(sum.shape())
                        .got(shape),
                );
            }
        };
        self.items.insert(place, Item::Written(written));
        Ok(())
    }

    pub(super) fn read(&mut self, index: i64) -> Result<StoredTensor> {
        let place = self.place(index)?;
        let value = match self.items.get(&place) {
            Some(Item::Written(value)) => value.clone(),
            Some(Item::Zeros(shape)) => StoredTensor::Host(Value::zeros(self.traits.dtype, shape.clone())?),
            Some(Item::Cleared) => {
                return Err(
                    Error::invalid_argument(format!("element {index} was read before, which took it away"))
                        .hint("make the TensorArray with clear_after_read = false"),
                );
            }
            None => {
                let shape = self.traits.element_shape.to_shape().ok_or_else(|| {
                    Error::invalid_argument(format!("element {index} was never written, and its shape is not known"))
                })?;
                StoredTensor::Host(Value::zeros(self.traits.dtype, shape)?)
            }
        };
        if self.traits.clear_after_read {
            self.items.insert(place, Item::Cleared);
        }
        Ok(value)
    }

    /// The array of the gradients of this one that belong to `source`; each with `prepended` dimensions more. From now on this
    /// one keeps its size.
    pub(super) fn gradients(&mut self, source: &str, prepended: &[usize]) -> Arc<TensorArrayCell> {
        self.traits.dynamic_size = false;
        if let Some(array) = self.gradients.get(source) {
            return array.clone();
        }
        let longer = |shape: &Shape| Shape::new(&[prepended, shape].concat());
        let shape_of = |(&place, item): (&usize, &Item)| {
            let shape = match item {
                Item::Zeros(shape) => longer(shape),
                Item::Written(value) => longer(value.shape()),
                Item::Cleared => return None,
            };
            Some((place, Item::Zeros(shape)))
        };
        let prepended_dims = PartialShape::from_dims(prepended.iter().copied().map(Some));
        let array = Arc::new(TensorArrayCell::of(Elements {
            traits: Traits {
                element_shape: prepended_dims.concatenate(&self.traits.element_shape),
                clear_after_read: true,
                ..self.traits.clone()
            },
            size: self.size,
            items: self.items.iter().filter_map(shape_of).collect(),
            adds: true,
            closed: false,
            gradients: BTreeMap::new(),
        }));
        self.gradients.insert(source.into(), array.clone());
        array
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(size: i32, change: impl FnOnce(&mut Traits)) -> TensorArrayCell {
        let mut traits = Traits {
            dtype: DType::Float32,
            element_shape: PartialShape::unknown(),
            dynamic_size: false,
            clear_after_read: true,
            identical_element_shapes: false,
        };
        change(&mut traits);
        TensorArrayCell::new(traits, size).expect("an array")
    }

    fn put(elements: &mut Elements, index: i64, value: impl Into<Value>) -> Result<()> {
        elements.write(index, StoredTensor::Host(value.into()))
    }

    fn take(elements: &mut Elements, index: i64) -> Result<Value> {
        elements.read(index)?.into_host()
    }

    fn class<T>(result: Result<T>) -> &'static str {
        result.err().map_or("no error", |error| error.class())
    }

    #[test]
    fn a_read_takes_the_element_unless_it_is_to_stay() {
        let (taking, leaving) = (array(2, |_| {}), array(2, |traits| traits.clear_after_read = false));
        for array in [&taking, &leaving] {
            put(&mut array.open().unwrap(), 1, [1.0f32, 2.0]).unwrap();
            assert_eq!(take(&mut array.open().unwrap(), 1).unwrap(), [1.0f32, 2.0].into());
        }
        assert_eq!(class(take(&mut taking.open().unwrap(), 1)), "InvalidArgument");
        assert_eq!(class(put(&mut taking.open().unwrap(), 1, 0.0f32)), "InvalidArgument");
        assert_eq!(take(&mut leaving.open().unwrap(), 1).unwrap(), [1.0f32, 2.0].into());
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let array = array(2, |traits| traits.identical_element_shapes = true);
        let mut elements = array.open().unwrap();
        for (index, value) in [(-1, Value::from(1.0f32)), (2, 1.0f32.into()), (0, 1i32.into())] {
            assert_eq!(class(put(&mut elements, index, value)), "InvalidArgument", "{index}");
        }
        assert_eq!(
            class(take(&mut elements, 0)),
            "InvalidArgument",
            "neither written nor of a known shape"
        );
        put(&mut elements, 0, [1.0f32]).unwrap();
        assert_eq!(
            class(put(&mut elements, 0, [1.0f32])),
            "InvalidArgument",
            "written twice"
        );
        assert_eq!(
            class(put(&mut elements, 1, [1.0f32, 2.0])),
            "InvalidArgument",
            "another shape"
        );
        assert_eq!(
            take(&mut elements, 1).unwrap(),
            [0.0f32].into(),
            "zeros of the shape of the others"
        );
        elements.close();
        drop(elements);
        assert_eq!(class(array.open().map(|_| ())), "InvalidArgument");
        assert!(TensorArrayCell::new(array.0.lock().unwrap().traits.clone(), -1).is_err());
    }

    #[test]
    fn an_array_may_grow() {
        let array = array(0, |traits| traits.dynamic_size = true);
        let mut elements = array.open().unwrap();
        put(&mut elements, 4, 1.0f32).unwrap();
        assert_eq!(elements.size(), 5);
        assert_eq!(class(take(&mut elements, 5)), "InvalidArgument");
    }

    #[test]
    fn gradients_add_up() {
        let array = array(2, |traits| traits.dynamic_size = true);
        let mut elements = array.open().unwrap();
        put(&mut elements, 0, [1.0f32]).unwrap();
        put(&mut elements, 1, [5.0f32]).unwrap();
        let gradients = elements.gradients("gradients", &[]);
        assert!(Arc::ptr_eq(&gradients, &elements.gradients("gradients", &[])));
        assert_eq!(
            class(put(&mut elements, 2, [1.0f32])),
            "InvalidArgument",
            "it grows no more"
        );
        let mut gradients = gradients.open().unwrap();
        put(&mut gradients, 0, [1.0f32]).unwrap();
        put(&mut gradients, 0, [2.0f32]).unwrap();
        assert_eq!(class(put(&mut gradients, 1, [2.0f32, 1.0])), "InvalidArgument");
        assert_eq!(take(&mut gradients, 0).unwrap(), [3.0f32].into());
        let longer = elements.gradients("others", &[2]);
        assert_eq!(take(&mut longer.open().unwrap(), 1).unwrap(), [[0.0f32], [0.0]].into());
    }
}
