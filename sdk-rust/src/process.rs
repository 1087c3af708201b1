//! This process, as a coordinator on the same host may see it.
//!
//! In a PID namespace of its own (a container) a process does not know the id that others see. It therefore says its
//! start time too, which is the same in all of them: a coordinator that sees another process under that id refuses, and
//! the request is made again without.

use std::fs;

use gpulease_proto::v1;

/// The start time's place among the fields of `stat` that follow the command: field 22 of all, and the command is
/// field 2.
const START_AFTER_COMMAND: usize = 19;

/// This process.
pub(crate) fn own() -> v1::Process {
    let stat = fs::read_to_string("/proc/self/stat").ok();
    let started_ticks = stat.as_deref().and_then(start_of);
    v1::Process { pid: std::process::id(), started_ticks }
}

/// The start time from the text of `/proc/PID/stat`. The command stands in parentheses and may hold any character.
fn start_of(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(START_AFTER_COMMAND)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_time_is_found_behind_a_command_of_any_name() {
        let fields: Vec<String> = (3..=52).map(|field| field.to_string()).collect();
        let stat = format!("1 (a) b) c) {}", fields.join(" "));
        assert_eq!(start_of(&stat), Some(22));
        assert_eq!(start_of("1 (cut off) S 1"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_has_an_id_and_a_start() {
        let own = own();
        assert_eq!(own.pid, std::process::id());
        assert!(own.started_ticks.is_some_and(|ticks| ticks > 0));
    }
}
