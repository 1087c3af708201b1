//! Needs and bounds of plans.

use super::*;

fn step(name: &str, input: &str, output: &str, ask: Option<Ask>) -> StepFields {
    StepFields {
        name: name.into(),
        input_memory_type: input.into(),
        output_memory_type: output.into(),
        ask,
    }
}

fn part(devices: u32, slots: u32, memory_bytes: u64) -> Option<Ask> {
    let (slots, memory_bytes) = (Some(slots), Some(memory_bytes));
    Some(Ask { devices, share: Share::Part { slots, memory_bytes } })
}

fn pipeline(scope: AffinityScope, steps_overlap: bool, asks: &[Option<Ask>]) -> PipelineFields {
    let steps = asks.iter().enumerate();
    let steps = steps.map(|(index, ask)| step(&format!("s{index}"), "torch", "numpy", *ask));
    PipelineFields {
        name: "p".into(),
        steps: steps.collect(),
        scope,
        steps_overlap,
        constraints: Constraints::default(),
    }
}

/// The first way of a pipeline that need not be tried on devices.
fn check(scope: AffinityScope, overlap: bool, asks: &[Option<Ask>], ask: Option<Ask>) {
    let need = Need::of(&pipeline(scope, overlap, asks)).unwrap().unwrap();
    assert_eq!(need.first_way().map(|way| way.ask), ask);
}

#[test]
fn steps_one_after_the_other_need_the_largest_of_each_figure() {
    let asks = [part(1, 1, 100), part(1, 3, 10), None];
    check(AffinityScope::Device, false, &asks, part(1, 3, 100));
    let asks = [part(2, 1, 100), part(1, 3, 10)];
    check(AffinityScope::Node, false, &asks, part(2, 3, 100));
}

#[test]
fn steps_at_the_same_time_need_the_sum() {
    check(AffinityScope::Device, true, &[part(1, 1, 100), part(1, 3, 10)], part(1, 4, 110));
    // On a node with devices enough they are spread.
    let fields =
        pipeline(AffinityScope::Node, true, &[part(1, 1, 100), part(1, 3, 60), part(1, 1, 50)]);
    let need = Need::of(&fields).unwrap().unwrap();
    let ways: Vec<Ask> = need.counts(8).filter_map(|it| Some(need.way(it)?.ask)).collect();
    let expected = [part(1, 5, 210), part(2, 4, 110), part(3, 3, 100)];
    assert_eq!(ways, expected.into_iter().flatten().collect::<Vec<_>>());
    assert_eq!(need.way(2).unwrap().steps, [vec![0], vec![1], vec![1]]);
}

#[test]
fn a_whole_device_is_shared_with_no_step_of_the_same_time() {
    let whole = Some(Ask { devices: 1, share: Share::Exclusive });
    let refused = Need::of(&pipeline(AffinityScope::Device, true, &[part(1, 1, 1), whole]));
    assert_eq!(refused.unwrap_err().field, "steps[1].ask.exclusive");
    let spread = Need::of(&pipeline(AffinityScope::Node, true, &[part(1, 1, 1), whole]));
    let spread = spread.unwrap().unwrap();
    assert_eq!((spread.counts(8), spread.first_way().unwrap().ask.devices), (2..=2, 2));
    // The fewest are told even where no node has them: somebody has to say that none does.
    assert_eq!(spread.counts(1), 2..=2);
    check(AffinityScope::Device, false, &[part(1, 1, 1), whole], whole);
}

/// The field at fault of a plan of one pipeline.
fn fault(pipeline: PipelineFields, reserve: Option<Reservation>) -> String {
    let plan = PlanFields { pipelines: vec![pipeline], reserve };
    plan.validate().unwrap_err().field.into_owned()
}

#[test]
fn a_refusal_names_the_field_by_its_path() {
    let mut wrong = pipeline(AffinityScope::Device, false, &[None, part(2, 1, 1)]);
    assert_eq!(fault(wrong.clone(), None), "pipelines[0].steps[1].ask.devices");
    wrong.steps = vec![step("cpu", "numpy", "", part(1, 1, 1))];
    assert_eq!(fault(wrong.clone(), None), "pipelines[0].steps[0].ask");
    wrong.steps = vec![step("a", "torch", "", None), step("a", "torch", "", None)];
    assert_eq!(fault(wrong.clone(), None), "pipelines[0].steps[1].name");
    wrong.steps = Vec::new();
    assert_eq!(fault(wrong, None), "pipelines[0].steps");
    let mut near = pipeline(AffinityScope::Device, false, &[None]);
    near.constraints.same_node = true;
    assert_eq!(fault(near, None), "pipelines[0].constraints.same_node");
    let long = Name::new(&"x".repeat(65));
    let reserve = Reservation {
        holder: Holder { service: "s".into(), name: "h".into() },
        request_id: long,
        affinity_key: None,
        priority: Priority::Normal,
        ttl: TTL_DEFAULT,
        expected_duration: None,
        preemptible: Preemptible::Never,
    };
    let fine = pipeline(AffinityScope::Device, false, &[None]);
    assert_eq!(fault(fine.clone(), Some(reserve.clone())), "reserve.request_id");
    let reserve = Reservation { request_id: "id".into(), ttl: Span::ZERO, ..reserve };
    assert_eq!(fault(fine, Some(reserve)), "reserve.ttl");
}

#[test]
fn slots_that_imply_memory_are_not_mixed_with_bytes() {
    let bare = Some(Ask { devices: 1, share: Share::Part { slots: Some(2), memory_bytes: None } });
    let mixed = pipeline(AffinityScope::Device, false, &[part(1, 1, 1), bare]);
    assert_eq!(fault(mixed, None), "pipelines[0].steps[1].ask.memory_bytes");
    check(AffinityScope::Device, false, &[None, bare], bare);
    check(AffinityScope::Device, false, &[None, part(1, 2, 7)], part(1, 2, 7));
}

#[test]
fn names_of_a_plan_that_become_ids_have_no_slash() {
    let mut slashed = pipeline(AffinityScope::Device, false, &[None]);
    slashed.name = "a/b".into();
    assert_eq!(fault(slashed, None), "pipelines[0].name");
}

#[test]
fn the_devices_of_all_pipelines_have_a_bound() {
    let wide = Some(Ask { devices: 64, share: Share::Exclusive });
    let named = |number: usize| {
        let name = Name::new(&format!("p{number}"));
        PipelineFields { name, ..pipeline(AffinityScope::Node, false, &[wide]) }
    };
    let plan =
        |count: usize| PlanFields { pipelines: (0..count).map(named).collect(), reserve: None };
    assert!(plan(64).validate().is_ok());
    assert_eq!(plan(65).validate().unwrap_err().field, "pipelines[64].steps.ask.devices");
}

#[test]
fn steps_in_host_memory_need_no_device() {
    let mut host = pipeline(AffinityScope::Device, false, &[None]);
    host.steps = vec![step("a", "NumPy", "cpu", None), step("b", "", "numpy", None)];
    assert!(Need::of(&host).unwrap().is_none());
}
