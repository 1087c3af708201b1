//! The repository's own files, and the little reading of Rust, TOML and paths that the tidy tests need.
//!
//! It leaves out what is built or fetched: `target`, hidden directories but `.ci`, caches.

use std::{fs, path::Path};

/// A text file of the repository.
pub(crate) struct File {
    /// From the repository's root, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl File {
    pub(crate) fn extension(&self) -> &str {
        Path::new(&self.path).extension().and_then(|extension| extension.to_str()).unwrap_or("")
    }

    /// Lines with their numbers, trimmed.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().map(str::trim).enumerate().map(|(index, line)| (index + 1, line))
    }

    /// Lines without whole-line comments.
    pub(crate) fn code_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.lines().filter(|(_, line)| !line.starts_with("//") && !line.starts_with('#'))
    }

    /// Whether it holds nothing but tests, which may put together what they like.
    pub(crate) fn is_test(&self) -> bool {
        self.path.contains("/tests/") || self.path.ends_with("tests.rs")
    }

    /// The module a file below `root` belongs to: its first directory, or its own name.
    pub(crate) fn module_of(&self, root: &str) -> Option<&str> {
        let below = self.path.strip_prefix(root)?;
        below.split('/').next().map(|first| first.trim_end_matches(".rs"))
    }
}

/// The repository's files with one of these extensions, in order of path.
pub(crate) fn files(extensions: &[&str]) -> Vec<File> {
    let root =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the repository");
    let mut found = Vec::new();
    collect(root, root, extensions, &mut found);
    assert!(!found.is_empty(), "no {extensions:?} files below {}", root.display());
    found.sort_by(|left, right| left.path.cmp(&right.path));
    found
}

fn collect(root: &Path, directory: &Path, extensions: &[&str], found: &mut Vec<File>) {
    for entry in fs::read_dir(directory).expect("the repository can be read") {
        let path = entry.expect("the repository can be read").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("");
        let hidden = name.starts_with('.') && name != ".ci"
            || ["target", "__pycache__", "out", "shared"].contains(&name);
        if hidden || path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            collect(root, &path, extensions, found);
            continue;
        }
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or("");
        if !extensions.contains(&extension) {
            continue;
        }
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let path = path.strip_prefix(root).expect("it was found below the root");
        found.push(File { path: path.to_string_lossy().replace('\\', "/"), text });
    }
}

/// Fails with all complaints at once.
pub(crate) fn complain(complaints: &[String]) {
    assert!(complaints.is_empty(), "{} complaints:\n{}", complaints.len(), complaints.join("\n"));
}

/// Complaints about code lines below a directory that contain one of the words.
pub(crate) fn mentions(directory: &str, words: &[&str]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in files(&["rs"]).iter().filter(|file| file.path.starts_with(directory)) {
        for (number, line) in file.lines().filter(|(_, line)| !line.starts_with("//")) {
            for word in words.iter().filter(|word| names(line, word)) {
                complaints.push(format!("{}:{number}: names {word}: {line}", file.path));
            }
        }
    }
    complaints
}

/// Whether the line has the word, not as the end of a longer one.
fn names(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|before| before.is_alphanumeric() || before == '_')
    })
}

/// The top modules that a text names as `crate::module` or in `crate::{…}`, with the line of each.
pub(crate) fn modules_used(text: &str) -> Vec<(usize, &str)> {
    const PREFIX: &str = "crate::";
    let mut used = Vec::new();
    for (at, _) in text.match_indices(PREFIX) {
        let line = text[..at].matches('\n').count() + 1;
        let rest = &text[at + PREFIX.len()..];
        let paths = if rest.starts_with('{') { group(rest) } else { vec![rest] };
        used.extend(paths.into_iter().map(|path| (line, first_word(path))));
    }
    used.retain(|(_, name)| !name.is_empty());
    used
}

fn first_word(path: &str) -> &str {
    let path = path.trim_start();
    path.split(|next: char| !next.is_alphanumeric() && next != '_').next().unwrap_or("")
}

/// The paths of a group in braces, without those of the groups within it.
fn group(text: &str) -> Vec<&str> {
    let (mut depth, mut from, mut paths) = (0, 1, Vec::new());
    for (at, next) in text.char_indices() {
        match next {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 || depth == 1 && next == ',' {
            paths.push(&text[from..at]);
            from = at + 1;
        }
        if depth == 0 {
            break;
        }
    }
    paths
}

/// The names in a manifest's `[dependencies]`.
pub(crate) fn dependencies(manifest: &str) -> Vec<String> {
    let section =
        manifest.split("\n[").find(|section| section.starts_with("dependencies]")).unwrap_or("");
    let names = section.lines().skip(1).filter_map(|line| line.split(['.', ' ', '=']).next());
    names.filter(|name| !name.is_empty() && !name.starts_with('#')).map(str::to_owned).collect()
}

/// The identifiers of a line, those within texts included.
pub(crate) fn identifiers(line: &str) -> impl Iterator<Item = &str> {
    line.split(|next: char| !next.is_alphanumeric() && next != '_').filter(|word| !word.is_empty())
}

/// The words of an identifier in snake or camel case, in lower case.
pub(crate) fn words(identifier: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for next in identifier.chars() {
        if next == '_' || next.is_uppercase() {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut().filter(|_| next != '_') {
            word.extend(next.to_lowercase());
        }
    }
    words
}
