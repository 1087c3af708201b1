//! The only file that knows OpenTelemetry's API: the context of the current `tracing` span as a W3C `traceparent`.
//!
//! It needs a `tracing-opentelemetry` layer in the program's subscriber; without one there is no context to pass on.

use opentelemetry::trace::TraceContextExt as _;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// The current span's context; `None` where no span is traced.
pub(crate) fn of_current_span() -> Option<String> {
    let context = tracing::Span::current().context();
    let span = context.span();
    let span = span.span_context();
    let flags = span.trace_flags().to_u8();
    span.is_valid().then(|| format!("00-{}-{}-{flags:02x}", span.trace_id(), span.span_id()))
}

#[cfg(test)]
mod tests {
    use opentelemetry::{
        Context,
        trace::{
            SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState,
            noop::NoopTracer,
        },
    };
    use tracing_opentelemetry::{OpenTelemetrySpanExt as _, layer};
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[test]
    fn the_current_spans_context_is_a_trace_parent() {
        let trace_parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let remote = SpanContext::new(
            TraceId::from_hex("4bf92f3577b34da6a3ce929d0e0e4736").unwrap(),
            SpanId::from_hex("00f067aa0ba902b7").unwrap(),
            TraceFlags::SAMPLED,
            true,
            TraceState::default(),
        );
        let subscriber =
            tracing_subscriber::registry().with(layer().with_tracer(NoopTracer::new()));
        tracing::subscriber::with_default(subscriber, || {
            assert_eq!(of_current_span(), None);
            let span = tracing::info_span!("work");
            let parent = Context::new().with_remote_span_context(remote);
            span.set_parent(parent).unwrap();
            let said = span.in_scope(of_current_span).unwrap();
            assert!(crate::trace::is_trace_parent(&said), "{said}");
            assert_eq!(said, trace_parent, "the tracer of this test makes no spans of its own");
        });
    }
}
