//! Trees of hosts that do not exist: each test writes a `/proc`, passes over it, and changes it.

use std::fs;
use std::path::PathBuf;

use super::*;

/// A made-up `/proc`, with a first process.
struct Host {
    root: tempfile::TempDir,
}

/// Who, whose child, since when.
#[derive(Clone, Copy)]
struct Someone {
    pid: u32,
    parent: u32,
    started: u64,
    group: u32,
    session: u32,
    cgroup: &'static str,
}

fn someone(pid: u32, parent: u32, started: u64) -> Someone {
    Someone { pid, parent, started, group: 1, session: 1, cgroup: "/system.slice" }
}

fn key(pid: u32, started: u64) -> ProcessKey {
    ProcessKey { pid, started }
}

impl Host {
    fn new() -> Self {
        let host = Self { root: tempfile::tempdir().unwrap() };
        host.start(someone(1, 0, 1));
        host
    }

    fn directory(&self, pid: u32) -> PathBuf {
        self.root.path().join(pid.to_string())
    }

    fn start(&self, who: Someone) {
        let Someone { pid, parent, started, group, session, cgroup } = who;
        fs::create_dir_all(self.directory(pid)).unwrap();
        let stat = format!(
            "{pid} (it) S {parent} {group} {session} 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 {started} 0"
        );
        fs::write(self.directory(pid).join("stat"), stat).unwrap();
        fs::write(self.directory(pid).join("cgroup"), format!("0::{cgroup}\n")).unwrap();
    }

    fn end(&self, pid: u32) {
        fs::remove_dir_all(self.directory(pid)).unwrap();
    }

    fn trees(&self, roots: &[ProcessKey]) -> Trees {
        let mut trees = Trees::new(Proc::at(self.root.path()));
        trees.coordinator = Some("/system.slice/gpulease.service".into());
        roots.iter().for_each(|root| trees.declare(*root).unwrap());
        trees.pass().unwrap();
        trees
    }
}

/// Which of these ids belong to which root.
fn check(trees: &Trees, root: ProcessKey, pids: &[u32]) {
    let mut members: Vec<u32> =
        trees.members.iter().filter(|(_, of)| **of == root).map(|(key, _)| key.pid).collect();
    members.sort_unstable();
    assert_eq!(members, pids);
    assert_eq!(trees.lives(root), Some(!pids.is_empty()));
    assert_eq!(trees.living_roots().any(|living| living == root), !pids.is_empty());
}

#[test]
fn descendants_belong_to_the_root_and_others_do_not() {
    let host = Host::new();
    for who in
        [someone(10, 1, 100), someone(11, 10, 110), someone(12, 11, 120), someone(20, 1, 100)]
    {
        host.start(who);
    }
    let trees = host.trees(&[key(10, 100)]);
    check(&trees, key(10, 100), &[10, 11, 12]);
    assert_eq!(trees.root_of(key(12, 120)), Some(key(10, 100)));
    assert_eq!(trees.root_of(key(12, 121)), None, "another process of the same id");
    assert_eq!(trees.root_of(key(20, 100)), None);
    assert_eq!(trees.key_of(20), Some(key(20, 100)));
    assert_eq!(trees.key_of(21), None);
}

#[test]
fn an_orphan_stays_a_member_until_it_ends() {
    let host = Host::new();
    let root = key(10, 100);
    for who in [someone(10, 1, 100), someone(11, 10, 110), someone(12, 11, 120)] {
        host.start(who);
    }
    let mut trees = host.trees(&[root]);
    host.end(10);
    host.end(11);
    host.start(someone(12, 1, 120));
    host.start(someone(13, 12, 130));
    trees.pass().unwrap();
    check(&trees, root, &[12, 13]);
    host.end(12);
    host.end(13);
    trees.pass().unwrap();
    check(&trees, root, &[]);
}

#[test]
fn an_id_that_is_used_again_is_not_the_root() {
    let host = Host::new();
    host.start(someone(10, 1, 100));
    let mut trees = host.trees(&[key(10, 100)]);
    host.start(someone(10, 1, 500));
    host.start(someone(11, 10, 510));
    trees.pass().unwrap();
    check(&trees, key(10, 100), &[]);
}

#[test]
fn a_parent_that_is_younger_than_its_child_is_somebody_else() {
    let host = Host::new();
    host.start(someone(10, 1, 100));
    host.start(someone(9, 10, 50));
    check(&host.trees(&[key(10, 100)]), key(10, 100), &[10]);
}

#[test]
fn a_root_in_a_tree_takes_its_part_of_it_whenever_it_is_declared() {
    let host = Host::new();
    for who in [someone(10, 1, 100), someone(11, 10, 110), someone(12, 11, 120)] {
        host.start(who);
    }
    let (outer, inner) = (key(10, 100), key(11, 110));
    let mut trees = host.trees(&[outer]);
    check(&trees, outer, &[10, 11, 12]);
    trees.declare(inner).unwrap();
    assert_eq!(trees.lives(inner), None, "nobody has looked yet");
    trees.pass().unwrap();
    check(&trees, outer, &[10]);
    check(&trees, inner, &[11, 12]);
    trees.forget(&[inner].into());
    trees.pass().unwrap();
    check(&trees, outer, &[10, 11, 12]);
}

#[test]
fn a_root_lives_while_a_root_within_it_does() {
    let host = Host::new();
    let [outer, middle, inner] = [key(10, 100), key(11, 110), key(12, 120)];
    for who in [someone(10, 1, 100), someone(11, 10, 110), someone(12, 11, 120)] {
        host.start(who);
    }
    let lives = |trees: &Trees| [outer, middle, inner].map(|root| trees.lives(root));
    let mut trees = host.trees(&[outer, middle, inner]);
    host.end(10);
    host.start(someone(11, 1, 110));
    trees.pass().unwrap();
    check(&trees, middle, &[11]);
    assert_eq!(lives(&trees), [Some(true); 3], "what the first started uses what it leased");
    assert!(trees.living_roots().eq([outer, middle, inner]));
    host.end(11);
    host.start(someone(12, 1, 120));
    trees.forget(&[middle].into());
    trees.pass().unwrap();
    assert_eq!(lives(&trees), [Some(true), None, Some(true)]);
    host.end(12);
    trees.pass().unwrap();
    assert_eq!(lives(&trees), [Some(false), None, Some(false)]);
}

#[test]
fn a_member_that_is_declared_when_its_root_has_gone_is_within_it() {
    let host = Host::new();
    let (outer, inner, late) = (key(10, 100), key(11, 110), key(12, 120));
    let grouped = |who: Someone| Someone { group: 10, ..who };
    host.start(grouped(someone(10, 1, 100)));
    host.start(someone(11, 10, 110));
    let mut trees = host.trees(&[outer]);
    host.end(10);
    host.start(someone(11, 1, 110));
    // Nobody saw its parent.
    host.start(grouped(someone(12, 1, 120)));
    for root in [inner, late] {
        trees.declare(root).unwrap();
    }
    trees.pass().unwrap();
    host.end(11);
    trees.pass().unwrap();
    assert_eq!([outer, inner, late].map(|root| trees.lives(root)), [true, false, true].map(Some));
}

#[test]
fn a_root_that_joined_the_group_of_one_within_it_is_not_within_that() {
    let host = Host::new();
    let roots = [key(10, 100), key(11, 110)];
    host.start(Someone { group: 11, ..someone(10, 1, 100) });
    host.start(Someone { group: 11, ..someone(11, 10, 110) });
    let mut trees = host.trees(&roots);
    assert!(trees.roots.values().map(|root| root.outer).eq([None, Some(roots[0])]));
    // Where their starts do not tell who is older, there is no ring either.
    trees.put_within(roots[0], roots[1]);
    assert!(trees.roots.values().map(|root| root.outer).eq([None, Some(roots[0])]));
    trees.forget(&roots.into());
    assert_eq!(trees.root_count(), 0);
}

#[test]
fn an_orphan_that_a_member_of_another_tree_took_over_stays_where_it_was() {
    let host = Host::new();
    for who in [someone(10, 1, 100), someone(11, 10, 110), someone(12, 11, 120)] {
        host.start(who);
    }
    let (outer, inner) = (key(10, 100), key(11, 110));
    let mut trees = host.trees(&[outer, inner]);
    host.end(11);
    host.start(someone(12, 10, 120));
    trees.pass().unwrap();
    check(&trees, inner, &[12]);
    check(&trees, outer, &[10]);
}

#[test]
fn an_orphan_in_the_roots_group_or_session_is_a_member_even_if_its_parent_was_never_seen() {
    let host = Host::new();
    let root = key(10, 100);
    let leader = |who: Someone| Someone { group: 10, session: 10, ..who };
    host.start(leader(someone(10, 1, 100)));
    let mut trees = host.trees(&[root]);
    host.end(10);
    host.start(Someone { session: 3, ..leader(someone(12, 1, 120)) });
    host.start(Someone { group: 13, ..leader(someone(13, 1, 130)) });
    trees.pass().unwrap();
    check(&trees, root, &[12, 13]);
}

#[test]
fn a_group_that_was_gone_once_is_somebody_elses_when_it_returns() {
    let host = Host::new();
    let root = key(10, 100);
    host.start(Someone { group: 10, ..someone(10, 1, 100) });
    let mut trees = host.trees(&[root]);
    host.end(10);
    trees.pass().unwrap();
    host.start(Someone { group: 10, ..someone(30, 1, 300) });
    trees.pass().unwrap();
    check(&trees, root, &[]);
}

#[test]
fn a_group_whose_number_is_another_process_by_now_is_that_ones() {
    let host = Host::new();
    let root = key(10, 100);
    host.start(Someone { group: 10, ..someone(10, 1, 100) });
    let mut trees = host.trees(&[root]);
    for who in [someone(10, 1, 300), someone(11, 1, 310)] {
        host.start(Someone { group: 10, ..who });
    }
    trees.pass().unwrap();
    check(&trees, root, &[]);
}

/// A container of three: its first process, a child, and one that was put into it from outside.
fn container(host: &Host, first_parent: Someone) -> ProcessKey {
    let inside = |who: Someone| Someone { cgroup: "/docker/0a", ..who };
    host.start(first_parent);
    host.start(inside(someone(10, first_parent.pid, 100)));
    host.start(inside(someone(11, 10, 110)));
    host.start(Someone { cgroup: "/docker/0a/nested", ..someone(12, 5, 120) });
    host.start(someone(20, 1, 130));
    key(10, 100)
}

#[test]
fn everybody_in_the_roots_own_cgroup_belongs_to_it() {
    let host = Host::new();
    let root = container(&host, someone(5, 1, 50));
    let mut trees = host.trees(&[root]);
    check(&trees, root, &[10, 11, 12]);
    // Without the root nobody new gets in: the cgroup may be the next one's of the same name.
    host.end(10);
    host.end(11);
    host.start(Someone { cgroup: "/docker/0a", ..someone(30, 5, 300) });
    trees.pass().unwrap();
    check(&trees, root, &[12]);
}

#[test]
fn a_cgroup_with_somebody_older_in_it_is_not_the_roots_own() {
    let host = Host::new();
    let root = container(&host, Someone { cgroup: "/docker/0a", ..someone(5, 1, 50) });
    check(&host.trees(&[root]), root, &[10, 11]);
}

#[test]
fn the_coordinators_cgroup_is_nobodys_own() {
    let host = Host::new();
    let root = container(&host, someone(5, 1, 50));
    let mut trees = Trees::new(Proc::at(host.root.path()));
    trees.coordinator = Some("/docker/0a/gpulease".into());
    trees.declare(root).unwrap();
    trees.pass().unwrap();
    check(&trees, root, &[10, 11]);
}

#[test]
fn a_pass_that_cannot_see_everybody_changes_nothing() {
    let host = Host::new();
    host.start(someone(10, 1, 100));
    let mut trees = host.trees(&[key(10, 100)]);
    host.end(1);
    host.end(10);
    assert!(matches!(trees.pass(), Err(PassError::Hidden)));
    check(&trees, key(10, 100), &[10]);
    drop(host);
    assert!(matches!(trees.pass(), Err(PassError::Unreadable(_))));
}

#[test]
fn a_pass_in_which_somebody_cannot_be_read_changes_nothing() {
    let host = Host::new();
    let root = key(10, 100);
    host.start(someone(10, 1, 100));
    let mut trees = host.trees(&[root]);
    // A directory opens and does not read: one of the errors that say nothing of the process.
    let stat = host.directory(10).join("stat");
    fs::remove_file(&stat).unwrap();
    fs::create_dir(&stat).unwrap();
    assert!(matches!(trees.pass(), Err(PassError::ProcessUnreadable { pid: 10, .. })));
    check(&trees, root, &[10]);
}

#[test]
fn a_real_child_is_a_member_and_a_real_end_is_seen() {
    let mut child = std::process::Command::new("sh")
        .args(["-c", "read line; true"])
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let proc = Proc::default();
    let root = proc.key(child.id()).unwrap().unwrap();
    let mut trees = Trees::new(proc);
    trees.declare(root).unwrap();
    trees.pass().unwrap();
    assert_eq!(trees.lives(root), Some(true));
    drop(child.stdin.take());
    child.wait().unwrap();
    trees.pass().unwrap();
    assert_eq!(trees.lives(root), Some(false));
}
