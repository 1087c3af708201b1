//! The fencing tokens of the leases that this user acquired on the command line, so that
//! `gpulease release ID` and `gpulease renew ID` need no `--token`.
//!
//! Promises: only the user may read it (0600, directory 0700); concurrent writers lose nothing (a lock
//! file beside it); a reader never sees half of it (written aside, synced, renamed); it holds at most the
//! newest `ENTRIES_MAX` tokens, those of live leases before those of ended ones.
//! Leaves to others: whether a token is still good: the coordinator says that.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

/// The most tokens kept: about 200 bytes each, so the file stays under 256 KiB and is rewritten in a blink.
pub(crate) const ENTRIES_MAX: usize = 1_000;

/// How long a token is kept after its lease's TTL must have run out: a coordinator that was down that long
/// re-arms its leases when it returns, and 7 days outlast a week-end and then some.
const KEPT_AFTER_TTL: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// How long the token of an ended lease is kept: as long as the coordinator keeps the lease's record, so that
/// releasing it again succeeds (P17).
const KEPT_AFTER_END: Duration = Duration::from_secs(60 * 60);

/// One lease's token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// The coordinator: ids are only unique within one.
    pub(crate) endpoint: String,
    pub(crate) lease_id: u64,
    pub(crate) fencing_token: u64,
    pub(crate) service: String,
    pub(crate) holder: String,
    /// When the TTL was last known to run out, in seconds since 1970.
    pub(crate) expires_unix_seconds: u64,
    /// When the lease ended, in seconds since 1970; none: it has not, as far as this user knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ended_unix_seconds: Option<u64>,
}

/// The file as a whole.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Contents {
    /// Oldest first.
    tokens: Vec<Entry>,
}

/// The file of tokens at a path.
#[derive(Clone, Debug)]
pub(crate) struct TokenFile {
    path: PathBuf,
}

impl TokenFile {
    pub(crate) fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The user's own: `$XDG_STATE_HOME/gpulease/tokens.json`, or `~/.local/state/gpulease/tokens.json`.
    pub(crate) fn of_user() -> anyhow::Result<Self> {
        let absolute = |name: &str| {
            std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute())
        };
        let state = absolute("XDG_STATE_HOME")
            .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
            .context("neither XDG_STATE_HOME nor HOME names a directory to keep tokens in")?;
        Ok(Self::at(state.join("gpulease").join("tokens.json")))
    }

    /// The token of a lease, where one is kept.
    pub(crate) fn find(&self, endpoint: &str, lease_id: u64) -> anyhow::Result<Option<Entry>> {
        let contents = self.read()?;
        let found = contents.tokens.into_iter().rfind(|entry| entry.is_of(endpoint, lease_id));
        Ok(found)
    }

    /// Keeps a token, in place of an older one of the same lease.
    #[cfg(test)]
    pub(crate) fn remember(&self, entry: Entry, now: SystemTime) -> anyhow::Result<()> {
        self.remember_all(vec![entry], now)
    }

    /// Keeps the tokens of many leases, writing the file once.
    pub(crate) fn remember_all(&self, entries: Vec<Entry>, now: SystemTime) -> anyhow::Result<()> {
        let of = |entry: &Entry| (entry.lease_id, entry.endpoint.clone());
        let renewed: BTreeSet<(u64, String)> = entries.iter().map(of).collect();
        self.change(now, |tokens| {
            tokens.retain(|kept| !renewed.contains(&of(kept)));
            tokens.extend(entries);
        })
    }

    /// Notes the end of leases, where their tokens are kept.
    pub(crate) fn ended(
        &self,
        endpoint: &str,
        leases: &[u64],
        now: SystemTime,
    ) -> anyhow::Result<()> {
        let leases: BTreeSet<u64> = leases.iter().copied().collect();
        let over = |kept: &Entry| kept.endpoint == endpoint && leases.contains(&kept.lease_id);
        if !self.read()?.tokens.iter().any(over) {
            return Ok(());
        }
        self.change(now, |tokens| {
            for kept in tokens.iter_mut().filter(|kept| over(kept)) {
                kept.ended_unix_seconds = Some(unix_seconds(now));
            }
        })
    }

    fn change(&self, now: SystemTime, edit: impl FnOnce(&mut Vec<Entry>)) -> anyhow::Result<()> {
        let directory = self.path.parent().context("a token file lies in a directory")?;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
        let _lock = self.lock()?;
        let mut contents = self.read()?;
        edit(&mut contents.tokens);
        prune(&mut contents.tokens, now);
        self.write(&contents).with_context(|| format!("cannot write {}", self.path.display()))
    }

    /// Waits for other writers; dropping the file lets the next one go.
    fn lock(&self) -> anyhow::Result<File> {
        let path = self.path.with_extension("lock");
        let open = || -> std::io::Result<File> {
            let file = private(&path, false)?;
            file.lock()?;
            Ok(file)
        };
        open().with_context(|| format!("cannot lock {}", path.display()))
    }

    fn read(&self) -> anyhow::Result<Contents> {
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Contents::default()),
            Err(error) => bail!("cannot read the tokens in {}: {error}", self.path.display()),
        };
        serde_json::from_slice(&text).with_context(|| {
            format!("{} is damaged; remove it and pass --token", self.path.display())
        })
    }

    fn write(&self, contents: &Contents) -> anyhow::Result<()> {
        let aside = self.path.with_extension("new");
        let mut file = private(&aside, true)?;
        file.write_all(&serde_json::to_vec_pretty(contents)?)?;
        file.sync_all()?;
        fs::rename(&aside, &self.path)?;
        Ok(())
    }
}

impl Entry {
    fn is_of(&self, endpoint: &str, lease_id: u64) -> bool {
        self.lease_id == lease_id && self.endpoint == endpoint
    }
}

/// Seconds since 1970 at which a TTL that runs from `now` is over.
pub(crate) fn expires_unix_seconds(now: SystemTime, remaining: Duration) -> u64 {
    unix_seconds(now).saturating_add(remaining.as_secs())
}

/// Drops what is of no use any more, then what is over the bound: ended leases first, the oldest first.
fn prune(tokens: &mut Vec<Entry>, now: SystemTime) {
    let now = unix_seconds(now);
    let until = |since: u64, kept: Duration| since.saturating_add(kept.as_secs());
    tokens.retain(|entry| {
        let ended = entry.ended_unix_seconds;
        until(entry.expires_unix_seconds, KEPT_AFTER_TTL) >= now
            && ended.is_none_or(|ended| until(ended, KEPT_AFTER_END) >= now)
    });
    let mut surplus = tokens.len().saturating_sub(ENTRIES_MAX);
    tokens.retain(|entry| {
        let dropped = surplus > 0 && entry.ended_unix_seconds.is_some();
        surplus -= usize::from(dropped);
        !dropped
    });
    tokens.drain(..surplus);
}

fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Opens a file for writing that only its owner may read.
fn private(path: &Path, truncate: bool) -> std::io::Result<File> {
    OpenOptions::new().create(true).write(true).truncate(truncate).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const ENDPOINT: &str = "http://127.0.0.1:7475";

    fn entry(lease_id: u64) -> Entry {
        Entry {
            endpoint: ENDPOINT.to_owned(),
            lease_id,
            fencing_token: lease_id * 10,
            service: "s".to_owned(),
            holder: "h".to_owned(),
            expires_unix_seconds: 1_000,
            ended_unix_seconds: None,
        }
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn fresh() -> (tempfile::TempDir, TokenFile) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = TokenFile::at(directory.path().join("state/gpulease/tokens.json"));
        (directory, file)
    }

    #[test]
    fn many_tokens_are_kept_and_ended_at_once() {
        let (_directory, file) = fresh();
        file.remember(entry(1), at(0)).unwrap();
        let newer = Entry { fencing_token: 99, ..entry(1) };
        file.remember_all(vec![newer, entry(2), entry(3)], at(0)).unwrap();
        file.ended(ENDPOINT, &[2, 3, 4], at(5)).unwrap();
        let tokens = file.read().unwrap().tokens;
        let kept: Vec<_> =
            tokens.iter().map(|it| (it.fencing_token, it.ended_unix_seconds)).collect();
        assert_eq!(kept, [(99, None), (20, Some(5)), (30, Some(5))]);
    }

    #[test]
    fn the_newest_token_of_a_lease_is_found_for_its_coordinator_only() {
        let (_directory, file) = fresh();
        assert_eq!(file.find(ENDPOINT, 1).unwrap(), None);
        file.remember(entry(1), at(0)).unwrap();
        let newer = Entry { fencing_token: 99, ..entry(1) };
        file.remember(newer.clone(), at(0)).unwrap();
        assert_eq!(file.find(ENDPOINT, 1).unwrap(), Some(newer));
        assert_eq!(file.find("http://elsewhere:7475", 1).unwrap(), None);
    }

    #[test]
    fn only_the_owner_may_read_it() {
        let (_directory, file) = fresh();
        file.remember(entry(1), at(0)).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&file.path), 0o600);
        assert_eq!(mode(file.path.parent().unwrap()), 0o700);
    }

    #[test]
    fn the_newest_thousand_are_kept() {
        let mut tokens: Vec<Entry> = (0..1_500).map(entry).collect();
        prune(&mut tokens, at(0));
        assert_eq!(tokens.len(), ENTRIES_MAX);
        assert_eq!(tokens[0].lease_id, 500);
    }

    #[test]
    fn ended_leases_make_room_first() {
        let mut tokens: Vec<Entry> = (0..1_002).map(entry).collect();
        tokens[700].ended_unix_seconds = Some(0);
        prune(&mut tokens, at(0));
        assert_eq!(tokens.len(), ENTRIES_MAX);
        assert_eq!(tokens[0].lease_id, 1);
        assert!(tokens.iter().all(|kept| kept.lease_id != 700));
    }

    #[test]
    fn an_ended_lease_is_known_for_an_hour() {
        let (_directory, file) = fresh();
        file.remember(entry(1), at(0)).unwrap();
        file.ended(ENDPOINT, &[1], at(0)).unwrap();
        file.remember(entry(2), at(3_600)).unwrap();
        assert!(file.find(ENDPOINT, 1).unwrap().is_some());
        file.remember(entry(3), at(3_601)).unwrap();
        assert_eq!(file.find(ENDPOINT, 1).unwrap(), None);
    }

    #[test]
    fn a_token_goes_a_week_after_its_ttl() {
        let week = KEPT_AFTER_TTL.as_secs();
        for (now, kept) in [(1_000 + week, 1), (1_001 + week, 0)] {
            let mut tokens = vec![entry(1)];
            prune(&mut tokens, at(now));
            assert_eq!(tokens.len(), kept, "at {now}");
        }
    }

    #[test]
    fn concurrent_writers_lose_no_entry() {
        let (_directory, file) = fresh();
        std::thread::scope(|scope| {
            for writer in 0..8_u64 {
                let file = file.clone();
                scope.spawn(move || {
                    for turn in 0..10 {
                        file.remember(entry(writer * 100 + turn), at(0)).unwrap();
                    }
                });
            }
        });
        assert_eq!(file.read().unwrap().tokens.len(), 80);
    }

    #[test]
    fn a_damaged_file_is_named_and_not_overwritten() {
        let (_directory, file) = fresh();
        file.remember(entry(1), at(0)).unwrap();
        fs::write(&file.path, "{").unwrap();
        let error = file.remember(entry(2), at(0)).unwrap_err().to_string();
        assert!(error.contains("tokens.json is damaged; remove it"), "{error}");
        assert_eq!(fs::read(&file.path).unwrap(), b"{");
    }
}
