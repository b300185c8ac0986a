//! Output for programs.

use std::io::Write;

use serde::Serialize;

use crate::failure::Result;

/// Writes `value` as indented JSON and ends the line. Numbers that JSON lacks (NaN, infinities) become null.
pub fn write(out: &mut dyn Write, value: &impl Serialize) -> Result<()> {
    serde_json::to_writer_pretty(&mut *out, value).map_err(std::io::Error::from)?;
    writeln!(out)?;
    Ok(())
}
