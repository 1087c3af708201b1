//! Health and reflection, as standard tools ask for them.

use gpulease_tests::{coordinator::Coordinator, deadline::soon, wire::Wire};
use tokio_stream::once;
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};
use tonic_reflection::pb::{v1, v1alpha};

const SERVICES: [&str; 5] = [
    "gpulease.v1.AdminService",
    "gpulease.v1.DeviceService",
    "gpulease.v1.EventService",
    "gpulease.v1.LeaseService",
    "gpulease.v1.MetricsService",
];

#[tokio::test]
async fn health_answers_for_the_whole_and_for_each_service() -> anyhow::Result<()> {
    let coordinator = Coordinator::simulate("1x24GiB").await?;
    let wire = Wire::connect(coordinator.endpoint()).await?;
    for service in SERVICES.into_iter().chain([""]) {
        let check = HealthCheckRequest { service: service.to_owned() };
        let answer = wire.health().check(check.clone()).await?.into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service}");
        let mut watch = wire.health().watch(check).await?.into_inner();
        let told = soon("the first word of a health watch", watch.message()).await?;
        assert_eq!(told.map(|told| told.status()), Some(ServingStatus::Serving), "{service}");
    }
    let unknown = HealthCheckRequest { service: "gpulease.v1.NoService".to_owned() };
    let status = wire.health().check(unknown).await.expect_err("there is no such service");
    assert_eq!(status.code(), Code::NotFound);
    Ok(())
}

/// One test for each version of the protocol: the messages are the same under two names.
macro_rules! reflection {
    ($test:ident, $version:ident) => {
        #[tokio::test]
        async fn $test() -> anyhow::Result<()> {
            use $version::{
                ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
                server_reflection_request::MessageRequest,
                server_reflection_response::MessageResponse,
            };
            let coordinator = Coordinator::simulate("1x24GiB").await?;
            let wire = Wire::connect(coordinator.endpoint()).await?;
            let ask = async |request| -> anyhow::Result<MessageResponse> {
                let request =
                    ServerReflectionRequest { host: String::new(), message_request: Some(request) };
                let mut client = ServerReflectionClient::new(wire.channel());
                let mut answers = client.server_reflection_info(once(request)).await?.into_inner();
                let answer = soon("reflection's answer", answers.message()).await?;
                Ok(answer
                    .and_then(|answer| answer.message_response)
                    .expect("an answer says something"))
            };
            let MessageResponse::ListServicesResponse(list) =
                ask(MessageRequest::ListServices(String::new())).await?
            else {
                panic!("a list was asked for")
            };
            let names: Vec<_> = list.service.iter().map(|service| service.name.as_str()).collect();
            let missing: Vec<_> = SERVICES.iter().filter(|name| !names.contains(*name)).collect();
            assert!(missing.is_empty(), "{missing:?} of {names:?}");
            let symbol =
                MessageRequest::FileContainingSymbol("gpulease.v1.LeaseService.Acquire".to_owned());
            let MessageResponse::FileDescriptorResponse(files) = ask(symbol).await? else {
                panic!("a file was asked for")
            };
            assert!(!files.file_descriptor_proto.is_empty());
            Ok(())
        }
    };
}

reflection!(reflection_v1_lists_and_describes_the_services, v1);
reflection!(reflection_v1alpha_lists_and_describes_the_services, v1alpha);
