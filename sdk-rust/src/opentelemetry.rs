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
