//! From a notice to the next grant: pause, acknowledge, wait, go on.
//!
//! | what happens | what is done |
//! |---|---|
//! | a notice | the work pauses; when it has, the notice is acknowledged |
//! | the pause fails | the notice stays unanswered, and the work is stopped at its deadline unless it is withdrawn |
//! | devices again | the work is told which, and goes on; it never goes on with others than it knows of |
//! | the devices are lost | the work pauses as for a notice, within the time for which nobody else gets them |

use std::future::pending;
use std::time::{Duration, Instant};

use gpulease::{Grant, Lease, LeaseStatus, LostReason, Notice};
use nix::sys::signal::Signal;
use rustix::process::Pid;
use tokio::time::timeout;

use super::hook;
use super::way::{Pauses, Way};
use super::worker::Worker;
use crate::environment::{self, Variables};
use crate::options::Context;
use crate::run::tree::Children;
use crate::told::{self, Teller, Told};
use crate::view;

/// How long a pause may take for devices that are lost: they stay closed for the lock delay (15 s).
const LOST_PAUSE_MAX: Duration = Duration::from_secs(10);

/// Gives way for one process under one lease.
pub(crate) struct Pauser<'a> {
    pub(crate) context: &'a Context,
    pub(crate) way: &'a Way,
    pub(crate) lease: &'a Lease,
    pub(crate) worker: Worker,
    /// The children of this program, to which hooks belong while they run.
    pub(crate) children: Children,
    /// What the process is called in messages.
    pub(crate) what: &'static str,
}

/// Why giving way is over.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The lease is over.
    Lost(LostReason),
    /// A notice came, and the lease may only end.
    Asked(Notice),
    /// The lease is there, and the work cannot go on with it.
    Stuck(String),
}

/// What is asked of the work.
enum Asked {
    Notice(Notice),
    DevicesLost,
}

impl Pauser<'_> {
    /// Gives way whenever that is asked, until the work is to be stopped for good.
    pub(crate) async fn give_way(&self, mut grant: Grant) -> Outcome {
        loop {
            let turn = async {
                let asked = self.asked(&grant).await;
                self.answer(&asked, &grant).await
            };
            let next = tokio::select! {
                biased;
                lost = self.lease.lost() => return Outcome::Lost(lost),
                next = turn => next,
            };
            grant = match next {
                Ok(grant) => grant,
                Err(outcome) => return outcome,
            };
        }
    }

    /// Waits until a notice stands, or the grant is no longer the lease's.
    async fn asked(&self, grant: &Grant) -> Asked {
        let mut changes = self.lease.changes();
        loop {
            let status = self.lease.status();
            if status == LeaseStatus::Paused || self.lease.fencing_token() != grant.fencing_token {
                return Asked::DevicesLost;
            }
            if let LeaseStatus::Pausing(notice) = status {
                return Asked::Notice(notice);
            }
            if changes.next().await.is_none() {
                return pending().await;
            }
        }
    }

    async fn answer(&self, asked: &Asked, grant: &Grant) -> Result<Grant, Outcome> {
        let pauses = match (self.way, asked) {
            (Way::Pause(pauses), _) => pauses,
            (Way::End, Asked::Notice(notice)) => return Err(Outcome::Asked(notice.clone())),
            // Leases of other modes end when their devices are lost, and get no notice.
            (Way::End | Way::Never, _) => return pending().await,
        };
        let began = Instant::now();
        match asked {
            Asked::Notice(notice) => {
                self.teller().tell(&Told::Noticed { notice: notice.into() });
                if let Err(why) = self.pause(pauses, Some(notice), grant).await {
                    return self.unanswered(&why, notice, pauses, grant).await;
                }
            }
            Asked::DevicesLost => {
                self.teller().tell(&Told::DevicesLost);
                let paused = timeout(LOST_PAUSE_MAX, self.pause(pauses, None, grant)).await;
                let why = match paused {
                    Ok(Ok(())) => None,
                    Ok(Err(why)) => Some(why),
                    Err(_) => Some(format!("it took more than {LOST_PAUSE_MAX:?}")),
                };
                if let Some(why) = why {
                    let stuck = format!("its devices are lost, and pausing failed: {why}");
                    return Err(Outcome::Stuck(stuck));
                }
            }
        }
        let paused_at = Instant::now();
        let next = self.next_grant(paused_at.duration_since(began)).await;
        if next.fencing_token == grant.fencing_token {
            self.teller().tell(&Told::NoticeWithdrawn);
        } else {
            self.teller().tell(&told::resumed(&next, Some(paused_at.elapsed())));
        }
        self.go_on(pauses, grant, &next).await.map_err(Outcome::Stuck)?;
        Ok(next)
    }

    /// Acknowledges, says so, and waits for devices.
    async fn next_grant(&self, took: Duration) -> Grant {
        let turn = self.lease.turn();
        tokio::pin!(turn);
        let told = Told::Paused { took_seconds: Some(took.as_secs_f64()) };
        let turn = tokio::select! {
            biased;
            Ok(()) = self.lease.paused() => {
                self.teller().tell(&told);
                turn.await
            }
            turn = &mut turn => turn,
        };
        match turn {
            Ok(turn) => turn.grant().clone(),
            // The lease is over, which whoever polls this is told as well.
            Err(_) => pending().await,
        }
    }

    /// A notice that could not be answered: the work goes on if it is withdrawn, since part of the pause may be done.
    async fn unanswered(
        &self,
        why: &str,
        notice: &Notice,
        pauses: &Pauses,
        grant: &Grant,
    ) -> Result<Grant, Outcome> {
        self.context.output.warn(&format!(
            "lease {}: notice {} stays unanswered, since pausing failed: {why}; its devices are taken at its \
             deadline unless it is withdrawn",
            self.lease.id(),
            notice.id
        ));
        let mut changes = self.lease.changes();
        while self.lease.notice().is_some_and(|standing| standing.id == notice.id) {
            if changes.next().await.is_none() {
                return pending().await;
            }
        }
        if self.lease.is_lost() {
            return pending().await;
        }
        // A lease that paused, or that was resumed with a new grant, has no notice either: what it asks for comes next.
        let goes_on =
            matches!(self.lease.status(), LeaseStatus::Active | LeaseStatus::Uncertain { .. });
        if goes_on && self.lease.fencing_token() == grant.fencing_token {
            self.teller().tell(&Told::NoticeWithdrawn);
            self.go_on(pauses, grant, grant).await.map_err(Outcome::Stuck)?;
        }
        Ok(grant.clone())
    }

    async fn pause(
        &self,
        pauses: &Pauses,
        notice: Option<&Notice>,
        grant: &Grant,
    ) -> Result<(), String> {
        self.worker.set_aside();
        if let Some(command) = &pauses.on_pause {
            let mut variables = self.variables(grant);
            if let Some(notice) = notice {
                let seconds = notice.remaining.as_secs().to_string();
                variables.insert("GPULEASE_NOTICE_ID".to_owned(), notice.id.to_string());
                variables.insert("GPULEASE_NOTICE_SECONDS".to_owned(), seconds);
            }
            self.hook("--on-pause", command, &variables).await?;
            if let Some(signal) = pauses.pause_signal {
                self.worker.signal(signal);
                if stops(signal) {
                    self.worker.has_stopped().await;
                }
            }
        } else if let Some(signal) = pauses.pause_signal {
            self.worker.stop_by(signal).await?;
        }
        self.worker.paused();
        Ok(())
    }

    /// Lets the work go on; with other devices only where it can be told.
    async fn go_on(&self, pauses: &Pauses, before: &Grant, now: &Grant) -> Result<(), String> {
        if pauses.on_resume.is_none() && !same_devices(before, now) {
            return Err(format!(
                "it was resumed on other devices, which {} cannot be told: give --on-resume CMD, or --device UUID \
                 to wait for the same ones",
                self.what
            ));
        }
        // The signal first: a process that is stopped answers no hook.
        if let Some(signal) = pauses.resume_signal {
            self.worker.signal(signal);
        }
        if let Some(command) = &pauses.on_resume {
            self.hook("--on-resume", command, &self.variables(now)).await?;
        }
        self.worker.bring_back();
        Ok(())
    }

    async fn hook(&self, name: &str, command: &str, variables: &Variables) -> Result<(), String> {
        let ended = hook::run(&self.context.program, &self.children, command, variables).await;
        match ended {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("the command of {name} ended with {status}")),
            Err(error) => Err(format!("the command of {name} cannot be run: {error}")),
        }
    }

    fn variables(&self, grant: &Grant) -> Variables {
        let devices: Vec<view::DeviceShare> = grant.devices.iter().map(Into::into).collect();
        let mut variables = environment::variables(
            &environment::Grant {
                endpoint: &self.context.endpoint,
                lease_id: self.lease.id(),
                fencing_token: grant.fencing_token,
                devices: &devices,
            },
            &environment::host_name(),
        );
        let pid = Pid::as_raw_pid(self.worker.id()).to_string();
        variables.insert("GPULEASE_CHILD_PID".to_owned(), pid);
        variables
    }

    fn teller(&self) -> Teller {
        Teller::beside(self.context.output, self.lease.id())
    }
}

/// Whether a process that does not handle a signal is stopped by it.
fn stops(signal: Signal) -> bool {
    matches!(signal, Signal::SIGSTOP | Signal::SIGTSTP | Signal::SIGTTIN | Signal::SIGTTOU)
}

/// Whether two grants are of the same devices, in the same order: that is how a process counts them.
fn same_devices(one: &Grant, other: &Grant) -> bool {
    let uuids =
        |grant: &Grant| grant.devices.iter().map(|it| it.uuid.clone()).collect::<Vec<String>>();
    uuids(one) == uuids(other)
}
