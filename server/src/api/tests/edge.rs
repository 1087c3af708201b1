//! What a stranger meets: messages over the bound, health, reflection, the end.

use gpulease_proto::v1;
use tokio_stream::StreamExt as _;
use tonic::Code;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::{v1 as reflection, v1alpha};

use super::harness::{Coordinator, check, request};
use crate::api::limits::MESSAGE_BYTES_MAX;

#[tokio::test]
async fn a_unary_message_over_the_bound_is_refused_with_its_reason() {
    let coordinator = Coordinator::start().await;
    let wire = v1::AcquireRequest { name: "x".repeat(MESSAGE_BYTES_MAX), ..request("job", 1) };
    let status = coordinator.leases().acquire(wire).await.unwrap_err();
    check(&status, Code::ResourceExhausted, "MESSAGE_TOO_LARGE", "");
}

#[tokio::test]
async fn names_of_a_mebibyte_and_labels_by_the_ten_thousand_are_refused() {
    let coordinator = Coordinator::start().await;
    let mut leases = coordinator.leases();
    let long = v1::AcquireRequest { service: "x".repeat(1 << 20), ..request("job", 1) };
    let status = leases.acquire(long).await.unwrap_err();
    check(&status, Code::InvalidArgument, "INVALID_FIELD", "service");
    assert!(status.message().len() < 300, "{status:?}");
    let labels = (0..100_000).map(|number| (format!("label-{number}"), "x".to_owned())).collect();
    let constraints = v1::Constraints { node_labels: labels, ..v1::Constraints::default() };
    let wire = v1::AcquireRequest {
        service: "training".to_owned(),
        holder: "worker".to_owned(),
        constraints: Some(constraints),
        ..request("job", 1)
    };
    let status = leases.acquire(wire).await.unwrap_err();
    check(&status, Code::InvalidArgument, "INVALID_FIELD", "constraints.node_labels");
}

#[tokio::test]
async fn health_is_told_overall_and_by_service_and_follows_the_stop() {
    let coordinator = Coordinator::start().await;
    let mut health = HealthClient::new(coordinator.channel.clone());
    let of = |service: &str| HealthCheckRequest { service: service.to_owned() };
    for service in ["", "gpulease.v1.LeaseService", "gpulease.v1.EventService"] {
        let answer = health.check(of(service)).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service}");
    }
    let status = health.check(of("gpulease.v1.Nothing")).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    let mut watch = health.watch(of("gpulease.v1.LeaseService")).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    coordinator.handle.stop();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    assert!(watch.message().await.unwrap().is_none(), "a stop waits for no watch of health");
}

#[tokio::test]
async fn both_reflections_name_every_service() {
    use reflection::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };
    let coordinator = Coordinator::start().await;
    let expected =
        ["AdminService", "DeviceService", "EventService", "LeaseService", "MetricsService"];
    let ask = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut client = ServerReflectionClient::new(coordinator.channel.clone());
    let mut answers =
        client.server_reflection_info(tokio_stream::once(ask)).await.unwrap().into_inner();
    let answer = answers.next().await.unwrap().unwrap().message_response.unwrap();
    let MessageResponse::ListServicesResponse(list) = answer else { panic!("{answer:?}") };
    for service in expected {
        let name = format!("gpulease.v1.{service}");
        assert!(list.service.iter().any(|service| service.name == name), "{name}");
    }
    assert!(list.service.iter().any(|service| service.name == "grpc.health.v1.Health"));

    let ask = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(
            v1alpha::server_reflection_request::MessageRequest::FileContainingSymbol(
                "gpulease.v1.LeaseService".to_owned(),
            ),
        ),
    };
    let channel = coordinator.channel.clone();
    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(channel);
    let mut answers =
        client.server_reflection_info(tokio_stream::once(ask)).await.unwrap().into_inner();
    let answer = answers.next().await.unwrap().unwrap().message_response.unwrap();
    let known = matches!(
        answer,
        v1alpha::server_reflection_response::MessageResponse::FileDescriptorResponse(_)
    );
    assert!(known, "{answer:?}");
}

#[tokio::test]
async fn a_journal_that_fails_refuses_with_the_reason_and_is_not_serving() {
    let coordinator = Coordinator::start().await;
    coordinator.acquire("before", 1).await;
    coordinator.disk.fail_after(0);
    let wire = v1::AcquireRequest {
        service: "training".to_owned(),
        holder: "worker".to_owned(),
        ..request("after", 1)
    };
    for _ in 0..2 {
        let status = coordinator.leases().acquire(wire.clone()).await.unwrap_err();
        check(&status, Code::Unavailable, "JOURNAL_FAILED", "");
    }
}

#[tokio::test]
async fn a_message_of_another_kind_is_refused_with_its_reason() {
    let coordinator = Coordinator::start().await;
    let mut client = tonic::client::Grpc::new(coordinator.channel.clone());
    client.ready().await.unwrap();
    // Its first field is a text, where a renewal has a number.
    let wrong = v1::DeviceServiceGetRequest { uuid: "SIM-node-0-0".to_owned() };
    let codec = tonic_prost::ProstCodec::<_, v1::RenewResponse>::default();
    let path = "/gpulease.v1.LeaseService/Renew".parse().unwrap();
    let answer = client.unary(tonic::Request::new(wrong), path, codec).await;
    check(&answer.unwrap_err(), Code::InvalidArgument, "MALFORMED_MESSAGE", "");
    // No message at all.
    client.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<v1::RenewRequest, v1::RenewResponse>::default();
    let path = "/gpulease.v1.LeaseService/Renew".parse().unwrap();
    let nothing = tonic::Request::new(tokio_stream::empty());
    let answer = client.client_streaming(nothing, path, codec).await;
    check(&answer.unwrap_err(), Code::InvalidArgument, "MALFORMED_MESSAGE", "");
}
