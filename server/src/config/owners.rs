//! Who owns which devices, as one line: `transcription=node:alpha;llm=model:H100,uuid:GPU-7d1f`.
//!
//! Each entry names a service and what it owns: `all`, or a list of `uuid:`, `model:` and `node:`. Several of one kind
//! mean any of them; several kinds must all hold. The first entry that matches a device owns it.

use gpulease_core::{
    id::{NAME_BYTES_MAX, Name},
    policy::Owner,
    request::LABEL_BYTES_MAX,
};

/// The most entries: a device is looked up among them one by one.
const OWNERS_MAX: usize = 256;

/// What would do, in words.
pub(super) const FORM: &str =
    "entries SERVICE=all or SERVICE=uuid:U,model:M,node:N with ; between them, at most 256";

/// Reads a line; `None`: it is none.
pub(super) fn parse(text: &str) -> Option<Vec<Owner>> {
    let entries = text.split(';').map(str::trim).filter(|entry| !entry.is_empty());
    let owners: Option<Vec<Owner>> = entries.map(entry).collect();
    owners.filter(|owners| owners.len() <= OWNERS_MAX)
}

fn entry(text: &str) -> Option<Owner> {
    let (service, owned) = text.split_once('=')?;
    let service = name(service, LABEL_BYTES_MAX)?;
    let mut owner = Owner { service, devices: Vec::new(), models: Vec::new(), nodes: Vec::new() };
    if owned.trim() == "all" {
        return Some(owner);
    }
    for selector in owned.split(',') {
        let (kind, value) = selector.trim().split_once(':')?;
        let list = match kind {
            "uuid" => &mut owner.devices,
            "model" => &mut owner.models,
            "node" => &mut owner.nodes,
            _ => return None,
        };
        list.push(name(value, NAME_BYTES_MAX)?);
    }
    Some(owner)
}

fn name(text: &str, max: usize) -> Option<Name> {
    let text = text.trim();
    let fits = !text.is_empty() && text.len() <= max && !text.chars().any(char::is_control);
    fits.then(|| Name::new(text))
}

/// The line that reads back as the same.
pub(super) fn show(owners: &[Owner]) -> String {
    let entry = |owner: &Owner| {
        let lists = [("uuid", &owner.devices), ("model", &owner.models), ("node", &owner.nodes)];
        let selectors: Vec<String> = (lists.iter())
            .flat_map(|(kind, list)| list.iter().map(move |name| format!("{kind}:{name}")))
            .collect();
        let owned = if selectors.is_empty() { "all".to_owned() } else { selectors.join(",") };
        format!("{}={owned}", owner.service)
    };
    owners.iter().map(entry).collect::<Vec<_>>().join(";")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, shown: Option<&str>) {
        assert_eq!(parse(text).map(|owners| show(&owners)).as_deref(), shown, "{text}");
    }

    #[test]
    fn owners_read_back_as_they_are_shown() {
        check("transcription=all", Some("transcription=all"));
        check(
            "a=uuid:GPU-1, uuid:GPU-2 ; b=model:H100,node:n1",
            Some("a=uuid:GPU-1,uuid:GPU-2;b=model:H100,node:n1"),
        );
        check("", Some(""));
    }

    #[test]
    fn what_names_no_service_or_no_devices_is_refused() {
        for text in ["=all", "a", "a=", "a=GPU-1", "a=slot:1", "a=uuid:"] {
            check(text, None);
        }
        check(&"a=all;".repeat(OWNERS_MAX + 1), None);
    }
}
