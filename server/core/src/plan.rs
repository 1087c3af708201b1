//! Plans: many pipelines of many steps, and one assignment for all of them.
//!
//! What a pipeline needs follows from its steps: one after the other the largest figure counts, at the same time the sum.
//! A step of which neither side lies on a device takes none. A pipeline's need is one ask, so that one lease can hold it.
//! [`PlanFields::validate`] is the only way to a [`Plan`], and names the field when it refuses. Which memory types lie on
//! devices is known for the usual ones; whether another does, the inventory says (`scheduler/plan`).
//! Where pipelines go is `board`'s matter.

pub(crate) mod board;
mod need;

use std::collections::BTreeSet;

use crate::{
    id::{Holder, Name},
    request::{
        Affinity, AffinityScope, Ask, Constraints, InvalidField, LABEL_BYTES_MAX, Preemptible,
        Priority, Request, RequestFields, Share, TTL_DEFAULT, label,
    },
    time::Span,
    view::{DeviceName, LeaseView},
};

pub(crate) use self::need::{Need, Way, weight};

/// The most pipelines of a plan.
pub const PIPELINES_MAX: usize = 1_000;
/// The most steps of a pipeline.
pub const STEPS_MAX: usize = 256;
/// The most steps of a plan: an answer names each with its devices, 10,000 × some 170 bytes are 1.7 MB.
pub const STEPS_IN_ALL_MAX: usize = 10_000;
/// The most devices that all steps of a plan take together: 10,240 × 44 bytes are 0.5 MB of the answer.
pub const DEVICES_IN_ALL_MAX: u64 = 10_240;
/// The most devices of all pipelines together: an assignment tells each, and its lease once more, 4,096 × 2 × 130 bytes
/// are 1.1 MB. With the steps and 1,000 leases of some 500 bytes an answer stays below 4 MB, which a plain client takes.
pub const DEVICES_OF_PIPELINES_MAX: u64 = 4_096;
/// All texts of a plan's constraints together: a reservation writes them into one batch of the journal (8 MiB).
pub const CONSTRAINTS_IN_ALL_BYTES_MAX: usize = 1 << 20;
/// The longest request id or affinity key of a reservation …
pub const PLAN_ID_BYTES_MAX: usize = 64;
/// … and name of a pipeline: with a slash between them they are the request id of its lease, at most 128 bytes.
pub const PIPELINE_NAME_BYTES_MAX: usize = 63;

/// Memory types that need no device.
pub const HOST_MEMORY_TYPES: [&str; 3] = ["", "cpu", "numpy"];
/// Memory types that lie on devices, whatever devices are known.
pub const DEVICE_MEMORY_TYPES: [&str; 4] = ["cupy", "jax", "tensorflow", "torch"];

/// One step, unchecked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepFields {
    /// Its name, unique within the pipeline.
    pub name: Name,
    /// Where its input lies.
    pub input_memory_type: Name,
    /// Where its output lies.
    pub output_memory_type: Name,
    /// What it takes; `None`: one slot of one device, if it needs one.
    pub ask: Option<Ask>,
}

/// Steps that share a device, or a node, unchecked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PipelineFields {
    /// Its name, unique within the plan.
    pub name: Name,
    /// Its steps.
    pub steps: Vec<StepFields>,
    /// What they share.
    pub scope: AffinityScope,
    /// They run at the same time.
    pub steps_overlap: bool,
    /// Which devices will do.
    pub constraints: Constraints,
}

/// How the leases of a plan are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// Who asks.
    pub holder: Holder,
    /// Names the plan within the holder.
    pub request_id: Name,
    /// What the affinity keys of its leases begin with; `None`: the request id.
    pub affinity_key: Option<Name>,
    /// How urgent the leases are.
    pub priority: Priority,
    /// How long each lives without a renewal.
    pub ttl: Span,
    /// How long the holder expects to hold them.
    pub expected_duration: Option<Span>,
    /// How they may be preempted.
    pub preemptible: Preemptible,
}

/// A plan, unchecked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanFields {
    /// Its pipelines.
    pub pipelines: Vec<PipelineFields>,
    /// Grant what is assigned.
    pub reserve: Option<Reservation>,
}

/// A pipeline within all bounds.
#[derive(Clone, Debug)]
pub struct Pipeline {
    pub(crate) name: Name,
    /// Its request, but for what it asks.
    template: RequestFields,
    /// All that it takes; `None`: it takes no device.
    pub(crate) need: Option<Need>,
    /// Frameworks that its devices have to serve, in lower case and in order.
    pub(crate) frameworks: Vec<Name>,
    /// Memory types that only the inventory can tell to lie on a device, with the fields that name them.
    pub(crate) unusual: Vec<(String, Name)>,
}

/// A plan within all bounds.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(crate) pipelines: Vec<Pipeline>,
    pub(crate) reserve: Option<Reservation>,
}

/// One assignment for all pipelines.
#[derive(Clone, Debug, Default)]
pub struct Planned {
    /// In the order of the plan.
    pub assignments: Vec<Assignment>,
    /// The devices that the plan uses, in order of node and number.
    pub loads: Vec<Load>,
    /// Every pipeline that needs a device has one.
    pub complete: bool,
    /// They are leased.
    pub reserved: bool,
}

/// Where a pipeline goes.
#[derive(Clone, Debug, Default)]
pub struct Assignment {
    /// Its devices, in order of number.
    pub devices: Vec<DeviceName>,
    /// What it takes of each of them.
    pub share: Option<Share>,
    /// Which of these each step takes, by place in the list, in the order of the plan.
    pub steps: Vec<Vec<usize>>,
    /// Why it has no device though it needs one.
    pub unassigned: Option<Unassigned>,
    /// Its lease, where the plan is reserved.
    pub lease: Option<Box<LeaseView>>,
    /// The affinity key of that.
    pub affinity_key: Option<Name>,
}

/// Why a pipeline got no device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unassigned {
    /// In words, counted by constraint.
    pub reason: String,
    /// No known node could satisfy it even when empty (P13).
    pub never: bool,
}

/// How full a device of a plan is.
#[derive(Clone, Debug)]
pub struct Load {
    /// Which device.
    pub device: DeviceName,
    /// The share of it that was taken before, in thousandths, by the scarcer of slots and bytes.
    pub before_permille: u64,
    /// The same with the plan.
    pub after_permille: u64,
    /// How many pipelines of the plan it has.
    pub pipelines: u32,
}

impl PlanFields {
    /// Checks every field against its bound.
    ///
    /// # Errors
    /// The first field that is out of bounds.
    pub fn validate(self) -> Result<Plan, InvalidField> {
        let PlanFields { pipelines, reserve } = self;
        count("pipelines", pipelines.len(), 1, PIPELINES_MAX)?;
        let steps = pipelines.iter().map(|pipeline| pipeline.steps.len());
        count("pipelines.steps", steps.fold(0, usize::saturating_add), 0, STEPS_IN_ALL_MAX)?;
        let texts = pipelines.iter().map(|pipeline| pipeline.constraints.text_bytes());
        let texts = texts.fold(0, usize::saturating_add);
        if texts > CONSTRAINTS_IN_ALL_BYTES_MAX {
            let bound = format!("at most {CONSTRAINTS_IN_ALL_BYTES_MAX} bytes of text in all");
            let value = format!("{texts} bytes");
            return Err(InvalidField::new("pipelines.constraints", value, bound));
        }
        devices_in_all(&pipelines)?;
        if let Some(reserve) = &reserve {
            reserve.validate().map_err(|invalid| invalid.within("reserve"))?;
        }
        let names: Vec<&Name> = pipelines.iter().map(|pipeline| &pipeline.name).collect();
        if let Some((index, twice)) = repeated(&names) {
            let (field, bound) = (format!("pipelines[{index}].name"), "unique within the plan");
            return Err(InvalidField::new(field, format!("{twice} twice"), bound));
        }
        let checked = pipelines.into_iter().enumerate().map(|(index, pipeline)| {
            let at = format!("pipelines[{index}]");
            pipeline.validate(reserve.as_ref()).map_err(|invalid| match &*invalid.field {
                field if field.starts_with("reserve") => invalid,
                _ => invalid.within(&at),
            })
        });
        let mut pipelines = checked.collect::<Result<Vec<Pipeline>, _>>()?;
        for (index, pipeline) in pipelines.iter_mut().enumerate() {
            for (field, _) in &mut pipeline.unusual {
                *field = format!("pipelines[{index}].{field}");
            }
        }
        devices_of_pipelines(&pipelines)?;
        Ok(Plan { pipelines, reserve })
    }
}

impl Reservation {
    fn validate(&self) -> Result<(), InvalidField> {
        label("service", &self.holder.service)?;
        label("holder", &self.holder.name)?;
        short("request_id", &self.request_id, PLAN_ID_BYTES_MAX)?;
        if let Some(key) = &self.affinity_key {
            short("affinity_key", key, PLAN_ID_BYTES_MAX)?;
        }
        let request = template(Some(self), Constraints::default());
        let ask = Ask { devices: 1, share: Share::Exclusive };
        RequestFields { ask, ..request }.validate().map(|_| ())
    }

    fn key_of(&self, pipeline: &Name) -> Name {
        let key = self.affinity_key.as_ref().unwrap_or(&self.request_id);
        Name::new(&format!("{key}/{pipeline}"))
    }
}

impl PipelineFields {
    fn validate(self, reserve: Option<&Reservation>) -> Result<Pipeline, InvalidField> {
        short("name", &self.name, PIPELINE_NAME_BYTES_MAX)?;
        count("steps", self.steps.len(), 1, STEPS_MAX)?;
        let own = "not given: it is the plan's own";
        if self.constraints.affinity.is_some() {
            return Err(InvalidField::new("constraints.affinity", "given", own));
        }
        if self.constraints.same_node {
            return Err(InvalidField::new("constraints.same_node", "true", own));
        }
        let names: Vec<&Name> = self.steps.iter().map(|step| &step.name).collect();
        if let Some((index, twice)) = repeated(&names) {
            let (field, bound) = (format!("steps[{index}].name"), "unique within the pipeline");
            return Err(InvalidField::new(field, format!("{twice} twice"), bound));
        }
        let (mut frameworks, mut unusual) = (Vec::new(), Vec::new());
        for (index, step) in self.steps.iter().enumerate() {
            label("name", &step.name).map_err(|it| it.within(&format!("steps[{index}]")))?;
            for (field, memory_type) in step.on_devices() {
                let name = Name::new(&memory_type.as_str().to_ascii_lowercase());
                if !DEVICE_MEMORY_TYPES.contains(&name.as_str()) {
                    unusual.push((format!("steps[{index}].{field}"), memory_type.clone()));
                }
                frameworks.push(name);
            }
        }
        let asked = self.constraints.framework.iter();
        frameworks.extend(asked.map(|name| Name::new(&name.as_str().to_ascii_lowercase())));
        frameworks.sort_unstable();
        frameworks.dedup();
        let need = Need::of(&self)?;
        let template = self.template(reserve, &frameworks);
        let pipeline = Pipeline { name: self.name, template, need, frameworks, unusual };
        pipeline.validate(reserve)?;
        Ok(pipeline)
    }

    /// Its request, but for what it asks.
    fn template(&self, reserve: Option<&Reservation>, frameworks: &[Name]) -> RequestFields {
        let framework = self.constraints.framework.clone().or_else(|| frameworks.first().cloned());
        let constraints = Constraints {
            same_node: self.scope == AffinityScope::Node,
            framework,
            affinity: reserve.map(|it| Affinity { key: it.key_of(&self.name), scope: self.scope }),
            ..self.constraints.clone()
        };
        let request_id = reserve.map(|it| Name::new(&format!("{}/{}", it.request_id, self.name)));
        let template = template(reserve, constraints);
        RequestFields { request_id: request_id.unwrap_or_else(|| self.name.clone()), ..template }
    }
}

impl StepFields {
    /// The sides that do not lie in host memory, with their fields.
    fn on_devices(&self) -> impl Iterator<Item = (&'static str, &Name)> {
        let sides = [
            ("input_memory_type", &self.input_memory_type),
            ("output_memory_type", &self.output_memory_type),
        ];
        let host = |name: &Name| {
            HOST_MEMORY_TYPES.iter().any(|host| host.eq_ignore_ascii_case(name.as_str()))
        };
        sides.into_iter().filter(move |(_, name)| !host(name))
    }
}

impl Pipeline {
    fn validate(&self, reserve: Option<&Reservation>) -> Result<(), InvalidField> {
        let pauses = reserve.is_some_and(|it| it.preemptible == Preemptible::Pause);
        if pauses && self.frameworks.len() > 1 {
            let bound = format!(
                "never or end: pipeline {} needs devices that serve {} frameworks, which a lease that resumes elsewhere \
                 cannot ask for",
                self.name,
                self.frameworks.len()
            );
            return Err(InvalidField::new("reserve.preemptible", "pause", bound));
        }
        if pauses && self.need.as_ref().is_some_and(Need::has_floor) {
            let bound = format!(
                "never or end: pipeline {} takes a device whole that has to be of some size, which a lease that resumes \
                 elsewhere cannot ask for",
                self.name
            );
            return Err(InvalidField::new("reserve.preemptible", "pause", bound));
        }
        let Some(need) = &self.need else {
            // Nothing is asked, but what is said has to be within its bounds all the same.
            let ask = Ask { devices: 1, share: Share::Exclusive };
            return RequestFields { ask, ..self.template.clone() }.validate().map(|_| ());
        };
        let ask = need.largest();
        RequestFields { ask, ..self.template.clone() }.validate().map(|_| ()).map_err(|invalid| {
            let of_steps = invalid.field.starts_with("ask");
            if of_steps { invalid.within("steps") } else { invalid }
        })
    }

    /// Its request for one way to serve its need.
    pub(crate) fn request(&self, ask: Ask) -> Option<Request> {
        RequestFields { ask, ..self.template.clone() }.validate().ok()
    }

    /// The request id of its lease, where the plan is reserved.
    pub(crate) const fn request_id(&self) -> &Name {
        &self.template.request_id
    }

    pub(crate) fn affinity_key(&self) -> Option<&Name> {
        self.template.constraints.affinity.as_ref().map(|affinity| &affinity.key)
    }
}

impl Plan {
    /// Its pipelines' names, in order.
    pub fn names(&self) -> impl Iterator<Item = &Name> {
        self.pipelines.iter().map(|pipeline| &pipeline.name)
    }

    /// It is to be reserved, rather than only made.
    #[must_use]
    pub const fn reserves(&self) -> bool {
        self.reserve.is_some()
    }

    /// All texts of its constraints, in bytes.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        let texts = self.pipelines.iter().map(|it| it.template.constraints.text_bytes());
        texts.fold(0, usize::saturating_add)
    }
}

/// A request for the leases of a reservation; without one, for nobody.
fn template(reserve: Option<&Reservation>, constraints: Constraints) -> RequestFields {
    let nobody = || Holder { service: Name::new("plan"), name: Name::new("plan") };
    RequestFields {
        holder: reserve.map_or_else(nobody, |it| it.holder.clone()),
        request_id: reserve.map_or_else(|| Name::new("plan"), |it| it.request_id.clone()),
        name: None,
        ask: Ask { devices: 1, share: Share::Exclusive },
        constraints,
        priority: reserve.map_or(Priority::Normal, |it| it.priority),
        ttl: reserve.map_or(TTL_DEFAULT, |it| it.ttl),
        wait: Span::ZERO,
        expected_duration: reserve.and_then(|it| it.expected_duration),
        lifetime_max: None,
        preemptible: reserve.map_or(Preemptible::Never, |it| it.preemptible),
        minimum_hold: Span::ZERO,
        process: None,
        placement: None,
        pause_cost: None,
    }
}

fn devices_in_all(pipelines: &[PipelineFields]) -> Result<(), InvalidField> {
    let steps = pipelines.iter().flat_map(|pipeline| &pipeline.steps);
    let devices = steps.map(|step| step.ask.map_or(1, |ask| u64::from(ask.devices)));
    let devices = devices.fold(0, u64::saturating_add);
    if devices <= DEVICES_IN_ALL_MAX {
        return Ok(());
    }
    let bound = format!("at most {DEVICES_IN_ALL_MAX} over all steps of the plan");
    Err(InvalidField::new("pipelines.steps.ask.devices", devices, bound))
}

/// The place of the first name that stands there once more, and the name.
fn repeated(names: &[&Name]) -> Option<(usize, Name)> {
    let mut seen = BTreeSet::new();
    let twice = names.iter().enumerate().find(|(_, name)| !seen.insert(**name));
    twice.map(|(index, name)| (index, (*name).clone()))
}

fn devices_of_pipelines(pipelines: &[Pipeline]) -> Result<(), InvalidField> {
    let mut devices = 0u64;
    for (index, need) in
        pipelines.iter().enumerate().filter_map(|(at, it)| Some((at, it.need.as_ref()?)))
    {
        devices = devices.saturating_add(u64::from(*need.counts(u32::MAX).end()));
        if devices > DEVICES_OF_PIPELINES_MAX {
            let bound =
                format!("at most {DEVICES_OF_PIPELINES_MAX} over all pipelines of the plan");
            let field = format!("pipelines[{index}].steps.ask.devices");
            return Err(InvalidField::new(field, devices, bound));
        }
    }
    Ok(())
}

fn count(field: &'static str, value: usize, min: usize, max: usize) -> Result<(), InvalidField> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(InvalidField::new(field, format!("{value} entries"), format!("{min} to {max} entries")))
}

fn short(field: &'static str, name: &Name, max: usize) -> Result<(), InvalidField> {
    let bytes = name.as_str().len();
    if bytes > max && bytes <= LABEL_BYTES_MAX {
        let bound = format!("1 to {max} bytes without control characters");
        return Err(InvalidField::new(field, format!("{bytes} bytes long"), bound));
    }
    // A lease's request id is the plan's and the pipeline's name, with a slash between them: there is one way to read it.
    if name.as_str().contains('/') {
        let bound = format!("1 to {max} bytes without control characters or slashes");
        return Err(InvalidField::new(field, format!("{:?}", name.as_str()), bound));
    }
    label(field, name)
}

#[cfg(test)]
mod tests;
