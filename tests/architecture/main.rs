//! The house as `docs/architecture.md` draws it: who may use whom, no circles, and every file
//! that is named there exists. Reads the crate's own source as text.

mod conditions;
mod source;

use source::Source;
use std::collections::{BTreeMap, BTreeSet};

const PAGE: &str = include_str!("../../docs/architecture.md");

/// A row of the table "Where things are": the rooms of the row and those they may use.
fn rows() -> Vec<(BTreeSet<String>, BTreeSet<String>)> {
    let mut rows = Vec::new();
    let mut above = BTreeSet::new();
    let table = PAGE
        .lines()
        .skip_while(|l| !l.starts_with("| rooms |"))
        .skip(2)
        .take_while(|l| l.starts_with('|'));
    for line in table {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let names = |cell: &str| -> BTreeSet<String> {
            let mut names = cell.split('`').skip(1).step_by(2);
            names.by_ref().map(str::to_string).collect()
        };
        let (rooms, mut may) = (names(cells[0]), names(cells[2]));
        if cells[2].contains("all above") {
            may.extend(above.iter().cloned());
        }
        above.extend(rooms.iter().cloned());
        rows.push((rooms, may));
    }
    assert!(rows.len() > 5, "docs/architecture.md has no table of rooms");
    rows
}

/// The file of a module, as the table names one: `gateway/wire.rs`.
fn file_of(module: &str) -> String {
    format!("{}.rs", module.replace("::", "/"))
}

/// The room of a module: its first segment.
fn room(module: &str) -> &str {
    module.split("::").next().unwrap_or_default()
}

#[test]
fn no_arrow_is_forbidden() {
    let rows = rows();
    let may = |from: &str| rows.iter().find(|(rooms, _)| rooms.contains(from));
    let mut wrong = Vec::new();
    for (from, to, line) in Source::read().arrows() {
        let (a, b) = (room(&from), room(&to));
        if a == b || a.is_empty() {
            continue;
        }
        match may(a) {
            None => wrong.push(format!("{a} is in no row of docs/architecture.md")),
            Some((_, allowed)) if !allowed.contains(b) && !allowed.contains(&file_of(&to)) => {
                wrong.push(format!("{from} uses {to}, which {a} may not ({line})"));
            }
            Some(_) => {}
        }
    }
    wrong.sort();
    wrong.dedup();
    assert!(wrong.is_empty(), "forbidden arrows:\n{}", wrong.join("\n"));
}

/// A folder's face (its `mod.rs`) and what is in the folder may know each other.
fn is_family(a: &str, b: &str) -> bool {
    let inside = |outer: &str, inner: &str| inner.starts_with(&format!("{outer}::"));
    a == b || inside(a, b) || inside(b, a)
}

#[test]
fn no_files_or_folders_import_each_other_in_a_circle() {
    let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (from, to, _) in Source::read().arrows() {
        if !is_family(&from, &to) {
            uses.entry(from).or_default().insert(to);
        }
    }
    let files = circles(&uses);
    assert!(files.is_empty(), "files in circles: {files:#?}");
    // The same for folders: a file stands for the folder that holds it.
    let holder = |module: &str| match module.rsplit_once("::") {
        Some((folder, _)) if !is_folder(module) => folder.to_string(),
        _ => module.to_string(),
    };
    let mut folders: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (from, to) in uses
        .iter()
        .flat_map(|(from, to)| to.iter().map(move |t| (from, t)))
    {
        let (from, to) = (holder(from), holder(to));
        if !is_family(&from, &to) {
            folders.entry(from).or_default().insert(to);
        }
    }
    let folders = circles(&folders);
    assert!(folders.is_empty(), "folders in circles: {folders:#?}");
}

fn is_folder(module: &str) -> bool {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    root.join(module.replace("::", "/")).is_dir()
}

/// The arrows between modules that reach each other.
fn circles(uses: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let reached = |from: &str| {
        let mut seen = BTreeSet::new();
        let mut open = vec![from];
        while let Some(module) = open.pop() {
            for target in uses.get(module).into_iter().flatten() {
                if seen.insert(target.as_str()) {
                    open.push(target);
                }
            }
        }
        seen
    };
    let all: BTreeMap<&str, BTreeSet<&str>> =
        uses.keys().map(|m| (m.as_str(), reached(m))).collect();
    let mut circles = Vec::new();
    for (from, targets) in uses {
        for to in targets {
            if all
                .get(to.as_str())
                .is_some_and(|r| r.contains(from.as_str()))
            {
                circles.push(format!("{from} -> {to}"));
            }
        }
    }
    circles
}

#[test]
fn every_file_the_page_names_exists() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let missing: Vec<&str> = PAGE
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|word| word.contains('/') || word.ends_with(".rs"))
        .filter(|word| {
            word.chars()
                .all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c))
        })
        .filter(|word| !word.starts_with('/'))
        .filter(|word| !root.join(word).exists() && !root.join("src").join(word).exists())
        .collect();
    assert!(missing.is_empty(), "docs/architecture.md names {missing:?}");
}
