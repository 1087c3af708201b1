//! The environment that tells a program which devices it holds.
//!
//! Promises: `CUDA_VISIBLE_DEVICES` names devices by UUID, so that it means the same whatever order a
//! driver lists them in; variables of a vendor that the lease has no device of are named for removal, so
//! that a value inherited from the caller cannot point at somebody else's device.
//! Leaves to others: setting it (`verb::run`) and printing it (`verb::acquire`).

use std::collections::BTreeMap;

use crate::view::DeviceShare;

/// The variables to set, by name.
pub(crate) type Variables = BTreeMap<String, String>;

/// All variables by which a driver chooses its devices: whatever a lease does not set is removed.
pub(crate) const DEVICE_VARIABLES: [&str; 4] =
    ["CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"];

/// A granted lease, as far as its environment is concerned.
pub(crate) struct Grant<'a> {
    pub(crate) endpoint: &'a str,
    pub(crate) lease_id: u64,
    pub(crate) fencing_token: u64,
    pub(crate) devices: &'a [DeviceShare],
}

/// The variables of a lease.
///
/// A lease over several nodes lists the devices of `host` only, where `host` is one of them: a process
/// can use no others, and CUDA stops reading at the first UUID that it does not know.
pub(crate) fn variables(grant: &Grant<'_>, host: &str) -> Variables {
    let here = devices_here(grant.devices, host);
    let (amd, other): (Vec<&DeviceShare>, Vec<&DeviceShare>) =
        here.into_iter().partition(|device| device.vendor.eq_ignore_ascii_case("amd"));
    let mut variables = Variables::new();
    let mut set = |name: &str, value: String| variables.insert(name.to_owned(), value);
    if !other.is_empty() {
        set("CUDA_DEVICE_ORDER", "PCI_BUS_ID".to_owned());
        set("CUDA_VISIBLE_DEVICES", joined(&other, |device| device.uuid.clone()));
    }
    if !amd.is_empty() {
        // HIP documents indices; that it also takes UUIDs holds for newer releases only.
        set("HIP_VISIBLE_DEVICES", joined(&amd, |device| device.index.to_string()));
    }
    set("GPULEASE_ENDPOINT", grant.endpoint.to_owned());
    set("GPULEASE_FENCING_TOKEN", grant.fencing_token.to_string());
    set("GPULEASE_LEASE_ID", grant.lease_id.to_string());
    variables
}

/// The name of this host, as a node that runs here would be called.
pub(crate) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn devices_here<'a>(devices: &'a [DeviceShare], host: &str) -> Vec<&'a DeviceShare> {
    let here: Vec<&DeviceShare> = devices.iter().filter(|device| device.node == host).collect();
    if here.is_empty() { devices.iter().collect() } else { here }
}

fn joined(devices: &[&DeviceShare], name: impl Fn(&DeviceShare) -> String) -> String {
    devices.iter().map(|device| name(device)).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(node: &str, index: u32, vendor: &str) -> DeviceShare {
        DeviceShare {
            uuid: format!("GPU-{node}-{index}"),
            node: node.to_owned(),
            index,
            pci_address: None,
            vendor: vendor.to_owned(),
            model: "X".to_owned(),
            exclusive: true,
            slots: None,
            memory_bytes: None,
        }
    }

    /// The variables of a lease of these devices, seen from host `a`, one `NAME=value` per entry.
    fn check(devices: &[DeviceShare], expected: &[&str]) {
        let grant = Grant { endpoint: "http://h:1", lease_id: 7, fencing_token: 9, devices };
        let variables = variables(&grant, "a");
        let (common, lines): (Vec<String>, Vec<String>) = variables
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .partition(|line| line.starts_with("GPULEASE_"));
        assert_eq!(
            common,
            ["GPULEASE_ENDPOINT=http://h:1", "GPULEASE_FENCING_TOKEN=9", "GPULEASE_LEASE_ID=7"]
        );
        assert_eq!(lines, expected);
    }

    #[test]
    fn nvidia_devices_are_named_by_uuid() {
        check(
            &[device("a", 0, "nvidia"), device("a", 1, "nvidia")],
            &["CUDA_DEVICE_ORDER=PCI_BUS_ID", "CUDA_VISIBLE_DEVICES=GPU-a-0,GPU-a-1"],
        );
    }

    #[test]
    fn amd_devices_are_named_to_hip_and_not_to_cuda() {
        check(&[device("a", 3, "AMD")], &["HIP_VISIBLE_DEVICES=3"]);
    }

    #[test]
    fn a_lease_over_several_nodes_shows_this_hosts_devices() {
        check(
            &[device("b", 0, "nvidia"), device("a", 5, "nvidia")],
            &["CUDA_DEVICE_ORDER=PCI_BUS_ID", "CUDA_VISIBLE_DEVICES=GPU-a-5"],
        );
    }

    #[test]
    fn a_lease_elsewhere_shows_all_its_devices() {
        check(
            &[device("b", 0, "simulated"), device("c", 1, "simulated")],
            &["CUDA_DEVICE_ORDER=PCI_BUS_ID", "CUDA_VISIBLE_DEVICES=GPU-b-0,GPU-c-1"],
        );
    }
}
