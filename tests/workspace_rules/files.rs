//! What the files of the repository look like: each source says what it is for, none is too long,
//! and none names the machine it was written on or a registry's hosts.

use std::fs;
use std::path::{Path, PathBuf};

/// A file that is about to be two.
const LINES_MAX: usize = 500;

/// A source of Rust, by its path from the root.
pub struct Source {
    pub path: String,
    pub text: String,
}

/// Directories that aren't part of the repository.
const OUTSIDE: &[&str] = &[".git", ".tools", "node_modules", "target"];

/// Hosts of registries and places of single machines, in two halves so that this file doesn't hold
/// them itself. A lock file states the registry's address and nothing can be done about it.
const MACHINES: &[(&str, &str)] = &[
    ("deb.", "debian.org"),
    ("snapshot.", "debian.org"),
    ("index.", "crates.io"),
    ("static.", "crates.io"),
    ("registry.", "npmjs.org"),
    ("pypi.", "org"),
    ("files.", "pythonhosted.org"),
    ("/wor", "k/"),
    ("/far", "m/"),
    ("/roo", "t/"),
    ("/hom", "e/"),
];

/// All text files of the repository, by their paths from the root, in order.
pub fn all(root: &Path) -> Vec<Source> {
    let mut found = Vec::new();
    walk(root, root, &mut found);
    found
}

/// Its sources of Rust.
pub fn sources(root: &Path) -> Vec<Source> {
    all(root).into_iter().filter(is_rust).collect()
}

fn is_rust(file: &Source) -> bool {
    file.path.ends_with(".rs")
}

fn walk(root: &Path, directory: &Path, found: &mut Vec<Source>) {
    let entries = fs::read_dir(directory).expect("the repository can be read");
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && !OUTSIDE.contains(&name.as_str()) {
            walk(root, &path, found);
        } else if path.is_file() {
            // What isn't text is golden bytes or a picture, and has nothing to say here.
            let Ok(text) = fs::read_to_string(&path) else { continue };
            let path = path.strip_prefix(root).expect("it lies below the root");
            found.push(Source { path: path.to_string_lossy().into_owned(), text });
        }
    }
}

pub fn complaints(root: &Path, files: &[Source]) -> Vec<String> {
    let here = format!("{}/", root.display());
    files.iter().flat_map(|file| shape(file).into_iter().chain(machine(&here, file))).collect()
}

fn shape(file: &Source) -> Vec<String> {
    if !is_rust(file) {
        return Vec::new();
    }
    let mut complaints = Vec::new();
    if !file.text.starts_with("//! ") {
        complaints.push(format!(
            "{} doesn't open with `//!`: say what it is for, what it owns and what it doesn't",
            file.path
        ));
    }
    let lines = file.text.lines().count();
    if lines > LINES_MAX {
        complaints
            .push(format!("{} has {lines} lines, more than {LINES_MAX}: make it two", file.path));
    }
    complaints
}

fn machine(here: &str, file: &Source) -> Vec<String> {
    if file.path.ends_with("Cargo.lock") {
        return Vec::new();
    }
    let known = MACHINES.iter().map(|(first, second)| format!("{first}{second}"));
    let named = known.chain([here.to_owned()]).filter(|name| file.text.contains(name));
    named
        .map(|name| {
            format!(
                "{} names {name}: a path or host of one machine has no place in the repository",
                file.path
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{none, one};

    fn of(path: &str, text: &str) -> Vec<String> {
        let file = Source { path: path.to_owned(), text: text.to_owned() };
        complaints(Path::new("/somewhere/else"), &[file])
    }

    #[test]
    fn a_source_without_a_purpose_is_found() {
        one(&of("src/a.rs", "use std::fs;\n"), "doesn't open with");
        none(&of("src/a.rs", "//! What for.\n"));
        none(&of("Makefile", "all:\n"));
    }

    #[test]
    fn a_source_that_is_too_long_is_found() {
        let text = format!("//! Long.\n{}", "\n".repeat(LINES_MAX));
        one(&of("src/a.rs", &text), "501 lines");
        none(&of("src/a.rs", &text[..text.len() - 1]));
    }

    #[test]
    fn a_machines_path_or_a_registrys_host_is_found() {
        for (first, second) in MACHINES {
            one(&of("docs/a.md", &format!("see {first}{second} for it")), "names");
        }
        one(&of("docs/a.md", "built in /somewhere/else/target"), "/somewhere/else/");
        none(&of("Cargo.lock", "registry"));
    }
}
