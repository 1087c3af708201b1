//! The short form of a simulation: `2x24GiB`, `8x80GiB:H100`, `4x16GiB:T4,2x80GiB:H100`.
//!
//! It promises that the devices belong to the local host under its own name and boot id, so that a restart of the
//! coordinator finds what it had, and that a bad text is answered with the value and the accepted forms.

use gpulease_core::inventory::NodeFacts;

use super::super::{BackendError, DEVICES_PER_NODE_MAX, DeviceDefaults};
use super::amount::{Size, shown};
use super::plan::{self, DeviceWish, NodePlan, Plan};

/// The longest model, in bytes: real ones, such as `NVIDIA RTX 6000 Ada Generation`, have about 30.
const MODEL_BYTES_MAX: usize = 64;

/// Parses a specification; `host` is asked only if it is good.
///
/// # Errors
/// `Spec` for a bad text, and what `host` fails with.
pub fn parse(
    text: &str,
    host: impl FnOnce() -> Result<NodeFacts, BackendError>,
    defaults: &DeviceDefaults,
) -> Result<Plan, BackendError> {
    let wishes = wishes(text, defaults)
        .map_err(|problem| BackendError::Spec { spec: shown(text), problem })?;
    let facts = host()?;
    let devices = plan::devices(&facts, &wishes, defaults);
    Ok(Plan {
        seed: 0,
        random_utilization: false,
        nodes: vec![NodePlan { facts, devices }],
        events: Vec::new(),
    })
}

fn wishes(text: &str, defaults: &DeviceDefaults) -> Result<Vec<DeviceWish>, String> {
    let mut wishes = Vec::new();
    for part in text.split(',') {
        let (count, wish) = group(part.trim())?;
        if let Some(flaw) = wish.flaw(defaults) {
            return Err(flaw);
        }
        if count > DEVICES_PER_NODE_MAX.saturating_sub(wishes.len()) {
            return Err(format!("a node has at most {DEVICES_PER_NODE_MAX} devices"));
        }
        wishes.resize(wishes.len() + count, wish);
    }
    Ok(wishes)
}

/// `COUNTxSIZE[:MODEL]`.
fn group(text: &str) -> Result<(usize, DeviceWish), String> {
    let short = shown(text);
    let (devices, model) = match text.split_once(':') {
        Some((devices, model)) => (devices, Some(checked_model(model)?)),
        None => (text, None),
    };
    let (count, size) =
        devices.split_once('x').ok_or_else(|| format!("{short:?} has no `x` after a count"))?;
    let is_number = !count.is_empty() && count.bytes().all(|byte| byte.is_ascii_digit());
    let count = count.parse::<usize>().ok().filter(|count| is_number && *count > 0);
    let count = count.ok_or_else(|| format!("the count of {short:?} is no number above 0"))?;
    let memory_total_bytes = size.parse::<Size>()?.0;
    Ok((count, DeviceWish { memory_total_bytes, model, sensors: true, ..Default::default() }))
}

/// A model is a short printable text without the characters that a specification is made of.
pub(super) fn checked_model(model: &str) -> Result<String, String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b" ._-+()".contains(&byte);
    let good =
        !model.trim().is_empty() && model.len() <= MODEL_BYTES_MAX && model.bytes().all(fits);
    if good {
        return Ok(model.to_owned());
    }
    Err(format!(
        "{:?} is no model: 1 to {MODEL_BYTES_MAX} letters, digits, spaces and . _ - + ( )",
        shown(model)
    ))
}

#[cfg(test)]
mod tests {
    use super::super::super::host::tests::alpha;
    use super::*;

    /// Devices as `model memory slots`, or a part of the message.
    fn check(text: &str, expected: Result<&[&str], &str>) {
        let (_root, host) = alpha();
        let plan = parse(text, || host.describe(), &DeviceDefaults::default());
        match (plan, expected) {
            (Ok(plan), Ok(expected)) => {
                let gib = |bytes: u64| bytes >> 30;
                let devices: Vec<String> = plan.nodes[0]
                    .devices
                    .iter()
                    .map(|device| &device.facts)
                    .map(|facts| {
                        format!("{} {} {}", facts.model, gib(facts.memory_total_bytes), facts.slots)
                    })
                    .collect();
                assert_eq!(devices, expected, "{text}");
            }
            (Err(error), Err(expected)) => {
                let message = error.to_string();
                assert!(message.contains(expected), "{text}: {message}");
                assert!(message.contains("8x80GiB:H100"), "no accepted forms: {message}");
                assert!(message.contains(text.get(..8).unwrap_or(text)), "no value: {message}");
                assert!(message.len() < 800, "{message}");
            }
            (plan, expected) => panic!("{text}: expected {expected:?}, found {plan:?}"),
        }
    }

    #[test]
    fn a_specification_names_counts_sizes_and_models() {
        check("2x24GiB", Ok(&["SIM 24 8", "SIM 24 8"]));
        check("1x80GiB:H100", Ok(&["H100 80 16"]));
        check("2x16GiB:T4, 1x80GiB:H100", Ok(&["T4 16 5", "T4 16 5", "H100 80 5"]));
        check("1x24GiB:RTX 6000 Ada", Ok(&["RTX 6000 Ada 24 16"]));
    }

    #[test]
    fn a_bad_specification_is_refused_with_its_value_and_the_accepted_forms() {
        check("", Err("no `x`"));
        check("lots", Err("no `x`"));
        check("24GiB", Err("no `x`"));
        check("x24GiB", Err("count"));
        check("0x24GiB", Err("count"));
        check("-1x24GiB", Err("count"));
        check("+1x24GiB", Err("count"));
        check("99999999999999999999x24GiB", Err("count"));
        check("1025x24GiB", Err("at most 1024"));
        check("1024x24GiB,1x24GiB", Err("at most 1024"));
        check("2x24", Err("\"24\" is not a size"));
        check("2x0GiB", Err("nothing could be granted"));
        check("2x512MiB", Err("nothing could be granted"));
        check("1x2PiB", Err("more than 1 PiB"));
        check("2x24GiB:", Err("no model"));
        check("2x24GiB:A/B", Err("no model"));
        check("2x24GiB,", Err("no `x`"));
        check(&"9".repeat(100_000), Err("no `x`"));
    }

    #[test]
    fn a_device_has_the_documented_defaults() {
        let (_root, host) = alpha();
        let plan = parse("2x24GiB", || host.describe(), &DeviceDefaults::default()).unwrap();
        let facts = &plan.nodes[0].devices[1].facts;
        assert_eq!(facts.uuid.as_str(), "SIM-alpha-1");
        assert_eq!(facts.pci_address.as_ref().unwrap().as_str(), "0000:02:00.0");
        assert_eq!(facts.vendor.as_str(), "simulated");
        assert_eq!(facts.compute_capability, None);
        assert_eq!((facts.memory_driver_bytes, facts.memory_limit_bytes), (0, None));
        assert_eq!(facts.memory_reserve_bytes, 512 << 20);
        assert!(facts.answers_at_once);
    }

    #[test]
    fn a_known_model_has_its_compute_capability_and_configured_defaults_hold() {
        let (_root, host) = alpha();
        let defaults = DeviceDefaults {
            slots: Some(100),
            memory_reserve_bytes: 1 << 30,
            memory_limit_bytes: Some(60 << 30),
        };
        let plan = parse("1x80GiB:H100", || host.describe(), &defaults).unwrap();
        let facts = &plan.nodes[0].devices[0].facts;
        assert_eq!(facts.compute_capability, Some((9, 0)));
        assert_eq!((facts.slots, facts.memory_reserve_bytes), (100, 1 << 30));
        assert_eq!(facts.memory_ceiling_bytes(), 60 << 30);
    }
}
