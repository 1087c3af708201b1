//! What each service may have: the tables `[services.NAME]` of the file, and `[services."*"]` for all that have none.
//!
//! A key that a table leaves out has its default there, whatever `"*"` says: a service with a table has nothing but that.

use std::fmt::Write;

use gpulease_core::{
    id::{NAME_BYTES_MAX, Name},
    policy::{Policy, ServicePolicy, WEIGHT_MAX},
    request::{LABEL_BYTES_MAX, MEMORY_BYTES_MAX},
};

use super::value::{Raw, count, quoted, show_size, size, text, unless, within};

/// The name of the table of tables.
pub(super) const TABLE: &str = "services";
/// The table of all services that have none of their own.
pub(super) const OTHERS: &str = "*";
/// The most tables: each takes some 300 bytes, and more services than these are never known at once.
pub(super) const TABLES_MAX: usize = 65_536;
/// The largest number of a quota: more leases than there can ever be.
const COUNT_MAX: u64 = 1_000_000_000;
/// What a name must be.
pub(super) const NAME_FORM: &str = "a table named by a service of 1 to 128 bytes, or by \"*\" for all others; at most 65536 of them";

/// One key of such a table.
pub(super) struct ServiceKey {
    /// Its path, with `NAME` for the service.
    path: &'static str,
    /// What it does; a sentence for the reference.
    meaning: &'static str,
    field: Field,
}

/// What it holds, and where.
enum Field {
    Weight,
    Count(fn(&mut ServicePolicy) -> &mut Option<u64>),
    Size(fn(&mut ServicePolicy) -> &mut Option<u64>),
    Device,
}

#[rustfmt::skip]
static KEYS: &[ServiceKey] = &[
    ServiceKey { path: "services.NAME.weight", field: Field::Weight,
        meaning: "Of services that compete, one with twice the weight gets twice as much." },
    ServiceKey { path: "services.NAME.leases_max", field: Field::Count(|it| &mut it.leases_max),
        meaning: "The most leases that hold devices at once." },
    ServiceKey { path: "services.NAME.devices_max", field: Field::Count(|it| &mut it.devices_max),
        meaning: "The most devices that they hold; one that two leases share counts twice." },
    ServiceKey { path: "services.NAME.memory_max", field: Field::Size(|it| &mut it.memory_max_bytes),
        meaning: "The most device memory of all its leases together; a whole device counts all of it, slots their share." },
    ServiceKey { path: "services.NAME.waiting_max", field: Field::Count(|it| &mut it.waiting_max),
        meaning: "The most requests that wait at once; further ones are refused." },
    ServiceKey { path: "services.NAME.lease_memory_min", field: Field::Size(|it| &mut it.lease_memory_min_bytes),
        meaning: "The least that one lease may take of each of its devices." },
    ServiceKey { path: "services.NAME.lease_memory_max", field: Field::Size(|it| &mut it.lease_memory_max_bytes),
        meaning: "The most that one lease may take of each of its devices." },
    ServiceKey { path: "services.NAME.preferred_device", field: Field::Device,
        meaning: "The device, by UUID, that requests prefer which name none." },
];

/// The key of this name.
pub(super) fn find(name: &str) -> Option<&'static ServiceKey> {
    KEYS.iter().find(|key| key.name() == name)
}

/// The path of the key most like a name that is none.
pub(super) fn nearest(name: &str) -> Option<&'static str> {
    let likeness = |key: &&ServiceKey| strsim::jaro_winkler(name, key.name());
    let most = KEYS.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(&most) > 0.75).then_some(most.path)
}

/// The service of a table's name; `None`: it cannot be one.
pub(super) fn service(name: &str) -> Option<Name> {
    let good =
        !name.is_empty() && name.len() <= LABEL_BYTES_MAX && !name.chars().any(char::is_control);
    good.then(|| Name::new(name))
}

/// Puts a table in force.
pub(super) fn settle(policy: &mut Policy, service: Name, settings: ServicePolicy) {
    if service.as_str() == OTHERS {
        policy.services_default = settings;
    } else {
        policy.services.insert(service, settings);
    }
}

impl ServiceKey {
    /// Its name within the table.
    fn name(&self) -> &'static str {
        self.path.rsplit('.').next().unwrap_or(self.path)
    }

    /// Reads a value into its place; the error says what would do.
    pub(super) fn set(&self, settings: &mut ServicePolicy, raw: &Raw) -> Result<(), String> {
        self.try_set(settings, raw).ok_or_else(|| self.form())?;
        match (settings.lease_memory_min_bytes, settings.lease_memory_max_bytes) {
            (Some(min), Some(max)) if min > max => {
                let (min, max) = (show_size(min), show_size(max));
                Err(format!(
                    "such that lease_memory_min ({min}) is at most lease_memory_max ({max})"
                ))
            }
            _ => Ok(()),
        }
    }

    fn try_set(&self, settings: &mut ServicePolicy, raw: &Raw) -> Option<()> {
        match self.field {
            Field::Weight => {
                settings.weight = within(u32::try_from(count(raw)?).ok()?, 1, WEIGHT_MAX)?;
            }
            Field::Count(at) => {
                *at(settings) = unless("none", raw, |raw| within(count(raw)?, 0, COUNT_MAX))?;
            }
            Field::Size(at) => {
                let read = |raw: &Raw| within(size(raw)?, 1, MEMORY_BYTES_MAX);
                *at(settings) = unless("none", raw, read)?;
            }
            Field::Device => settings.preferred_device = unless("none", raw, device)?,
        }
        Some(())
    }

    fn form(&self) -> String {
        match self.field {
            Field::Weight => format!("a number from 1 to {WEIGHT_MAX}"),
            Field::Count(_) => format!("a number from 0 to {COUNT_MAX}, or none"),
            Field::Size(_) => {
                format!("a size such as 8GiB, from 1B to {}, or none", show_size(MEMORY_BYTES_MAX))
            }
            Field::Device => format!("a UUID of at most {NAME_BYTES_MAX} bytes, or none"),
        }
    }

    fn show(&self, settings: &mut ServicePolicy) -> String {
        let none = || quoted("none");
        match self.field {
            Field::Weight => settings.weight.to_string(),
            Field::Count(at) => at(settings).map_or_else(none, |number| number.to_string()),
            Field::Size(at) => at(settings).map_or_else(none, |bytes| quoted(&show_size(bytes))),
            Field::Device => {
                let device = settings.preferred_device.as_ref();
                device.map_or_else(none, |device| quoted(device.as_str()))
            }
        }
    }
}

fn device(raw: &Raw) -> Option<Name> {
    text(raw).filter(|text| text.len() <= NAME_BYTES_MAX).map(Name::new)
}

/// The reference of all keys, then every table that is in force.
pub(super) fn print(policy: &Policy, comment: fn(&mut String, &str)) -> String {
    let mut printed = String::from("\n");
    comment(
        &mut printed,
        "What each service may have: a table [services.NAME] for each, and [services.\"*\"] for all that have none. What a \
         table leaves out has its default. Tables stand in the file alone, not in the environment.",
    );
    let mut default = ServicePolicy::default();
    for key in KEYS {
        let (name, meaning, form) = (key.name(), key.meaning, key.form());
        let default = key.show(&mut default);
        comment(&mut printed, &format!("{name}: {meaning} Form: {form}. Default: {default}."));
    }
    let others = (policy.services_default != default).then(|| Name::new(OTHERS));
    let others = others.iter().map(|name| (name, &policy.services_default));
    for (name, settings) in others.chain(&policy.services) {
        let (name, mut settings) = (quoted(name.as_str()), settings.clone());
        let lines =
            KEYS.iter().map(|key| format!("{} = {}\n", key.name(), key.show(&mut settings)));
        let lines: String = lines.collect();
        write!(printed, "\n[services.{name}]\n{lines}").expect("writing to a string cannot fail");
    }
    printed
}
