//! Simulated nodes and devices: seeded, scriptable, and honest about being simulated (vendor `simulated`).
//!
//! A [`plan::Plan`] says what there is and what happens when; it comes from a text such as `2x24GiB` ([`spec`]) or from
//! a scenario file ([`scenario`], with a commented `example.toml`), and [`Simulation`] plays it.
//! It promises that the same plan, stepped at the same times, reports the same bytes; that UUIDs (`SIM-<node>-<index>`)
//! and boot ids outlive restarts of the coordinator; and that the clock of a scenario is the backend's, so that after
//! a restart the scenario plays again from its start (a node that the script had rebooted has its first boot id again,
//! which the core takes for one more reboot).
//! Devices idle until a load is scripted; that they follow the leases held on them is not simulated.

pub mod plan;
pub mod scenario;
pub mod spec;

mod amount;
mod device;
mod model;
mod noise;
mod run;
mod script;

#[cfg(test)]
mod with_core;

pub use run::Simulation;
