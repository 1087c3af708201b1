//! Order in the source tree: arrows between modules and crates, sizes, heads, comments, words.
//!
//! It promises that what the house's guide says about files holds for every file, and names file and line where it
//! does not. It leaves functions to clippy, formatting to rustfmt, and the proto style to buf.

mod tree;

use tree::{File, complain, files};

/// The most lines a file may have.
const LINES_MAX: usize = 500;
/// Files that are longer, with the length they may not grow over: a ratchet, so a shorter file lowers its number.
const LONGER: &[(&str, usize)] = &[];

/// What the modules of the server may use of each other; what is missing here may use nothing but itself.
const MODULES: &[(&str, &[&str])] = &[
    ("api", &["actor", "telemetry"]),
    ("actor", &["journal", "clock"]),
    ("backend", &["telemetry"]),
    ("clock", &[]),
    ("config", &["journal"]),
    ("journal", &[]),
    ("offline", &["actor", "config", "journal"]),
    ("telemetry", &["config"]),
];

/// Crates that a directory of the server must not name: no wire below the api, no store or driver in it.
const FOREIGN_CRATES: &[(&str, &[&str])] = &[
    ("server/core/src/", &["tokio", "tonic", "prost", "tracing", "rand", "gpulease_proto"]),
    ("server/src/", &["nvml_wrapper", "nvml_wrapper_sys"]),
    ("server/src/actor/", &["tonic", "prost", "prost_types", "gpulease_proto", "sled", "axum"]),
    ("server/src/journal/", &["tonic", "gpulease_proto", "tokio"]),
    ("server/src/backend/", &["tonic", "gpulease_proto", "sled"]),
    ("server/src/api/", &["sled"]),
    ("sdk-rust/", &["gpulease_core", "gpulease_server"]),
    ("sdk-rust/cli/src/", &["gpulease_proto", "tonic", "prost"]),
];

/// Which of the workspace's crates a crate may depend on, besides for its tests.
const CRATES: &[(&str, &[&str])] = &[
    ("proto", &[]),
    ("server/core", &[]),
    ("server/nvml", &[]),
    ("server/process", &[]),
    (
        "server",
        &["gpulease-core", "gpulease-proto", "gpulease-cli", "gpulease-nvml", "gpulease-process"],
    ),
    ("sdk-rust", &["gpulease-proto"]),
    ("sdk-rust/cli", &["gpulease"]),
];

#[test]
fn no_file_is_longer_than_it_may_be() {
    let mut complaints = Vec::new();
    for file in files(&["rs", "proto", "py", "sh"]) {
        let lines = file.text.lines().count();
        let max = LONGER.iter().find(|(path, _)| *path == file.path).map(|(_, max)| *max);
        match max {
            None if lines > LINES_MAX => {
                complaints
                    .push(format!("{}: {lines} lines, at most {LINES_MAX}: split it", file.path));
            }
            Some(max) if lines > max => {
                complaints.push(format!("{}: grew from {max} to {lines} lines", file.path))
            }
            Some(max) if lines < max => {
                complaints.push(format!(
                    "{}: lower its number in LONGER from {max} to {lines}",
                    file.path
                ));
            }
            _ => {}
        }
    }
    complain(&complaints);
}

#[test]
fn every_file_opens_with_what_it_is() {
    let opening = |file: &File| match file.extension() {
        "rs" => file.text.starts_with("//!"),
        "proto" => file.text.starts_with("// "),
        "py" => file.text.starts_with("\"\"\""),
        _ => file.text.starts_with("# "),
    };
    let without =
        files(&["rs", "proto", "py", "toml"]).into_iter().filter(|file| file.extension() != "toml");
    let complaints: Vec<_> = without
        .filter(|file| !opening(file))
        .map(|file| format!("{}: opens with no head comment", file.path))
        .collect();
    complain(&complaints);
}

#[test]
fn every_declaration_in_the_proto_files_has_a_comment() {
    let mut complaints = Vec::new();
    for file in files(&["proto"]) {
        let mut before = "";
        for (number, line) in file.lines() {
            let declares = ["message ", "enum ", "service ", "rpc ", "oneof "]
                .iter()
                .any(|word| line.starts_with(word))
                || line.contains(" = ")
                    && line.ends_with(';')
                    && !line.starts_with("option ")
                    && !line.starts_with("syntax");
            if declares && !before.starts_with("//") {
                complaints.push(format!("{}:{number}: no comment above: {line}", file.path));
            }
            before = line;
        }
    }
    complain(&complaints);
}

#[test]
fn modules_of_the_server_use_only_what_the_arrows_allow() {
    let mut complaints = Vec::new();
    for file in files(&["rs"]) {
        let Some(module) = file.module_of("server/src/") else { continue };
        if file.is_test() {
            continue;
        }
        let Some((_, allowed)) = MODULES.iter().find(|(name, _)| *name == module) else { continue };
        for (number, used) in tree::modules_used(&file.text) {
            if used != module && !allowed.contains(&used) {
                complaints.push(format!("{}:{number}: {module} may not use {used}", file.path));
            }
        }
    }
    complain(&complaints);
}

#[test]
fn every_module_of_the_server_has_its_arrows() {
    let top = ["main", "lib", "wiring", "serve", "run", "arguments"];
    let mut complaints = Vec::new();
    for file in files(&["rs"]) {
        let Some(module) = file.module_of("server/src/") else { continue };
        if !top.contains(&module) && !MODULES.iter().any(|(name, _)| *name == module) {
            complaints.push(format!("{}: {module} is not in the table of arrows", file.path));
        }
    }
    complain(&complaints);
}

#[test]
fn the_actor_knows_the_journal_only_by_its_port() {
    complain(&tree::mentions(
        "server/src/actor/",
        &["journal::sled", "journal::memory", "SledJournal"],
    ));
}

#[test]
fn no_directory_names_a_crate_that_is_not_its_business() {
    let mut complaints = Vec::new();
    for (directory, crates) in FOREIGN_CRATES {
        let paths: Vec<_> = crates.iter().map(|name| format!("{name}::")).collect();
        let paths: Vec<_> = paths.iter().map(String::as_str).collect();
        complaints.extend(tree::mentions(directory, &paths));
    }
    complain(&complaints);
}

#[test]
fn crates_depend_only_on_what_the_arrows_allow() {
    let mut complaints = Vec::new();
    for (directory, allowed) in CRATES {
        let path = format!("{directory}/Cargo.toml");
        let manifest = files(&["toml"]).into_iter().find(|file| file.path == path);
        let manifest = manifest.unwrap_or_else(|| panic!("{path} is missing"));
        for name in tree::dependencies(&manifest.text) {
            if name.starts_with("gpulease") && !allowed.contains(&name.as_str()) {
                complaints.push(format!("{path}: may not depend on {name}"));
            }
        }
    }
    complain(&complaints);
}

#[test]
fn nothing_names_a_registry_or_a_place_on_one_machine() {
    // Written in two parts, so that this file does not say them itself.
    let never = [
        concat!("crates", ".io"),
        concat!("pypi", ".org"),
        concat!("pythonhosted", ".org"),
        concat!("proxy.golang", ".org"),
        concat!("deb.debian", ".org"),
        concat!("/wo", "rk/"),
        concat!("/tmp", "/wt"),
        concat!("/ro", "ot/"),
    ];
    let mut complaints = Vec::new();
    for file in files(&["rs", "proto", "py", "toml", "md", "sh", "yaml", "yml", "txt", ""]) {
        for (number, line) in file.lines() {
            complaints.extend(
                never
                    .iter()
                    .filter(|word| line.contains(**word))
                    .map(|word| format!("{}:{number}: names {word}", file.path)),
            );
        }
    }
    complain(&complaints);
}

#[test]
fn identifiers_use_the_words_of_the_contract() {
    let never = ["master", "slave", "tenant", "blacklist", "whitelist"];
    let mut complaints = Vec::new();
    for file in files(&["rs", "proto", "py"]) {
        // The functions and layouts of the driver's library have the driver's names.
        if file.path == "tests/tests/tidy.rs" || file.path.starts_with("tests/fake-nvml/src/entry/")
        {
            continue;
        }
        for (number, line) in file.code_lines() {
            for word in tree::identifiers(line) {
                let parts = tree::words(word);
                let forbidden = parts.iter().find(|part| never.contains(&part.as_str()));
                let vague =
                    ["Manager", "Helper", "Util", "Utils"].iter().any(|end| word.ends_with(end));
                let getter = line.contains(&format!("fn {word}")) && word.starts_with("get_");
                if forbidden.is_some() || vague || getter {
                    complaints
                        .push(format!("{}:{number}: {word} is no word of the house", file.path));
                }
            }
        }
    }
    complain(&complaints);
}

#[test]
fn no_test_is_ignored_and_none_sleeps_to_pass() {
    let ignored = concat!("#[", "ignore");
    let mut complaints = tree::mentions("", &[ignored]);
    complaints.extend(tree::mentions(
        "tests/tests/",
        &[concat!("thread::", "sleep"), concat!("time::", "sleep")],
    ));
    complain(&complaints);
}
