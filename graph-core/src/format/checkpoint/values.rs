//! Checkpoints of [`Value`]s.

use super::{BundleReader, BundleWriter};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::format::graph_def::dtype_from_number;
use crate::format::proto::DataType;
use crate::shape::Shape;
use crate::value::Value;

impl BundleWriter {
    /// Adds a value of any dtype that values have.
    ///
    /// # Errors
    /// As of [`add`](Self::add).
    pub fn add_value(&mut self, name: &str, value: &Value) -> Result<()> {
        let shape: Vec<i64> = value.shape().dims().iter().map(|&dim| dim as i64).collect();
        match value.as_strings() {
            Ok(strings) => self.add_strings(name, &shape, strings),
            Err(_) => {
                let dtype = DataType::try_from(value.dtype() as i32).unwrap_or_default();
                self.add(name, dtype, &shape, value.bytes())
            }
        }
    }
}

impl BundleReader {
    /// The dtype and shape of a tensor; `None` if there is none of the name.
    ///
    /// # Errors
    /// `DataLoss` for a shape that is none, `Unimplemented` for a dtype that values do not have.
    pub fn dtype_and_shape(&self, name: &str) -> Result<Option<(DType, Shape)>> {
        let Some(entry) = self.entries().get(name) else {
            return Ok(None);
        };
        let dims = entry.shape.iter().flat_map(|shape| &shape.dim);
        let dims: Option<Shape> = dims.map(|dim| usize::try_from(dim.size).ok()).collect();
        let shape = dims.ok_or_else(|| {
            let prefix = self.prefix().display();
            Error::data_loss(format!("the shape of '{name}' in checkpoint {prefix} is impossible"))
        })?;
        Ok(Some((dtype_from_number(entry.dtype)?, shape)))
    }

    /// Reads a tensor as a value.
    ///
    /// # Errors
    /// As of [`read`](Self::read), and `Unimplemented` for a dtype that values do not have.
    pub fn value(&self, name: &str) -> Result<Value> {
        let (dtype, shape) = self.dtype_and_shape(name)?.unwrap_or((DType::Float32, Shape::scalar()));
        if dtype == DType::String {
            let (_, strings) = self.read_strings(name)?;
            return Value::from_strings(shape, strings);
        }
        Value::from_bytes(dtype, shape, &self.read(name)?.bytes)
    }
}
