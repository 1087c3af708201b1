//! Runs the stories in `tests/scenarios/*.txt`: prose, commands, and what the scheduler answered.
//!
//! A line with `#` is prose, one with `>` a command; the lines behind a command are its expected output.
//! `REWRITE=1 cargo test --release -p gpulease-core --test scenarios` writes the present output into the files, to be
//! read as a diff. The commands are listed at [`Story::command`].

mod story;
mod world;

use std::{fs, path::Path};

use story::Story;

/// Runs one file and answers it with the present output in place.
fn run(text: &str) -> String {
    let mut story = Story::new();
    let mut written = String::new();
    for line in text.lines() {
        if let Some(command) = line.strip_prefix("> ") {
            written.push_str(line);
            written.push('\n');
            story.told.clear();
            story.command(command);
            written.push_str(&story.told);
        } else if line.starts_with('#') || line.is_empty() {
            written.push_str(line);
            written.push('\n');
        }
    }
    written
}

#[test]
fn every_story_is_told_as_it_happens() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut files: Vec<_> =
        fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut told = 0;
    let mut wrong = Vec::new();
    for path in files.iter().filter(|path| path.extension().is_some_and(|ext| ext == "txt")) {
        let text = fs::read_to_string(path).unwrap();
        let present = run(&text);
        told += 1;
        if present == text {
            continue;
        }
        if std::env::var_os("REWRITE").is_some() {
            fs::write(path, present).unwrap();
        } else {
            let first = text.lines().zip(present.lines()).find(|(old, new)| old != new);
            wrong.push(format!("{}: expected / happened: {first:#?}", path.display()));
        }
    }
    assert!(told >= 20, "only {told} stories were found in {}", folder.display());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
