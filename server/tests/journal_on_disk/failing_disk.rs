//! Disks that are full or fail: the append says so, the journal answers nothing more, what was acknowledged stays.

use std::process::{Command, Output};

use gpulease_server::journal::Revision;

use crate::strace;
use crate::writer::Work;

fn said(output: &Output) -> Vec<String> {
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

fn last_acknowledged(lines: &[String]) -> u64 {
    lines
        .iter()
        .rev()
        .find_map(|line| line.strip_prefix("acknowledged "))
        .map_or(0, |text| text.parse().unwrap())
}

fn assert_failed_and_poisoned(lines: &[String], reason: &str) {
    let failed = lines
        .iter()
        .find(|line| line.starts_with("failed "))
        .unwrap_or_else(|| panic!("{lines:?}"));
    assert!(failed.contains(reason), "{failed}");
    assert!(lines.iter().any(|line| line == "again Poisoned"), "{lines:?}");
}

/// Every call of the trace that makes bytes durable.
fn syncs(log: &std::path::Path) -> Vec<strace::Call> {
    let calls = strace::parse(&std::fs::read_to_string(log).unwrap());
    calls.into_iter().filter(|call| ["fdatasync", "fsync"].contains(&call.name.as_str())).collect()
}

#[test]
fn an_append_is_one_fdatasync() {
    if !strace::is_available() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let log = place.path().join("trace");
    let work = Work::new(&place.path().join("data"), 50, 800);
    work.open().unwrap();
    let output = strace::run(&work, &["-e", "trace=fdatasync,fsync,write"], &log);
    assert_eq!(last_acknowledged(&said(&output)), 50, "{output:?}");
    let calls = strace::parse(&std::fs::read_to_string(&log).unwrap());
    let mut since = Vec::new();
    let mut acknowledged = 0;
    for call in &calls {
        if call.name != "write" {
            since.push(call.name.as_str());
            continue;
        }
        let text = call.words().get(1).map(|word| strace::unquote(word)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).trim().to_owned();
        if text.starts_with("acknowledged") {
            acknowledged += 1;
            assert_eq!(since, ["fdatasync"], "at {text}");
        }
        if text.starts_with("acknowledged") || text.starts_with("opened") {
            since.clear();
        }
    }
    assert_eq!(acknowledged, 50);
}

#[test]
fn a_failed_fdatasync_ends_the_journal_and_is_never_tried_again() {
    if !strace::is_available() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let log = place.path().join("trace");
    let work = Work::new(&place.path().join("data"), 50, 800);
    work.open().unwrap();
    // The first fdatasync is the opening's, the eighth that of the seventh append.
    let options = ["-e", "trace=fdatasync,fsync", "-e", "inject=fdatasync:error=EIO:when=8"];
    let output = strace::run(&work, &options, &log);
    let lines = said(&output);
    assert_eq!(last_acknowledged(&lines), 6, "{lines:?}");
    assert_failed_and_poisoned(&lines, "cannot sync");
    let syncs = syncs(&log);
    assert_eq!(syncs.last().map(|call| call.result), Some(Some(-1)), "{syncs:?}");
    // The next process does not trust the cache; the one after it may again.
    for cache_drops in [1, 0] {
        let output = strace::run(&work, &["-e", "trace=fadvise64"], &log);
        assert!(last_acknowledged(&said(&output)) > 6, "{output:?}");
        assert_eq!(
            std::fs::read_to_string(&log).unwrap().matches("POSIX_FADV_DONTNEED").count(),
            cache_drops
        );
    }
    assert!(work.check(&mut work.open().unwrap()) >= Revision(6));
}

#[test]
fn a_write_without_space_ends_the_journal_and_keeps_what_was_acknowledged() {
    if !strace::is_available() {
        return;
    }
    // strace counts the calls of each thread by itself, and sled writes from several.
    for failing in [3, 5, 10] {
        let place = tempfile::tempdir().unwrap();
        let log = place.path().join("trace");
        let work = Work::new(&place.path().join("data"), 2_000, 60_000);
        work.open().unwrap();
        let inject = format!("inject=pwrite64:error=ENOSPC:when={failing}+");
        let output = strace::run(&work, &["-e", "trace=pwrite64", "-e", &inject], &log);
        let lines = said(&output);
        assert_failed_and_poisoned(&lines, "no space is left");
        assert!(work.check(&mut work.open().unwrap()) >= Revision(last_acknowledged(&lines)));
    }
}

/// A file system of its own that really runs full, where this process may mount one; a limit on file sizes elsewhere.
#[test]
fn a_full_disk_ends_the_journal_and_keeps_what_was_acknowledged() {
    let place = tempfile::tempdir().unwrap();
    let small = place.path().join("small");
    std::fs::create_dir(&small).unwrap();
    let mount =
        Command::new("mount").args(["-t", "tmpfs", "-o", "size=24m", "none"]).arg(&small).output();
    let mounted = mount.is_ok_and(|output| output.status.success());
    let work = Work::new(&small.join("data"), 2_000, 90_000);
    let lines = if mounted {
        said(&work.command(&[]).output().unwrap())
    } else {
        // 16 MiB in units of 512 bytes; the signal that comes with the limit is ignored, the error remains.
        let shell = ["sh", "-c", "trap '' XFSZ; ulimit -f 32768; exec \"$0\" \"$@\""];
        said(&work.command(&shell.map(str::to_owned)).output().unwrap())
    };
    if mounted {
        let grown =
            Command::new("mount").args(["-o", "remount,size=200m"]).arg(&small).status().unwrap();
        assert!(grown.success());
    }
    let last = std::panic::catch_unwind(|| work.check(&mut work.open().unwrap()));
    if mounted {
        assert!(Command::new("umount").arg(&small).status().unwrap().success());
    }
    let acknowledged = last_acknowledged(&lines);
    assert!(acknowledged > 20, "{lines:?}");
    assert_failed_and_poisoned(&lines, "no space is left");
    assert!(last.unwrap() >= Revision(acknowledged));
}
