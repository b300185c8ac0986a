//! Feeds damaged files of every format that is read to its reader, and watches for panics, hangs and memory that the file
//! does not justify.
//!
//! ```text
//! fuzz [--seconds N] [--seed S] [FORMAT...]      all formats without any; N seconds each
//! fuzz --list                                    the names of the formats
//! fuzz --read FILE FORMAT                        reads one file, such as a case that failed
//! ```
//!
//! Cases are made from small whole files (`formats`) by cutting, flipping, overwriting, doubling and splicing bytes
//! (`mutate`), where a format has checksums also beneath them. The same seed makes the same cases. The first case that
//! fails is written to the current folder and ends the program with 1.

mod formats;
mod memory;
mod mutate;

use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use formats::{Format, all};

/// A file of at most a few kilobytes is read faster than this, whatever is in it.
const SLOW: Duration = Duration::from_secs(10);
/// One that is not read after this time never will be.
const STUCK: Duration = Duration::from_secs(120);

struct Options {
    seconds: f64,
    seed: u64,
    formats: Vec<String>,
    list: bool,
    read: Option<PathBuf>,
}

fn options() -> Result<Options, String> {
    let mut options = Options {
        seconds: 30.0,
        seed: 1,
        formats: Vec::new(),
        list: false,
        read: None,
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
            "--list" => options.list = true,
            "--read" => options.read = Some(words.next().ok_or("--read wants a file")?.into()),
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
    if options.list {
        known.iter().for_each(|format| println!("{}", format.name));
        return ExitCode::SUCCESS;
    }
    graph_ops::install();
    report_panics();
    report_hangs();
    report_refusals();
    let scratch = system_tests::scratch();
    let mut failed = false;
    for format in known {
        if !options.formats.is_empty() && !options.formats.iter().any(|name| name == format.name) {
            continue;
        }
        let folder = scratch.path().join(format.name);
        failed |= !match &options.read {
            Some(file) => read(&format, file, &folder),
            None => run(&format, &options, folder),
        };
    }
    ExitCode::from(u8::from(failed))
}

/// Reads one file; whether it is one of the format.
fn read(format: &Format, file: &Path, folder: &Path) -> bool {
    let bytes = std::fs::create_dir_all(folder).and_then(|()| std::fs::read(file));
    let began = Instant::now();
    let verdict = bytes
        .map_err(|error| format!("{}: {error}", file.display()))
        .and_then(|bytes| (format.read)(folder, &bytes));
    println!(
        "{}: {} after {:?}",
        format.name,
        verdict.as_ref().err().map_or("read", |error| error),
        began.elapsed()
    );
    verdict.is_ok()
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
        set(&READING, Some((format.name, case.clone(), began)));
        let read = panic::catch_unwind(AssertUnwindSafe(|| (format.read)(&folder, &case)));
        set(&READING, None);
        let used = memory.most();
        cases += 1;
        most = most.max(used);
        let allowed = format.memory + format.memory_per_byte * case.len();
        // A reader may catch a panic, or one of its threads have it.
        let panicked = set(&LAST_PANIC, None);
        let complaint = match &read {
            Err(_) => Some(panicked.unwrap_or_default()),
            Ok(_) if panicked.is_some() => panicked,
            Ok(_) if used > allowed => Some(format!(
                "{used} bytes of memory for a file of {}, allowed {allowed}",
                case.len()
            )),
            // Once may be the machine's fault.
            Ok(_) if began.elapsed() > SLOW => {
                let again = Instant::now();
                let _ = (format.read)(&folder, &case);
                (again.elapsed() > SLOW).then(|| format!("took {:?}, and {:?} again", began.elapsed(), again.elapsed()))
            }
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

/// The format and case that are being read, and since when.
static READING: Mutex<Option<(&'static str, Vec<u8>, Instant)>> = Mutex::new(None);
/// What the last panic said, whichever thread it was in.
static LAST_PANIC: Mutex<Option<String>> = Mutex::new(None);

/// Puts a value in; what was there.
fn set<T>(place: &Mutex<Option<T>>, value: Option<T>) -> Option<T> {
    std::mem::replace(&mut place.lock().unwrap_or_else(PoisonError::into_inner), value)
}

/// Keeps what a reader's panic says for the report, and its case, since not every panic comes back to the caller.
fn report_panics() {
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        if let Some((format, case, _)) = set(&READING, None) {
            println!("FAIL {format}: panic with the case kept in {}", keep(format, &case));
        }
        set(&LAST_PANIC, Some(panic.to_string()));
        usual(panic);
    }));
}

/// Keeps the case that asks for more memory than there is.
fn report_refusals() {
    let tell = |size| {
        if let Some((format, case, _)) = set(&READING, None) {
            println!(
                "FAIL {format}: {size} bytes of memory at once, by the case kept in {}",
                keep(format, &case)
            );
        }
    };
    // There is none before.
    let _ = memory::TELL.set(tell);
}

/// Ends the program when a case is never read to its end.
fn report_hangs() {
    std::thread::spawn(|| {
        loop {
            std::thread::sleep(Duration::from_secs(1));
            let reading = READING.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((format, case, began)) = &*reading
                && began.elapsed() > STUCK
            {
                println!(
                    "FAIL {format}: not read after {STUCK:?}; the case is kept in {}",
                    keep(format, case)
                );
                std::process::exit(1);
            }
        }
    });
}

/// Writes a case to the current folder; where, or why not.
fn keep(format: &str, case: &[u8]) -> String {
    let path = format!("fuzz-{format}.case");
    std::fs::write(&path, case).map_or_else(|error| error.to_string(), |()| path)
}
