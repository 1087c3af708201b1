//! Foreign clients: grpcurl, which knows nothing but reflection, and Python's grpcio, which knows the .proto files.
//! The Python client's own tests are in `tests/python`; here the clients share one coordinator and one lease.

use std::{env, path::PathBuf, time::Duration};

use anyhow::{Context as _, bail};
use gpulease::{Client, LeaseRequest, Priority};
use gpulease_tests::{coordinator::Coordinator, deadline::soon, skip::skipped, wire::GIB};
use serde_json::{Value, json};
use tokio::process::Command;

/// Where `tests/run` puts what it fetches.
fn tool(path: &str) -> Option<PathBuf> {
    let repository = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let target = env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| PathBuf::from(repository).join("target"), PathBuf::from);
    let tools =
        env::var_os("GPULEASE_TESTS_TOOLS").map_or_else(|| target.join("tools"), PathBuf::from);
    Some(tools.join(path)).filter(|tool| tool.is_file())
}

async fn output(mut command: Command) -> anyhow::Result<String> {
    command.kill_on_drop(true);
    let output = soon("the end of a foreign client", command.output()).await?;
    if !output.status.success() {
        bail!(
            "{command:?} ended with {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// grpcurl at a coordinator.
struct Grpcurl {
    program: PathBuf,
    address: String,
}

impl Grpcurl {
    fn at(coordinator: &Coordinator) -> Option<Self> {
        let address = coordinator.endpoint().trim_start_matches("http://").to_owned();
        Some(Self { program: tool("bin/grpcurl")?, address })
    }

    async fn text(&self, data: Option<&Value>, verb: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new(&self.program);
        command.arg("-plaintext").args(["-max-time", "20", "-emit-defaults"]);
        if let Some(data) = data {
            command.args(["-d", &data.to_string()]);
        }
        output({
            command.arg(&self.address).args(verb);
            command
        })
        .await
    }

    async fn call(&self, method: &str, data: Value) -> anyhow::Result<Value> {
        let text = self.text(Some(&data), &[method]).await?;
        serde_json::from_str(&text).with_context(|| format!("read {text:?}"))
    }

    async fn acquire(&self, request_id: &str) -> anyhow::Result<(u64, u64)> {
        let request = json!({
            "service": "foreign", "holder": "grpcurl", "requestId": request_id, "ttl": "30s",
            "ask": { "memoryBytes": GIB.to_string() },
        });
        let lease = self.call("gpulease.v1.LeaseService/Acquire", request).await?["lease"].take();
        Ok((number(&lease["id"])?, number(&lease["fencingToken"])?))
    }

    async fn renew(&self, lease: (u64, u64)) -> anyhow::Result<u64> {
        number(&self.renewed(lease).await?["fencingToken"])
    }

    async fn renewed(&self, (id, token): (u64, u64)) -> anyhow::Result<Value> {
        let request = json!({ "leaseId": id.to_string(), "fencingToken": token.to_string() });
        self.call("gpulease.v1.LeaseService/Renew", request).await
    }

    /// Renews until the answer has a field.
    async fn renewed_with(&self, lease: (u64, u64), field: &str) -> anyhow::Result<Value> {
        let renewed = async {
            loop {
                let renewed = self.renewed(lease).await?;
                if !renewed[field].is_null() {
                    return Ok(renewed);
                }
            }
        };
        soon(field, renewed).await
    }

    /// Answers the notice that a renewal tells.
    async fn acknowledge(&self, (id, token): (u64, u64)) -> anyhow::Result<Value> {
        let renewed = self.renewed_with((id, token), "notice").await?;
        let notice = &renewed["notice"];
        assert_eq!(notice["causes"][0]["kind"], "NOTICE_CAUSE_KIND_PREEMPTION", "{renewed}");
        let (id, token) = (id.to_string(), token.to_string());
        let answer = json!({ "leaseId": id, "fencingToken": token, "noticeId": notice["id"] });
        let answered = self.call("gpulease.v1.LeaseService/Acknowledge", answer).await;
        Ok(answered?["lease"]["state"].take())
    }

    async fn release(&self, (id, token): (u64, u64)) -> anyhow::Result<Value> {
        let request = json!({ "leaseId": id.to_string(), "fencingToken": token.to_string() });
        Ok(self.call("gpulease.v1.LeaseService/Release", request).await?["lease"]["state"].take())
    }
}

/// 64-bit numbers are texts in protobuf's JSON.
fn number(value: &Value) -> anyhow::Result<u64> {
    value.as_str().with_context(|| format!("{value} is no number"))?.parse().context("a number")
}

/// The Python client at a coordinator.
struct Python {
    program: PathBuf,
    endpoint: String,
}

impl Python {
    fn at(coordinator: &Coordinator) -> Option<Self> {
        Some(Self {
            program: tool("python/bin/python")?,
            endpoint: coordinator.endpoint().to_owned(),
        })
    }

    async fn verb(&self, verb: &str, first: u64, second: u64) -> anyhow::Result<String> {
        let mut command = Command::new(&self.program);
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/python/foreign.py"));
        command.args([&self.endpoint, verb, &first.to_string(), &second.to_string()]);
        Ok(output(command).await?.trim().to_owned())
    }

    async fn lease(&self, verb: &str, first: u64, second: u64) -> anyhow::Result<(u64, u64)> {
        let said = self.verb(verb, first, second).await?;
        let (id, token) = said.split_once(' ').with_context(|| format!("read {said:?}"))?;
        Ok((id.parse()?, token.parse()?))
    }
}

const NO_GRPCURL: &str = "no target/tools/bin/grpcurl: tests/run fetches it where Go is";
const NO_PYTHON: &str = "no target/tools/python: tests/run makes it where python3 is";

#[tokio::test]
async fn grpcurl_finds_its_way_by_reflection_and_lives_a_leases_life() -> anyhow::Result<()> {
    let coordinator = Coordinator::simulate("2x24GiB").await?;
    let Some(grpcurl) = Grpcurl::at(&coordinator) else {
        skipped("grpcurl", NO_GRPCURL);
        return Ok(());
    };
    let services = grpcurl.text(None, &["list"]).await?;
    for service in ["gpulease.v1.LeaseService", "grpc.health.v1.Health", "gpulease.v1.AdminService"]
    {
        assert!(services.lines().any(|line| line == service), "{services}");
    }
    let described = grpcurl.text(None, &["describe", "gpulease.v1.LeaseService.Acquire"]).await?;
    assert!(described.contains("rpc Acquire ( .gpulease.v1.AcquireRequest )"), "{described}");
    let health = grpcurl.call("grpc.health.v1.Health/Check", json!({})).await?;
    assert_eq!(health["status"], "SERVING");
    let list = json!({ "list_services": "" });
    let listed =
        grpcurl.call("grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", list).await?;
    assert!(listed["listServicesResponse"]["service"].is_array(), "{listed}");

    let lease = grpcurl.acquire("by-grpcurl").await?;
    assert_eq!(grpcurl.renew(lease).await?, lease.1);
    assert_eq!(grpcurl.release(lease).await?, "LEASE_STATE_ENDED");
    let error = grpcurl.renew(lease).await.expect_err("it ended").to_string();
    assert!(error.contains("FailedPrecondition") && error.contains("LEASE_ENDED"), "{error}");
    Ok(())
}

#[tokio::test]
async fn grpcurl_plans_and_looks_at_the_queue() -> anyhow::Result<()> {
    let coordinator = Coordinator::simulate("2x24GiB").await?;
    let Some(grpcurl) = Grpcurl::at(&coordinator) else {
        skipped("grpcurl", NO_GRPCURL);
        return Ok(());
    };
    let step = json!({ "name": "segment", "outputMemoryType": "torch", "ask": { "memoryBytes": GIB.to_string() } });
    let pipeline = |name: &str| json!({ "name": name, "steps": [step] });
    let request = json!({ "pipelines": [pipeline("a"), pipeline("b")] });
    let plan = grpcurl.call("gpulease.v1.LeaseService/Plan", request).await?;
    assert_eq!(plan["complete"], true, "{plan}");
    assert_ne!(
        plan["assignments"][0]["devices"][0]["uuid"],
        plan["assignments"][1]["devices"][0]["uuid"]
    );
    let queue = grpcurl.call("gpulease.v1.LeaseService/Queue", json!({})).await?;
    assert_eq!(queue["waiting"], "0", "{queue}");
    let empty = grpcurl.call("gpulease.v1.LeaseService/Plan", json!({})).await;
    let told = empty.expect_err("no pipelines").to_string();
    assert!(told.contains("InvalidArgument") && told.contains("pipelines"), "{told}");
    Ok(())
}

#[tokio::test]
async fn rust_python_and_grpcurl_renew_and_release_each_others_leases() -> anyhow::Result<()> {
    let coordinator = Coordinator::simulate("2x24GiB").await?;
    let Some(grpcurl) = Grpcurl::at(&coordinator) else {
        skipped("three clients on one lease", NO_GRPCURL);
        return Ok(());
    };
    let Some(python) = Python::at(&coordinator) else {
        skipped("three clients on one lease", NO_PYTHON);
        return Ok(());
    };
    let rust = Client::connect(coordinator.endpoint()).await?;

    let lease = rust.acquire(LeaseRequest::memory(GIB)).await?.detach();
    assert_eq!(python.lease("renew", lease.0, lease.1).await?, lease);
    assert_eq!(grpcurl.release(lease).await?, "LEASE_STATE_ENDED");

    let lease = python.lease("acquire", GIB, 30).await?;
    assert_eq!(grpcurl.renew(lease).await?, lease.1);
    assert_eq!(rust.release(lease.0, Some(lease.1)).await?.state, gpulease::LeaseState::Ended);

    let lease = grpcurl.acquire("shared").await?;
    assert_eq!(rust.renew(lease.0, lease.1).await?.fencing_token, lease.1);
    assert_eq!(python.verb("release", lease.0, lease.1).await?, "LEASE_STATE_ENDED");
    Ok(())
}

#[tokio::test]
async fn a_lease_of_pythons_is_paused_for_rust_and_resumed_whoever_answers() -> anyhow::Result<()> {
    let coordinator = Coordinator::simulate("1x24GiB").await?;
    let Some(grpcurl) = Grpcurl::at(&coordinator) else {
        skipped("a pause by three clients", NO_GRPCURL);
        return Ok(());
    };
    let Some(python) = Python::at(&coordinator) else {
        skipped("a pause by three clients", NO_PYTHON);
        return Ok(());
    };
    let rust = Client::connect(coordinator.endpoint()).await?;
    for by_grpcurl in [true, false] {
        let lease = python.lease("pausable", 20 * GIB, 30).await?;
        let client = rust.clone();
        let urgent = tokio::spawn(async move {
            let request = LeaseRequest::memory(20 * GIB).priority(Priority::Immediate);
            client.acquire(request.wait(Duration::from_secs(60))).await
        });
        if by_grpcurl {
            assert_eq!(grpcurl.acknowledge(lease).await?, "LEASE_STATE_PAUSED");
        } else {
            let paused = python.verb("acknowledge", lease.0, lease.1).await?;
            assert_eq!(paused, "LEASE_STATE_PAUSED");
        }
        soon("the urgent lease", urgent).await??.release().await?;

        // The token before still serves, and is answered with the new one.
        let resumed = if by_grpcurl {
            let renewed = grpcurl.renewed_with(lease, "resumed").await?;
            assert_eq!(renewed["state"], "LEASE_STATE_ACTIVE", "{renewed}");
            let devices = renewed["resumed"]["devices"].as_array().map(Vec::len);
            assert_eq!(devices, Some(1), "{renewed}");
            (lease.0, number(&renewed["fencingToken"])?)
        } else {
            python.lease("resumed", lease.0, lease.1).await?
        };
        assert!(resumed.1 > lease.1, "{resumed:?} after {lease:?}");
        assert_eq!(rust.renew(resumed.0, resumed.1).await?.fencing_token, resumed.1);
        let error = grpcurl.renew(lease).await.expect_err("the new token was used").to_string();
        assert!(error.contains("STALE_TOKEN"), "{error}");
        assert_eq!(python.verb("release", resumed.0, resumed.1).await?, "LEASE_STATE_ENDED");
    }
    Ok(())
}
