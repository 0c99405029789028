//! Log lines: their format, and the thread that writes them.
//!
//! Lines are written by a thread of their own: a reader of standard output that blocks must not block the service.

use std::{fmt, io::IsTerminal, sync::OnceLock};

use anstream::{AutoStream, ColorChoice};
use opentelemetry::{Context, trace::TraceContextExt};
use tracing::{Event, Subscriber};
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{
    Layer, Registry,
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::{Format, Json, JsonFields, Writer},
    },
    registry::LookupSpan,
};

use crate::config::{self, LogFormat};

/// Log lines that wait to be written; beyond it, the newest are dropped and counted. About 1.3 MB, and an eighth of a
/// megabyte for the empty queue, which an idle service pays, too.
const QUEUE_LIMIT: usize = 4 * 1024;

/// Lines dropped so far in this process.
static DROPPED: OnceLock<ErrorCounter> = OnceLock::new();

/// The log's writer. Dropping it writes the lines that wait, within a second.
pub(super) struct Lines {
    dropped: ErrorCounter,
    _guard: WorkerGuard,
}

/// Starts the thread; returns it and the layer that passes lines to it.
pub(super) fn start(config: &config::Telemetry) -> (Lines, Box<dyn Layer<Registry> + Send + Sync>) {
    let output = std::io::stdout();
    let format = config.log_format.unwrap_or(if output.is_terminal() {
        LogFormat::Text
    } else {
        LogFormat::Json
    });
    // Respects NO_COLOR and TERM=dumb, as everywhere else in this binary.
    let has_colours = AutoStream::choice(&output) != ColorChoice::Never;
    let (writer, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(QUEUE_LIMIT)
        .finish(output);
    let lines = Lines {
        dropped: writer.error_counter(),
        _guard: guard,
    };
    let layer = tracing_subscriber::fmt::layer().with_writer(writer);
    let layer = match format {
        LogFormat::Json => layer
            .fmt_fields(JsonFields::new())
            .event_format(JsonLine(
                Format::default()
                    .json()
                    .flatten_event(true)
                    .with_span_list(false),
            ))
            .boxed(),
        LogFormat::Text => layer.with_ansi(has_colours).boxed(),
    };
    (lines, layer)
}

/// Returns the number of lines dropped because standard output blocked.
pub(super) fn dropped() -> u64 {
    DROPPED.get().map_or(0, ErrorCounter::dropped_lines) as u64
}

impl Lines {
    /// Makes these the process's lines: panics are logged, and drops counted.
    pub(super) fn take_over(&self) {
        DROPPED.get_or_init(|| self.dropped.clone());
        std::panic::set_hook(Box::new(|panic| {
            let location = panic.location().map(ToString::to_string);
            let payload = panic.payload();
            let message = payload.downcast_ref::<&str>().copied();
            tracing::error!(
                panic.location = location,
                panic.message = message.or(payload.downcast_ref::<String>().map(String::as_str)),
                "a task panicked; this is a bug"
            );
        }));
    }
}

/// Formats an event as a JSON object on one line, with `trace_id` and `span_id` where the event belongs to a trace, sampled or
/// not, ours or the caller's (the names of OpenTelemetry's "Trace Context in non-OTLP Log Formats").
struct JsonLine(Format<Json>);

impl<S, N> FormatEvent<S, N> for JsonLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let ids = Context::map_current(|current| {
            let span = current.span();
            let ids = span.span_context();
            ids.is_valid().then(|| (ids.trace_id(), ids.span_id()))
        });
        let Some((trace, span)) = ids else {
            return self.0.format_event(context, writer, event);
        };
        let mut line = String::with_capacity(512);
        self.0
            .format_event(context, Writer::new(&mut line), event)?;
        let open = line.trim_end().strip_suffix('}').ok_or(fmt::Error)?;
        writeln!(
            writer,
            r#"{open},"trace_id":"{trace}","span_id":"{span}"}}"#
        )
    }
}
