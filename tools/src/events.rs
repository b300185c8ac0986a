//! `graph events`: what event files hold, and their scalars as a table.

mod records;
mod series;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use graph_core::Error;
use graph_core::format::events;
use serde::Serialize;

use crate::failure::Result;
use crate::table::{self, Table, thousands};
use crate::{input, json};
use records::Run;
use series::Point;

/// Lists what event files hold: tags with kinds and steps; prints the values of a tag as a table or as CSV
#[derive(Debug, Args)]
#[command(after_help = "\
Of a folder all event files in it and below are read; each folder is a run. A file that is damaged or still being written is
read as far as it goes; then the exit code is 1.

Examples:
  graph events tensorboard
  graph events tensorboard --tag objectives/obj
  graph events tensorboard --tag objectives/obj --csv > objective.csv
  graph events - --json < events.out.tfevents.1500000000.host")]
pub struct Options {
    /// An event file, a folder of them, or - for standard input
    file: PathBuf,

    /// Print the values of this tag, step by step
    #[arg(long, value_name = "TAG")]
    tag: Option<String>,

    /// Write the values as comma-separated text
    #[arg(long, requires = "tag", conflicts_with = "json")]
    csv: bool,

    /// Write JSON
    #[arg(long)]
    json: bool,
}

/// What was found, without the values.
#[derive(Serialize)]
struct Report<'a> {
    runs: &'a [Run],
}

/// The values of a tag.
#[derive(Serialize)]
struct Values<'a> {
    tag: &'a str,
    runs: Vec<RunValues<'a>>,
}

#[derive(Serialize)]
struct RunValues<'a> {
    run: &'a str,
    kind: &'a str,
    points: &'a [Point],
}

/// Prints tags or values.
pub fn run(options: &Options, out: &mut dyn Write) -> Result<ExitCode> {
    let runs = read(&options.file, options.tag.as_deref())?;
    match &options.tag {
        Some(tag) => write_values(options, &runs, tag, out)?,
        None if options.json => json::write(out, &Report { runs: &runs })?,
        None => write_runs(&runs, out)?,
    }
    out.flush()?;
    let damage: Vec<&str> = runs.iter().flat_map(|run| &run.damage).map(String::as_str).collect();
    match damage.is_empty() {
        true => Ok(ExitCode::SUCCESS),
        false => Err(Error::data_loss(damage.join("\n  "))
            .hint("what comes before is whole; a file that is still being written may end like that")
            .into()),
    }
}

/// The runs in a file, a folder or standard input. Values are kept of `tag` only.
fn read(path: &Path, tag: Option<&str>) -> graph_core::Result<Vec<Run>> {
    if input::is_stdin(path) {
        let mut run = Run::new(String::new());
        run.read_bytes(&input::bytes(path)?, tag);
        return Ok(vec![run]);
    }
    if !path.is_dir() {
        let mut run = Run::new(String::new());
        run.read_file(path, tag)?;
        return Ok(vec![run]);
    }
    let mut runs = Vec::new();
    let mut folders = vec![path.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let files: Vec<PathBuf> = events::event_files(&folder)?
            .into_iter()
            .filter(|file| file.is_file())
            .collect();
        if !files.is_empty() {
            let name = folder.strip_prefix(path).unwrap_or(&folder).display().to_string();
            let mut run = Run::new(name);
            for file in files {
                run.read_file(&file, tag)?;
            }
            runs.push(run);
        }
        let entries = std::fs::read_dir(&folder).map_err(|error| Error::io(&folder, error))?;
        // Links could lead in circles.
        let inner = entries
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        folders.extend(inner.map(|entry| entry.path()));
    }
    if runs.is_empty() {
        return Err(
            Error::not_found(format!("{}: no event files are in the folder", path.display()))
                .hint("their names contain tfevents"),
        );
    }
    runs.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(runs)
}

fn write_runs(runs: &[Run], out: &mut dyn Write) -> Result<()> {
    for (index, run) in runs.iter().enumerate() {
        if index > 0 {
            writeln!(out)?;
        }
        if !run.name.is_empty() {
            writeln!(out, "run {}", run.name)?;
        }
        let mut parts = vec![table::count(run.files, "file"), table::count(run.events, "event")];
        if let Some((first, last)) = run.steps {
            parts.push(format!(
                "steps {} to {}",
                thousands_signed(first),
                thousands_signed(last)
            ));
        }
        parts.extend((run.graphs > 0).then(|| table::count(run.graphs, "graph")));
        parts.extend((run.meta_graphs > 0).then(|| table::count(run.meta_graphs, "MetaGraph")));
        parts.extend((run.starts > 0).then(|| table::count(run.starts, "session start")));
        parts.extend((run.log_messages > 0).then(|| table::count(run.log_messages, "log message")));
        writeln!(out, "{}", parts.join(", "))?;
        let mut rows = Table::new(&["tag", "kind", ">count", ">first step", ">last step", "last value"]);
        for tag in &run.tags {
            rows.row([
                tag.tag.clone(),
                tag.kind.to_owned(),
                thousands(tag.count as u64),
                thousands_signed(tag.first_step),
                thousands_signed(tag.last_step),
                tag.last_value.clone(),
            ]);
        }
        if !rows.is_empty() {
            writeln!(out)?;
            rows.write(out, 0)?;
        }
        if !run.run_metadata.is_empty() {
            writeln!(out, "\nrun metadata: {}", run.run_metadata.join(", "))?;
        }
    }
    Ok(())
}

fn thousands_signed(number: i64) -> String {
    let sign = if number < 0 { "-" } else { "" };
    format!("{sign}{}", thousands(number.unsigned_abs()))
}

fn write_values(options: &Options, runs: &[Run], tag: &str, out: &mut dyn Write) -> Result<()> {
    let found: Vec<RunValues<'_>> = runs
        .iter()
        .filter_map(|run| {
            let found = run.tags.iter().find(|found| found.tag == tag)?;
            Some(RunValues {
                run: &run.name,
                kind: found.kind,
                points: &found.points,
            })
        })
        .collect();
    if found.is_empty() {
        return Err(unknown_tag(runs, tag).into());
    }
    if options.json {
        return json::write(out, &Values { tag, runs: found });
    }
    if options.csv {
        return write_csv(&found, out);
    }
    for (index, values) in found.iter().enumerate() {
        if index > 0 {
            writeln!(out)?;
        }
        if !values.run.is_empty() {
            writeln!(out, "run {}", values.run)?;
        }
        let names = series::columns(values.kind);
        let headings: Vec<&'static str> = [">step", ">seconds"].into_iter().chain(names.iter().copied()).collect();
        let mut rows = Table::new(&headings);
        let start = values.points.first().map_or(0.0, |point| point.wall_time);
        for point in values.points {
            let seconds = format!("{:.3}", point.wall_time - start);
            rows.row([point.step.to_string(), seconds].into_iter().chain(point.texts()));
        }
        rows.write(out, 0)?;
    }
    Ok(())
}

/// Step, wall time and values; with a column for the run where there are several.
fn write_csv(found: &[RunValues<'_>], out: &mut dyn Write) -> Result<()> {
    let several = found.len() > 1;
    let kind = found[0].kind;
    let columns = series::columns(kind)
        .iter()
        .map(|column| column.trim_start_matches('>'));
    let header: Vec<&str> = several
        .then_some("run")
        .into_iter()
        .chain(["wall_time", "step"])
        .chain(columns)
        .collect();
    writeln!(out, "{}", header.join(","))?;
    for values in found.iter().filter(|values| values.kind == kind) {
        for point in values.points {
            let mut cells = Vec::new();
            cells.extend(several.then(|| csv_cell(values.run)));
            cells.extend([point.wall_time.to_string(), point.step.to_string()]);
            cells.extend(point.texts().into_iter().map(|text| csv_cell(&text)));
            writeln!(out, "{}", cells.join(","))?;
        }
    }
    Ok(())
}

/// A text that has a comma, a quote or a line break stands in quotes.
fn csv_cell(text: &str) -> String {
    match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    }
}

fn unknown_tag(runs: &[Run], tag: &str) -> Error {
    let all = runs.iter().flat_map(|run| &run.tags).map(|found| found.tag.as_str());
    let nearest = all.max_by(|a, b| strsim::jaro_winkler(a, tag).total_cmp(&strsim::jaro_winkler(b, tag)));
    let error = Error::not_found(format!("nothing has the tag '{tag}'"));
    match nearest {
        Some(nearest) => error.hint(format!("did you mean '{nearest}'? Without --tag all tags are listed")),
        None => error.hint("there are no tags at all"),
    }
}
