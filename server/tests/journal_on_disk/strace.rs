//! Runs a writer under strace, and reads the trace back as calls with a beginning and an end.
//!
//! Calls of several threads overlap: strace writes `<unfinished ...>` and `<... resumed>`, which are joined here.

use std::path::Path;
use std::process::Output;

use crate::writer::Work;

/// One system call. Times are line numbers of the trace.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) name: String,
    pub(crate) arguments: String,
    /// What it returned; `None` if the process ended within it.
    pub(crate) result: Option<i64>,
    pub(crate) begin: usize,
    pub(crate) end: usize,
}

/// Whether strace is there; says so where it is not, and fails then if this is CI.
pub(crate) fn is_available() -> bool {
    let available = std::process::Command::new("strace")
        .arg("-V")
        .output()
        .is_ok_and(|output| output.status.success());
    if !available {
        assert!(
            std::env::var("CI").as_deref() != Ok("true"),
            "CI must have strace: apt-get install strace"
        );
        eprintln!("skipped: no strace (apt-get install strace)");
    }
    available
}

/// Runs the work under strace with more options, and returns what the writer said.
pub(crate) fn run(work: &Work, options: &[&str], log: &Path) -> Output {
    let fixed = ["strace", "-f", "-xx", "-s", "8000000", "-o", log.to_str().unwrap()];
    let wrapper: Vec<String> =
        fixed.iter().chain(options).map(|option| (*option).to_owned()).collect();
    work.command(&wrapper).output().unwrap()
}

/// The calls of several traces, one process after the other.
pub(crate) fn parse_in_turn(logs: &[String]) -> Vec<Vec<Call>> {
    let mut offset = 0;
    let shifted = |log: &String| {
        let mut calls = parse(log);
        for call in &mut calls {
            call.begin += offset;
            call.end = call.end.saturating_add(offset);
        }
        offset += log.lines().count();
        calls
    };
    logs.iter().map(shifted).collect()
}

/// The calls of a trace in the order in which they began.
pub(crate) fn parse(log: &str) -> Vec<Call> {
    let mut calls: Vec<Call> = Vec::new();
    let mut open: std::collections::BTreeMap<&str, usize> = std::collections::BTreeMap::new();
    for (time, line) in log.lines().enumerate() {
        let Some((thread, text)) = line.split_once(' ') else { continue };
        let text = text.trim_start();
        if let Some(resumed) = text.strip_prefix("<... ") {
            let Some(index) = open.remove(thread) else { continue };
            let rest = resumed.split_once("resumed>").map_or("", |(_, rest)| rest);
            let whole = format!("{}{rest}", calls[index].arguments);
            finish(&mut calls[index], &whole, time);
        } else if let Some((name, rest)) = text.split_once('(') {
            let mut call = Call {
                name: name.to_owned(),
                arguments: String::new(),
                result: None,
                begin: time,
                end: usize::MAX,
            };
            if let Some(begun) = rest.strip_suffix(" <unfinished ...>") {
                call.arguments = begun.to_owned();
                open.insert(thread, calls.len());
            } else {
                finish(&mut call, rest, time);
            }
            calls.push(call);
        }
    }
    calls
}

fn finish(call: &mut Call, text: &str, time: usize) {
    let Some((arguments, result)) = text.rsplit_once(" = ") else { return };
    call.arguments = arguments.trim_end().trim_end_matches(')').to_owned();
    call.result = result.split_whitespace().next().and_then(|number| number.parse().ok());
    call.end = time;
}

impl Call {
    /// The arguments, cut at the commas outside of strings.
    pub(crate) fn words(&self) -> Vec<&str> {
        let (mut words, mut start, mut quoted) = (Vec::new(), 0, false);
        for (at, byte) in self.arguments.bytes().enumerate() {
            match byte {
                b'"' => quoted = !quoted,
                b',' if !quoted => {
                    words.push(self.arguments[start..at].trim());
                    start = at + 1;
                }
                _ => {}
            }
        }
        words.push(self.arguments[start..].trim());
        words
    }
}

/// The bytes of a `"\x…"` string.
pub(crate) fn unquote(text: &str) -> Vec<u8> {
    let text = text.trim_matches('"');
    text.split("\\x").skip(1).map(|digits| u8::from_str_radix(digits, 16).unwrap()).collect()
}
