//! Addresses on the PCI bus, and whether what is there sleeps.
//!
//! Promises: addresses are compared as numbers, so that `0000:65:00.0` and NVML's `00000000:65:00.0` are one; and
//! looking whether a device sleeps does not wake it.

use std::{fmt, path::Path, str::FromStr};

/// Where a device is on the PCI bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PciAddress {
    /// The domain.
    pub domain: u32,
    /// The bus.
    pub bus: u8,
    /// The device on it.
    pub device: u8,
    /// Its function.
    pub function: u8,
}

/// A text that is no address on the PCI bus.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no PCI address: write DOMAIN:BUS:DEVICE.FUNCTION in hexadecimal digits, such as 0000:65:00.0"
)]
pub struct BadPciAddress(String);

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { domain, bus, device, function } = self;
        write!(f, "{domain:04x}:{bus:02x}:{device:02x}.{function:x}")
    }
}

impl FromStr for PciAddress {
    type Err = BadPciAddress;

    fn from_str(text: &str) -> Result<Self, BadPciAddress> {
        parse(text).ok_or_else(|| BadPciAddress(text.chars().take(64).collect()))
    }
}

/// A missing function is 0, as the devices here are.
fn parse(text: &str) -> Option<PciAddress> {
    let (rest, function) = text.split_once('.').unwrap_or((text, "0"));
    let mut parts = rest.split(':');
    let domain = hex(parts.next()?)?;
    let bus = u8::try_from(hex(parts.next()?)?).ok()?;
    let device = u8::try_from(hex(parts.next()?)?).ok().filter(|device| *device < 32)?;
    let function = u8::try_from(hex(function)?).ok().filter(|function| *function < 8)?;
    parts.next().is_none().then_some(PciAddress { domain, bus, device, function })
}

/// `from_str_radix` takes a sign, which an address has not.
fn hex(digits: &str) -> Option<u32> {
    let plain = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    plain.then(|| u32::from_str_radix(digits, 16).ok())?
}

/// Whether the kernel says that the device at this address is suspended, or about to be. What has no such file, or
/// cannot be read, is awake.
pub(crate) fn asleep(sysfs_root: &Path, address: PciAddress) -> bool {
    let path = sysfs_root.join(format!("bus/pci/devices/{address}/power/runtime_status"));
    let status = std::fs::read_to_string(path).unwrap_or_default();
    matches!(status.trim(), "suspended" | "suspending")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<&str>) {
        let parsed: Option<PciAddress> = text.parse().ok();
        assert_eq!(parsed.map(|address| address.to_string()).as_deref(), expected, "{text}");
    }

    #[test]
    fn an_address_is_read_in_every_usual_form() {
        check("00000000:65:00.0", Some("0000:65:00.0"));
        check("0000:65:1F.7", Some("0000:65:1f.7"));
        check("10000:01:00", Some("10000:01:00.0"));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in ["", "65:00.0", "0000:65:00.8", "0000:65:20.0", "0000:100:00.0", "0:+1:0.0"] {
            check(text, None);
        }
    }

    #[test]
    fn addresses_are_ordered_as_numbers() {
        let address = |text: &str| text.parse::<PciAddress>().unwrap();
        assert!(address("0:9:0.0") < address("0:10:0.0"));
        assert!(address("ffff:ff:1f.0") < address("10000:00:00.0"));
        assert_eq!(address("00000000:65:00.0"), address("0:65:0"));
    }

    #[test]
    fn a_suspended_device_sleeps_and_an_unknown_one_does_not() {
        let root = tempfile::tempdir().unwrap();
        let address: PciAddress = "0000:65:00.0".parse().unwrap();
        assert!(!asleep(root.path(), address));
        let power = root.path().join("bus/pci/devices/0000:65:00.0/power");
        std::fs::create_dir_all(&power).unwrap();
        for (status, expected) in
            [("suspended\n", true), ("suspending\n", true), ("active\n", false), ("", false)]
        {
            std::fs::write(power.join("runtime_status"), status).unwrap();
            assert_eq!(asleep(root.path(), address), expected, "{status:?}");
        }
    }
}
