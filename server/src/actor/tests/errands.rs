//! Errands leave after the commit, and the declared processes are known before anything else (P3, P6, P7).

use std::sync::Mutex;

use gpulease_core::request::Process;

use super::{gate::Watched, *};
use crate::journal::Opened;

/// What was wanted, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Errand {
    Check(String, u64),
    Track(u32),
    Quiesce(String, bool),
}

#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Vec<Errand>>>);

impl Recorder {
    fn told(&self) -> Vec<Errand> {
        self.0.lock().unwrap().clone()
    }

    fn take(&self) -> Vec<Errand> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    fn note(&self, errand: Errand) {
        self.0.lock().unwrap().push(errand);
    }
}

impl Errands for Recorder {
    fn check(&self, node: &Name, device: &Name, number: u64) {
        assert_eq!(node.as_str(), "beta");
        self.note(Errand::Check(device.to_string(), number));
    }

    fn quiesce(&self, node: &Name, quiesced: bool) {
        self.note(Errand::Quiesce(node.to_string(), quiesced));
    }

    fn track(&self, process: Process) {
        self.note(Errand::Track(process.pid));
    }
}

/// A node whose device has a driver: what was given back is checked.
fn driven(rig: &mut Rig) {
    let node = NodeFacts {
        name: "beta".into(),
        boot_id: "first".into(),
        labels: BTreeMap::new(),
        host_cpu_millis: 8_000,
        host_memory_bytes: 64 * GIB,
    };
    let facts = DeviceFacts { uuid: "GPU-0".into(), answers_at_once: false, ..facts(0) };
    let devices = vec![DeviceReport { facts: Arc::new(facts), lost: None }];
    rig.handle.tell(Input::Observed { node: Arc::new(node), devices });
    let memory = Some(MemoryReport::Pass { used_bytes: 0, processes: Vec::new() });
    let samples = vec![DeviceSample { uuid: "GPU-0".into(), memory, check: 0 }];
    rig.handle.tell(Input::Sampled { node: "beta".into(), samples, trees: None });
    rig.settle().unwrap();
}

fn declared(request_id: &str, pid: u32) -> RequestFields {
    let device_allow = vec!["GPU-0".into()];
    RequestFields {
        constraints: Constraints { device_allow, ..Constraints::default() },
        process: Some(Process { pid, started_ticks: 1 }),
        ..request(request_id, GIB)
    }
}

fn grant(rig: &mut Rig, fields: RequestFields) -> LeaseView {
    let mut answered = rig.acquire(fields);
    rig.settle().unwrap();
    lease_of(answered.try_recv().unwrap())
}

fn release(rig: &mut Rig, lease: &LeaseView) -> Answered {
    let (lease, token) = (lease.id, Some(lease.token));
    rig.call(|caller, ticket| Input::Release { caller, ticket, lease, token, holder: None })
}

#[test]
fn checks_and_declared_processes_leave_only_after_the_commit() {
    let Opened { journal, snapshot, batches } = Disk::new().open().unwrap();
    let recorder = Recorder::default();
    let seen_by_the_journal: Arc<Mutex<Vec<Vec<Errand>>>> = Arc::default();
    let look = {
        let (recorder, seen) = (recorder.clone(), Arc::clone(&seen_by_the_journal));
        move || seen.lock().unwrap().push(recorder.told())
    };
    let journal = Watched { inner: journal, look: Box::new(look) };
    let errands = Arc::new(recorder.clone());
    let mut rig = Rig::with_errands(Opened { journal, snapshot, batches }, errands);
    driven(&mut rig);
    seen_by_the_journal.lock().unwrap().clear();
    let lease = grant(&mut rig, declared("one", 7));
    assert_eq!(recorder.take(), [Errand::Track(7)]);
    drop(release(&mut rig, &lease));
    rig.settle().unwrap();
    assert_eq!(recorder.take(), [Errand::Check("GPU-0".to_owned(), 1)]);
    assert_eq!(*seen_by_the_journal.lock().unwrap(), [[], []], "none while it still wrote");
}

#[test]
fn after_a_failed_commit_no_errand_leaves() {
    let disk = Disk::new();
    let recorder = Recorder::default();
    let mut rig = Rig::with_errands(disk.open().unwrap(), Arc::new(recorder.clone()));
    driven(&mut rig);
    let lease = grant(&mut rig, declared("one", 7));
    recorder.take();
    disk.fail_after(0);
    drop(rig.acquire(declared("two", 8)));
    drop(release(&mut rig, &lease));
    rig.settle().unwrap_err();
    assert_eq!(recorder.take(), []);
}

#[test]
fn at_a_start_the_declared_processes_are_known_before_anything_else() {
    let disk = Disk::new();
    let mut rig = Rig::with_errands(disk.open().unwrap(), Arc::new(NoErrands));
    driven(&mut rig);
    let held = grant(&mut rig, declared("held", 7));
    let given_back = grant(&mut rig, declared("given back", 8));
    drop(grant(&mut rig, request("undeclared", GIB)));
    drop(release(&mut rig, &given_back));
    rig.settle().unwrap();
    drop(rig);
    let recorder = Recorder::default();
    let opened = disk.open().unwrap();
    let setup = Setup { errands: Arc::new(recorder.clone()), ..setup(opened) };
    let assembled = run::assemble(setup).unwrap();
    assert_eq!(recorder.take(), [Errand::Track(7), Errand::Track(8)], "held, and closed");
    drop(assembled);
    let mut rig = Rig::with_errands(disk.open().unwrap(), Arc::new(recorder.clone()));
    driven(&mut rig);
    rig.pass(Span::from_secs(1));
    let told = recorder.take();
    assert_eq!(told[..2], [Errand::Track(7), Errand::Track(8)], "before any check");
    assert!(
        told[2..].iter().all(|it| matches!(it, Errand::Check(..))) && told.len() > 2,
        "{told:?}"
    );
    assert!(is_active(&rig, held.id));
}
