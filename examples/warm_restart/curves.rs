//! Hit ratios over time, in the terminal and as SVG.

use std::fmt::Write;

/// Hit ratios window by window, beginning with window `from`.
pub(crate) struct Curve<'r> {
    pub(crate) name: &'static str,
    pub(crate) colour: &'static str,
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

const WIDTH: f64 = 780.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 52.0;
const TOP: f64 = 80.0;
const PLOT: (f64, f64) = (WIDTH - LEFT - 18.0, HEIGHT - TOP - 44.0);

/// The curves as SVG.
pub(crate) fn svg(curves: &[Curve<'_>], restart: usize) -> String {
    let Axes { first, end, top } = axes(curves, restart);
    let x = |window: usize| LEFT + (window - first) as f64 / (end - first) as f64 * PLOT.0;
    let y = |ratio: f64| TOP + (1.0 - ratio / top) * PLOT.1;
    let mut out = String::new();
    let _ = writeln!(
        out,
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" font-family="Helvetica, Arial, sans-serif" font-size="12" fill="#333" role="img" aria-label="Hit ratio before and after a restart">
<rect width="100%" height="100%" fill="#fff"/>
<text x="{LEFT}" y="32" font-size="18" font-weight="bold">Hit ratio before and after a restart</text>"##
    );
    for tick in 0..=4 {
        let ratio = top * f64::from(tick) / 4.0;
        let _ = writeln!(
            out,
            r##"<path d="M{LEFT} {y:.1}h{}" stroke="#e4e4e4"/><text x="{}" y="{:.1}" text-anchor="end">{:.0}%</text>"##,
            PLOT.0,
            LEFT - 7.0,
            y(ratio) + 4.0,
            ratio * 100.0,
            y = y(ratio)
        );
    }
    let _ = writeln!(
        out,
        r##"<path d="M{x:.1} {TOP}v{}" stroke="#888" stroke-dasharray="3 3"/><text x="{x:.1}" y="{}" text-anchor="middle" fill="#777">SIGKILL, restart</text>"##,
        PLOT.1,
        HEIGHT - 18.0,
        x = x(restart)
    );
    let mut legend = LEFT;
    for curve in curves {
        let stroke = format!(
            r#"fill="none" stroke="{}" stroke-width="2.2" stroke-linejoin="round""#,
            curve.colour
        );
        let path: Vec<String> = points(curve, first, end)
            .map(|(window, ratio)| format!("{:.1},{:.1}", x(window), y(ratio)))
            .collect();
        let _ = writeln!(out, r#"<polyline points="{}" {stroke}/>"#, path.join(" "));
        let _ = writeln!(out, r#"<path d="M{legend:.1} 58h26" {stroke}/>"#);
        let _ = writeln!(out, r#"<text x="{:.1}" y="62">{}</text>"#, legend + 32.0, curve.name);
        legend += 60.0 + 7.2 * curve.name.len() as f64;
    }
    out.push_str("</svg>\n");
    out
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
                    colour: "#000",
                    sign: '*',
                    from,
                    ratios,
                };
                let curves = [curve(0), curve(restart)];
                assert_eq!(text(&curves, restart).lines().count(), LINES + 2);
                let svg = svg(&curves, restart);
                assert_eq!(svg.matches("<polyline").count(), 2);
                assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            }
        }
    }
}
