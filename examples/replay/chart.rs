//! The chart of the replay: hit ratio over capacity, a panel per trace.

use plotters::style::RGBColor;

use crate::plot::{self, Axis, Line, Look, Panel};
use crate::report::{Report, bytes_text, grouped};

/// The size of a panel with its title and axis labels.
const PANEL: (u32, u32) = (450, 330);

/// Returns the look of the line called `name`.
fn look(name: &str) -> Look {
    let (color, width, dash) = match name {
        "OPT" | "PFOO-L" => (RGBColor(0x22, 0x22, 0x22), 2, Some(6)),
        // Below the cache's own LRU, which should follow it: wide and pale, so that both are seen.
        "exact LRU" => (RGBColor(0xb8, 0xc4, 0xce), 7, None),
        "W-TinyLFU" => (RGBColor(0xd5, 0x5e, 0x00), 3, None),
        "LRU" => (RGBColor(0x00, 0x72, 0xb2), 2, None),
        "LFU" => (RGBColor(0x00, 0x9e, 0x73), 2, None),
        "FIFO" => (RGBColor(0xcc, 0x79, 0xa7), 2, None),
        _ => (RGBColor(0xe6, 0x9f, 0x00), 2, Some(3)),
    };
    Look {
        name: name.to_owned(),
        color,
        width,
        dash,
        mark: Some(width / 2 + 2),
    }
}

/// Draws the chart of all reports, as SVG.
pub(crate) fn draw(reports: &[Report]) -> Result<String, String> {
    let across = match reports.len() {
        0 | 1 => 1,
        2 | 4 => 2,
        _ => 3,
    };
    let mut looks = Vec::new();
    if let Some(first) = reports.first() {
        looks.extend([look(first.optimum_name()), look("exact LRU")]);
        looks.extend(first.policies.iter().map(|name| look(name)));
    }
    let panels: Vec<Panel> = reports.iter().map(panel).collect();
    plot::draw("Hit ratio over capacity", &looks, &panels, across, PANEL)
}

fn panel(report: &Report) -> Panel {
    // The axis is logarithmic: places are powers of 2.
    let place = |capacity: u64| (capacity.max(1) as f64).log2();
    let mut rows: Vec<_> = report.rows.iter().collect();
    rows.sort_by_key(|row| row.capacity);
    let line = |name: &str, ratios: Vec<f64>| Line {
        look: look(name),
        points: rows.iter().map(|row| place(row.capacity)).zip(ratios).collect(),
    };
    // Drawn in this order: the first policy is on top.
    let mut lines = vec![
        line("exact LRU", rows.iter().map(|row| row.lru).collect()),
        line(report.optimum_name(), rows.iter().map(|row| row.optimum).collect()),
    ];
    for (i, name) in report.policies.iter().enumerate().rev() {
        lines.push(line(
            name,
            rows.iter().filter_map(|row| row.ratios.get(i).copied()).collect(),
        ));
    }
    let best = lines
        .iter()
        .flat_map(|line| &line.points)
        .fold(0.0, |best: f64, point| best.max(point.1));
    Panel {
        title: shortened(&report.name, 44),
        subtitle: format!(
            "{} requests, {} keys",
            grouped(report.requests as u64),
            grouped(report.unique as u64)
        ),
        x: capacity_axis(
            rows.first().map_or(0.0, |row| place(row.capacity)),
            rows.last().map_or(1.0, |row| place(row.capacity)),
            report.bytes.is_some(),
        ),
        y: plot::percent_axis("hit ratio", best),
        lines,
        event: None,
    }
}

/// Returns an axis from `2^low` to `2^high`, entries or bytes.
fn capacity_axis(low: f64, high: f64, bytes: bool) -> Axis {
    // A single capacity still needs an axis around it.
    let (low, high) = if low < high {
        (low, high)
    } else {
        (low - 1.0, high + 1.0)
    };
    let ticks = ticks(low.exp2(), high.exp2(), bytes).into_iter().map(|tick| {
        let text = if bytes {
            bytes_text(tick as u64).replace(".0 ", " ")
        } else {
            short_count(tick)
        };
        (tick.log2(), text)
    });
    Axis {
        title: if bytes {
            "capacity in bytes (log scale)"
        } else {
            "capacity in entries (log scale)"
        },
        // Room for the marks of the first and the last point.
        range: (low - (high - low) * 0.02, high + (high - low) * 0.02),
        ticks: ticks.collect(),
    }
}

/// Returns round numbers from `low` to `high`, as many as have room: steps of 1-2-5, or of powers of
/// 2 for bytes.
fn ticks(low: f64, high: f64, bytes: bool) -> Vec<f64> {
    let all: Vec<f64> = if bytes {
        (0..64).map(|power| f64::from(power).exp2()).collect()
    } else {
        (0..20)
            .flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * 10f64.powi(power)))
            .collect()
    };
    // A hair wider, so that rounding does not drop a tick at the very end.
    let inside: Vec<f64> = all
        .into_iter()
        .filter(|t| (low * 0.999..=high * 1.001).contains(t))
        .collect();
    let skip = if inside.len() <= 7 {
        1
    } else if bytes {
        inside.len().div_ceil(6)
    } else {
        3 * inside.len().div_ceil(21)
    };
    // Thinned out, counts stay on powers of ten.
    let first = if bytes || skip == 1 {
        0
    } else {
        inside.iter().position(|t| t.log10().fract() < 1e-9).unwrap_or(0)
    };
    inside.into_iter().skip(first).step_by(skip).collect()
}

/// 20000 as "20k".
fn short_count(n: f64) -> String {
    match n {
        n if n >= 1e9 => format!("{}G", n / 1e9),
        n if n >= 1e6 => format!("{}M", n / 1e6),
        n if n >= 1e3 => format!("{}k", n / 1e3),
        n => n.to_string(),
    }
}

fn shortened(name: &str, most: usize) -> String {
    if name.chars().count() <= most {
        return name.to_owned();
    }
    name.chars().take(most - 1).chain(['\u{2026}']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::report;

    #[test]
    fn chart_has_a_panel_per_trace_and_valid_xml() {
        let reports = [
            report("a<b>&\"c\"\u{1}", &[(0.5, 0.1, 0.3), (0.9, 0.2, 0.4)]),
            report("single", &[(0.0, 0.0, 0.0)]),
        ];
        let svg = draw(&reports).unwrap();
        assert_eq!(svg.matches("1,000 keys").count(), 2);
        assert!(svg.contains("a&lt;b&gt;&amp;") && !svg.contains('\u{1}'), "{svg}");
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        assert!(draw(&[]).unwrap().trim_end().ends_with("</svg>"));
    }

    #[test]
    fn ticks_are_few_and_inside() {
        for (low, high) in [
            (1.0, 10.0),
            (250.0, 12_500.0),
            (1.0, 1e9),
            (5.0, 10.0),
            (937.0, 46_000.0),
        ] {
            for bytes in [false, true] {
                let ticks = ticks(low, high, bytes);
                assert!((1..=7).contains(&ticks.len()), "{low}..{high}: {ticks:?}");
            }
        }
    }
}
