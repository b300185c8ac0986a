//! Checkpoints of [`Value`]s.

use super::{BundleReader, BundleWriter};
use crate::dtype::DType;
use crate::error::Result;
use crate::format::graph_def::dtype_from_number;
use crate::format::proto::{BundleEntryProto, DataType};
use crate::shape::Shape;
use crate::value::Value;

impl BundleWriter {
    /// Adds a value of any dtype that values have.
    ///
    /// # Errors
    /// As of [`add`](Self::add).
    pub fn add_value(&mut self, name: &str, value: &Value) -> Result<()> {
        self.add_value_under(name.as_bytes(), value)
    }

    pub(super) fn add_value_under(&mut self, key: &[u8], value: &Value) -> Result<()> {
        let shape: Vec<i64> = value.shape().dims().iter().map(|&dim| dim as i64).collect();
        match value.as_strings() {
            Ok(strings) => self.add_strings_under(key, &shape, strings),
            Err(_) => {
                let dtype = DataType::try_from(value.dtype() as i32).unwrap_or_default();
                self.add_under(key, dtype, &shape, value.bytes())
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
        let entry = self.entries().get(name);
        entry.map(|entry| self.describe(name.as_bytes(), entry)).transpose()
    }

    fn describe(&self, key: &[u8], entry: &BundleEntryProto) -> Result<(DType, Shape)> {
        let dims = entry.shape.iter().flat_map(|shape| &shape.dim);
        let dims: Option<Shape> = dims.map(|dim| usize::try_from(dim.size).ok()).collect();
        let shape = dims.filter(|shape| shape.checked_num_elements().is_some());
        let shape = shape.ok_or_else(|| self.damaged(key, "its shape is impossible"))?;
        Ok((dtype_from_number(entry.dtype)?, shape))
    }

    /// Reads a tensor as a value; one that is saved in slices is put together.
    ///
    /// # Errors
    /// `NotFound` for an unknown name, `DataLoss` for damage, `InvalidArgument` for a dtype that values do not have.
    pub fn value(&self, name: &str) -> Result<Value> {
        match self.entries().get(name) {
            Some(entry) if !entry.slices.is_empty() => {
                let (_, shape) = self.describe(name.as_bytes(), entry)?;
                self.assembled(name, &shape, &entry.slices)
            }
            _ => self.value_under(name.as_bytes()),
        }
    }

    /// Reads what is stored under a key as a value.
    pub(super) fn value_under(&self, key: &[u8]) -> Result<Value> {
        let (entry, _) = self.entry(key)?;
        let (dtype, shape) = self.describe(key, entry)?;
        if dtype == DType::String {
            let (_, strings) = self.read_strings_under(key)?;
            return Value::from_strings(shape, strings);
        }
        Value::from_bytes(dtype, shape, &self.read_under(key)?.bytes)
    }
}
