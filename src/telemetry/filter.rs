//! The log filter, changeable while the process runs.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use tracing_subscriber::{
    EnvFilter, Registry,
    reload::{Handle, Layer},
};

use crate::config;

/// A handle to the log filter; clones share it.
#[derive(Clone)]
pub struct LogFilter {
    filter: Handle<EnvFilter, Registry>,
    /// The directives as they were set: the filter shows them in another order.
    text: Arc<Mutex<String>>,
}

impl LogFilter {
    /// Makes a filter and the handle to it, of a `text` that [`config::log_filter`] has checked.
    pub(super) fn new(text: &str) -> (Self, Layer<EnvFilter, Registry>) {
        let (layer, filter) = Layer::new(EnvFilter::new(text));
        let text = Arc::new(Mutex::new(text.to_owned()));
        (Self { filter, text }, layer)
    }

    /// Returns the filter in force, as tracing directives.
    pub fn text(&self) -> String {
        let text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        text.clone()
    }

    /// Sets the filter.
    ///
    /// # Errors
    /// `text` is not a filter: the expected form. Nothing is changed then.
    pub fn set(&self, text: &str) -> Result<(), &'static str> {
        let checked = config::log_filter(text)?;
        let mut text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        // Fails only without our subscriber, when there is nothing to filter.
        let _ = self.filter.reload(EnvFilter::new(&checked));
        *text = checked;
        Ok(())
    }
}

impl fmt::Debug for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LogFilter").field(&self.text()).finish()
    }
}
