//! Measured durations as a table for people and as JSON for programs.

use std::fmt::Write as _;

use super::{
    bars::Bar,
    durations::{Durations, Summary},
};
use crate::At;

/// One line of a report.
#[derive(Clone, Debug)]
pub struct Row {
    /// What the experiment is about.
    pub group: &'static str,
    /// What happens in it.
    pub kind: String,
    /// What is measured.
    pub what: &'static str,
    /// What it is held to.
    pub bar: Option<Bar>,
    /// What came out.
    pub durations: Durations,
}

/// Writes a table.
#[must_use]
pub fn text(rows: &[Row]) -> String {
    let mut out = String::new();
    let mut heading = None;
    for row in rows {
        if heading != Some((row.group, row.what)) {
            heading = Some((row.group, row.what));
            // Writing to a String cannot fail.
            let _infallible = write!(
                out,
                "\n{}: {}, in ms\n{:<26}{:>9}{:>9}{:>9}{:>9}{:>10}{:>8}{:>7}\n",
                row.group, row.what, "", "p50", "p99", "p99.9", "worst", "seed", "count", "never"
            );
        }
        let summary = row.durations.summary();
        let _infallible = writeln!(
            out,
            "{:<26}{:>9}{:>9}{:>9}{:>9}{:>10}{:>8}{:>7}",
            row.kind,
            cell(summary.p50),
            cell(summary.p99),
            cell(summary.p999),
            cell(summary.worst.and_then(|worst| worst.took)),
            summary.worst.map_or(0, |worst| worst.seed),
            summary.count,
            summary.missing,
        );
    }
    out
}

fn cell(took: Option<At>) -> String {
    took.map_or_else(|| "-".into(), |at| format!("{:.1}", millis(at)))
}

fn millis(at: At) -> f64 {
    at.as_secs_f64() * 1e3
}

/// Writes an array of objects; times are milliseconds.
#[must_use]
pub fn json(rows: &[Row]) -> String {
    let objects: Vec<String> = rows.iter().map(object).collect();
    format!("[\n{}\n]\n", objects.join(",\n"))
}

/// The names are those of this crate and need no escapes.
fn object(row: &Row) -> String {
    let Summary {
        count,
        missing,
        p50,
        p99,
        p999,
        worst,
    } = row.durations.summary();
    let value =
        |took: Option<At>| took.map_or_else(|| "null".into(), |at| format!("{:.3}", millis(at)));
    let seed = worst.map_or_else(|| "null".into(), |worst| worst.seed.to_string());
    format!(
        r#"{{"group":"{}","kind":"{}","what":"{}","count":{count},"never":{missing},"p50":{},"p99":{},"p99.9":{},"worst":{},"seed":{seed}}}"#,
        row.group,
        row.kind,
        row.what,
        value(p50),
        value(p99),
        value(p999),
        value(worst.and_then(|worst| worst.took)),
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn rows() -> Vec<Row> {
        let mut durations = Durations::default();
        durations.push(4, Some(Duration::from_micros(1_250)));
        let row = |kind: &str, durations| Row {
            group: "failover",
            kind: kind.into(),
            what: "time",
            bar: None,
            durations,
        };
        vec![row("crash", durations), row("stop", Durations::default())]
    }

    #[test]
    fn a_table_has_one_heading_for_a_question() {
        let text = text(&rows());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 5, "{text}");
        assert_eq!(lines[1], "failover: time, in ms");
        let cells: Vec<&str> = lines[3].split_whitespace().collect();
        assert_eq!(cells, ["crash", "1.2", "1.2", "1.2", "1.2", "4", "1", "0"]);
    }

    #[test]
    fn json_says_null_where_there_is_nothing() {
        let json = json(&rows());
        assert!(
            json.contains(r#""count":1,"never":0,"p50":1.250,"#),
            "{json}"
        );
        assert!(json.contains(r#""worst":null,"seed":null}"#), "{json}");
    }
}
