//! Gives tonic's own refusals of a message the form of every other (P18).
//!
//! What tonic cannot decode never reaches a service, so its status is exchanged on the way out. It costs a look at
//! one header for each call, and nothing for each message of a stream.

use tonic::{Status, body::Body, codegen::http::Response};

use super::status::{Attempt, refuse, undecodable};

/// Exchanges a status that says that a message could not be decoded.
pub(super) fn refine(response: Response<Body>) -> Response<Body> {
    if !response.headers().contains_key(Status::GRPC_STATUS) {
        return response;
    }
    let status = Status::from_header_map(response.headers());
    match status.as_ref().and_then(undecodable) {
        Some(error) => refuse(Attempt::Call, error).into_http(),
        None => response,
    }
}
