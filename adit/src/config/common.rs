//! Keys that both roles have.

use std::{num::NonZeroU32, path::PathBuf, time::Duration};

use adit_proto_core::limits;

use super::{LogConfig, Surroundings, file::Kind, parse, reader::Reader};

/// Reads `state_dir`.
pub(super) fn state_dir(r: &mut Reader<'_>, around: &Surroundings) -> Option<PathBuf> {
    let default = around.state_dir().unwrap_or_default();
    let default = default.to_string_lossy();
    let found = r.scalar("state_dir", Kind::Text, &default, |text| match text {
        "" => {
            Err("there is no home directory to keep state in; set it with --state-dir".to_owned())
        }
        _ => parse::path(text),
    });
    Some(found?.value)
}

/// Reads `grace`.
pub(super) fn grace(r: &mut Reader<'_>) -> Option<Duration> {
    Some(r.scalar("grace", Kind::Text, "10s", parse::duration)?.value)
}

/// Reads the `[log]` section, the same for both roles.
pub(super) fn log(r: &mut Reader<'_>) -> Option<LogConfig> {
    let level = r.scalar("log.level", Kind::Text, "info", |text| {
        crate::log::check_level(text)?;
        Ok(text.to_owned())
    });
    let format = r.scalar("log.format", Kind::Text, "auto", |text| {
        clap::ValueEnum::from_str(text, false)
            .map_err(|_| "write `text`, `json` or `auto`".to_owned())
    });
    Some(LogConfig {
        level: level?.value,
        format: format?.value,
    })
}

/// Reads `limits.unread`: MiB that may wait for whoever does not read, `default` bytes unless it is given.
pub(super) fn unread(r: &mut Reader<'_>, default: u64) -> Option<NonZeroU32> {
    budget(r, "limits.unread", default)
}

/// Reads MiB.
pub(super) fn budget(r: &mut Reader<'_>, key: &str, default: u64) -> Option<NonZeroU32> {
    let least = mib(limits::UNREAD_BUDGET_MIN);
    within(r, key, mib(default), least, mib(limits::UNREAD_BUDGET_MAX))
}

/// Reads a count. What stands as a bound in the core cannot be raised here.
pub(super) fn within(
    r: &mut Reader<'_>,
    key: &str,
    default: usize,
    least: usize,
    most: usize,
) -> Option<NonZeroU32> {
    let check = |text: &str| match parse::count(text)? {
        count if count.get() as usize > most => Err(format!(
            "`{text}` is above {most}, the most that is possible"
        )),
        count if (count.get() as usize) < least => Err(format!(
            "`{text}` is below {least}, the least that is possible"
        )),
        count => Ok(count),
    };
    r.scalar(key, Kind::Number, &default.to_string(), check)
        .map(|c| c.value)
}

fn mib(bytes: u64) -> usize {
    usize::try_from(bytes >> 20).unwrap_or(usize::MAX)
}
