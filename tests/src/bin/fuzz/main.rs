//! Feeds damaged files of every format that is read to its reader, and watches for panics, hangs and memory that the file
//! does not justify.
//!
//! ```text
//! fuzz [--seconds N] [--seed S] [FORMAT...]      all formats without any; N seconds each
//! ```
//!
//! Cases are made from small whole files (`formats`) by cutting, flipping, overwriting, doubling and splicing bytes
//! (`mutate`), where a format has checksums also beneath them. The same seed makes the same cases. The first case that
//! fails is written to the current folder and ends the program with 1.

mod formats;
mod memory;
mod mutate;

use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use formats::{Format, all};

/// A file of at most a few kilobytes is read faster than this, whatever is in it.
const SLOW: Duration = Duration::from_secs(10);

struct Options {
    seconds: f64,
    seed: u64,
    formats: Vec<String>,
}

fn options() -> Result<Options, String> {
    let mut options = Options {
        seconds: 30.0,
        seed: 1,
        formats: Vec::new(),
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || {
            let number = words.next().and_then(|text| text.parse::<f64>().ok());
            number.ok_or_else(|| format!("{word} wants a number"))
        };
        match word.as_str() {
            "--seconds" => options.seconds = number()?,
            "--seed" => options.seed = number()? as u64,
            _ if word.starts_with('-') => return Err(format!("unknown option {word}")),
            _ => options.formats.push(word),
        }
    }
    Ok(options)
}

fn main() -> ExitCode {
    let chosen = options().and_then(|options| {
        let known = all();
        if let Some(odd) = options
            .formats
            .iter()
            .find(|name| known.iter().all(|format| format.name != **name))
        {
            let names: Vec<_> = known.iter().map(|format| format.name).collect();
            return Err(format!("no format {odd}; there are {}", names.join(", ")));
        }
        Ok((options, known))
    });
    let (options, known) = match chosen {
        Ok(chosen) => chosen,
        Err(error) => {
            eprintln!("fuzz: {error}");
            return ExitCode::from(2);
        }
    };
    graph_ops::install();
    report_panics();
    let scratch = system_tests::scratch();
    let mut failed = false;
    for format in known {
        if !options.formats.is_empty() && !options.formats.iter().any(|name| name == format.name) {
            continue;
        }
        failed |= !run(&format, &options, scratch.path().join(format.name));
    }
    ExitCode::from(u8::from(failed))
}

/// Reads cases of one format until the time is over; whether all went well.
fn run(format: &Format, options: &Options, folder: PathBuf) -> bool {
    if let Err(error) = std::fs::create_dir_all(&folder) {
        eprintln!("fuzz: {}: {error}", folder.display());
        return false;
    }
    for seed in (format.seeds)() {
        if let Err(error) = (format.read)(&folder, &seed) {
            println!("FAIL {}: a whole file is refused: {error}", format.name);
            return false;
        }
    }
    let seeds = (format.seeds)();
    let mut random = fastrand::Rng::with_seed(options.seed);
    let end = Instant::now() + Duration::from_secs_f64(options.seconds);
    let (mut cases, mut accepted, mut most) = (0u64, 0u64, 0usize);
    while Instant::now() < end {
        let case = (format.mutate)(&mut random, &seeds);
        let began = Instant::now();
        let memory = memory::Watch::begin();
        READING.set(Some((format.name, case.clone())));
        let read = panic::catch_unwind(AssertUnwindSafe(|| (format.read)(&folder, &case)));
        READING.set(None);
        let used = memory.most();
        cases += 1;
        most = most.max(used);
        let allowed = format.memory + format.memory_per_byte * case.len();
        let complaint = match &read {
            Err(_) => Some(LAST_PANIC.take()),
            Ok(_) if used > allowed => Some(format!(
                "{used} bytes of memory for a file of {}, allowed {allowed}",
                case.len()
            )),
            Ok(_) if began.elapsed() > SLOW => Some(format!("took {:?}", began.elapsed())),
            Ok(result) => {
                accepted += u64::from(result.is_ok());
                None
            }
        };
        if let Some(complaint) = complaint {
            let kept = keep(format.name, &case);
            println!("FAIL {}: case {cases}, kept in {kept}: {complaint}", format.name);
            return false;
        }
    }
    println!(
        "ok   {:<16} {cases:>9} cases, {accepted} read, the rest refused; at most {} KiB",
        format.name,
        most / 1024
    );
    true
}

thread_local! {
    /// The format and case that are being read.
    static READING: RefCell<Option<(&'static str, Vec<u8>)>> = const { RefCell::new(None) };
    static LAST_PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Keeps what a reader's panic says for the report, and its case, since not every panic comes back to the caller.
fn report_panics() {
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        if let Some((format, case)) = READING.take() {
            println!("FAIL {format}: panic with the case kept in {}", keep(format, &case));
            LAST_PANIC.set(panic.to_string());
        }
        usual(panic);
    }));
}

/// Writes a case to the current folder; where, or why not.
fn keep(format: &str, case: &[u8]) -> String {
    let path = format!("fuzz-{format}.case");
    std::fs::write(&path, case).map_or_else(|error| error.to_string(), |()| path)
}
