//! Output for people: columns that line up.

use std::io::{self, Write};

/// On which side of its column a text stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Align {
    /// Texts.
    Left,
    /// Numbers.
    Right,
}

use Align::{Left, Right};

/// Rows of cells under headings; every column is as wide as its widest cell.
#[derive(Debug)]
pub struct Table {
    headings: Vec<&'static str>,
    aligns: Vec<Align>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows. A heading that starts with `>` is of a column of numbers.
    pub fn new(headings: &[&'static str]) -> Self {
        Self {
            headings: headings.iter().map(|heading| heading.trim_start_matches('>')).collect(),
            aligns: headings
                .iter()
                .map(|heading| if heading.starts_with('>') { Right } else { Left })
                .collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row; cells that are missing at its end stay empty.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().take(self.headings.len()).collect());
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Writes headings and rows, each line indented by `indent` spaces and without spaces at its end.
    pub fn write(&self, out: &mut dyn Write, indent: usize) -> io::Result<()> {
        let mut widths: Vec<usize> = self.headings.iter().map(|heading| heading.chars().count()).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let headings: Vec<String> = self.headings.iter().map(|&heading| heading.to_owned()).collect();
        for row in [&headings]
            .into_iter()
            .filter(|row| row.iter().any(|cell| !cell.is_empty()))
            .chain(&self.rows)
        {
            let mut line = " ".repeat(indent);
            for ((cell, &width), align) in row.iter().zip(&widths).zip(&self.aligns) {
                let space = " ".repeat(width - cell.chars().count());
                match align {
                    Left => line.extend([cell.as_str(), &space, "  "]),
                    Right => line.extend([space.as_str(), cell, "  "]),
                }
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// A number of bytes with a unit of which it has at least one.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let power = (count.ilog2() / 10) as usize;
    format!(
        "{:.1} {}",
        count as f64 / (1u64 << (10 * power)) as f64,
        UNITS[power - 1]
    )
}

/// A number with commas between its thousands.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number in six digits at most, in scientific notation where it is large or small.
pub fn short(number: Option<f64>) -> String {
    let Some(number) = number else { return String::new() };
    let magnitude = number.abs();
    if magnitude == 0.0 || !number.is_finite() {
        return number.to_string();
    }
    if !(1e-4..1e9).contains(&magnitude) {
        return format!("{number:.4e}");
    }
    let decimals = (5 - magnitude.log10().floor() as i32).max(0) as usize;
    let text = format!("{number:.decimals$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// `1 node`, `2 nodes`.
pub fn count(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {what}{plural}", thousands(number as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&["name", ">size", "what"]);
        table.row(["a", "1", "x"].map(str::to_owned));
        table.row(["longer", "1000", ""].map(str::to_owned));
        let mut text = Vec::new();
        table.write(&mut text, 2).unwrap();
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "  name    size  what\n  a          1  x\n  longer  1000\n"
        );
    }

    #[test]
    fn numbers_are_readable() {
        assert_eq!(
            [0, 999, 1000, 1_234_567].map(thousands),
            ["0", "999", "1,000", "1,234,567"]
        );
        assert_eq!(
            [1023, 1024, 1_572_864, u64::MAX].map(bytes),
            ["1023 B", "1.0 KiB", "1.5 MiB", "16.0 EiB"]
        );
        assert_eq!([count(1, "node"), count(2, "node")], ["1 node", "2 nodes"]);
    }

    #[test]
    fn numbers_are_short() {
        let cases = [
            (0.0, "0"),
            (1.0, "1"),
            (-0.123456789, "-0.123457"),
            (1234567.0, "1234567"),
            (0.1, "0.1"),
            (1e-7, "1.0000e-7"),
            (f64::INFINITY, "inf"),
        ];
        for (number, expected) in cases {
            assert_eq!(short(Some(number)), expected);
        }
    }
}
