//! Who a process is, for people: its user and its command line.

use std::os::unix::fs::MetadataExt as _;

use crate::proc::{Proc, ProcessKey};

/// The longest command line that is told, in bytes: enough for the program and its first arguments.
pub const COMMAND_BYTES_MAX: usize = 256;

/// What is shown of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// The user that it runs as.
    pub user_id: u32,
    /// Its command line, cut to [`COMMAND_BYTES_MAX`]; its name in brackets where it has none.
    pub command: String,
}

impl Proc {
    /// Describes a process; `None`: it is gone, or may not be looked at.
    #[must_use]
    pub fn describe(&self, key: ProcessKey) -> Option<Description> {
        let status = self.text(key.pid, "status", 8_192)?;
        let status = String::from_utf8_lossy(&status);
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
        // Four ids: real, effective, saved, of the file system.
        let user_id = field("Uid:")?.split_ascii_whitespace().next()?.parse().ok()?;
        // One byte more tells whether there is more.
        let line = self.text(key.pid, "cmdline", COMMAND_BYTES_MAX as u64 + 1)?;
        let command = match command(&line) {
            Some(command) => command,
            None => format!("[{}]", field("Name:")?.trim()),
        };
        // The id may have gone to somebody else meanwhile.
        let same = self.key(key.pid).ok().flatten() == Some(key);
        same.then_some(Description { user_id, command })
    }
}

impl Proc {
    /// The user that a process runs as; `None`: it is gone.
    #[must_use]
    pub fn owner(&self, key: ProcessKey) -> Option<u32> {
        let user_id = std::fs::metadata(self.path(key.pid, "")).ok()?.uid();
        // The id may have gone to somebody else meanwhile.
        let same = self.key(key.pid).ok().flatten() == Some(key);
        same.then_some(user_id)
    }
}

/// The arguments, with spaces between them, without what would move a terminal's cursor.
fn command(line: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(line);
    let shown = |next: char| if next.is_control() { ' ' } else { next };
    let mut text: String = text.trim_end_matches('\0').chars().map(shown).collect();
    if text.trim().is_empty() {
        return None;
    }
    if text.len() > COMMAND_BYTES_MAX {
        const MORE: char = '…';
        let end = text.floor_char_boundary(COMMAND_BYTES_MAX - MORE.len_utf8());
        text.truncate(end);
        text.push(MORE);
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_parted_by_spaces_and_cut() {
        assert_eq!(
            command(b"python3\0train.py\0--lr=1\0").as_deref(),
            Some("python3 train.py --lr=1")
        );
        assert_eq!(command(b"a\x1b[2Jb\nc").as_deref(), Some("a [2Jb c"));
        assert_eq!(command(b"\0\0"), None);
        let long = command(&[b'x'; COMMAND_BYTES_MAX + 1]).unwrap();
        assert!(long.len() <= COMMAND_BYTES_MAX && long.ends_with('…'), "{long}");
        assert!(command("é".repeat(200).as_bytes()).unwrap().len() <= COMMAND_BYTES_MAX);
    }

    #[test]
    fn this_process_describes_itself_and_nobody_else() {
        let proc = Proc::default();
        let key = proc.key(std::process::id()).unwrap().unwrap();
        let description = proc.describe(key).unwrap();
        assert!(description.command.contains("gpulease"), "{description:?}");
        assert_eq!(proc.owner(key), Some(description.user_id));
        let other = ProcessKey { started: key.started + 1, ..key };
        assert_eq!((proc.describe(other), proc.owner(other)), (None, None));
    }
}
