"""Draws findings as an SVG without scripts, fonts or other files."""

from html import escape

from hotset._advise.judge import Finding, format_time
from hotset._advise.report import Report

_WIDTH = 900
_BAR, _GAP, _LEFT = 18, 14, 320
_SHOWN = 10
_CURVES = 3
_COLORS = ("#2a78b5", "#c8602a", "#3f8f4f")
_STYLE = """
svg { font: 13px system-ui, sans-serif; background: #fff; color: #222 }
text { fill: #222 }
.small { font-size: 11px; fill: #555 }
.title { font-size: 17px; font-weight: 600 }
.rest { fill: #c9d3dc }
.saved { fill: #3f8f4f }
.doubt { fill: #d9a53a }
.grid { stroke: #e5e8eb }
@media (prefers-color-scheme: dark) {
  svg { background: #16191d }
  text { fill: #e6e6e6 }
  .small { fill: #aab }
  .rest { fill: #46515c }
  .grid { stroke: #2c3238 }
}
"""


def as_svg(report: Report) -> str:
    """Returns the report as a picture: time and saved time by function, and hit ratios by size.

    Args:
        report: The report.
    """
    # Candidates first, by what they save; then the others, by their time.
    shown = sorted((finding for finding in report.findings if finding.time), key=lambda each: (not each.decorator, -each.saved if each.decorator else -each.time))
    shown = shown[:_SHOWN]
    candidates = report.candidates[:_CURVES]
    parts: list[str] = []
    y = 34
    title = f"hotset advise: {len(report.candidates)} of {len(report.findings)} functions worth caching"
    parts.append(f'<text class="title" x="20" y="{y}">{escape(title)}</text>')
    y += 20
    legend = "time of all calls on all threads; of this, what a cache would have saved"
    parts.append(f'<text class="small" x="20" y="{y}">{legend} (green), if its conditions hold (yellow)</text>')
    y += 22
    longest = max((finding.time for finding in shown), default=0.0) or 1.0
    room = _WIDTH - _LEFT - 190
    for finding in shown:
        parts += _bar(finding, y, room / longest)
        y += _BAR + _GAP
    if not shown:
        parts.append(f'<text x="20" y="{y + 12}">No function of the program was recorded.</text>')
        y += _BAR + _GAP
    if candidates:
        parts += _curves(candidates, y + 26)
        y += 26 + 250
    height = y + 20
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" role="img">'
    return "\n".join([head, f"<title>{escape(title)}</title>", f"<style>{_STYLE}</style>", *parts, "</svg>"]) + "\n"


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else "…" + text[1 - length :]


def _bar(finding: Finding, y: int, scale: float) -> list[str]:
    full = max(1.0, finding.time * scale)
    saved = min(full, finding.saved * scale) if finding.decorator else 0.0
    kind = "saved" if finding.verdict == "cache" else "doubt"
    label = f"{format_time(finding.time)}"
    if saved:
        label += f", saves {format_time(finding.saved)} at {finding.maxsize:,}"
    reason = escape("; ".join(finding.reasons))
    return [
        f"<g><title>{escape(finding.name)}: {reason}</title>",
        f'<text x="{_LEFT - 10}" y="{y + 13}" text-anchor="end">{escape(_shortened(finding.name, 40))}</text>',
        f'<rect class="rest" x="{_LEFT}" y="{y}" width="{full:.1f}" height="{_BAR}" rx="2"/>',
        f'<rect class="{kind}" x="{_LEFT}" y="{y}" width="{saved:.1f}" height="{_BAR}" rx="2"/>' if saved else "",
        f'<text class="small" x="{_LEFT + full + 8:.1f}" y="{y + 13}">{escape(label)}</text></g>',
    ]


def _curves(candidates: list[Finding], top: int) -> list[str]:
    """Draws the hit ratio over the size, a line per function. Later lines are thinner, since equal
    ones lie on each other.
    """
    left, width, height = 70, 460, 180
    sizes = sorted({entry["maxsize"] for finding in candidates for entry in finding.curve})
    columns = {size: left + width * index / max(1, len(sizes) - 1) for index, size in enumerate(sizes)}
    parts = [f'<text x="20" y="{top}">Hit ratio by maxsize</text>']
    top += 18
    for tenth in range(0, 11, 2):
        y = top + height * (1 - tenth / 10)
        parts.append(f'<line class="grid" x1="{left}" y1="{y:.1f}" x2="{left + width}" y2="{y:.1f}"/>')
        parts.append(f'<text class="small" x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{tenth * 10}%</text>')
    for size, x in columns.items():
        parts.append(f'<text class="small" x="{x:.1f}" y="{top + height + 16}" text-anchor="middle">{int(size):,}</text>')
    for number, finding in enumerate(candidates):
        color = _COLORS[number % len(_COLORS)]
        points = [(columns[entry["maxsize"]], top + height * (1 - entry["hit_ratio"])) for entry in finding.curve]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{color}" stroke-width="{7 - 2 * number}"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{5 - number}" fill="{color}"/>' for x, y in points]
        y = top + 16 + 36 * number
        parts.append(f'<rect x="{left + width + 30}" y="{y - 9}" width="10" height="10" fill="{color}"/>')
        parts.append(f'<text x="{left + width + 46}" y="{y}">{escape(_shortened(finding.name, 42))}</text>')
        parts.append(f'<text class="small" x="{left + width + 46}" y="{y + 15}">{escape(finding.decorator)}</text>')
    return parts
