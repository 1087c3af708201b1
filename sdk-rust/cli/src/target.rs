//! Devices and nodes as people name them: a UUID, a place like `box/0` as the tables show it, or a node's name.
//!
//! Leaves to others: whether there is such a device or node; the coordinator says so.

use gpulease::{Client, DeviceInfo, Target};

use crate::failure::Failure;

/// A device or node, with all devices that are known.
pub(crate) struct Named {
    pub(crate) target: Target,
    pub(crate) devices: Vec<DeviceInfo>,
}

impl Named {
    /// Finds a device or a node.
    pub(crate) async fn of(client: &Client, word: &str) -> Result<Self, Failure> {
        let devices = client.devices().await?.items;
        let target = target(word, &devices);
        Ok(Self { target, devices })
    }

    /// Those of the devices that are meant.
    pub(crate) fn own_devices(&self) -> impl Iterator<Item = &DeviceInfo> {
        self.devices.iter().filter(|device| concerns(&self.target, device))
    }
}

/// Whether a device is meant, or stands on the node that is.
pub(crate) fn concerns(target: &Target, device: &DeviceInfo) -> bool {
    match target {
        Target::Device(uuid) => device.uuid == *uuid,
        Target::Node(node) => device.node == *node,
        _ => false,
    }
}

/// The UUID of a device that is named by it or by its place.
pub(crate) fn uuid(word: &str, devices: &[DeviceInfo]) -> String {
    let places = devices.iter().map(|device| (device, place(&device.node, device.index)));
    let found = places.into_iter().find(|(_, place)| place == word);
    found.map_or_else(|| word.to_owned(), |(device, _)| device.uuid.clone())
}

fn target(word: &str, devices: &[DeviceInfo]) -> Target {
    let uuid = uuid(word, devices);
    // No node's name has a slash, so what is not found was meant to be a device.
    if devices.iter().any(|device| device.uuid == uuid) || word.contains('/') {
        Target::Device(uuid)
    } else {
        Target::Node(word.to_owned())
    }
}

fn place(node: &str, index: u32) -> String {
    format!("{node}/{index}")
}
