//! What the kernel programs log, passed on to the agent's own log. aya-log speaks the `log` crate's language.

use log::{Level, Log, Metadata, Record};

/// Passes records on to tracing.
pub(super) struct ToTracing;

impl Log for ToTracing {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let text = record.args();
        match record.level() {
            Level::Error => tracing::error!(target: "haechi::kernel", "{text}"),
            Level::Warn => tracing::warn!(target: "haechi::kernel", "{text}"),
            Level::Info => tracing::info!(target: "haechi::kernel", "{text}"),
            Level::Debug | Level::Trace => tracing::debug!(target: "haechi::kernel", "{text}"),
        }
    }

    fn flush(&self) {}
}
