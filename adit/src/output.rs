//! What a command answers: tables for people, JSON for programs; on stdout and nowhere else.

use std::{
    io::{self, Write},
    time::Duration,
};

use comfy_table::{Table, presets};
use serde::Serialize;

/// Writes a value as one indented JSON document.
///
/// # Errors
/// What the writer says; [`quiet`] forgives a reader that has left.
pub fn json(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    writeln!(out)
}

/// Writes rows below a heading. Control characters in cells are replaced: names and reasons come from other machines,
/// and a terminal would obey them.
///
/// # Errors
/// What the writer says.
pub fn table(out: &mut impl Write, heading: &[&str], rows: Vec<Vec<String>>) -> io::Result<()> {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(heading.iter().copied());
    for row in rows {
        table.add_row(row.iter().map(|cell| printable(cell)));
    }
    for line in table.lines() {
        // The library puts a space on either side of each cell.
        writeln!(
            out,
            "{}",
            line.strip_prefix(' ').unwrap_or(&line).trim_end()
        )?;
    }
    Ok(())
}

/// Replaces control characters, so that foreign text cannot steer a terminal.
#[must_use]
pub fn printable(text: &str) -> String {
    let shown = |c: char| {
        if c.is_control() { '\u{fffd}' } else { c }
    };
    text.chars().map(shown).collect()
}

/// Like [`printable`], but keeps line ends.
#[must_use]
pub fn printable_lines(text: &str) -> String {
    text.lines().map(printable).collect::<Vec<_>>().join("\n")
}

/// A span of time in at most two units: `350ms`, `12s`, `3m 5s`, `2h 10m`, `4d 3h`.
#[must_use]
pub fn span(time: Duration) -> String {
    let s = time.as_secs();
    match s {
        0 => format!("{}ms", time.as_millis()),
        1..60 => format!("{s}s"),
        60..3_600 => format!("{}m {}s", s / 60, s % 60),
        3_600..86_400 => format!("{}h {}m", s / 3_600, s % 3_600 / 60),
        _ => format!("{}d {}h", s / 86_400, s % 86_400 / 3_600),
    }
}

/// The same of milliseconds.
#[must_use]
pub fn span_ms(ms: u64) -> String {
    span(Duration::from_millis(ms))
}

/// A point in time as UTC, `-` where it is out of the calendar's range.
#[must_use]
pub fn unix_time(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(|_| "-".to_owned(), |t| t.to_string())
}

/// The same of milliseconds.
#[must_use]
pub fn unix_ms(ms: u64) -> String {
    let time = i64::try_from(ms).map(jiff::Timestamp::from_millisecond);
    match time {
        Ok(Ok(time)) => time.to_string(),
        Ok(Err(_)) | Err(_) => "-".to_owned(),
    }
}

/// The time of day in UTC, to the millisecond, so many seconds after a point in time.
#[must_use]
pub fn time_of_day(unix_ms: u64, seconds: f64) -> String {
    let after = jiff::SignedDuration::try_from_secs_f64(seconds);
    let begun = i64::try_from(unix_ms).map(jiff::Timestamp::from_millisecond);
    let (Ok(after), Ok(Ok(begun))) = (after, begun) else {
        return "-".to_owned();
    };
    let time = begun.checked_add(after);
    time.map_or_else(
        |_| "-".to_owned(),
        |t| t.strftime("%H:%M:%S%.3f").to_string(),
    )
}

/// Forgives a reader that has left, as `adit agents list | head -1` leaves.
///
/// # Errors
/// Every other error of a writer.
pub fn quiet(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_align_and_disarm_control_characters() {
        let mut out = Vec::new();
        let rows = vec![
            vec!["a\u{1b}[2J".to_owned(), "1".to_owned()],
            vec!["longer".to_owned(), "2".to_owned()],
        ];
        table(&mut out, &["NAME", "N"], rows).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(!text.contains('\u{1b}'), "{text:?}");
        let columns: Vec<usize> = text.lines().map(|l| l.chars().count()).collect();
        assert_eq!(columns.len(), 3);
        assert!(columns.iter().all(|&c| c == columns[0]), "{text}");
    }

    #[test]
    fn spans_take_two_units() {
        for (ms, shown) in [
            (0, "0ms"),
            (350, "350ms"),
            (12_400, "12s"),
            (185_000, "3m 5s"),
            (7_800_000, "2h 10m"),
            (356_400_000, "4d 3h"),
        ] {
            assert_eq!(span(Duration::from_millis(ms)), shown);
        }
    }

    #[test]
    fn only_a_broken_pipe_is_forgiven() {
        assert!(quiet(Err(io::ErrorKind::BrokenPipe.into())).is_ok());
        assert!(quiet(Err(io::ErrorKind::StorageFull.into())).is_err());
    }

    #[test]
    fn points_in_time_are_told_in_utc() {
        assert_eq!(unix_ms(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
        assert_eq!(time_of_day(1_700_000_000_123, 1.5), "22:13:21.623");
        assert_eq!(time_of_day(1_700_000_000_123, -20.0), "22:13:00.123");
        assert_eq!(
            (unix_ms(u64::MAX), time_of_day(0, f64::NAN)),
            ("-".into(), "-".into())
        );
    }
}
