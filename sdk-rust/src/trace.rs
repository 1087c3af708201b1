//! Trace context: the W3C `traceparent` that travels with a request, so that one trace shows request, queue, grant,
//! work and release.
//!
//! The client takes it from wherever its user has it: a text on the request, or a function that is asked each time.
//! With the feature `opentelemetry` it is the context of the current `tracing` span unless something else is said.

use std::{fmt, sync::Arc};

/// The length of a `traceparent`: version, trace id, span id and flags, in hexadecimal with three dashes.
const LENGTH: usize = 55;

/// Where the client asks for the trace context of a call.
#[derive(Clone, Default)]
pub(crate) struct TraceSource(Option<Arc<dyn Fn() -> Option<String> + Send + Sync>>);

impl TraceSource {
    pub(crate) fn new(source: impl Fn() -> Option<String> + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(source)))
    }

    /// The present context; one that is malformed is left out.
    pub(crate) fn current(&self) -> Option<String> {
        let said = match &self.0 {
            Some(source) => source(),
            None => of_current_span(),
        };
        said.filter(|text| is_trace_parent(text))
    }
}

impl fmt::Debug for TraceSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if self.0.is_some() { "TraceSource(given)" } else { "TraceSource" })
    }
}

#[cfg(feature = "opentelemetry")]
fn of_current_span() -> Option<String> {
    crate::opentelemetry::of_current_span()
}

#[cfg(not(feature = "opentelemetry"))]
fn of_current_span() -> Option<String> {
    None
}

/// Whether a text is a `traceparent`: `00-` trace id `-` span id `-` flags, neither id all zeros.
pub(crate) fn is_trace_parent(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let is_hex = |part: &str| part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let is_zero = |part: &str| part.bytes().all(|byte| byte == b'0');
    let [version, trace, span, flags] = parts[..] else { return false };
    let lengths = [version.len(), trace.len(), span.len(), flags.len()];
    text.len() == LENGTH
        && lengths == [2, 32, 16, 2]
        && parts.iter().all(|part| is_hex(part))
        && version != "ff"
        && !is_zero(trace)
        && !is_zero(span)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_trace_parent_has_four_parts_of_lower_case_hexadecimal() {
        assert!(is_trace_parent(GOOD));
        for bad in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e47-3600f067aa0ba902b7-01",
        ] {
            assert!(!is_trace_parent(bad), "{bad:?}");
        }
    }

    #[test]
    fn a_source_that_says_nonsense_says_nothing() {
        assert_eq!(TraceSource::new(|| Some(GOOD.to_owned())).current().as_deref(), Some(GOOD));
        assert_eq!(TraceSource::new(|| Some("nonsense".to_owned())).current(), None);
    }
}
