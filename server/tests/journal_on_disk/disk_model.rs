//! What a disk may hold after power is cut, derived from the calls that a process made.
//!
//! | call | is surely there | until then |
//! |---|---|---|
//! | write, truncate | after a later fsync or fdatasync of that file has returned | each 512-byte sector there or not, in any order |
//! | create, mkdir, rename, unlink | after a later fsync of its directory has returned | there or not, in order for one name |
//!
//! sync_file_range counts for nothing. A sync covers what had returned before it was called. A new name whose
//! directory was synced may stand for a file without its bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::strace::{Call, unquote};

/// What a disk writes at once.
const SECTOR_BYTES: u64 = 512;

type Inode = usize;

/// One change, with the time at which it may begin to reach the disk and the time from which it surely has.
#[derive(Debug)]
struct Change {
    begin: usize,
    end: usize,
    durable_from: usize,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Write {
        inode: Inode,
        offset: u64,
        bytes: Vec<u8>,
    },
    Truncate {
        inode: Inode,
        length: u64,
    },
    /// Names are full paths; `None` removes the name.
    Link {
        name: PathBuf,
        inode: Option<Inode>,
        replaces: Option<PathBuf>,
    },
}

/// Everything that a process did to the files below a root.
pub(crate) struct Recording {
    root: PathBuf,
    base: BTreeMap<PathBuf, Inode>,
    contents: BTreeMap<Inode, Vec<u8>>,
    directories: BTreeSet<Inode>,
    changes: Vec<Change>,
    /// What the process said, with the time at which it began to say it.
    pub(crate) said: Vec<(usize, String)>,
    /// The times at which a sync had just returned.
    pub(crate) synced: Vec<usize>,
    /// One past the last time.
    pub(crate) end: usize,
}

/// How much of what is not surely there is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keeps {
    Nothing,
    Everything,
    /// Whole changes, each with even odds.
    SomeChanges,
    /// Sectors, each with even odds.
    SomeSectors,
    /// Everything but about one sector in eight: a tear in the middle with much behind it.
    MostSectors,
}

impl Keeps {
    pub(crate) const ALL: [Keeps; 5] = [
        Keeps::Nothing,
        Keeps::Everything,
        Keeps::SomeChanges,
        Keeps::SomeSectors,
        Keeps::MostSectors,
    ];

    fn keeps_change(self, random: &mut Random) -> bool {
        match self {
            Keeps::Nothing => false,
            Keeps::Everything => true,
            Keeps::SomeChanges => random.below(2) == 0,
            Keeps::SomeSectors | Keeps::MostSectors => random.below(4) > 0,
        }
    }

    fn keeps_sector(self, random: &mut Random) -> bool {
        match self {
            Keeps::Nothing => false,
            Keeps::Everything | Keeps::SomeChanges => true,
            Keeps::SomeSectors => random.below(2) == 0,
            Keeps::MostSectors => random.below(8) > 0,
        }
    }
}

/// A small generator, so that a seed names a crash.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// The process while its trace is read.
struct Process {
    recording: Recording,
    names: BTreeMap<PathBuf, Inode>,
    descriptors: BTreeMap<String, (Inode, u64)>,
    next_inode: Inode,
}

impl Recording {
    /// Reads the calls of processes that ran one after the other in `root`, on top of the files below `before`, all of
    /// which count as durable. What one process left in the page cache is there for the next, and not yet durable.
    pub(crate) fn new(root: &Path, before: &Path, processes: &[Vec<Call>]) -> Self {
        let recording = Recording {
            root: root.to_path_buf(),
            base: BTreeMap::new(),
            contents: BTreeMap::new(),
            directories: BTreeSet::new(),
            changes: Vec::new(),
            said: Vec::new(),
            synced: Vec::new(),
            end: processes.iter().flatten().map(|call| call.begin + 1).max().unwrap_or(0),
        };
        let mut process = Process {
            recording,
            names: BTreeMap::new(),
            descriptors: BTreeMap::new(),
            next_inode: 0,
        };
        process.load(before, root);
        process.recording.base = process.names.clone();
        for calls in processes {
            process.descriptors.clear();
            // A descriptor stands for its file from the return of the open to the begin of the close: a thread may be
            // given a number whose close by another thread began after its own open.
            let mut in_order: Vec<&Call> = calls.iter().collect();
            in_order.sort_by_key(|call| if call.name == "openat" { call.end } else { call.begin });
            in_order.into_iter().for_each(|call| process.follow(call));
        }
        process.recording
    }

    /// Writes what the disk may hold after a cut at `time` below `place`.
    pub(crate) fn build(&self, time: usize, keeps: Keeps, random: &mut Random, place: &Path) {
        let mut names = self.base.clone();
        let mut contents = self.contents.clone();
        let mut lost_names: BTreeSet<&Path> = BTreeSet::new();
        for change in self.changes.iter().filter(|change| change.begin < time) {
            let sure = change.durable_from <= time;
            match &change.kind {
                Kind::Write { inode, offset, bytes } => {
                    let keeps_it = sure || keeps.keeps_change(random);
                    for sector in sectors(*offset, bytes) {
                        if sure || (keeps_it && keeps.keeps_sector(random)) {
                            write_at(contents.entry(*inode).or_default(), sector.0, sector.1);
                        }
                    }
                }
                Kind::Truncate { inode, length } => {
                    if sure || keeps.keeps_change(random) {
                        contents
                            .entry(*inode)
                            .or_default()
                            .resize(usize::try_from(*length).unwrap(), 0);
                    }
                }
                Kind::Link { name, inode, replaces } => {
                    let touched = [Some(name.as_path()), replaces.as_deref()];
                    let touched = touched.into_iter().flatten();
                    // Changes of one name happen in order: none after one that is lost.
                    let possible = !touched.clone().any(|name| lost_names.contains(name));
                    if sure || (possible && keeps.keeps_change(random)) {
                        rename_below(&mut names, replaces.as_deref(), name, *inode);
                    } else {
                        lost_names.extend(touched);
                    }
                }
            }
        }
        self.write_files(&names, &contents, place);
    }

    fn write_files(
        &self,
        names: &BTreeMap<PathBuf, Inode>,
        contents: &BTreeMap<Inode, Vec<u8>>,
        place: &Path,
    ) {
        std::fs::create_dir_all(place).unwrap();
        for (name, inode) in names {
            let target = place.join(name.strip_prefix(&self.root).unwrap());
            // A name below a directory that did not make it is not there either.
            if !target.parent().is_some_and(Path::is_dir) {
                continue;
            }
            if self.directories.contains(inode) {
                std::fs::create_dir_all(target).unwrap();
            } else {
                std::fs::write(target, contents.get(inode).map_or(&[][..], Vec::as_slice)).unwrap();
            }
        }
    }
}

impl Process {
    /// Everything below `before`, under the names that the process saw.
    fn load(&mut self, before: &Path, name: &Path) {
        let inode = self.new_inode();
        self.names.insert(name.to_path_buf(), inode);
        if before.is_file() {
            self.recording.contents.insert(inode, std::fs::read(before).unwrap());
            return;
        }
        self.recording.directories.insert(inode);
        for entry in std::fs::read_dir(before).unwrap() {
            let entry = entry.unwrap();
            self.load(&entry.path(), &name.join(entry.file_name()));
        }
    }

    fn new_inode(&mut self) -> Inode {
        self.next_inode += 1;
        self.next_inode
    }

    fn change(&mut self, call: &Call, kind: Kind) {
        let change = Change { begin: call.begin, end: call.end, durable_from: usize::MAX, kind };
        self.recording.changes.push(change);
    }

    fn follow(&mut self, call: &Call) {
        if call.result.is_some_and(|result| result < 0) {
            return;
        }
        let words = call.words();
        match call.name.as_str() {
            "openat" => self.open(call, &words),
            "close" => drop(self.descriptors.remove(words[0])),
            "write" if words[0] == "1" => self.say(call, words[1]),
            "write" => self.write(call, &words),
            "pwrite64" => self.write_at(call, &words),
            "lseek" => self.seek(call, &words),
            "ftruncate" => self.truncate(call, &words),
            "fsync" | "fdatasync" => self.sync(call, words[0]),
            "mkdir" => self.make_directory(call, words[0]),
            "unlink" | "rmdir" => self.remove(call, path(words[0])),
            "unlinkat" => {
                let name = self.path_at(words[0], words[1]);
                self.remove(call, name);
            }
            "rename" => self.rename(call, path(words[0]), path(words[1])),
            "execve" | "exit_group" | "sync_file_range" | "mkdirat" | "flock" => {}
            // A thread that was killed at the entry of a call, before strace could read which: it was not carried out.
            "???" => {}
            other => assert!(other.starts_with("exit"), "the model does not know {other}"),
        }
    }

    fn say(&mut self, call: &Call, text: &str) {
        let text = String::from_utf8_lossy(&unquote(text)).trim().to_owned();
        self.recording.said.push((call.begin, text));
    }

    fn path_at(&self, directory: &str, name: &str) -> PathBuf {
        let name = path(name);
        if name.is_absolute() || directory == "AT_FDCWD" {
            return name;
        }
        let Some((inode, _)) = self.descriptors.get(directory) else { return name };
        let found = self.names.iter().find(|(_, other)| *other == inode);
        found.map_or(name.clone(), |(parent, _)| parent.join(name))
    }

    fn open(&mut self, call: &Call, words: &[&str]) {
        let name = self.path_at(words[0], words[1]);
        let Some(descriptor) = call.result.map(|descriptor| descriptor.to_string()) else { return };
        if !name.starts_with(&self.recording.root) {
            self.descriptors.remove(&descriptor);
            return;
        }
        let known = self.names.get(&name).copied();
        let inode = known.unwrap_or_else(|| {
            let inode = self.new_inode();
            self.names.insert(name.clone(), inode);
            self.change(
                call,
                Kind::Link { name: name.clone(), inode: Some(inode), replaces: None },
            );
            inode
        });
        if known.is_some() && words[2].contains("O_TRUNC") {
            self.change(call, Kind::Truncate { inode, length: 0 });
        }
        self.descriptors.insert(descriptor, (inode, 0));
    }

    fn write(&mut self, call: &Call, words: &[&str]) {
        let Some((inode, position)) = self.descriptors.get_mut(words[0]) else { return };
        let (inode, offset, bytes) = (*inode, *position, unquote(words[1]));
        *position += u64::try_from(bytes.len()).unwrap();
        self.change(call, Kind::Write { inode, offset, bytes });
    }

    fn write_at(&mut self, call: &Call, words: &[&str]) {
        let (inode, _) = self.descriptors[words[0]];
        let offset = words[3].parse().unwrap();
        self.change(call, Kind::Write { inode, offset, bytes: unquote(words[1]) });
    }

    fn seek(&mut self, call: &Call, words: &[&str]) {
        if let Some((_, position)) = self.descriptors.get_mut(words[0]) {
            *position = u64::try_from(call.result.unwrap_or(0)).unwrap();
        }
    }

    fn truncate(&mut self, call: &Call, words: &[&str]) {
        let (inode, _) = self.descriptors[words[0]];
        self.change(call, Kind::Truncate { inode, length: words[1].parse().unwrap() });
    }

    fn make_directory(&mut self, call: &Call, name: &str) {
        let (name, inode) = (path(name), self.new_inode());
        if name.starts_with(&self.recording.root) {
            self.recording.directories.insert(inode);
            self.names.insert(name.clone(), inode);
            self.change(call, Kind::Link { name, inode: Some(inode), replaces: None });
        }
    }

    fn remove(&mut self, call: &Call, name: PathBuf) {
        if self.names.remove(&name).is_some() {
            self.change(call, Kind::Link { name, inode: None, replaces: None });
        }
    }

    fn rename(&mut self, call: &Call, from: PathBuf, to: PathBuf) {
        let Some(inode) = self.names.get(&from).copied() else { return };
        rename_below(&mut self.names, Some(&from), &to, Some(inode));
        self.change(call, Kind::Link { name: to, inode: Some(inode), replaces: Some(from) });
    }

    /// Everything of this file, or every name in this directory, that had returned before is durable from now on.
    fn sync(&mut self, call: &Call, descriptor: &str) {
        let Some((synced, _)) = self.descriptors.get(descriptor).copied() else { return };
        if call.result.is_none() {
            return;
        }
        self.recording.synced.push(call.end);
        let directory =
            self.names.iter().find(|(_, inode)| **inode == synced).map(|(name, _)| name.clone());
        for change in self.recording.changes.iter_mut().filter(|change| change.end < call.begin) {
            let covered = match &change.kind {
                Kind::Write { inode, .. } | Kind::Truncate { inode, .. } => *inode == synced,
                Kind::Link { name, .. } => directory.as_deref() == name.parent(),
            };
            if covered {
                change.durable_from = change.durable_from.min(call.end);
            }
        }
    }
}

/// Gives `name` to `inode`, or takes it away; a renamed directory takes what is below it along.
fn rename_below(
    names: &mut BTreeMap<PathBuf, Inode>,
    from: Option<&Path>,
    name: &Path,
    inode: Option<Inode>,
) {
    if let Some(from) = from {
        let below: Vec<PathBuf> =
            names.keys().filter(|name| name.starts_with(from)).cloned().collect();
        for old in below {
            let inode = names.remove(&old).unwrap();
            let rest = old.strip_prefix(from).unwrap();
            let new =
                if rest.as_os_str().is_empty() { name.to_path_buf() } else { name.join(rest) };
            names.insert(new, inode);
        }
        return;
    }
    match inode {
        Some(inode) => drop(names.insert(name.to_path_buf(), inode)),
        None => drop(names.remove(name)),
    }
}

/// The parts of a write that lie in different sectors.
fn sectors(offset: u64, bytes: &[u8]) -> Vec<(u64, &[u8])> {
    let (mut parts, mut at, mut rest) = (Vec::new(), offset, bytes);
    while !rest.is_empty() {
        let room = usize::try_from(SECTOR_BYTES - at % SECTOR_BYTES).unwrap();
        let (part, after) = rest.split_at(room.min(rest.len()));
        parts.push((at, part));
        at += u64::try_from(part.len()).unwrap();
        rest = after;
    }
    parts
}

fn write_at(contents: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let offset = usize::try_from(offset).unwrap();
    let end = offset + bytes.len();
    if contents.len() < end {
        contents.resize(end, 0);
    }
    contents[offset..end].copy_from_slice(bytes);
}

fn path(word: &str) -> PathBuf {
    PathBuf::from(String::from_utf8(unquote(word)).unwrap())
}
