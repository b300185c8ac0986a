//! Sorted string tables in LevelDB's format, which index checkpoints: strictly ascending keys, each with a value.
//!
//! ```text
//! table  = data blocks | metaindex block (empty) | index block | footer
//! block  = entries | restart offsets u32... | their count u32 | type u8 (0 plain, 1 snappy) | u32 masked crc of block and type
//! entry  = varint shared | varint unshared | varint value length | unshared key bytes | value
//! footer = handles (varint offset, varint size) of the metaindex and index blocks, padded to 40 | magic u64
//! ```
//!
//! The first `shared` bytes of a key are those of the key before it. The index block has one entry a data block: a key
//! not below the block's last, and the block's handle.

use std::path::Path;

use super::checksum::{mask, masked_crc32c};
use crate::error::{Error, Result};

const MAGIC: u64 = 0xdb47_7524_8b80_fb57;
const FOOTER: usize = 48;
/// Type byte and checksum after each block.
const TRAILER: usize = 5;
/// A data block ends with the entry that reaches this size.
const BLOCK_SIZE: usize = 262_144;
const RESTART_INTERVAL: usize = 16;
const INDEX_RESTART_INTERVAL: usize = 1;
/// Shared prefixes and compression let a small file describe huge keys. Writers restart every 16 entries and snappy
/// shrinks at most 22-fold, so that honest blocks expand less than this.
const MAX_EXPANSION: usize = 64;

/// The type bytes of blocks.
const PLAIN: u8 = 0;
const SNAPPY: u8 = 1;

/// A key and its value.
pub type Entry = (Vec<u8>, Vec<u8>);

/// What was read, or what is wrong with the bytes.
pub(super) type Parsed<T> = std::result::Result<T, String>;

/// Encodes a table. `entries` come in strictly ascending order of their keys.
///
/// Errors: `InvalidArgument` for keys that do not ascend.
pub fn encode<'a>(entries: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    let mut index = Block::new(INDEX_RESTART_INTERVAL);
    let mut block = Block::new(RESTART_INTERVAL);
    let mut last: &[u8] = &[];
    for (key, value) in entries {
        if last >= key && !block.is_empty() {
            let key = String::from_utf8_lossy(key);
            return Err(Error::invalid_argument(format!("table keys do not ascend at '{key}'")));
        }
        if block.size() >= BLOCK_SIZE {
            let full = std::mem::replace(&mut block, Block::new(RESTART_INTERVAL));
            let handle = write_block(&mut out, full.finish());
            index.push(&separator(last, key), &handle);
        }
        block.push(key, value);
        last = key;
    }
    if !block.is_empty() {
        let handle = write_block(&mut out, block.finish());
        index.push(&successor(last), &handle);
    }
    let mut footer = write_block(&mut out, Block::new(RESTART_INTERVAL).finish());
    footer.extend(write_block(&mut out, index.finish()));
    footer.resize(FOOTER - 8, 0);
    out.extend(footer);
    out.extend(MAGIC.to_le_bytes());
    Ok(out)
}

/// A short key that is not below `last` and is below `next`, as LevelDB chooses it.
fn separator(last: &[u8], next: &[u8]) -> Vec<u8> {
    let shared = last.iter().zip(next).take_while(|(a, b)| a == b).count();
    match (last.get(shared), next.get(shared)) {
        (Some(&a), Some(&b)) if a < u8::MAX && a + 1 < b => [&last[..shared], &[a + 1]].concat(),
        _ => last.to_vec(),
    }
}

/// A short key that is not below `last`, as LevelDB chooses it.
fn successor(last: &[u8]) -> Vec<u8> {
    match last.iter().position(|&byte| byte < u8::MAX) {
        Some(at) => [&last[..at], &[last[at] + 1]].concat(),
        None => last.to_vec(),
    }
}

/// Appends a block with its trailer; returns its handle.
fn write_block(out: &mut Vec<u8>, content: Vec<u8>) -> Vec<u8> {
    let mut handle = Vec::new();
    write_varint(&mut handle, out.len() as u64);
    write_varint(&mut handle, content.len() as u64);
    let start = out.len();
    out.extend(content);
    out.push(PLAIN);
    let crc = masked_crc32c(&out[start..]);
    out.extend(crc.to_le_bytes());
    handle
}

/// A block under construction.
struct Block {
    entries: Vec<u8>,
    restarts: Vec<u32>,
    restart_interval: usize,
    since_restart: usize,
    last_key: Vec<u8>,
}

impl Block {
    fn new(restart_interval: usize) -> Self {
        Block {
            entries: Vec::new(),
            restarts: vec![0],
            restart_interval,
            since_restart: 0,
            last_key: Vec::new(),
        }
    }

    fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn size(&self) -> usize {
        self.entries.len() + 4 * (self.restarts.len() + 1)
    }

    fn push(&mut self, key: &[u8], value: &[u8]) {
        let mut shared = 0;
        if self.since_restart == self.restart_interval {
            self.restarts.push(self.entries.len() as u32);
            self.since_restart = 0;
        } else if !self.is_empty() {
            shared = key.iter().zip(&self.last_key).take_while(|(a, b)| a == b).count();
        }
        for length in [shared, key.len() - shared, value.len()] {
            write_varint(&mut self.entries, length as u64);
        }
        self.entries.extend(&key[shared..]);
        self.entries.extend(value);
        self.last_key = key.to_vec();
        self.since_restart += 1;
    }

    fn finish(mut self) -> Vec<u8> {
        let count = self.restarts.len() as u32;
        for number in self.restarts.into_iter().chain([count]) {
            self.entries.extend(number.to_le_bytes());
        }
        self.entries
    }
}

/// Decodes a whole table, every checksum verified; `path` is for messages.
///
/// Errors: `DataLoss` where bytes are missing or corrupt.
pub fn decode(file: &[u8], path: &Path) -> Result<Vec<Entry>> {
    decode_table(file).map_err(|what| Error::data_loss(format!("{}: {what}", path.display())))
}

fn decode_table(file: &[u8]) -> Parsed<Vec<Entry>> {
    let too_short = || format!("{} bytes are too few for a table", file.len());
    let footer = &file[file.len().checked_sub(FOOTER).ok_or_else(too_short)?..];
    if footer[FOOTER - 8..] != MAGIC.to_le_bytes() {
        return Err("not a table, or cut short: the magic number at the end is missing".to_string());
    }
    let mut handles = Bytes(&footer[..FOOTER - 8]);
    decode_block(file, handles.handle()?)?; // the metaindex: verified, nothing in it is needed
    let index = decode_block(file, handles.handle()?)?;

    let mut entries: Vec<Entry> = Vec::new();
    let mut expanded = 0;
    for (_, handle) in index {
        for entry in decode_block(file, Bytes(&handle).handle()?)? {
            expanded += entry.0.len() + entry.1.len();
            if expanded > MAX_EXPANSION.saturating_mul(file.len()) {
                return Err("keys and values are far longer than the file justifies".to_string());
            }
            if entries.last().is_some_and(|last| last.0 >= entry.0) {
                return Err("keys do not ascend".to_string());
            }
            entries.push(entry);
        }
    }
    Ok(entries)
}

fn decode_block(file: &[u8], (offset, size): (u64, u64)) -> Parsed<Vec<Entry>> {
    let at = |what: &str| format!("{what} in the block at offset {offset}");
    let whole = usize::try_from(offset).ok().and_then(|start| {
        let end = start.checked_add(usize::try_from(size).ok()?)?.checked_add(TRAILER)?;
        file.get(start..end)
    });
    let whole = whole.ok_or_else(|| at("bytes beyond the end of the file"))?;
    let (content, trailer) = whole.split_at(whole.len() - TRAILER);
    let crc = crc32c::crc32c_append(crc32c::crc32c(content), &trailer[..1]);
    if trailer[1..] != mask(crc).to_le_bytes() {
        return Err(at("checksum mismatch"));
    }
    match trailer[0] {
        PLAIN => parse_block(content).map_err(|e| at(&e)),
        SNAPPY => parse_block(&decompress(content).map_err(|e| at(&e))?).map_err(|e| at(&e)),
        other => Err(at(&format!("unknown compression {other}"))),
    }
}

fn decompress(content: &[u8]) -> Parsed<Vec<u8>> {
    let length = snap::raw::decompress_len(content).map_err(|e| e.to_string())?;
    if length > MAX_EXPANSION.saturating_mul(content.len()) {
        return Err(format!("{length} bytes claimed by {} compressed ones", content.len()));
    }
    snap::raw::Decoder::new()
        .decompress_vec(content)
        .map_err(|e| e.to_string())
}

fn parse_block(content: &[u8]) -> Parsed<Vec<Entry>> {
    let (rest, count) = content.split_last_chunk::<4>().ok_or("no restart count")?;
    let restarts = (u32::from_le_bytes(*count) as usize).checked_mul(4);
    let length = restarts.and_then(|restarts| rest.len().checked_sub(restarts));
    let mut bytes = Bytes(&rest[..length.ok_or("more restarts than bytes")?]);

    let mut entries: Vec<Entry> = Vec::new();
    let mut expanded = 0;
    while !bytes.0.is_empty() {
        let (shared, unshared, value) = (bytes.varint()?, bytes.varint()?, bytes.varint()?);
        let last = entries.last().map_or(&[][..], |(key, _)| key);
        let prefix = usize::try_from(shared).ok().and_then(|shared| last.get(..shared));
        let mut key = prefix.ok_or("a key shares more than there is")?.to_vec();
        key.extend(bytes.take(unshared)?);
        expanded += key.len();
        if expanded > MAX_EXPANSION.saturating_mul(content.len()) {
            return Err("keys far longer than their bytes justify".to_string());
        }
        entries.push((key, bytes.take(value)?.to_vec()));
    }
    Ok(entries)
}

/// Appends an integer in 7-bit groups, the lowest first.
pub(super) fn write_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Bytes that are read from the front.
pub(super) struct Bytes<'a>(pub &'a [u8]);

impl<'a> Bytes<'a> {
    pub fn varint(&mut self) -> Parsed<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            let group = u64::from(byte & 0x7f);
            if group << shift >> shift != group {
                break;
            }
            value |= group << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err("an integer of more than 64 bits".to_string())
    }

    pub fn take(&mut self, count: u64) -> Parsed<&'a [u8]> {
        let parts = usize::try_from(count)
            .ok()
            .and_then(|count| self.0.split_at_checked(count));
        let (taken, rest) = parts.ok_or_else(|| format!("{count} bytes wanted where {} are left", self.0.len()))?;
        self.0 = rest;
        Ok(taken)
    }

    fn handle(&mut self) -> Parsed<(u64, u64)> {
        Ok((self.varint()?, self.varint()?))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    use super::*;

    fn encode_map(map: &BTreeMap<Vec<u8>, Vec<u8>>) -> Vec<u8> {
        encode(map.iter().map(|(k, v)| (k.as_slice(), v.as_slice()))).unwrap()
    }

    #[test]
    fn varints() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut out = Vec::new();
            write_varint(&mut out, value);
            assert_eq!(Bytes(&out).varint().unwrap(), value);
        }
        assert!(Bytes(&[0xff; 11]).varint().is_err());
        assert!(Bytes(&[0x80]).varint().is_err());
    }

    #[test]
    fn several_blocks() {
        let map = (0..40)
            .map(|i| (format!("key{i:03}").into_bytes(), vec![i; 20_000]))
            .collect();
        let file = encode_map(&map);
        assert!(file.len() > 2 * BLOCK_SIZE);
        assert!(decode_table(&file).unwrap().into_iter().eq(map));
    }

    #[test]
    fn index_keys_are_short() {
        assert_eq!(separator(b"abc1", b"abf"), b"abd");
        assert_eq!(separator(b"abc1", b"abd"), b"abc1");
        assert_eq!(separator(b"ab", b"abd"), b"ab");
        assert_eq!(successor(b"words"), b"x");
        assert_eq!(successor(&[255, 3, 4]), [255, 4]);
        assert_eq!(successor(&[255]), [255]);
    }

    #[test]
    fn keys_must_ascend() {
        let key = b"a".as_slice();
        assert!(encode([(key, key), (key, key)]).is_err());
        assert!(encode([(b"b".as_slice(), key), (key, key)]).is_err());
        assert!(encode([(b"".as_slice(), key), (b"", key)]).is_err());
    }

    #[test]
    fn hostile_prefixes_do_not_expand() {
        // Each of many entries of four bytes shares all of a long key.
        let mut content = Vec::new();
        for length in [0, 50_000, 0] {
            write_varint(&mut content, length);
        }
        content.extend([7; 50_000]);
        for shared in 50_000..60_000 {
            write_varint(&mut content, shared);
            content.extend([1, 0, 7]);
        }
        content.extend([0, 0, 0, 0, 1, 0, 0, 0]);
        let error = parse_block(&content).unwrap_err();
        assert!(error.contains("far longer"), "{error}");
    }

    #[test]
    fn compressed_blocks_are_read() {
        let block = |entries: &[(&[u8], &[u8])]| {
            let mut block = Block::new(RESTART_INTERVAL);
            entries.iter().for_each(|(key, value)| block.push(key, value));
            block.finish()
        };
        let mut file = snap::raw::Encoder::new()
            .compress_vec(&block(&[(b"key", &[1; 100])]))
            .unwrap();
        let size = file.len() as u64;
        file.push(SNAPPY);
        file.extend(masked_crc32c(&file).to_le_bytes());
        let mut handle = Vec::new();
        write_varint(&mut handle, 0);
        write_varint(&mut handle, size);
        let mut footer = write_block(&mut file, block(&[]));
        footer.extend(write_block(&mut file, block(&[(b"key", &handle)])));
        footer.resize(FOOTER - 8, 0);
        file.extend(footer);
        file.extend(MAGIC.to_le_bytes());
        assert_eq!(decode_table(&file).unwrap(), [(b"key".to_vec(), vec![1; 100])]);
        assert!(
            decompress(&[0xff, 0xff, 0xff, 0xff, 0x0f, 0])
                .unwrap_err()
                .contains("claimed")
        );
    }

    proptest! {
        #[test]
        fn tables_survive(map in btree_map(vec(0..3u8, 0..12), vec(any::<u8>(), 0..9), 0..80)) {
            prop_assert!(decode_table(&encode_map(&map)).unwrap().into_iter().eq(map));
        }

        #[test]
        fn a_damaged_table_never_panics(
            map in btree_map(vec(0..3u8, 0..12), vec(any::<u8>(), 0..9), 1..80),
            at in any::<prop::sample::Index>(), flip in 1..=255u8,
        ) {
            let good = encode_map(&map);
            let at = at.index(good.len());
            prop_assert!(decode_table(&good[..at]).is_err());
            let mut file = good;
            file[at] ^= flip;
            // The footer's padding means nothing.
            prop_assert!(decode_table(&file).is_err() || at >= file.len() - FOOTER);
            let _ = parse_block(&file[at..]);
            let _ = parse_block(&file[..at]);
        }
    }
}
