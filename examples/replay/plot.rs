//! Line charts as SVG: panels with axes of their own, below one heading and one legend.

use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::element::DashedPathElement;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

const FONT: &str = "Helvetica, Arial, sans-serif";
const INK: RGBColor = RGBColor(0x33, 0x33, 0x33);
const PALE: RGBColor = RGBColor(0x77, 0x77, 0x77);
const AXIS: RGBColor = RGBColor(0x88, 0x88, 0x88);
const GRID: RGBColor = RGBColor(0xe4, 0xe4, 0xe4);

/// The room above the panels for the heading and the legend.
const HEADER: u32 = 76;
/// The room inside a panel for its title, and for the labels of its axes.
const TITLE: u32 = 42;
const LEFT: u32 = 70;
const BOTTOM: u32 = 48;
const RIGHT: u32 = 18;
/// The room beyond the axes' titles, which would touch the picture's edge.
const EDGE: u32 = 8;

/// How a line looks. The colors are Okabe and Ito's, which color-blind readers can tell apart.
#[derive(Clone)]
pub(crate) struct Look {
    pub(crate) name: String,
    pub(crate) color: RGBColor,
    pub(crate) width: u32,
    /// The length of a dash, for a broken line.
    pub(crate) dash: Option<u32>,
    /// The radius of the marks at its points.
    pub(crate) mark: Option<u32>,
}

/// A line through points.
pub(crate) struct Line {
    pub(crate) look: Look,
    pub(crate) points: Vec<(f64, f64)>,
}

/// An axis, with the places and texts of its labels.
#[derive(Clone)]
pub(crate) struct Axis {
    pub(crate) title: &'static str,
    pub(crate) range: (f64, f64),
    pub(crate) ticks: Vec<(f64, String)>,
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, pixels: (i32, i32)) -> i32 {
        let share = (value - self.range.0) / (self.range.1 - self.range.0);
        pixels.0 + (share * f64::from(pixels.1 - pixels.0)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        // Light points would be lines between the labels.
        if hint.weight().allow_light_points() {
            return Vec::new();
        }
        self.ticks.iter().map(|tick| tick.0).collect()
    }

    fn range(&self) -> Range<f64> {
        self.range.0..self.range.1
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, at: &f64) -> String {
        let tick = self.ticks.iter().find(|tick| tick.0 == *at);
        tick.map(|tick| tick.1.clone()).unwrap_or_default()
    }
}

/// One plot.
pub(crate) struct Panel {
    pub(crate) title: String,
    pub(crate) subtitle: String,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    /// Drawn in this order: the last line is on top.
    pub(crate) lines: Vec<Line>,
    /// An event at some x, marked by a vertical line.
    pub(crate) event: Option<(f64, &'static str)>,
}

/// Draws the panels, `across` of them in a row, and a legend of `looks` above them.
pub(crate) fn draw(
    heading: &str,
    looks: &[Look],
    panels: &[Panel],
    across: usize,
    panel: (u32, u32),
) -> Result<String, String> {
    let rows = panels.len().div_ceil(across).max(1);
    let legend = looks.iter().map(legend_width).sum::<u32>() + LEFT;
    let width = (across as u32 * panel.0).max(legend);
    let size = (width, HEADER + rows as u32 * panel.1);
    let mut svg = String::new();
    draw_into(&mut svg, size, heading, looks, panels, across).map_err(|e| format!("the chart cannot be drawn: {e}"))?;
    let label = format!("<svg role=\"img\" aria-label=\"{heading}\" ");
    Ok(svg.replacen("<svg ", &label, 1))
}

type Failed = DrawingAreaErrorKind<<SVGBackend<'static> as DrawingBackend>::ErrorType>;
type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn draw_into(
    svg: &mut String,
    size: (u32, u32),
    heading: &str,
    looks: &[Look],
    panels: &[Panel],
    across: usize,
) -> Result<(), Failed> {
    let root = SVGBackend::with_string(svg, size).into_drawing_area();
    root.fill(&WHITE)?;
    let (header, body) = root.split_vertically(HEADER);
    text(&header, heading, (LEFT as i32, 18), 22, FontStyle::Bold, &INK)?;
    legend(&header, looks)?;
    let areas = body.split_evenly((panels.len().div_ceil(across).max(1), across));
    for (panel, area) in panels.iter().zip(&areas) {
        draw_panel(panel, area)?;
    }
    root.present()
}

/// Writes text with its left end at `at`, vertically centered on it.
fn text(
    area: &Area<'_>,
    text: &str,
    at: (i32, i32),
    size: u32,
    style: FontStyle,
    color: &RGBColor,
) -> Result<(), Failed> {
    let style = (FONT, size, style).into_font().color(color);
    let text = printable(text);
    area.draw(&Text::new(text, at, style.pos(Pos::new(HPos::Left, VPos::Center))))
}

/// Replaces what XML forbids even when it is escaped. A trace's name may come from any file.
fn printable(text: &str) -> String {
    let allowed = |c: char| !c.is_control() && !matches!(c, '\u{fffe}' | '\u{ffff}');
    text.chars().map(|c| if allowed(c) { c } else { '?' }).collect()
}

fn legend_width(look: &Look) -> u32 {
    56 + 8 * look.name.chars().count() as u32
}

fn legend(area: &Area<'_>, looks: &[Look]) -> Result<(), Failed> {
    let mut x = LEFT as i32;
    for look in looks {
        let stroke = look.color.stroke_width(look.width);
        let ends = [(x, 54), (x + 28, 54)].into_iter();
        match look.dash {
            Some(dash) => area.draw(&DashedPathElement::new(ends, dash, dash, stroke))?,
            None => area.draw(&PathElement::new(ends.collect::<Vec<_>>(), stroke))?,
        }
        text(area, &look.name, (x + 36, 54), 15, FontStyle::Normal, &INK)?;
        x += legend_width(look) as i32;
    }
    Ok(())
}

fn draw_panel(panel: &Panel, area: &Area<'_>) -> Result<(), Failed> {
    text(area, &panel.title, (LEFT as i32, 10), 17, FontStyle::Bold, &INK)?;
    text(area, &panel.subtitle, (LEFT as i32, 29), 14, FontStyle::Normal, &PALE)?;
    let mut chart = ChartBuilder::on(area)
        .margin_top(TITLE)
        .margin_right(RIGHT)
        .margin_bottom(EDGE)
        .margin_left(EDGE)
        .set_label_area_size(LabelAreaPosition::Left, LEFT - EDGE)
        .set_label_area_size(LabelAreaPosition::Bottom, BOTTOM)
        .build_cartesian_2d(panel.x.clone(), panel.y.clone())?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .axis_style(AXIS)
        .label_style((FONT, 14).into_font().color(&INK))
        .axis_desc_style((FONT, 15).into_font().color(&INK))
        .x_desc(panel.x.title)
        .y_desc(panel.y.title)
        .x_labels(panel.x.ticks.len())
        .y_labels(panel.y.ticks.len())
        .draw()?;
    if let Some((at, what)) = panel.event {
        let (low, high) = panel.y.range;
        chart.draw_series(DashedLineSeries::new(
            [(at, low), (at, high)],
            4,
            4,
            PALE.stroke_width(1),
        ))?;
        let style = (FONT, 14)
            .into_font()
            .color(&PALE)
            .pos(Pos::new(HPos::Left, VPos::Bottom));
        let beside = high - (high - low) * 0.94;
        chart.draw_series([EmptyElement::at((at, beside)) + Text::new(what, (6, 0), style)])?;
    }
    for Line { look, points } in &panel.lines {
        let stroke = look.color.stroke_width(look.width);
        match look.dash {
            Some(dash) => {
                chart.draw_series(DashedLineSeries::new(points.iter().copied(), dash, dash, stroke))?;
            }
            None => {
                chart.draw_series(LineSeries::new(points.iter().copied(), stroke))?;
            }
        }
        if let Some(radius) = look.mark {
            let mark = |&at: &(f64, f64)| Circle::new(at, radius, look.color.filled());
            chart.draw_series(points.iter().map(mark))?;
        }
    }
    Ok(())
}

/// Returns an axis of percentages from 0 to a round number that `best`, a ratio, does not exceed.
pub(crate) fn percent_axis(title: &'static str, best: f64) -> Axis {
    let step = match best {
        best if best > 0.5 => 0.2,
        best if best > 0.2 => 0.1,
        _ => 0.05,
    };
    let steps = (best / step).ceil().clamp(1.0, (1.0 / step).round()) as u32;
    let ticks = (0..=steps).map(|n| f64::from(n) * step);
    Axis {
        title,
        range: (0.0, f64::from(steps) * step),
        ticks: ticks.map(|at| (at, format!("{:.0}%", at * 100.0))).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_axis_reaches_the_best_ratio() {
        for (best, top) in [
            (0.0, 0.05),
            (0.04, 0.05),
            (0.21, 0.3),
            (0.5, 0.5),
            (0.81, 1.0),
            (1.0, 1.0),
        ] {
            let axis = percent_axis("t", best);
            assert!((axis.range.1 - top).abs() < 1e-9, "{best}: {:?}", axis.range);
            assert!((2..=7).contains(&axis.ticks.len()));
        }
    }
}
