//! Who gets what, as a user sees it: plans and their leases, the queue with its reasons, quotas of a configuration file,
//! placement by request, and the same by a foreign client.

use std::{fs, path::Path, time::Duration};

use gpulease::{
    Client, LeaseInfo, LeaseRequest, LeaseState, Pipeline, PlacementPolicy, Preemptible, Priority,
    Reservation, Step,
};
use gpulease_tests::{
    coordinator::{Coordinator, Settings},
    deadline::{soon, until},
    shell::Shell,
    started::Started,
};
use serde_json::{Value, json};

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Two wells that compute on devices, and a report that does not.
const PLATE: &str = r#"
[[pipelines]]
name = "well-1"
steps = [
  { name = "load", input_memory_type = "numpy", output_memory_type = "numpy" },
  { name = "segment", input_memory_type = "numpy", output_memory_type = "torch", memory = "4GiB" },
]

[[pipelines]]
name = "well-2"
steps = [{ name = "segment", input_memory_type = "cupy", output_memory_type = "numpy", memory = "6GiB" }]

[[pipelines]]
name = "report"
steps = [{ name = "write", input_memory_type = "numpy", output_memory_type = "cpu" }]
"#;

fn write(directory: &Path, name: &str, text: &str) -> anyhow::Result<String> {
    let path = directory.join(name);
    fs::write(&path, text)?;
    Ok(path.to_string_lossy().into_owned())
}

#[tokio::test]
async fn a_plan_changes_nothing_until_it_is_reserved_and_then_holds_one_device_for_each_pipeline()
-> anyhow::Result<()> {
    let coordinator = Coordinator::simulate("2x24GiB").await?;
    let shell = Shell::at(coordinator.endpoint())?;
    let files = tempfile::tempdir()?;
    let plate = write(files.path(), "plate.toml", PLATE)?;
    let plan = shell.json(&["plan", &plate]).await?;
    assert_eq!((&plan["complete"], &plan["reserved"]), (&json!(true), &json!(false)), "{plan}");
    assert!(shell.lines(&["leases"]).await?.is_empty());

    let named = ["--service", "wells", "--holder", "w1", "--request-id", "plate-17"];
    let reserve = [&["plan", &plate, "--reserve", "--ttl", "5m"][..], &named].concat();
    let reserved = shell.json(&reserve).await?;
    assert_eq!(reserved["reserved"], json!(true), "{reserved}");
    let device =
        |index: usize| text(&reserved["assignments"][index]["devices"][0]["uuid"]).to_owned();
    assert_ne!(device(0), device(1), "balanced over both devices: {reserved}");
    assert_eq!(reserved["assignments"][2]["devices"], json!([]), "the report takes none");
    let leases = shell.lines(&["leases"]).await?;
    assert_eq!(leases.len(), 2);
    let again = shell.json(&reserve).await?;
    assert_eq!(again["assignments"][0]["lease"]["id"], reserved["assignments"][0]["lease"]["id"]);

    let near = ["acquire", "--memory", "1GiB", "--service", "wells", "--near", "plate-17/well-2"];
    let step = shell.json(&near).await?;
    assert_eq!(text(&step["devices"][0]["uuid"]), device(1), "{step}");
    Ok(())
}

#[tokio::test]
async fn a_plan_that_does_not_fit_is_told_with_its_reason_and_reserves_nothing()
-> anyhow::Result<()> {
    let coordinator = Coordinator::simulate("1x24GiB").await?;
    let shell = Shell::at(coordinator.endpoint())?;
    let files = tempfile::tempdir()?;
    let large = PLATE.replace("\"4GiB\"", "\"20GiB\"");
    let plate = write(files.path(), "plate.toml", &large)?;
    let (code, _) = shell.failure(&["plan", &plate, "--reserve"]).await?;
    assert_eq!(code, 4);
    assert!(shell.lines(&["leases"]).await?.is_empty());
    let unknown = write(files.path(), "odd.toml", &PLATE.replace("\"cupy\"", "\"abacus\""))?;
    let refused = shell.run(&["plan", &unknown]).await?;
    let told = "pipelines[1].steps[0].input_memory_type";
    assert!(refused.stderr.contains(told) && refused.stderr.contains("abacus"), "{refused:?}");
    Ok(())
}

#[tokio::test]
async fn the_rust_client_holds_the_leases_of_a_reserved_plan() -> anyhow::Result<()> {
    let coordinator = Coordinator::simulate("2x24GiB").await?;
    let client = Client::connect(coordinator.endpoint()).await?;
    let wells = (1..=4).map(|well| {
        let step = Step::new("segment").input("numpy").output("torch").memory(4 << 30);
        Pipeline::new(format!("well-{well}")).step(step)
    });
    let ttl = Duration::from_secs(2);
    let plan = client.reserve(wells, Reservation::new("plate-1").ttl(ttl)).await?;
    assert_eq!(plan.leases.len(), 4);
    let first = plan.leases[0].1.id();
    // Longer than any TTL: only renewals keep it.
    let old = |lease: &LeaseInfo| lease.granted_at.and_then(|at| at.elapsed().ok()) > Some(2 * ttl);
    let kept = until("a lease older than two TTLs", async || {
        let lease = client.lease(first).await?.lease;
        Ok(if old(&lease) { Ok(lease) } else { Err(format!("{lease:?}")) })
    });
    assert_eq!(kept.await?.state, LeaseState::Active);
    Ok(())
}

#[tokio::test]
async fn the_queue_tells_who_waits_behind_whom_and_what_a_quota_holds_back() -> anyhow::Result<()> {
    let files = tempfile::tempdir()?;
    let quota = "[services.small]\nleases_max = 1\nweight = 2\n[services.tiny]\nlease_memory_max = \"2GiB\"\n";
    let config = write(files.path(), "gpulease.toml", quota)?;
    let settings = Settings::default().simulate("2x24GiB");
    let coordinator = settings.argument("--config").argument(config).start().await?;
    let shell = Shell::at(coordinator.endpoint())?;
    let small = ["acquire", "--memory", "1GiB", "--ttl", "5m", "--service", "small"];
    shell.json(&small).await?;
    let (code, told) = shell.failure(&[&small[..], &["--wait", "0"]].concat()).await?;
    assert_eq!(code, 4, "{told}");
    assert!(told.to_string().contains("QUOTA_REACHED"), "{told}");
    let tiny = ["acquire", "--memory", "4GiB", "--service", "tiny"];
    let (_, told) = shell.failure(&tiny).await?;
    assert!(told.to_string().contains("ask.memory_bytes"), "{told}");

    let _held_back = Started::of(&shell, &[&small[..], &["--wait", "5m", "--json"]].concat())?;
    let large = ["acquire", "--devices", "2", "--exclusive", "--wait", "5m", "--json"];
    let _waits = Started::of(&shell, &large)?;
    let queue = until("two that wait", async || {
        let queue = shell.json(&["queue"]).await?;
        Ok(if queue["waiting"] == json!(2) { Ok(queue) } else { Err(queue.to_string()) })
    });
    let queue = queue.await?;
    let entries = queue["entries"].as_array().cloned().unwrap_or_default();
    let of = |service: &str| entries.iter().find(|it| text(&it["lease"]["service"]) == service);
    let held_back = of("small").map(|it| text(&it["held_back"]).to_owned());
    assert!(held_back.is_some_and(|why| why.contains("quota")), "{queue}");
    assert!(of("cli").is_some_and(|it| it["held_back"].is_null()), "{queue}");
    let services = queue["services"].as_array().cloned().unwrap_or_default();
    let small = services.iter().find(|it| text(&it["service"]) == "small");
    let small = small.map(|it| (it["weight"].clone(), it["leases"].clone()));
    assert_eq!(small, Some((json!(2), json!({ "used": 1, "limit": 1 }))), "{queue}");
    let table = shell.run(&["queue"]).await?.stdout;
    assert!(table.contains("small") && table.contains("quota"), "{table}");
    Ok(())
}

#[tokio::test]
async fn a_request_chooses_its_placement_and_an_urgent_one_takes_who_loses_least()
-> anyhow::Result<()> {
    let coordinator = Coordinator::simulate("2x24GiB").await?;
    let client = Client::connect(coordinator.endpoint()).await?;
    let spread = || {
        LeaseRequest::memory(2 << 30)
            .placement(PlacementPolicy::MostFreeMemory)
            .preemptible(Preemptible::Pause)
            .priority(Priority::Background)
    };
    let cheap = client.acquire(spread().pause_cost(Duration::from_secs(1))).await?;
    let dear = client.acquire(spread().pause_cost(Duration::from_secs(600))).await?;
    assert_ne!(cheap.devices()[0].uuid, dear.devices()[0].uuid);
    let urgent = LeaseRequest::exclusive().priority(Priority::Immediate);
    let cheaper = cheap.devices()[0].uuid.clone();
    let (granted, answered) = tokio::join!(client.acquire(urgent), async {
        let notice = soon("a notice", cheap.noticed()).await?;
        cheap.acknowledge(&notice).await
    });
    answered?;
    assert_eq!(granted?.devices()[0].uuid, cheaper);
    assert_eq!(dear.status(), gpulease::LeaseStatus::Active);
    Ok(())
}
