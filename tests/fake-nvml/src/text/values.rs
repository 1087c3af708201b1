//! How the parts of the state stand in text.

use super::{Json, Told, at, choices, structures};
use crate::code::Code;
use crate::device::{
    Device, Ecc, Growth, Health, Memory, MigInstance, Pci, Pcie, Power, Presence, Process,
    ProcessKind, RemappedRows,
};
use crate::state::{Act, Event, Fault, FieldValue, State};

structures! {
    State {} driver_version, nvml_version, cuda_driver_version, memory_v2, xids_coalesced,
        calls_recorded, devices, faults, events, next_number;
    Fault { number, act } symbol, device;
    Event { number, device } kind, data, instances;
    Device { uuid } handle, name, name_bytes, minor_number, pci, compute_capability, presence,
        memory, utilization_percent, temperature_celsius, temperature_margin_celsius,
        temperature_thresholds_celsius, power, clock_event_bits, processes, growths, event_types,
        fields, health, mig_mode, mig, architecture, brand, performance_state, clocks_megahertz;
    Pci {} domain, bus, device, id, subsystem_id;
    Memory {} total_bytes, reserved_bytes, used_bytes;
    Power {} draw_milliwatts, limit_milliwatts, limit_bounds_milliwatts, energy_millijoules;
    Process { pid } memory_used_bytes, kind, instances, utilization_percent;
    Growth { number, processes };
    Health {} ecc, pcie, remapped_rows, violation_nanoseconds, recovery_action;
    Ecc {} corrected, uncorrected, corrected_ever, uncorrected_ever;
    Pcie {} generation, width, replays, throughput_kilobytes;
    RemappedRows {} correctable, uncorrectable, pending, failed;
    MigInstance { parent, instances };
}

choices! {
    Presence { "present" = Present, "lost" = Lost, "reset_required" = ResetRequired };
    ProcessKind { "compute" = Compute, "graphics" = Graphics, "mps" = Mps };
}

impl Told for Code {
    fn tell(&self) -> Json {
        self.0.tell()
    }

    fn read(json: &Json) -> Result<Self, String> {
        u32::read(json).map(Code)
    }
}

/// A choice that carries something: an object of one key.
fn choice(name: &str, carried: Json) -> Json {
    Json::Object(vec![(name.to_owned(), carried)])
}

impl Told for Act {
    fn tell(&self) -> Json {
        match *self {
            Act::Fail { code, times: None } => choice("fail", code.tell()),
            Act::Fail { code, times: Some(times) } => choice("fail_times", (code, times).tell()),
            Act::Delay { milliseconds } => choice("delay_milliseconds", milliseconds.tell()),
            Act::Hang => Json::Text("hang".to_owned()),
        }
    }

    fn read(json: &Json) -> Result<Self, String> {
        let what = r#"one of "hang", {"fail": code}, {"fail_times": [code, times]}, {"delay_milliseconds": number}"#;
        match json.only_entry() {
            Some(("fail", code)) => {
                Ok(Act::Fail { code: at("fail", Code::read(code))?, times: None })
            }
            Some(("fail_times", both)) => {
                let (code, times) = at("fail_times", Told::read(both))?;
                Ok(Act::Fail { code, times: Some(times) })
            }
            Some(("delay_milliseconds", number)) => {
                Ok(Act::Delay { milliseconds: at("delay_milliseconds", u64::read(number))? })
            }
            None if *json == Json::Text("hang".to_owned()) => Ok(Act::Hang),
            _ => Err(json.is_no(what)),
        }
    }
}

impl Told for FieldValue {
    fn tell(&self) -> Json {
        match *self {
            FieldValue::Double(number) => choice("double", number.tell()),
            FieldValue::Unsigned(number) => choice("unsigned", number.tell()),
            FieldValue::UnsignedLong(number) => choice("unsigned_long", number.tell()),
            FieldValue::SignedLong(number) => choice("signed_long", number.tell()),
            FieldValue::Signed(number) => choice("signed", number.tell()),
            FieldValue::Fails(code) => choice("fails", code.tell()),
        }
    }

    fn read(json: &Json) -> Result<Self, String> {
        let (name, carried) = json.only_entry().ok_or_else(|| json.is_no("object of one key"))?;
        match name {
            "double" => at(name, Told::read(carried)).map(FieldValue::Double),
            "unsigned" => at(name, Told::read(carried)).map(FieldValue::Unsigned),
            "unsigned_long" => at(name, Told::read(carried)).map(FieldValue::UnsignedLong),
            "signed_long" => at(name, Told::read(carried)).map(FieldValue::SignedLong),
            "signed" => at(name, Told::read(carried)).map(FieldValue::Signed),
            "fails" => at(name, Told::read(carried)).map(FieldValue::Fails),
            _ => Err(format!(
                "{name:?} is none of double, unsigned, unsigned_long, signed_long, signed, fails"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a text, and what was read and written once more.
    fn twice(text: &str) -> Result<State, String> {
        let once = State::read(&Json::parse(text)?)?;
        let again = State::read(&Json::parse(&once.tell().to_string())?)?;
        assert_eq!(once, again);
        Ok(once)
    }

    #[test]
    fn an_empty_object_is_the_default() {
        assert_eq!(twice("{}"), Ok(State::default()));
    }

    #[test]
    fn everything_that_can_be_said_is_read_back_as_it_was() {
        let state = twice(
            r#"{"devices": [{"uuid": "GPU-ä\"\\\n\u0007", "name_bytes": [255, 0], "memory": null,
                "presence": "reset_required", "utilization_percent": [1, 2], "mig_mode": null,
                "temperature_celsius": -40, "clock_event_bits": 18446744073709551615,
                "fields": {"194": {"signed": -2}, "1": {"double": 0.1}, "2": {"unsigned": 3},
                    "3": {"unsigned_long": 18446744073709551615}, "4": {"signed_long": -5},
                    "5": {"fails": 4}},
                "processes": [{"pid": 7, "kind": "mps"}, {"pid": 8, "memory_used_bytes": 9}],
                "growths": [{"number": 3, "processes": []}],
                "mig": {"parent": "GPU-b", "instances": [1, 2]}}],
              "faults": [{"number": 1, "symbol": "nvmlInit_v2", "act": {"fail": 9}},
                {"number": 2, "device": "GPU-b", "act": {"fail_times": [9, 2]}},
                {"number": 4, "act": "hang"}, {"number": 5, "act": {"delay_milliseconds": 6}}],
              "events": [{"number": 6, "device": "GPU-b", "data": 79}]}"#,
        )
        .unwrap();
        assert_eq!(state.devices[0].uuid, "GPU-ä\"\\\n\u{7}");
        assert_eq!(state.devices[0].fields[&194], FieldValue::Signed(-2));
        assert_eq!(state.devices[0].clock_event_bits, Some(u64::MAX));
        assert_eq!(state.faults[1].act, Act::Fail { code: Code(9), times: Some(2) });
        assert_eq!(state.events[0].kind, crate::state::XID);
        assert_eq!(state.devices[0].processes[0].instances, (u32::MAX, u32::MAX));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (text, said) in [
            (r#"{"devises": []}"#, r#"there is no key "devises""#),
            (r#"{"devices": [{}]}"#, ".devices.0: uuid is missing"),
            (r#"{"devices": {}}"#, ".devices: an object is no list"),
            (
                r#"{"devices": [{"uuid": "a", "pci": {"bus": -1}}]}"#,
                ".devices.0.pci.bus: -1 is no u32: invalid digit found in string",
            ),
            (
                r#"{"devices": [{"uuid": "a", "presence": "gone"}]}"#,
                r#".devices.0.presence: "gone" is no one of present lost reset_required"#,
            ),
            (r#"{"memory_v2": 1}"#, ".memory_v2: 1 is no true or false"),
        ] {
            assert_eq!(twice(text), Err(said.to_owned()), "{text}");
        }
    }
}
