//! Slices of tensors: how ops ask for them, and how a checkpoint stores the parts of a partitioned variable.

use std::fmt;

use super::{BundleReader, BundleWriter};
use crate::error::{Error, Result};
use crate::format::proto::tensor_slice_proto::extent::HasLengthHack;
use crate::format::proto::{TensorSliceProto, tensor_slice_proto};
use crate::shape::Shape;
use crate::value::Value;

/// A box in a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSlice {
    /// The shape of the whole tensor.
    whole: Shape,
    /// Start and length in each dimension; `None` for all of it.
    extents: Vec<Option<(usize, usize)>>,
}

impl TensorSlice {
    /// Reads TensorFlow's notation: the dimensions of the whole tensor, then `start,length` or `-` (all of it) for each,
    /// parted by colons. `4 3 0,2:-` is the first two rows of a matrix of four rows and three columns.
    ///
    /// # Errors
    /// `InvalidArgument` for any other text, and a box that does not lie in the tensor.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |what: String| {
            Error::invalid_argument(format!("the shape and slice '{text}' is wrong: {what}")).expected(
                "the dimensions of the whole tensor and, for each, start,length or -, parted by colons: 4 3 0,2:-",
            )
        };
        let (dims, slice) = text
            .rsplit_once(' ')
            .ok_or_else(|| wrong("dimensions and a slice are needed".to_owned()))?;
        let number = |text: &str| {
            text.parse::<usize>()
                .map_err(|_| wrong(format!("'{text}' is not a number")))
        };
        let whole: Shape = dims.split(' ').map(number).collect::<Result<_>>()?;
        let extent = |text: &str| match text {
            "-" => Ok(None),
            _ => {
                let (start, length) = text
                    .split_once(',')
                    .ok_or_else(|| wrong(format!("'{text}' is neither start,length nor -")))?;
                Ok(Some((number(start)?, number(length)?)))
            }
        };
        let extents = slice.split(':').map(extent).collect::<Result<_>>()?;
        Self::checked(whole, extents).ok_or_else(|| wrong("the slice does not lie in the tensor".to_owned()))
    }

    /// A box that lies in a tensor of the shape `whole`, which itself has a size that can be told.
    fn checked(whole: Shape, extents: Vec<Option<(usize, usize)>>) -> Option<Self> {
        let inside = |(&dim, extent): (&usize, &Option<(usize, usize)>)| {
            extent.is_none_or(|(start, length)| length > 0 && start.checked_add(length).is_some_and(|end| end <= dim))
        };
        let fits = whole.rank() == extents.len() && whole.iter().zip(&extents).all(inside);
        (fits && whole.checked_num_elements().is_some()).then_some(Self { whole, extents })
    }

    fn from_proto(whole: &Shape, slice: &TensorSliceProto) -> Option<Self> {
        let extent = |extent: &tensor_slice_proto::Extent| {
            Some(match &extent.has_length_hack {
                None => None,
                Some(HasLengthHack::Length(length)) => {
                    Some((usize::try_from(extent.start).ok()?, usize::try_from(*length).ok()?))
                }
            })
        };
        Self::checked(whole.clone(), slice.extent.iter().map(extent).collect::<Option<_>>()?)
    }

    fn to_proto(&self) -> TensorSliceProto {
        let extent = |extent: &Option<(usize, usize)>| {
            extent.map_or_else(Default::default, |(start, length)| tensor_slice_proto::Extent {
                start: start as i64,
                has_length_hack: Some(HasLengthHack::Length(length as i64)),
            })
        };
        TensorSliceProto {
            extent: self.extents.iter().map(extent).collect(),
        }
    }

    /// The shape of the whole tensor.
    pub fn whole(&self) -> &Shape {
        &self.whole
    }

    /// The shape of the box.
    pub fn shape(&self) -> Shape {
        self.bounds().map(|(_, length)| length).collect()
    }

    /// Whether the box is the whole tensor.
    pub fn is_whole(&self) -> bool {
        self.shape() == self.whole
    }

    /// Start and length in each dimension.
    fn bounds(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let extents = self.extents.iter().zip(self.whole.iter());
        extents.map(|(extent, &dim)| extent.unwrap_or((0, dim)))
    }

    /// The offsets, in the whole tensor, of the runs of neighbouring elements that the box is made of, in its own order; and
    /// the length of a run.
    fn runs(&self) -> (Vec<usize>, usize) {
        let bounds: Vec<(usize, usize)> = self.bounds().collect();
        let run = bounds.last().map_or(1, |&(_, length)| length);
        let mut starts = vec![0];
        for (axis, &(start, length)) in bounds.iter().enumerate() {
            let length = if axis + 1 == bounds.len() { 1 } else { length };
            let dim = self.whole[axis];
            starts = starts
                .into_iter()
                .flat_map(|outer| (start..start + length).map(move |index| outer * dim + index))
                .collect();
        }
        (starts, run)
    }

    /// The box of a value of the whole tensor.
    ///
    /// # Errors
    /// `InvalidArgument` if the value has another shape.
    pub fn of(&self, whole: &Value) -> Result<Value> {
        if *whole.shape() != self.whole {
            return Err(
                Error::invalid_argument("a slice of a tensor of another shape is asked for")
                    .expected(&self.whole)
                    .got(whole.shape()),
            );
        }
        if self.shape().num_elements() == 0 {
            return Value::zeros(whole.dtype(), self.shape());
        }
        let (starts, run) = self.runs();
        if let Ok(strings) = whole.as_strings() {
            let part = starts
                .iter()
                .flat_map(|&start| strings[start..start + run].iter().cloned());
            return Value::from_strings(self.shape(), part.collect());
        }
        let size = whole.dtype().size().unwrap_or(1);
        let part = starts
            .iter()
            .flat_map(|&start| &whole.bytes()[start * size..(start + run) * size]);
        Value::from_bytes(whole.dtype(), self.shape(), &part.copied().collect::<Vec<u8>>())
    }

    /// The name under which a checkpoint stores the box of the tensor `name`: TensorFlow's ordered code of a zero, the name,
    /// the rank, and start and length in each dimension (0 and -1 for all of it).
    fn key(&self, name: &str) -> Vec<u8> {
        let mut key = Vec::new();
        write_number(&mut key, 0);
        for &byte in name.as_bytes() {
            match byte {
                0 => key.extend([0, 0xff]),
                0xff => key.extend([0xff, 0]),
                _ => key.push(byte),
            }
        }
        key.extend([0, 1]);
        write_number(&mut key, self.extents.len() as u64);
        for extent in &self.extents {
            let (start, length) = extent.map_or((0, -1), |(start, length)| (start as i64, length as i64));
            write_signed_number(&mut key, start);
            write_signed_number(&mut key, length);
        }
        key
    }
}

/// In the notation of [`TensorSlice::parse`].
impl fmt::Display for TensorSlice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for dim in self.whole.iter() {
            write!(f, "{dim} ")?;
        }
        for (axis, extent) in self.extents.iter().enumerate() {
            let colon = if axis > 0 { ":" } else { "" };
            match extent {
                Some((start, length)) => write!(f, "{colon}{start},{length}")?,
                None => write!(f, "{colon}-")?,
            }
        }
        Ok(())
    }
}

/// Appends how many bytes follow, then the number, the highest byte first and none of them zero at the front.
fn write_number(out: &mut Vec<u8>, number: u64) {
    let skipped = number.leading_zeros() as usize / 8;
    out.push(8 - skipped as u8);
    out.extend(&number.to_be_bytes()[skipped..]);
}

/// Appends a signed number so that longer ones come later in order: as many one bits as it has bytes, then, after a zero
/// bit (the sign), its bits; all of them inverted where it is negative.
fn write_signed_number(out: &mut Vec<u8>, number: i64) {
    let bits = 64 - (if number < 0 { !number } else { number }).leading_zeros() as usize;
    let len = bits / 7 + 1;
    let wide = i128::from(number).to_be_bytes();
    let mut bytes = wide[wide.len() - len..].to_vec();
    // The length's one bits fill the first byte and, from nine bytes on, begin the second.
    let header = (0xffff_u32 << (16 - len)) as u16;
    for (byte, header) in bytes.iter_mut().zip(header.to_be_bytes()) {
        *byte ^= header;
    }
    out.extend(bytes);
}

impl BundleWriter {
    /// Adds a box of the tensor `name`; all boxes together are to make it whole. A box that is the whole tensor is added as
    /// such.
    ///
    /// # Errors
    /// As of [`add`](Self::add), and `InvalidArgument` for a value of another shape than the box, or a tensor that has
    /// another dtype or shape already.
    pub fn add_slice(&mut self, name: &str, slice: &TensorSlice, value: &Value) -> Result<()> {
        if *value.shape() != slice.shape() {
            return Err(Error::invalid_argument(format!(
                "the value has not the shape of the slice '{slice}' of '{name}'"
            ))
            .expected(slice.shape())
            .got(value.shape()));
        }
        if slice.is_whole() {
            return self.add_value(name, value);
        }
        self.describe_slice(name, value.dtype(), slice.whole(), slice.to_proto())?;
        self.add_value_under(&slice.key(name), value)
    }
}

impl BundleReader {
    /// Reads a box of a tensor, stored whole or in slices.
    ///
    /// # Errors
    /// As of [`value`](Self::value), and `InvalidArgument` where the whole tensor has another shape.
    pub fn slice(&self, name: &str, slice: &TensorSlice) -> Result<Value> {
        let key = slice.key(name);
        if self.slices().contains_key(&key) {
            return self.value_under(&key);
        }
        slice.of(&self.value(name)?)
    }

    /// Puts a tensor together from the slices that are stored of it.
    pub(super) fn assembled(&self, name: &str, whole: &Shape, slices: &[TensorSliceProto]) -> Result<Value> {
        let damaged = |what: &str| {
            let prefix = self.prefix().display();
            Error::data_loss(format!("cannot put '{name}' of checkpoint {prefix} together: {what}"))
        };
        let slices: Option<Vec<TensorSlice>> = slices
            .iter()
            .map(|slice| TensorSlice::from_proto(whole, slice))
            .collect();
        let slices = slices.ok_or_else(|| damaged("a slice lies outside of it"))?;
        // Many slices may say that they lie in the same bytes; together they cannot be more than the files hold.
        let keys: Vec<Vec<u8>> = slices.iter().map(|slice| slice.key(name)).collect();
        if !self.files_hold(&keys)? {
            return Err(damaged("its slices are more than the files hold"));
        }
        let mut parts = Vec::new();
        let mut elements = 0;
        for slice in slices {
            let part = self.value_under(&slice.key(name))?;
            if *part.shape() != slice.shape() {
                return Err(damaged("a slice has another shape than it says"));
            }
            elements += part.num_elements();
            parts.push((slice, part));
        }
        // Known before memory is taken for the whole: the files hold as much.
        let dtype = parts.first().map(|(_, part)| part.dtype());
        let same = parts.iter().all(|(_, part)| Some(part.dtype()) == dtype);
        let Some(dtype) = dtype.filter(|_| same && elements == whole.num_elements()) else {
            return Err(damaged("its slices do not make it whole"));
        };
        if elements == 0 {
            return Value::zeros(dtype, whole.clone());
        }
        if let Some(size) = dtype.size() {
            let mut bytes = vec![0; elements * size];
            for (slice, part) in &parts {
                let (starts, run) = slice.runs();
                for (start, run) in starts.into_iter().zip(part.bytes().chunks_exact(run * size)) {
                    bytes[start * size..][..run.len()].copy_from_slice(run);
                }
            }
            return Value::from_bytes(dtype, whole.clone(), &bytes);
        }
        let mut strings = vec![Vec::new(); elements];
        for (slice, part) in &parts {
            let (starts, run) = slice.runs();
            for (start, run) in starts.into_iter().zip(part.as_strings()?.chunks_exact(run)) {
                strings[start..][..run.len()].clone_from_slice(run);
            }
        }
        Value::from_strings(whole.clone(), strings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_notation_is_tensorflows() {
        let slice = TensorSlice::parse("4 3 1,2:-").unwrap();
        assert_eq!((slice.shape(), slice.whole().clone()), ([2, 3].into(), [4, 3].into()));
        assert_eq!(slice.to_string(), "4 3 1,2:-");
        assert!(!slice.is_whole() && TensorSlice::parse("4 3 0,4:-").unwrap().is_whole());
        for text in [
            "",
            "4",
            "4 3",
            "4 3 -",
            "4 3 1,2",
            "4 3 3,2:-",
            "4 x -:-",
            "4 3 1,0:-",
            "4 3 -1,2:-",
            "4  -:-",
        ] {
            assert_eq!(
                TensorSlice::parse(text).unwrap_err().class(),
                "InvalidArgument",
                "{text}"
            );
        }
        let huge = format!("{0} {0} -:-", usize::MAX);
        assert!(TensorSlice::parse(&huge).is_err());
    }

    #[test]
    fn a_box_is_taken_out() {
        let whole = Value::from([[0i32, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]);
        let part = |text: &str| TensorSlice::parse(text).unwrap().of(&whole).unwrap();
        assert_eq!(part("4 3 1,2:-"), [[3i32, 4, 5], [6, 7, 8]].into());
        assert_eq!(part("4 3 -:2,1"), [[2i32], [5], [8], [11]].into());
        assert!(TensorSlice::parse("3 4 -:2,1").unwrap().of(&whole).is_err());
        let strings = Value::from_strings([3], vec![b"a".to_vec(), b"b".to_vec(), b"c".to_vec()]).unwrap();
        let last = TensorSlice::parse("3 2,1").unwrap().of(&strings).unwrap();
        assert_eq!(last, Value::from_strings([1], vec![b"c".to_vec()]).unwrap());
    }

    #[test]
    fn keys_are_tensorflows_ordered_code() {
        let signed = |number| {
            let mut out = Vec::new();
            write_signed_number(&mut out, number);
            out
        };
        assert_eq!(
            (signed(0), signed(-1), signed(63), signed(-64)),
            (vec![0x80], vec![0x7f], vec![0xbf], vec![0x40])
        );
        assert_eq!(
            (signed(64), signed(-65), signed(8191)),
            (vec![0xc0, 0x40], vec![0x3f, 0xbf], vec![0xdf, 0xff])
        );
        assert_eq!(signed(8192), [0xe0, 0x20, 0x00]);
        assert_eq!(
            signed(i64::MAX),
            [0xff, 0xc0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]
        );
        let key = TensorSlice::parse("4 3 1,2:-").unwrap().key("v\0");
        assert_eq!(key, b"\x00v\x00\xff\x00\x01\x01\x02\x81\x82\x80\x7f");
    }

    #[test]
    fn a_partitioned_tensor_is_put_together() {
        let dir = tempfile::tempdir().unwrap();
        let prefix = dir.path().join("p");
        let whole = Value::from([[0i32, 1, 2], [3, 4, 5]]);
        let words = Value::from_strings([2], vec![b"a".to_vec(), b"b".to_vec()]).unwrap();
        let mut writer = BundleWriter::create(&prefix).unwrap();
        for text in ["2 3 -:0,1", "2 3 -:1,2"] {
            let slice = TensorSlice::parse(text).unwrap();
            writer.add_slice("v", &slice, &slice.of(&whole).unwrap()).unwrap();
            assert!(writer.add_slice("v", &slice, &whole).is_err());
        }
        for text in ["2 0,1", "2 1,1"] {
            let slice = TensorSlice::parse(text).unwrap();
            writer.add_slice("w", &slice, &slice.of(&words).unwrap()).unwrap();
        }
        let part = TensorSlice::parse("2 1,1").unwrap();
        let error = writer.add_slice("v", &part, &Value::from([1i32])).unwrap_err();
        assert!(error.to_string().contains("'v'"), "{error}");
        writer
            .add_slice("x", &TensorSlice::parse("2 0,1").unwrap(), &Value::from([1i32]))
            .unwrap();
        writer.finish().unwrap();

        let reader = BundleReader::open(&prefix).unwrap();
        assert_eq!(reader.value("v").unwrap(), whole);
        assert_eq!(reader.value("w").unwrap(), words);
        for text in ["2 3 -:1,2", "2 3 0,1:1,1"] {
            let slice = TensorSlice::parse(text).unwrap();
            assert_eq!(reader.slice("v", &slice).unwrap(), slice.of(&whole).unwrap());
        }
        assert_eq!(reader.value("x").unwrap_err().class(), "DataLoss");
    }

    #[test]
    fn slices_that_lie_in_the_same_bytes_do_not_multiply() {
        let dir = tempfile::tempdir().unwrap();
        let prefix = dir.path().join("p");
        let slice = TensorSlice::parse("4000 0,1000").unwrap();
        let mut writer = BundleWriter::create(&prefix).unwrap();
        for _ in 0..4 {
            writer
                .describe_slice("v", crate::DType::Int64, slice.whole(), slice.to_proto())
                .unwrap();
        }
        let part = Value::zeros(crate::DType::Int64, [1000]).unwrap();
        writer.add_value_under(&slice.key("v"), &part).unwrap();
        writer.finish().unwrap();
        let error = BundleReader::open(&prefix).unwrap().value("v").unwrap_err();
        assert!(error.to_string().contains("more than the files hold"), "{error}");
    }

    #[test]
    fn a_box_of_nothing_is_nothing() {
        let slice = TensorSlice::parse("1000000000 1000000000 0 -:-:-").unwrap();
        let whole = Value::zeros(crate::DType::Float32, [1_000_000_000, 1_000_000_000, 0]).unwrap();
        assert_eq!(slice.of(&whole).unwrap(), whole);
    }

    #[test]
    fn partitioned_variables_of_tensorflows_are_read_and_written_alike() {
        let dir = tempfile::tempdir().unwrap();
        let index = include_bytes!("../../../tests/fixtures/partitioned.index");
        let data = include_bytes!("../../../tests/fixtures/partitioned.data-00000-of-00001");
        std::fs::write(dir.path().join("tf.index"), index).unwrap();
        std::fs::write(dir.path().join("tf.data-00000-of-00001"), data).unwrap();
        let reader = BundleReader::open(dir.path().join("tf")).unwrap();
        let counted = |count: usize| (0..count).map(|number| number as f32).collect::<Vec<f32>>();
        let matrix = Value::from_vec([5, 3], counted(15)).unwrap();
        let (long, whole) = (Value::from((0..200).collect::<Vec<i32>>()), Value::from(counted(2)));
        for (name, value) in [
            ("columns", &matrix),
            ("rows", &matrix),
            ("long", &long),
            ("whole", &whole),
        ] {
            assert_eq!(reader.value(name).unwrap(), *value, "{name}");
        }

        let prefix = dir.path().join("ours");
        let mut writer = BundleWriter::create(&prefix).unwrap();
        for (name, value, slices) in [
            ("columns", &matrix, &["5 3 0,5:0,1", "5 3 0,5:1,1", "5 3 0,5:2,1"][..]),
            ("long", &long, &["200 0,100", "200 100,100"]),
            ("rows", &matrix, &["5 3 0,3:0,3", "5 3 3,2:0,3"]),
            ("whole", &whole, &["2 0,2"]),
        ] {
            for slice in slices {
                let slice = TensorSlice::parse(slice).unwrap();
                writer.add_slice(name, &slice, &slice.of(value).unwrap()).unwrap();
            }
        }
        writer.finish().unwrap();
        assert_eq!(
            std::fs::read(dir.path().join("ours.data-00000-of-00001")).unwrap(),
            data
        );
        assert_eq!(std::fs::read(dir.path().join("ours.index")).unwrap(), index);
    }
}
