//! Logs: always on stderr, text for a terminal, JSON for everything else.

use std::{
    io::{self, IsTerminal},
    sync::OnceLock,
};

use tracing_subscriber::{
    EnvFilter, Layer, Registry, layer::SubscriberExt, reload, util::SubscriberInitExt,
};

use crate::config::{LogConfig, LogFormat};

/// Starts logging for the whole process. A second call changes nothing.
///
/// `verbosity` counts `-v` up and `-q` down; other than 0 it takes the place of the configured level.
///
/// # Errors
/// The text of the filter's error; the configuration has checked its level before.
pub fn init(config: &LogConfig, verbosity: i8) -> Result<(), String> {
    let level = level(&config.level, verbosity);
    let filter = EnvFilter::try_new(level).map_err(|e| e.to_string())?;
    let terminal = io::stderr().is_terminal();
    let json = match config.format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !terminal,
    };
    let (filter, handle) = reload::Layer::new(filter);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        // The module that speaks says nothing to the reader, and its key would stand beside a session's target.
        .with_target(false)
        .with_ansi(terminal);
    let lines = if json {
        lines.json().flatten_event(true).boxed()
    } else {
        lines.boxed()
    };
    let subscriber = tracing_subscriber::registry().with(filter).with(lines);
    // An error means that a subscriber is in place already, whose level is another's to change.
    if subscriber.try_init().is_ok() {
        let _first = RELOAD.set(Reload { verbosity, handle });
    }
    Ok(())
}

/// Goes by another level from now on, unless flags of the command line took the place of the configured one. Does nothing
/// where [`init`] was not what started logging.
///
/// # Errors
/// The text of the filter's error; the configuration has checked its level before.
pub fn set_level(configured: &str) -> Result<(), String> {
    let Some(reload) = RELOAD.get() else {
        return Ok(());
    };
    let filter = EnvFilter::try_new(level(configured, reload.verbosity));
    let filter = filter.map_err(|e| e.to_string())?;
    reload.handle.reload(filter).map_err(|e| e.to_string())
}

/// The way to the filter of this process's one subscriber.
struct Reload {
    verbosity: i8,
    handle: reload::Handle<EnvFilter, Registry>,
}

static RELOAD: OnceLock<Reload> = OnceLock::new();

/// Tells whether a text is a filter that [`init`] takes.
///
/// # Errors
/// Why not.
pub fn check_level(text: &str) -> Result<(), String> {
    EnvFilter::try_new(text)
        .map(drop)
        .map_err(|e| e.to_string())
}

fn level(configured: &str, verbosity: i8) -> &str {
    match verbosity {
        i8::MIN..=-2 => "error",
        -1 => "warn",
        0 => configured,
        1 => "debug",
        2.. => "trace",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_take_the_place_of_the_configured_level() {
        for (verbosity, wanted) in [
            (-3, "error"),
            (-1, "warn"),
            (0, "info,adit=debug"),
            (1, "debug"),
            (4, "trace"),
        ] {
            assert_eq!(level("info,adit=debug", verbosity), wanted);
        }
    }

    #[test]
    fn a_bad_level_is_told() {
        assert!(check_level("info,adit=debug").is_ok());
        assert!(check_level("adit=loud").is_err());
    }
}
