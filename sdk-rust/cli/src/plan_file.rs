//! The file that describes a plan, in TOML or JSON.
//!
//! Promises: an unknown key is an error that names it, and so is a size that cannot be read.
//! Leaves to others: every bound that the coordinator checks; it names the field by its path.

use std::{collections::BTreeMap, io::Read as _, path::Path};

use gpulease::{Constraints, Pipeline, PipelineScope, Step};
use serde::Deserialize;

use crate::failure::Failure;
use crate::parse;

/// The longest file that is read: 16 MiB are four messages of the largest size.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// The file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    pipelines: Vec<FilePipeline>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FilePipeline {
    name: String,
    #[serde(default)]
    scope: Scope,
    #[serde(default)]
    steps_overlap: bool,
    steps: Vec<FileStep>,
    #[serde(default)]
    constraints: Option<FileConstraints>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Scope {
    #[default]
    Device,
    Node,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileStep {
    name: String,
    #[serde(default)]
    input_memory_type: String,
    #[serde(default)]
    output_memory_type: String,
    devices: Option<u32>,
    slots: Option<u32>,
    memory: Option<Size>,
    #[serde(default)]
    exclusive: bool,
}

/// A size in bytes, or in words such as `8GiB`.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Size {
    Bytes(u64),
    Words(String),
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FileConstraints {
    vendor: Option<String>,
    models: Vec<String>,
    min_compute_capability: Option<String>,
    devices: Vec<String>,
    exclude_devices: Vec<String>,
    nodes: Vec<String>,
    exclude_nodes: Vec<String>,
    labels: BTreeMap<String, String>,
    prefer_device: Option<String>,
    framework: Option<String>,
    host_cpu: Option<String>,
    host_memory: Option<Size>,
}

/// The pipelines of a file; `-`: of standard input.
pub(crate) fn read(path: &Path) -> Result<Vec<Pipeline>, Failure> {
    let stdin = path.as_os_str() == "-";
    let named = if stdin { "standard input".to_owned() } else { path.display().to_string() };
    let cannot = |error: &dyn std::fmt::Display| {
        Failure::usage(format!("cannot read the plan from {named}: {error}"))
    };
    let mut bytes = Vec::new();
    let read = if stdin {
        std::io::stdin().take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)
    } else {
        let file = std::fs::File::open(path).map_err(|error| cannot(&error))?;
        file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)
    };
    read.map_err(|error| cannot(&error))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(cannot(&format!("it is longer than {FILE_BYTES_MAX} bytes")));
    }
    let text = String::from_utf8(bytes).map_err(|error| cannot(&error))?;
    let by_name = path.extension().is_some_and(|it| it.eq_ignore_ascii_case("json"));
    let json = by_name || (stdin && text.trim_start().starts_with('{'));
    parse(&text, json).map_err(|error| cannot(&error))
}

/// The pipelines of a text.
pub(crate) fn parse(text: &str, json: bool) -> Result<Vec<Pipeline>, String> {
    let file: File = if json {
        serde_json::from_str(text).map_err(|error| error.to_string())?
    } else {
        toml::from_str(text).map_err(|error| error.to_string())?
    };
    file.pipelines.into_iter().map(pipeline).collect()
}

fn pipeline(file: FilePipeline) -> Result<Pipeline, String> {
    let scope = match file.scope {
        Scope::Device => PipelineScope::Device,
        Scope::Node => PipelineScope::Node,
    };
    let at = |what: String| format!("pipeline {}: {what}", file.name);
    let mut pipeline = Pipeline::new(&file.name).scope(scope).steps_overlap(file.steps_overlap);
    for wanted in file.steps {
        pipeline = pipeline.step(step(wanted).map_err(at)?);
    }
    if let Some(wanted) = file.constraints {
        pipeline = pipeline.constraints(constraints(wanted).map_err(at)?);
    }
    Ok(pipeline)
}

fn step(file: FileStep) -> Result<Step, String> {
    let named = file.name.clone();
    let mut step =
        Step::new(file.name).input(file.input_memory_type).output(file.output_memory_type);
    if let Some(devices) = file.devices {
        step = step.devices(devices);
    }
    if let Some(slots) = file.slots {
        step = step.slots(slots);
    }
    if let Some(size) = file.memory {
        step = step.memory(size.bytes().map_err(|error| format!("step {named}: {error}"))?);
    }
    if file.exclusive {
        step = step.exclusive();
    }
    Ok(step)
}

fn constraints(file: FileConstraints) -> Result<Constraints, String> {
    let capability = file.min_compute_capability.as_deref();
    Ok(Constraints {
        vendor: file.vendor,
        models: file.models,
        compute_capability_min: capability.map(parse::compute_capability).transpose()?,
        device_allow: file.devices,
        device_deny: file.exclude_devices,
        node_allow: file.nodes,
        node_deny: file.exclude_nodes,
        node_labels: file.labels,
        preferred_device: file.prefer_device,
        framework: file.framework,
        host_cpu_millis: file.host_cpu.as_deref().map(parse::cpu_millis).transpose()?.unwrap_or(0),
        host_memory_bytes: file.host_memory.map(Size::bytes).transpose()?.unwrap_or(0),
        ..Constraints::default()
    })
}

impl Size {
    fn bytes(self) -> Result<u64, String> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            Self::Words(words) => parse::size(&words),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_of_the_readme_is_a_plan() {
        let readme = include_str!("../../../README.md");
        let sample =
            readme.split("```toml\n# plate.toml").nth(1).and_then(|it| it.split("```").next());
        let pipelines =
            parse(sample.expect("the README has a plate.toml"), false).expect("it parses");
        assert_eq!(pipelines.len(), 3);
    }

    #[test]
    fn json_says_the_same() {
        let text = r#"{"pipelines": [{"name": "a", "steps": [
            {"name": "s", "input_memory_type": "torch", "memory": 1073741824, "slots": 2}]}]}"#;
        let toml = "[[pipelines]]\nname = \"a\"\nsteps = [{ name = \"s\", input_memory_type = \"torch\", memory = \"1GiB\", slots = 2 }]";
        assert_eq!(parse(text, true).expect("it parses"), parse(toml, false).expect("it parses"));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let unknown = "[[pipelines]]\nname = \"a\"\nsteps = []\nscoop = 1";
        assert!(parse(unknown, false).expect_err("no such key").contains("scoop"));
        let size = "[[pipelines]]\nname = \"a\"\nsteps = [{ name = \"s\", memory = \"lots\" }]";
        assert!(parse(size, false).expect_err("no size").contains("pipeline a: step s"));
    }
}
