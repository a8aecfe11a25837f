//! Cumulative distributions as SVG: one panel for a question, one curve for a kind, time on a logarithmic axis.

use std::fmt::Write as _;

use super::table::Row;
use crate::At;

/// Draws all rows; neighbours of one group and question share a panel.
#[must_use]
pub fn svg(rows: &[Row]) -> String {
    let panels: Vec<&[Row]> = rows
        .chunk_by(|a, b| (a.group, a.what) == (b.group, b.what))
        .collect();
    let height = panels.iter().fold(0.0, |sum, _| sum + PANEL);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    let mut top = 0.0;
    for panel in panels {
        draw_axes(&mut out, top, panel);
        for (row, style) in panel.iter().zip(STYLES.iter().cycle()) {
            draw_curve(&mut out, top, row, style);
        }
        draw_legend(&mut out, top, panel);
        top += PANEL;
    }
    out.push_str("</svg>\n");
    out
}

/// Writing to a String cannot fail, so what it gives is dropped here and below.
fn draw_axes(out: &mut String, top: f64, panel: &[Row]) {
    let (low, high) = (y(top, 0.0), y(top, 1.0));
    let title = panel.first().map_or(("", ""), |row| (row.group, row.what));
    let _infallible = writeln!(
        out,
        "<text x=\"{LEFT}\" y=\"{}\" font-weight=\"bold\">{}: {}</text>",
        top + 20.0,
        title.0,
        title.1
    );
    for (ms, label) in DECADES {
        let x = x(ms);
        let _infallible = writeln!(
            out,
            "<path d=\"M{x:.1} {low:.1}V{high:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>",
            low + 16.0
        );
    }
    for share in [0.0, 0.25, 0.5, 0.75, 1.0] {
        let y = y(top, share);
        let _infallible = writeln!(
            out,
            "<path d=\"M{LEFT} {y:.1}H{RIGHT}\" stroke=\"#ddd\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{:.0} %</text>",
            LEFT - 6.0,
            y + 4.0,
            share * 100.0
        );
    }
}

/// What never happened leaves a curve below 100 %.
fn draw_curve(out: &mut String, top: f64, row: &Row, (colour, dashes): &Style) {
    let times = row.durations.sorted();
    let all = to_f64(row.durations.summary().count.max(1));
    let mut path = String::new();
    let mut drawn_to = f64::NEG_INFINITY;
    for (nth, took) in times.iter().enumerate() {
        let at = x(millis(*took));
        let is_last = nth + 1 == times.len();
        // Points closer than half a pixel show nothing.
        if at - drawn_to < 0.5 && !is_last {
            continue;
        }
        drawn_to = at;
        let _infallible = if path.is_empty() {
            write!(path, "M{at:.1} {:.1}", y(top, to_f64(nth) / all))
        } else {
            write!(path, "H{at:.1}V{:.1}", y(top, to_f64(nth) / all))
        };
        if is_last {
            let _infallible = write!(path, "V{:.1}", y(top, to_f64(nth + 1) / all));
        }
    }
    let _infallible = writeln!(
        out,
        "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" \
         stroke-dasharray=\"{dashes}\" stroke-width=\"1.5\"/>"
    );
}

fn draw_legend(out: &mut String, top: f64, panel: &[Row]) {
    let mut y = top + 44.0;
    for (row, (colour, dashes)) in panel.iter().zip(STYLES.iter().cycle()) {
        let _infallible = writeln!(
            out,
            "<path d=\"M{:.1} {y:.1}h18\" stroke=\"{colour}\" stroke-dasharray=\"{dashes}\" stroke-width=\"3\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            RIGHT + 14.0,
            RIGHT + 38.0,
            y + 4.0,
            row.kind
        );
        y += 18.0;
    }
}

/// Where a time is, from 1 ms to 100 s.
fn x(ms: f64) -> f64 {
    let decades = ms.max(1.0).log10().min(5.0);
    LEFT + (RIGHT - LEFT) * decades / 5.0
}

fn y(top: f64, share: f64) -> f64 {
    top + PANEL - 40.0 - share * (PANEL - 80.0)
}

fn millis(at: At) -> f64 {
    at.as_secs_f64() * 1e3
}

fn to_f64(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

const WIDTH: f64 = 900.0;
const PANEL: f64 = 280.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 690.0;
const DECADES: [(f64, &str); 6] = [
    (1.0, "1 ms"),
    (10.0, "10 ms"),
    (100.0, "100 ms"),
    (1_000.0, "1 s"),
    (10_000.0, "10 s"),
    (100_000.0, "100 s"),
];
/// A colour and dashes.
type Style = (&'static str, &'static str);
/// Colours that all people tell apart, and dashes through which a curve shows that lies below another.
const STYLES: [Style; 8] = [
    ("#000000", "none"),
    ("#e69f00", "9 3"),
    ("#56b4e9", "7 5"),
    ("#009e73", "5 7"),
    ("#cc79a7", "3 9"),
    ("#0072b2", "2 6"),
    ("#d55e00", "none"),
    ("#999999", "4 4"),
];

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{super::durations::Durations, *};

    fn row(what: &'static str, millis: &[u64], never: u64) -> Row {
        let mut durations = Durations::default();
        for ms in millis {
            durations.push(0, Some(Duration::from_millis(*ms)));
        }
        for seed in 0..never {
            durations.push(seed, None);
        }
        Row {
            group: "failover",
            kind: "crash".into(),
            what,
            bar: None,
            durations,
        }
    }

    #[test]
    fn each_question_has_a_panel_and_each_kind_a_curve() {
        let rows = [row("a", &[1], 0), row("a", &[2], 0), row("b", &[3], 0)];
        let svg = svg(&rows);
        assert_eq!(svg.matches("font-weight=\"bold\"").count(), 2);
        assert_eq!(svg.matches("fill=\"none\"").count(), 3);
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
    }

    #[test]
    fn a_curve_ends_at_the_share_that_happened() {
        let mut out = String::new();
        draw_curve(&mut out, 0.0, &row("a", &[10, 1_000], 2), &STYLES[0]);
        let (first, last) = (x(10.0), x(1_000.0));
        let path = format!(
            "M{first:.1} {:.1}H{last:.1}V{:.1}V{:.1}",
            y(0.0, 0.0),
            y(0.0, 0.25),
            y(0.0, 0.5)
        );
        assert!(out.contains(&path), "{out} {path}");
    }

    #[test]
    fn the_time_axis_is_logarithmic() {
        assert!((x(1.0) - LEFT).abs() < 1e-9);
        assert!((x(100_000.0) - RIGHT).abs() < 1e-9);
        assert!((x(100.0) - x(10.0) - (x(10.0) - x(1.0))).abs() < 1e-9);
    }
}
