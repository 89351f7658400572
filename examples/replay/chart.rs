//! The chart: hit ratio over capacity, a panel per trace, as SVG.

use std::fmt::Write;

use crate::report::{Report, bytes_text, grouped};

/// The size of a panel with its title and axis labels, and the room the plot leaves to each side.
const PANEL: (f64, f64) = (440.0, 320.0);
const LEFT: f64 = 52.0;
const RIGHT: f64 = 18.0;
const TOP: f64 = 46.0;
const BOTTOM: f64 = 54.0;
/// Room above the panels for the heading and the legend.
const HEADER: f64 = 84.0;

/// How a line looks.
struct Style {
    name: &'static str,
    colour: &'static str,
    width: f64,
    dash: &'static str,
}

/// The looks of a line by its name. The colours (Okabe and Ito's) can be told apart by the colour-blind.
fn style(name: &'static str) -> Style {
    let (colour, width, dash) = match name {
        "OPT" | "PFOO-L" => ("#222222", 1.8, "7 4"),
        // Under the cache's own LRU, which should follow it: wide and pale, so that both can be seen.
        "exact LRU" => ("#b8c4ce", 6.0, ""),
        "W-TinyLFU" => ("#d55e00", 2.6, ""),
        "LRU" => ("#0072b2", 1.6, ""),
        "LFU" => ("#009e73", 1.6, ""),
        "FIFO" => ("#cc79a7", 1.6, ""),
        _ => ("#e69f00", 1.6, "3 3"),
    };
    Style {
        name,
        colour,
        width,
        dash,
    }
}

/// The chart of all reports.
pub(crate) fn draw(reports: &[Report]) -> String {
    let across = match reports.len() {
        0 | 1 => 1,
        2 | 4 => 2,
        _ => 3,
    };
    let down = reports.len().div_ceil(across);
    // One panel is narrower than the legend.
    let width = (across as f64 * PANEL.0).max(780.0);
    let height = HEADER + down as f64 * PANEL.1;
    let mut out = String::new();
    // Writing to a String cannot fail, here and below.
    let _ = writeln!(
        out,
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" font-family="Helvetica, Arial, sans-serif" font-size="12" fill="#333" role="img" aria-label="Hit ratio over capacity">
<rect width="100%" height="100%" fill="#fff"/>
<text x="{LEFT}" y="32" font-size="18" font-weight="bold">Hit ratio over capacity</text>"##
    );
    if let Some(first) = reports.first() {
        legend(&mut out, first);
    }
    for (i, report) in reports.iter().enumerate() {
        let (x, y) = ((i % across) as f64 * PANEL.0, HEADER + (i / across) as f64 * PANEL.1);
        let _ = writeln!(out, r#"<g transform="translate({x} {y})">"#);
        panel(&mut out, report);
        out.push_str("</g>\n");
    }
    out.push_str("</svg>\n");
    out
}

/// The lines of a report: a style and a ratio per row. Drawn in this order, the first policy comes to lie on top.
fn lines(report: &Report) -> Vec<(Style, Vec<f64>)> {
    let mut lines = vec![
        (style("exact LRU"), report.rows.iter().map(|row| row.lru).collect()),
        (
            style(report.optimum_name()),
            report.rows.iter().map(|row| row.optimum).collect(),
        ),
    ];
    for (i, &name) in report.policies.iter().enumerate().rev() {
        lines.push((
            style(name),
            report
                .rows
                .iter()
                .filter_map(|row| row.ratios.get(i).copied())
                .collect(),
        ));
    }
    lines
}

fn stroke(style: &Style) -> String {
    let dash = if style.dash.is_empty() {
        String::new()
    } else {
        format!(r#" stroke-dasharray="{}""#, style.dash)
    };
    format!(
        r#"fill="none" stroke="{}" stroke-width="{}" stroke-linejoin="round"{dash}"#,
        style.colour, style.width
    )
}

fn legend(out: &mut String, report: &Report) {
    let mut lines = lines(report);
    // The optimum first, then exact LRU, then the policies as in the table.
    lines[2..].reverse();
    lines.swap(0, 1);
    let mut x = LEFT;
    for (style, _) in lines {
        let _ = writeln!(out, r#"<path d="M{x:.1} 58h26" {}/>"#, stroke(&style));
        let _ = writeln!(out, r#"<text x="{:.1}" y="62">{}</text>"#, x + 32.0, style.name);
        x += 52.0 + 7.2 * style.name.len() as f64;
    }
}

fn panel(out: &mut String, report: &Report) {
    let (w, h) = (PANEL.0 - LEFT - RIGHT, PANEL.1 - TOP - BOTTOM);
    let mut order: Vec<usize> = (0..report.rows.len()).collect();
    order.sort_by_key(|&i| report.rows[i].capacity);
    let capacities: Vec<f64> = order.iter().map(|&i| report.rows[i].capacity.max(1) as f64).collect();
    let (Some(&low), Some(&high)) = (capacities.first(), capacities.last()) else {
        return;
    };
    // A single capacity still needs an axis around it.
    let (low, high) = if low < high {
        (low, high)
    } else {
        (low / 2.0, high * 2.0)
    };
    let lines = lines(report);
    let best = lines.iter().flat_map(|line| &line.1).fold(0.0, |a: f64, &b| a.max(b));
    let step = if best > 0.5 {
        0.2
    } else if best > 0.2 {
        0.1
    } else {
        0.05
    };
    let top = ((best / step).ceil() * step).clamp(step, 1.0);
    let x = |capacity: f64| LEFT + (capacity / low).ln() / (high / low).ln() * w;
    let y = |ratio: f64| TOP + (1.0 - ratio / top) * h;

    let _ = writeln!(
        out,
        r##"<text x="{LEFT}" y="18" font-size="14" font-weight="bold">{}</text>
<text x="{LEFT}" y="35" font-size="11" fill="#777">{} requests, {} keys</text>"##,
        escaped(&shortened(&report.name, 44)),
        grouped(report.requests as u64),
        grouped(report.unique as u64)
    );
    for tick in 0..=(top / step).round() as u32 {
        let ratio = f64::from(tick) * step;
        let (y, colour) = (y(ratio), if tick == 0 { "#888" } else { "#e4e4e4" });
        let _ = writeln!(out, r#"<path d="M{LEFT} {y:.1}h{w}" stroke="{colour}"/>"#);
        let _ = writeln!(
            out,
            r#"<text x="{}" y="{:.1}" text-anchor="end">{:.0}%</text>"#,
            LEFT - 7.0,
            y + 4.0,
            ratio * 100.0
        );
    }
    let bytes = report.bytes.is_some();
    for tick in ticks(low, high, bytes) {
        let (x, base) = (x(tick), TOP + h);
        let _ = writeln!(out, r##"<path d="M{x:.1} {base}v5" stroke="#888"/>"##);
        let text = if bytes {
            bytes_text(tick as u64).replace(".0 ", " ")
        } else {
            short_count(tick)
        };
        let _ = writeln!(
            out,
            r#"<text x="{x:.1}" y="{}" text-anchor="middle">{text}</text>"#,
            base + 19.0
        );
    }
    let unit = if bytes {
        "capacity in bytes (log scale)"
    } else {
        "capacity in entries (log scale)"
    };
    let _ = writeln!(
        out,
        r##"<text x="{}" y="{}" text-anchor="middle" font-size="11" fill="#777">{unit}</text>"##,
        LEFT + w / 2.0,
        TOP + h + 37.0
    );
    for (style, ratios) in &lines {
        let points: Vec<(f64, f64)> = order
            .iter()
            .zip(&capacities)
            .filter_map(|(&i, &c)| Some((x(c), y(*ratios.get(i)?))))
            .collect();
        let path: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = writeln!(out, r#"<polyline points="{}" {}/>"#, path.join(" "), stroke(style));
        let radius = style.width * 0.5 + 1.2;
        for (x, y) in &points {
            let _ = write!(
                out,
                r#"<circle cx="{x:.1}" cy="{y:.1}" r="{radius:.1}" fill="{}"/>"#,
                style.colour
            );
        }
        out.push('\n');
    }
}

/// Round numbers between `low` and `high`, as many as have room: steps of 1-2-5, or of powers of 4 for bytes.
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

/// Text that may stand between tags. A file's name is any stranger's.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // Not allowed in XML, not even escaped.
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('?'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::report;

    #[test]
    fn one_panel_per_trace_and_nothing_but_numbers() {
        let reports = [
            report("a<b>&\"c\"\u{1}", &[(0.5, 0.1, 0.3), (0.9, 0.2, 0.4)]),
            report("single", &[(0.0, 0.0, 0.0)]),
        ];
        let svg = draw(&reports);
        assert_eq!(svg.matches("<g ").count(), 2);
        assert_eq!(svg.matches("<polyline").count(), 8);
        assert!(svg.contains("a&lt;b&gt;&amp;&quot;c&quot;?"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        assert!(draw(&[]).ends_with("</svg>\n"));
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
