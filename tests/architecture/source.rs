//! Which module uses which, read from the source as text.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Every module of the crate by its path below `crate`, like `ticket::state`; "" is the root.
pub struct Source {
    modules: BTreeMap<String, String>,
}

impl Source {
    pub fn read() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut modules = BTreeMap::new();
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                if path.is_dir() && !path.ends_with("bin") {
                    folders.push(path);
                } else if path.extension().is_some_and(|e| e == "rs")
                    && let Some(module) = module_of(&root, &path)
                {
                    let text = std::fs::read_to_string(&path).expect("a file");
                    modules.insert(module, without_comments(&text));
                }
            }
        }
        Self { modules }
    }

    /// Arrows between modules: from, to, and the words they were read from.
    pub fn arrows(&self) -> BTreeSet<(String, String, String)> {
        let mut arrows = BTreeSet::new();
        for (module, text) in &self.modules {
            // A module of tests reaches into what it tests.
            if module.ends_with("tests") || module.is_empty() {
                continue;
            }
            let text = text
                .split("#[cfg(test)]\nmod tests {")
                .next()
                .unwrap_or_default();
            for path in self.paths(module, text) {
                if let Some(target) = self.resolve(&path) {
                    arrows.insert((module.clone(), target, path.join("::")));
                }
            }
        }
        arrows
    }

    /// Paths in a module's text, from the crate's root.
    fn paths(&self, module: &str, text: &str) -> Vec<Vec<String>> {
        let tokens = tokens(text);
        let own: Vec<String> = split(module);
        let mut found = Vec::new();
        let mut at = 0;
        while at < tokens.len() {
            let begins_path = at == 0 || tokens[at - 1] != "::";
            let follows = tokens.get(at + 1).is_some_and(|t| t == "::");
            let base = match tokens[at].as_str() {
                _ if !begins_path || !follows => None,
                "crate" => Some(Vec::new()),
                "self" => Some(own.clone()),
                "super" => Some(own[..own.len().saturating_sub(1)].to_vec()),
                child if self.modules.contains_key(&join(&own, child)) => {
                    Some([own.clone(), vec![child.to_string()]].concat())
                }
                _ => None,
            };
            match base {
                Some(base) => at = tree(&tokens, at + 2, &base, &mut found),
                None => at += 1,
            }
        }
        found
    }

    /// The longest beginning of a path that is a module.
    fn resolve(&self, path: &[String]) -> Option<String> {
        (1..=path.len())
            .rev()
            .map(|n| path[..n].join("::"))
            .find(|module| self.modules.contains_key(module))
    }
}

/// Reads a path or a `use` tree that begins at `at`; returns where it ends.
fn tree(tokens: &[String], mut at: usize, base: &[String], found: &mut Vec<Vec<String>>) -> usize {
    let mut path = base.to_vec();
    loop {
        match tokens.get(at).map(String::as_str) {
            Some("{") => {
                at += 1;
                while tokens.get(at).is_some_and(|t| t != "}") {
                    if tokens[at] == "," {
                        at += 1;
                    } else {
                        at = tree(tokens, at, &path, found);
                    }
                }
                return at + 1;
            }
            Some("super") => {
                path.pop();
            }
            Some("self") => {}
            Some(word) if word.starts_with(|c: char| c.is_alphanumeric() || c == '_') => {
                path.push(word.to_string());
            }
            _ => {
                found.push(path);
                return at + 1;
            }
        }
        at += 1;
        if tokens.get(at).is_some_and(|t| t == "::") {
            at += 1;
            continue;
        }
        if tokens.get(at).is_some_and(|t| t == "as") {
            at += 2;
        }
        found.push(path);
        return at;
    }
}

/// Words, `::` and single signs.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens: Vec<String> = Vec::new();
    let mut word = String::new();
    for c in text.chars() {
        if c.is_alphanumeric() || c == '_' {
            word.push(c);
            continue;
        }
        if !word.is_empty() {
            tokens.push(std::mem::take(&mut word));
        }
        if c == ':' && tokens.last().is_some_and(|t| t == ":") {
            tokens.pop();
            tokens.push("::".into());
        } else if !c.is_whitespace() {
            tokens.push(c.into());
        }
    }
    tokens
}

/// Line comments end with the line; strings stay, and no path is looked for in one by accident:
/// none of ours holds `crate::`.
fn without_comments(text: &str) -> String {
    text.lines()
        .map(|line| match line.find("//") {
            Some(at) if !line[..at].ends_with(':') => &line[..at],
            _ => line,
        })
        .collect::<Vec<_>>()
        .join("\n")
}

fn module_of(root: &Path, path: &Path) -> Option<String> {
    let relative: PathBuf = path.strip_prefix(root).ok()?.with_extension("");
    let mut parts: Vec<String> = relative
        .iter()
        .map(|p| p.to_string_lossy().into_owned())
        .collect();
    match parts.last()?.as_str() {
        "mod" | "lib" => {
            parts.pop();
        }
        "main" if parts.len() == 1 => return None,
        _ => {}
    }
    Some(parts.join("::"))
}

fn split(module: &str) -> Vec<String> {
    let parts = module.split("::").filter(|p| !p.is_empty());
    parts.map(str::to_string).collect()
}

fn join(parts: &[String], child: &str) -> String {
    [parts, &[child.to_string()]].concat().join("::")
}
