//! What is logged, changeable while the process runs.
//!
//! Not `tracing_subscriber::reload`: that takes a lock at every event and every step into or out of a span.

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;
use tracing::{Metadata, level_filters::LevelFilter, span, subscriber::Interest};
use tracing_subscriber::{
    EnvFilter, Registry,
    layer::{Context, Filter},
};

use crate::config;

/// A handle on what is logged. Clones are handles on the same.
#[derive(Clone)]
pub struct LogFilter(Arc<ArcSwap<Directives>>);

impl fmt::Debug for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LogFilter").field(&self.text()).finish()
    }
}

struct Directives {
    text: String,
    filter: EnvFilter,
}

impl Directives {
    fn new(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            filter: EnvFilter::new(text),
        }
    }
}

impl LogFilter {
    /// `text` was checked by [`config::log_filter`].
    pub(super) fn new(text: &str) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(Directives::new(text))))
    }

    /// What is logged now, as tracing directives.
    pub fn text(&self) -> String {
        self.0.load().text.clone()
    }

    /// Logs by `text` from now on.
    ///
    /// # Errors
    /// What was expected instead; nothing is changed then.
    pub fn set(&self, text: &str) -> Result<(), &'static str> {
        let text = config::log_filter(text)?;
        self.0.store(Arc::new(Directives::new(&text)));
        tracing::callsite::rebuild_interest_cache();
        Ok(())
    }
}

/// A span that was let in by an earlier filter is unknown to the present one, which takes that for nothing special.
impl Filter<Registry> for LogFilter {
    fn enabled(&self, metadata: &Metadata<'_>, context: &Context<'_, Registry>) -> bool {
        Filter::enabled(&self.0.load().filter, metadata, context)
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        Filter::<Registry>::callsite_enabled(&self.0.load().filter, metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Filter::<Registry>::max_level_hint(&self.0.load().filter)
    }

    fn on_new_span(
        &self,
        attributes: &span::Attributes<'_>,
        id: &span::Id,
        context: Context<'_, Registry>,
    ) {
        Filter::on_new_span(&self.0.load().filter, attributes, id, context);
    }

    fn on_record(&self, id: &span::Id, values: &span::Record<'_>, context: Context<'_, Registry>) {
        Filter::on_record(&self.0.load().filter, id, values, context);
    }

    fn on_enter(&self, id: &span::Id, context: Context<'_, Registry>) {
        Filter::on_enter(&self.0.load().filter, id, context);
    }

    fn on_exit(&self, id: &span::Id, context: Context<'_, Registry>) {
        Filter::on_exit(&self.0.load().filter, id, context);
    }

    fn on_close(&self, id: span::Id, context: Context<'_, Registry>) {
        Filter::on_close(&self.0.load().filter, id, context);
    }
}
