//! The configuration as a commented file: the reference of every key, with what is in force.

use std::fmt::Write;

use super::{Config, keys, services};

/// The head of the file.
const HEAD: &str = "\
# The configuration of gpulease: every key with the value in force.
# A flag goes before the environment, the environment before this file, this file before the default.
";

/// How wide comments are.
const WIDTH: usize = 110;

/// All keys of `config`, each with its default.
pub(super) fn toml(config: &Config, default: &Config) -> String {
    let mut text = HEAD.to_owned();
    let mut table = "";
    for key in keys::ALL {
        let (key_table, name) = key.split();
        if key_table != table {
            table = key_table;
            push(&mut text, format_args!("\n[{table}]\n"));
        }
        push(&mut text, format_args!("\n"));
        comment(&mut text, key.meaning);
        comment(&mut text, &format!("Form: {}.", key.kind.form()));
        let (default, variable) = (key.kind.show(default), key.variable());
        comment(&mut text, &format!("Default: {default}. Environment: {variable}."));
        push(&mut text, format_args!("{name} = {}\n", key.kind.show(config)));
    }
    text + &services::print(&config.policy, comment)
}

fn comment(text: &mut String, sentence: &str) {
    let mut line = String::from("#");
    for word in sentence.split(' ') {
        if line.len() + 1 + word.len() > WIDTH {
            push(text, format_args!("{line}\n"));
            line = String::from("#");
        }
        push(&mut line, format_args!(" {word}"));
    }
    push(text, format_args!("{line}\n"));
}

fn push(text: &mut String, more: std::fmt::Arguments<'_>) {
    text.write_fmt(more).expect("writing to a string cannot fail");
}
