"""Draws a miss-ratio curve, and what a service gained by the advised size, as an SVG."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

_WIDTH, _HEIGHT = 760, 400
_LEFT, _TOP, _ACROSS, _UP = 70, 90, 400, 240
_STYLE = """
svg { font: 13px system-ui, sans-serif; background: #fff; color: #222 }
text { fill: #222 }
.small { font-size: 11px; fill: #555 }
.title { font-size: 17px; font-weight: 600 }
.grid { stroke: #e5e8eb }
.curve { fill: none; stroke: #2a78b5; stroke-width: 3 }
.point { fill: #2a78b5 }
.before { fill: #c8602a }
.after { fill: #3f8f4f }
@media (prefers-color-scheme: dark) {
  svg { background: #16191d }
  text { fill: #e6e6e6 }
  .small { fill: #aab }
  .grid { stroke: #2c3238 }
}
"""


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>'


def _marked(x: float, y: float, kind: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="7" class="{kind}"/>'


def draw(title: str, points: Sequence[tuple[int, float]], before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Returns the picture.

    Args:
        title: What it shows.
        points: The estimated hit ratio at each capacity, ascending.
        before: The measured "capacity", "hit_ratio", "per_second", "p50" and "p99".
        after: The same with the advised capacity.
    """
    capacities = [capacity for capacity, _ in points]

    def column(capacity: float) -> float:
        # The capacities double from point to point, so they are evenly spaced; between two of them
        # the position is interpolated.
        for index, (low, high) in enumerate(zip(capacities, capacities[1:], strict=False)):
            if capacity <= high:
                return _LEFT + _ACROSS * (index + max(0.0, (capacity - low) / (high - low))) / (len(capacities) - 1)
        return _LEFT + _ACROSS

    def row(ratio: float) -> float:
        return _TOP + _UP * (1 - ratio)

    parts = [_text(20, 34, title, "title"), _text(20, 56, "hit ratio by capacity: estimated by the cache while it served, and measured before and after", "small")]
    for tenth in range(0, 11, 2):
        parts.append(f'<line class="grid" x1="{_LEFT}" y1="{row(tenth / 10):.1f}" x2="{_LEFT + _ACROSS}" y2="{row(tenth / 10):.1f}"/>')
        parts.append(_text(_LEFT - 8, row(tenth / 10) + 4, f"{tenth * 10}%", "small", "end"))
    for capacity in capacities:
        parts.append(_text(column(capacity), _TOP + _UP + 18, f"{capacity:,}", "small", "middle"))
    parts.append(_text(_LEFT + _ACROSS / 2, _TOP + _UP + 38, "capacity in entries", "small", "middle"))
    line = " ".join(f"{column(capacity):.1f},{row(ratio):.1f}" for capacity, ratio in points)
    parts.append(f'<polyline class="curve" points="{line}"/>')
    parts += [f'<circle class="point" cx="{column(capacity):.1f}" cy="{row(ratio):.1f}" r="4"/>' for capacity, ratio in points]
    for number, (name, kind, run) in enumerate((("before", "before", before), ("with the advised capacity", "after", after))):
        parts.append(_marked(column(run["capacity"]), row(run["hit_ratio"]), kind))
        x, y = _LEFT + _ACROSS + 36, _TOP + 20 + 110 * number
        parts.append(_marked(x, y - 5, kind))
        parts.append(_text(x + 16, y, f"{name}: {run['capacity']:,}"))
        figures = (f"{run['hit_ratio']:.1%} hits", f"{run['per_second']:,.0f} requests per second", f"p50 {run['p50'] * 1e3:.1f} ms, p99 {run['p99'] * 1e3:.1f} ms")
        parts += [_text(x + 16, y + 20 + 18 * place, figure, "small") for place, figure in enumerate(figures)]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" role="img">'
    return "\n".join([head, f"<title>{escape(title)}</title>", f"<style>{_STYLE}</style>", *parts, "</svg>"]) + "\n"
