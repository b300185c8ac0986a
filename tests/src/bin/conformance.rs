//! What a replay of the recorded TensorFlow sessions says: figures by category, and whether anything came undone.
//!
//! ```text
//! graph replay DIR --json | conformance DIR [--update]
//! ```
//!
//! Fails if a session that `fixtures/conformance.txt` lists is no longer ok; one that differs and never was ok is told as
//! open. With `--update` it writes that list and `docs/conformance.md` anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{fs, io};

use serde_json::Value as Json;

/// A session's outcome.
struct Session {
    status: String,
    unsupported: Vec<String>,
    /// What differs, as JSON.
    difference: String,
}

/// Sessions by category and name.
type Sessions = BTreeMap<(String, String), Session>;

fn read_report(json: &Json, root: &Path) -> Option<Sessions> {
    let mut sessions = Sessions::new();
    for folder in json["folders"].as_array()? {
        let path = Path::new(folder["path"].as_str()?);
        let mut parts = path
            .strip_prefix(root)
            .ok()?
            .iter()
            .map(|part| part.to_string_lossy().into_owned());
        let key = (parts.next()?, parts.next()?);
        let unsupported = folder["unsupported"].as_array().into_iter().flatten();
        let session = Session {
            status: folder["status"].as_str()?.to_owned(),
            unsupported: unsupported.filter_map(|op| op.as_str().map(str::to_owned)).collect(),
            difference: folder["difference"].to_string(),
        };
        sessions.insert(key, session);
    }
    Some(sessions)
}

/// Counts of one category.
#[derive(Default)]
struct Figures {
    sessions: usize,
    ok: usize,
    differ: usize,
    unsupported: usize,
}

impl Figures {
    fn of<'a>(sessions: impl IntoIterator<Item = &'a Session>) -> Self {
        let mut figures = Self::default();
        for session in sessions {
            figures.sessions += 1;
            match session.status.as_str() {
                "ok" => figures.ok += 1,
                "unsupported" => figures.unsupported += 1,
                _ => figures.differ += 1,
            }
        }
        figures
    }

    fn row(&self, name: &str) -> String {
        let share = 100.0 * self.ok as f64 / self.sessions.max(1) as f64;
        format!(
            "| {name} | {} | {} | {} | {} | {share:.1} % |",
            self.sessions, self.ok, self.differ, self.unsupported
        )
    }
}

/// While loops and the like come last, and count apart.
const APART: &str = "control_flow";

fn figures(sessions: &Sessions) -> String {
    let mut categories: Vec<&str> = sessions.keys().map(|(category, _)| category.as_str()).collect();
    categories.dedup();
    categories.sort_by_key(|&category| (category == APART, category));
    let mut table =
        String::from("| category | sessions | ok | differ | unsupported | ok |\n|---|---|---|---|---|---|\n");
    let of = |wanted: &dyn Fn(&str) -> bool| {
        let chosen = sessions.iter().filter(|((category, _), _)| wanted(category));
        Figures::of(chosen.map(|(_, session)| session))
    };
    for &category in categories.iter().filter(|&&category| category != APART) {
        let _ = writeln!(table, "{}", of(&|other| other == category).row(category));
    }
    let _ = writeln!(table, "{}", of(&|category| category != APART).row("**these**"));
    if categories.contains(&APART) {
        let _ = writeln!(table, "{}", of(&|category| category == APART).row(APART));
    }
    table
}

/// Ops that are missing, and how many sessions of these categories need each.
fn missing(sessions: &Sessions, apart: bool) -> Vec<(&str, usize)> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for ((category, _), session) in sessions {
        if (category == APART) == apart {
            session
                .unsupported
                .iter()
                .for_each(|op| *counts.entry(op).or_default() += 1);
        }
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|&(op, count)| (std::cmp::Reverse(count), op));
    counts
}

fn page(sessions: &Sessions) -> String {
    let mut page = String::from(
        "# Conformance\n\n\
        Sessions of real TensorFlow, recorded with what it answered (its own unit tests, TensorFlow 1.15.5; frozen graphs of\n\
        other projects), run again here. A session is *ok* if every value it fetched is within 1e-4 relative and 1e-5 absolute\n\
        (half and bfloat16: 1e-2; integers, booleans and strings: equal) and every run that must fail does so with the same class\n\
        of error. It is *unsupported* if it uses an op, or a dtype of an op, that is not there yet; none may *differ*.\n\n\
        `graph replay DIR --json | conformance DIR --update` (the latter in `tests/src/bin`) writes this page; `.ci/run\n\
        conformance` replays the sessions, and fails where one that was ok is so no longer.\n\n",
    );
    page.push_str(&figures(sessions));
    let differing = differing(sessions);
    if !differing.is_empty() {
        page.push_str("\n## Open\n\nThese differ, each with the number of elements that do and the first of them.\n\n");
        differing.iter().for_each(|open| page.push_str(&format!("- {open}\n")));
    }
    for (apart, title) in [(false, "Missing"), (true, "Missing for control flow")] {
        let missing = missing(sessions, apart);
        let _ = write!(page, "\n## {title}\n\n");
        if missing.is_empty() {
            page.push_str("Nothing.\n");
            continue;
        }
        page.push_str("How many sessions need each op; some need several.\n\n| op | sessions |\n|---|---|\n");
        for (op, count) in missing {
            let _ = writeln!(page, "| {op} | {count} |");
        }
    }
    page
}

/// The list of sessions that are ok: a line for each category and test, followed by the numbers that end their names.
fn list(sessions: &Sessions) -> String {
    let mut tests: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for ((category, name), _) in sessions.iter().filter(|(_, session)| session.status == "ok") {
        let numbered = name
            .rsplit_once("__")
            .filter(|(_, number)| number.parse::<u32>().is_ok());
        let (test, number) = numbered.map_or((name.as_str(), None), |(test, number)| (test, Some(number)));
        tests.entry(format!("{category}/{test}")).or_default().extend(number);
    }
    let mut text = String::new();
    for (test, mut numbers) in tests {
        numbers.sort_by_key(|number| number.parse::<u32>().unwrap_or(0));
        let _ = writeln!(text, "{}", [&[test.as_str()], numbers.as_slice()].concat().join(" "));
    }
    text
}

fn read_list(text: &str) -> BTreeSet<(String, String)> {
    let mut names = BTreeSet::new();
    for line in text.lines() {
        let mut words = line.split(' ');
        let Some((category, test)) = words.next().and_then(|test| test.split_once('/')) else {
            continue;
        };
        let mut numbers = words.peekable();
        if numbers.peek().is_none() {
            names.insert((category.to_owned(), test.to_owned()));
        }
        names.extend(numbers.map(|number| (category.to_owned(), format!("{test}__{number}"))));
    }
    names
}

/// What must not be: sessions that were ok and are so no longer.
fn failures(sessions: &Sessions, listed: &BTreeSet<(String, String)>) -> Vec<String> {
    let mut failures = Vec::new();
    for ((category, name), session) in sessions {
        if session.status == "ok" || !listed.contains(&(category.clone(), name.clone())) {
            continue;
        }
        failures.push(match session.status.as_str() {
            "differs" => format!("{category}/{name} was ok, and differs now: {}", session.difference),
            _ => format!(
                "{category}/{name} was ok, and is unsupported now: {}",
                session.unsupported.join(", ")
            ),
        });
    }
    let gone = listed.iter().filter(|key| !sessions.contains_key(key));
    failures.extend(gone.map(|(category, name)| format!("{category}/{name} was ok, and was not replayed")));
    failures
}

/// The sessions that differ, each with what does.
fn differing(sessions: &Sessions) -> Vec<String> {
    let differ = sessions.iter().filter(|(_, session)| session.status == "differs");
    differ
        .map(|((category, name), session)| format!("{category}/{name}: {}", session.difference))
        .collect()
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (root, update) = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [root] => (root, false),
        [root, "--update"] => (root, true),
        _ => {
            eprintln!("usage: graph replay DIR --json | conformance DIR [--update]");
            return ExitCode::from(2);
        }
    };
    match check(Path::new(root), update) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn check(root: &Path, update: bool) -> io::Result<bool> {
    let report: Json = serde_json::from_reader(io::stdin().lock())?;
    let sessions = read_report(&report, root)
        .ok_or_else(|| io::Error::other(format!("this is no report of a replay of {}", root.display())))?;
    print!("{}", figures(&sessions));
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let list_file = folder.join("fixtures/conformance.txt");
    let failures = failures(&sessions, &read_list(&fs::read_to_string(&list_file)?));
    differing(&sessions).iter().for_each(|open| println!("open {open}"));
    failures.iter().for_each(|failure| println!("FAIL {failure}"));
    if update {
        fs::write(list_file, list(&sessions))?;
        fs::write(folder.join("../docs/conformance.md"), page(&sessions))?;
    }
    Ok(failures.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sessions(entries: &[(&str, &str, &[&str])]) -> Sessions {
        let folders: Vec<Json> = entries
            .iter()
            .map(|(path, status, ops)| serde_json::json!({"path": path, "status": status, "unsupported": ops}))
            .collect();
        read_report(&serde_json::json!({ "folders": folders }), Path::new("root")).unwrap()
    }

    #[test]
    fn the_list_says_which_sessions_are_ok() {
        let all = sessions(&[
            ("root/forward/a_test__T.x__10", "ok", &[]),
            ("root/forward/a_test__T.x__2", "ok", &[]),
            ("root/forward/a_test__T.x__3", "unsupported", &["Svd"]),
            ("root/random/tutorial", "ok", &[]),
        ]);
        let text = list(&all);
        assert_eq!(text, "forward/a_test__T.x 2 10\nrandom/tutorial\n");
        let ok = all.iter().filter(|(_, session)| session.status == "ok");
        assert_eq!(read_list(&text), ok.map(|(key, _)| key.clone()).collect());
    }

    #[test]
    fn what_came_undone_fails_and_what_differs_is_told() {
        let all = sessions(&[
            ("root/forward/differs__0", "differs", &[]),
            ("root/forward/worse__0", "differs", &[]),
            ("root/forward/undone__0", "unsupported", &["Svd"]),
            ("root/forward/never__0", "unsupported", &["Svd", "Qr"]),
            ("root/forward/fine__0", "ok", &[]),
        ]);
        let listed = read_list("forward/undone 0\nforward/fine 0 1\nforward/worse 0\n");
        let failures = failures(&all, &listed);
        assert_eq!(failures.len(), 3, "{failures:?}");
        assert!(failures[0].starts_with("forward/undone__0 was ok, and is unsupported now"));
        assert!(failures[1].starts_with("forward/worse__0 was ok, and differs now"));
        assert!(failures[2].starts_with("forward/fine__1 was ok, and was not replayed"));
        assert_eq!(differing(&all).len(), 2);
        assert!(page(&all).contains("- forward/differs__0: "));
        assert_eq!(missing(&all, false), [("Svd", 2), ("Qr", 1)]);
        assert!(figures(&all).contains("| forward | 5 | 1 | 2 | 2 | 20.0 % |"));
    }
}
