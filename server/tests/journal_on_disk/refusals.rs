//! Data directories that must not, or cannot, be used: each refusal says what to do, and nothing is changed.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};

use gpulease_server::journal::JournalError;

use crate::writer::Work;

/// `nobody` on Linux: owns nothing here.
const NOBODY: u32 = 65_534;

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_second_process_is_refused_and_told_who_holds_the_directory() {
    let place = tempfile::tempdir().unwrap();
    let work = Work::new(place.path(), 1, 10);
    let held = work.open().unwrap();
    let output = work.command(&[]).output().unwrap();
    let holder = format!("process {} uses it", std::process::id());
    assert!(said(&output).contains(&holder), "{output:?}");
    drop(held);
    assert!(said(&work.command(&[]).output().unwrap()).contains("acknowledged 1"));
}

#[test]
fn missing_permissions_are_told_apart() {
    let place = tempfile::tempdir().unwrap();
    let work = Work::new(place.path(), 1, 10);
    drop(work.open().unwrap());
    std::fs::set_permissions(place.path(), PermissionsExt::from_mode(0o755)).unwrap();
    if rustix::process::geteuid().is_root() {
        // Permissions do not bind root, so another user tries, with a copy of this program that it can reach.
        let program = place.path().join("program");
        std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        let output = work.command_of(&program).uid(NOBODY).output().unwrap();
        assert!(said(&output).contains("permission denied"), "{output:?}");
    } else {
        let lock = place.path().join("lock");
        std::fs::set_permissions(lock, PermissionsExt::from_mode(0o000)).unwrap();
        let refused = work.open().map(drop).unwrap_err();
        assert!(matches!(refused, JournalError::PermissionDenied { .. }), "{refused:?}");
    }
}

#[test]
fn a_read_only_file_system_is_told_apart() {
    let place = tempfile::tempdir().unwrap();
    let work = Work::new(place.path(), 1, 10);
    drop(work.open().unwrap());
    if !mount(&["--bind"], place.path(), place.path()) {
        // Without the right to mount there is always one that is read-only: /proc.
        let refused = Work::new(Path::new("/proc/gpulease"), 1, 10).open().map(drop).unwrap_err();
        return assert!(!refused.to_string().is_empty());
    }
    let read_only = mount(&["-o", "remount,bind,ro"], place.path(), place.path());
    let refused = work.open().map(drop);
    assert!(Command::new("umount").arg(place.path()).status().unwrap().success());
    assert!(read_only);
    let refused = refused.unwrap_err();
    assert!(matches!(refused, JournalError::ReadOnly { .. }), "{refused:?}");
    assert!(refused.to_string().contains("mount it writable"), "{refused}");
    drop(work.open().unwrap());
}

fn mount(options: &[&str], from: &Path, to: &Path) -> bool {
    Command::new("mount")
        .args(options)
        .arg(from)
        .arg(to)
        .output()
        .is_ok_and(|output| output.status.success())
}
