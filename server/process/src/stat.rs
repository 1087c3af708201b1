//! One line of `/proc/PID/stat`: the few fields of it that say who a process is and whom it belongs to.

/// What the kernel says of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    /// The parent, or whoever took the process over when its parent died.
    pub(crate) parent: u32,
    /// Its process group. The number is no other process's id while the group has a member.
    pub(crate) group: u32,
    /// Its session; as with groups.
    pub(crate) session: u32,
    /// When it started, in clock ticks since boot.
    pub(crate) started: u64,
    /// It has exited and merely waits for its parent to look. Its files, and so its devices, are closed.
    pub(crate) exited: bool,
}

/// The fields after the name, counted from 0: `man 5 proc` counts from 1 and has two before them.
const PARENT: usize = 1;
const GROUP: usize = 2;
const SESSION: usize = 3;
const THREADS: usize = 17;
const STARTED: usize = 19;

impl Stat {
    /// `None`: no such line.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        // The name may hold spaces and parentheses; nothing behind it does.
        let (_, rest) = line.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().take(STARTED + 1).collect();
        let number = |at: usize| fields.get(at)?.parse().ok();
        let state = *fields.first()?;
        let threads: u64 = fields.get(THREADS)?.parse().ok()?;
        // A process whose first thread has ended is shown as a zombie while its other threads go on.
        let exited = matches!(state, "Z" | "X" | "x") && threads <= 1;
        Some(Self {
            parent: number(PARENT)?,
            group: number(GROUP)?,
            session: number(SESSION)?,
            started: fields.get(STARTED)?.parse().ok()?,
            exited,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str, state: &str, threads: u32) -> String {
        format!(
            "42 ({name}) {state} 7 42 9 34816 42 4194304 1 0 0 0 5 6 0 0 20 0 {threads} 0 123456 9000 1"
        )
    }

    fn check(line: &str, exited: bool) {
        let expected = Stat { parent: 7, group: 42, session: 9, started: 123_456, exited };
        assert_eq!(Stat::parse(line), Some(expected), "{line}");
    }

    #[test]
    fn a_name_may_hold_anything() {
        for name in ["python3", "a b", "x) R 1 1 1", "((", ""] {
            check(&line(name, "S", 3), false);
        }
    }

    #[test]
    fn a_zombie_has_exited_unless_other_threads_of_it_go_on() {
        check(&line("train", "Z", 1), true);
        check(&line("train", "X", 0), true);
        check(&line("train", "Z", 4), false);
        check(&line("train", "D", 1), false);
    }

    #[test]
    fn half_a_line_is_none() {
        for line in
            ["", "42 (x", "42 (x) S 7 42 9", "42 (x) S a 42 9 0 0 0 0 0 0 0 0 0 0 0 0 0 1 0 5"]
        {
            assert_eq!(Stat::parse(line), None, "{line}");
        }
    }
}
