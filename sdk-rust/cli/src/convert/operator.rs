//! Cordons, and the processes on devices.

use gpulease::{DeviceInfo, DeviceProcess};

use crate::view;

impl From<&gpulease::Cordon> for view::Cordon {
    fn from(cordon: &gpulease::Cordon) -> Self {
        Self { node: cordon.node, drain: cordon.drain, reason: cordon.reason.clone() }
    }
}

/// A process, with the place of its device among the devices that are known.
pub(crate) fn process(process: &DeviceProcess, devices: &[DeviceInfo]) -> view::DeviceProcess {
    let device = devices.iter().find(|device| device.uuid == process.device_uuid);
    view::DeviceProcess {
        pid: process.process.pid,
        started_ticks: process.process.started_ticks,
        uid: process.uid,
        user: process.user.clone(),
        command: process.command.clone(),
        memory_bytes: process.memory_bytes,
        node: process.node.clone(),
        index: device.map(|device| device.index),
        device_uuid: process.device_uuid.clone(),
        lease_id: process.lease_id.map(|id| id.to_string()),
        root_pid: process.root.map(|root| root.pid),
    }
}
