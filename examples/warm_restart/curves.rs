//! Hit ratios over time, in the terminal and as SVG.

use std::fmt::Write;

use plotters::style::RGBColor;

use crate::plot::{self, Axis, Line, Look, Panel};

/// Hit ratios window by window, beginning with window `from`.
pub(crate) struct Curve<'r> {
    pub(crate) name: &'static str,
    pub(crate) color: RGBColor,
    pub(crate) sign: char,
    pub(crate) from: usize,
    pub(crate) ratios: &'r [f64],
}

/// So many windows before and after the restart are shown.
const BEFORE: usize = 24;
const AFTER: usize = 64;
/// Lines of the terminal.
const LINES: usize = 16;

/// The windows that are shown, and the highest ratio of the axis.
struct Axes {
    first: usize,
    end: usize,
    top: f64,
}

fn axes(curves: &[Curve<'_>], restart: usize) -> Axes {
    let (first, end) = (restart.saturating_sub(BEFORE), restart + AFTER);
    let shown = |curve: &Curve<'_>| points(curve, first, end).fold(0.0, |best: f64, point| best.max(point.1));
    let best = curves.iter().map(shown).fold(0.0, f64::max);
    // To the next tenth, and at least one.
    let top = ((best * 10.0).ceil() / 10.0).clamp(0.1, 1.0);
    Axes { first, end, top }
}

fn points(curve: &Curve<'_>, first: usize, end: usize) -> impl Iterator<Item = (usize, f64)> {
    let numbered = curve
        .ratios
        .iter()
        .enumerate()
        .map(|(n, &ratio)| (curve.from + n, ratio));
    numbered.filter(move |point| (first..end).contains(&point.0))
}

/// The curves as text; later ones cover earlier ones.
pub(crate) fn text(curves: &[Curve<'_>], restart: usize) -> String {
    let Axes { first, end, top } = axes(curves, restart);
    let mut cells = vec![vec![' '; end - first]; LINES + 1];
    cells.iter_mut().for_each(|line| line[restart - first] = '|');
    for curve in curves {
        for (window, ratio) in points(curve, first, end) {
            let line = ((1.0 - ratio / top) * LINES as f64).round() as usize;
            cells[line.min(LINES)][window - first] = curve.sign;
        }
    }
    let mut out = String::new();
    for (number, line) in cells.iter().enumerate() {
        let label = if number % 4 == 0 {
            format!("{:3.0}%", top * 100.0 * (1.0 - number as f64 / LINES as f64))
        } else {
            String::new()
        };
        let line: String = line.iter().collect();
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(out, "{label:>5} {}", line.trim_end());
    }
    let legend: Vec<String> = curves
        .iter()
        .map(|curve| format!("{} {}", curve.sign, curve.name))
        .collect();
    let _ = writeln!(out, "      {}   | the kill", legend.join("   "));
    out
}

/// Draws the curves as SVG.
pub(crate) fn svg(curves: &[Curve<'_>], restart: usize) -> Result<String, String> {
    let Axes { first, end, top } = axes(curves, restart);
    let looks: Vec<Look> = curves.iter().map(look).collect();
    let lines = curves.iter().zip(&looks).map(|(curve, look)| Line {
        look: look.clone(),
        points: points(curve, first, end)
            .map(|(window, ratio)| (window as f64, ratio))
            .collect(),
    });
    let panel = Panel {
        title: String::new(),
        subtitle: "A service is killed while it saves a snapshot, and started again".to_owned(),
        x: Axis {
            title: "windows after the restart (1/500 of the trace each)",
            range: (first as f64, end as f64),
            ticks: (first..=end)
                .filter(|window| window.abs_diff(restart).is_multiple_of(8))
                .map(|window| (window as f64, (window as i64 - restart as i64).to_string()))
                .collect(),
        },
        y: plot::percent_axis("hit ratio", top),
        lines: lines.collect(),
        event: Some((restart as f64, "SIGKILL, restart")),
    };
    plot::draw("Hit ratio before and after a restart", &looks, &[panel], 1, (800, 380))
}

fn look(curve: &Curve<'_>) -> Look {
    Look {
        name: curve.name.to_owned(),
        color: curve.color,
        width: 2,
        dash: None,
        mark: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_stay_inside() {
        for ratios in [&[][..], &[0.0], &[1.0; 300], &[0.001, 0.2]] {
            for restart in [0, 3, 100] {
                let curve = |from| Curve {
                    name: "c",
                    color: RGBColor(0, 0, 0),
                    sign: '*',
                    from,
                    ratios,
                };
                let curves = [curve(0), curve(restart)];
                assert_eq!(text(&curves, restart).lines().count(), LINES + 2);
                let svg = svg(&curves, restart).unwrap();
                assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            }
        }
    }
}
