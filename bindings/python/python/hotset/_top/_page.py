"""The page of `hotset.dashboard`: HTML and SVG. Every name is escaped."""

import html
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlencode

from hotset._top import _format as fmt
from hotset._top._frame import ratio_style
from hotset._top._model import Point, Row, Snapshot, quantile
from hotset._top._source import pids_text

STYLE: Final = """\
:root{color-scheme:light dark;--bg:#fff;--fg:#1b1f24;--dim:#59636e;--line:#d1d9e0;--bar:#eef1f4;
--good:#1a7f37;--fair:#9a6700;--poor:#cf222e;--accent:#0969da}
@media (prefers-color-scheme:dark){:root{--bg:#0d1117;--fg:#e6edf3;--dim:#9198a1;--line:#3d444d;
--bar:#212830;--good:#3fb950;--fair:#d29922;--poor:#ff7b72;--accent:#58a6ff}}
*{box-sizing:border-box}
body{margin:0 auto;padding:16px;max-width:1100px;background:var(--bg);color:var(--fg);
font:15px/1.45 system-ui,sans-serif}
h1{font-size:20px;margin:0}h2{font-size:17px;margin:0;overflow-wrap:anywhere}
header{display:flex;flex-wrap:wrap;gap:8px 16px;align-items:baseline;margin-bottom:12px}
header p{margin:0;color:var(--dim)}header span{margin-left:auto}
button,select{font:inherit;color:inherit;background:var(--bar);border:1px solid var(--line);
border-radius:6px;padding:4px 10px}
article{border:1px solid var(--line);border-radius:8px;padding:12px 14px;margin:0 0 12px}
article header{margin-bottom:8px}
.big{font-size:24px;font-weight:600;font-variant-numeric:tabular-nums}
.row{display:flex;flex-wrap:wrap;gap:12px 24px;align-items:center}
.row>svg{flex:1 1 220px;min-width:0;max-width:520px;height:56px}
dl{display:grid;grid-template-columns:repeat(auto-fill,minmax(104px,1fr));gap:6px 14px;margin:10px 0 0}
dt{color:var(--dim);font-size:13px}dd{margin:0;font-variant-numeric:tabular-nums}
.good{color:var(--good)}.fair{color:var(--fair)}.poor{color:var(--poor)}.dim{color:var(--dim)}
details{margin-top:10px}summary{cursor:pointer;color:var(--dim)}
.scroll{overflow-x:auto}table{border-collapse:collapse;margin-top:6px;font-variant-numeric:tabular-nums}
th,td{text-align:right;padding:2px 12px 2px 0;white-space:nowrap}th{color:var(--dim);font-weight:400}
svg text{fill:var(--dim);font:11px system-ui,sans-serif}.curve{max-width:520px;min-width:460px;width:100%;height:auto;display:block}
a{color:var(--accent)}.notice{border-left:3px solid var(--accent);padding-left:10px;overflow-wrap:anywhere}
"""

SCRIPT: Final = """\
const main=document.querySelector('main'),sort=document.querySelector('#sort'),
freeze=document.querySelector('#freeze'),state=document.querySelector('#state');
let frozen=false;
function order(){const key=sort.value;
const value=a=>key==='name'?a.dataset.name:Number(a.dataset[key]);
[...main.querySelectorAll('article')].sort((a,b)=>{const x=value(a),y=value(b);
return key==='name'?(x<y?-1:x>y?1:0):y-x}).forEach(a=>main.append(a))}
async function refresh(){if(frozen||document.hidden)return;
try{const answer=await fetch('?part=main',{cache:'no-store'});
if(!answer.ok)throw new Error(answer.status);
const text=await answer.text();if(frozen)return;
const open=new Set([...main.querySelectorAll('details[open]')].map(d=>d.dataset.key));
main.innerHTML=text;
main.querySelectorAll('details').forEach(d=>{d.open=open.has(d.dataset.key)});
order();state.textContent=''}
catch(error){state.textContent='not updated: '+error.message}}
sort.addEventListener('change',order);
freeze.addEventListener('click',()=>{frozen=!frozen;
freeze.textContent=frozen?'Continue':'Freeze';state.textContent=frozen?'frozen':'';refresh()});
document.querySelector('#tools').hidden=false;order();setInterval(refresh,2000);
"""

_SORTS: Final = (("ops", "lookups"), ("name", "name"), ("hit", "hit ratio"), ("fill", "fill"), ("evictions", "evictions"), ("saved", "time saved"))


def _text(text: str) -> str:
    """Returns any text for HTML: controls as visible escapes, `<`, `&` and quotes as entities."""
    return html.escape(fmt.escaped(text), quote=True)


def _percent(ratio: float | None) -> str:
    return "-" if ratio is None else f"{html.escape(fmt.percent(ratio))}%"


def document(body: str, nonce: str, *, script: bool) -> str:
    """Returns a whole page.

    Args:
        body: Its body.
        nonce: The nonce that the policy of the response allows.
        script: Whether it updates itself.
    """
    tail = f'<script nonce="{nonce}">{SCRIPT}</script>' if script else ""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<meta name="robots" content="noindex"><title>hotset: caches</title><style nonce="{nonce}">{STYLE}</style></head>'
        f"<body>{body}{tail}</body></html>"
    )


def overview(snapshot: Snapshot, *, allow_clear: bool, notice: str = "") -> str:
    """Returns the body of the page.

    Args:
        snapshot: The figures.
        allow_clear: Whether there are links for clearing.
        notice: A sentence above the caches.
    """
    options = "".join(f'<option value="{key}">{label}</option>' for key, label in _SORTS)
    tools = (
        f'<span id="tools" hidden><label>Sort by <select id="sort">{options}</select></label> '
        '<button id="freeze" type="button">Freeze</button> <span id="state" class="dim" role="status"></span></span>'
    )
    said = f'<p class="notice">{_text(notice)}</p>' if notice else ""
    return f"<header><h1>hotset</h1>{tools}</header>{said}<main>{main(snapshot, allow_clear=allow_clear)}</main>"


def main(snapshot: Snapshot, *, allow_clear: bool) -> str:
    """Returns the part of the page that changes.

    Args:
        snapshot: The figures.
        allow_clear: Whether there are links for clearing.
    """
    processes = len(snapshot.processes)
    parts = [f"{len(snapshot.rows)} named {'cache' if len(snapshot.rows) == 1 else 'caches'}", f"{processes} {'process' if processes == 1 else 'processes'}"]
    parts += [f"{html.escape(fmt.count(snapshot.operations))} lookups/s", f"{_percent(snapshot.recent_ratio)} hits"]
    if snapshot.saved is not None:
        parts.append(f"{fmt.duration(snapshot.saved)} saved")
    if snapshot.omitted:
        parts.append(f"{snapshot.omitted} named caches are not shown: a stats file has no room for them")
    rows = sorted(snapshot.rows, key=lambda row: -row.operations)
    none = "" if processes else "<p>No running process keeps a stats file in the directory: set HOTSET_STATS in its environment.</p>"
    return f'<p class="dim">{" · ".join(parts)}</p>{none}' + "".join(_article(row, snapshot, allow_clear) for row in rows)


def _article(row: Row, snapshot: Snapshot, allow_clear: bool) -> str:
    style = "dim" if row.recent_ratio is None else ratio_style(row.recent_ratio)
    data = {
        "name": fmt.escaped(row.name),
        "ops": row.operations,
        "hit": -1 if row.recent_ratio is None else row.recent_ratio,
        "fill": -1 if row.fill is None else row.fill,
        "evictions": 0 if row.rates is None else row.rates["evictions"],
        "saved": row.saved or 0,
    }
    attributes = " ".join(f'data-{key}="{html.escape(str(value), quote=True)}"' for key, value in data.items())
    clear = f'<span><a href="?{html.escape(urlencode(_query(row)), quote=True)}">Clear ..</a></span>' if allow_clear else ""
    totals = {name: fmt.count(value) for name, value in row.totals.items()}
    rates = row.rates or {}
    capacity = "no bound" if row.capacity is None else f"of {fmt.count(row.capacity)}"
    fill = "-" if row.fill is None else f"{row.fill * 100:.0f}%"
    figures = [
        ("lookups/s", fmt.count(row.operations)),
        ("hit ratio, all time", _percent(row.hit_ratio)),
        ("fill", f"{fill} {capacity}" if row.fill is not None else capacity),
        ("entries", fmt.count(row.entries)),
        ("memory", fmt.size(row.bytes)),
        ("evictions", totals["evictions"]),
        ("evictions/s", fmt.count(rates.get("evictions"))),
        ("expirations", totals["expirations"]),
        ("rejections", totals["rejections"]),
        ("stale hits", totals["stale_hits"]),
        ("waits", totals["waits"]),
        ("loads", totals["loads"]),
        ("failed loads", totals["load_failures"]),
        ("loads/s", fmt.count(rates.get("loads"))),
        ("load, mean", fmt.duration(row.mean_load)),
        ("load, p99 at most", fmt.duration(quantile(row.buckets, 0.99))),
        ("time saved", fmt.duration(row.saved)),
    ]
    figures += [(f"tier 2 {name}", fmt.count(value)) for name, value in (row.tier2 or {}).items()]
    terms = "".join(f"<div><dt>{label}</dt><dd>{value if '%' in value else html.escape(value)}</dd></div>" for label, value in figures if value != "-")
    key = html.escape(fmt.escaped("/".join(row.key)), quote=True)
    return (
        f'<article {attributes}><header><h2>{_text(row.name)}</h2><p>{_text(row.program)} ({_text(row.kind)}), '
        f"{len(row.members)} {'process' if len(row.members) == 1 else 'processes'}</p>{clear}</header>"
        f'<div class="row"><span class="big {style}">{_percent(row.recent_ratio)}</span>{sparkline(row.history)}</div><dl>{terms}</dl>'
        f"{_curve(row)}{_processes(row, snapshot, key)}</article>"
    )


def _query(row: Row) -> dict[str, str]:
    return {"clear": row.name.encode("utf-8", "surrogatepass").hex(), "program": row.program.encode("utf-8", "surrogatepass").hex(), "kind": row.kind}


def sparkline(history: Sequence[float | None]) -> str:
    """Returns the history of a hit ratio as an SVG.

    Args:
        history: Ratios from 0 to 1, oldest first.
    """
    width, height = 400.0, 56.0
    step = width / len(history)
    bars: list[str] = []
    for place, ratio in enumerate(history):
        if ratio is not None:
            tall = max(1.5, ratio * (height - 2))
            bars.append(f'<rect x="{place * step + 1:.1f}" y="{height - tall:.1f}" width="{step - 2:.1f}" height="{tall:.1f}" fill="var(--{ratio_style(ratio)})"/>')
    known = [ratio for ratio in history if ratio is not None]
    label = f"hit ratio over the last minute: {_percent(min(known))} to {_percent(max(known))}" if known else "no lookups in the last minute"
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" preserveAspectRatio="none" role="img" aria-label="{label}">'
        f'<rect width="{width:.0f}" height="{height:.0f}" fill="var(--bar)"/>{"".join(bars)}</svg>'
    )


def _curve(row: Row) -> str:
    if not row.curve:
        return ""
    own = {member.cache.capacity for member in row.members}
    cells = [
        ("capacity", [fmt.count(point.capacity) + (" (now)" if point.capacity in own else "") for point in row.curve]),
        ("hit ratio", [_percent(point.hit_ratio) for point in row.curve]),
        ("memory", [fmt.size(point.bytes) for point in row.curve]),
    ]
    table = "".join(f"<tr><th>{head}</th>{''.join(f'<td>{value}</td>' for value in values)}</tr>" for head, values in cells)
    of = f"mean of {row.curve_members} processes" if row.curve_members > 1 else "one process"
    return (
        f'<details open data-key="curve {html.escape(fmt.escaped("/".join(row.key)), quote=True)}"><summary>Hit ratio at other capacities ({of})</summary>'
        f'<div class="scroll">{curve_svg(row.curve, own)}<table>{table}</table></div></details>'
    )


def curve_svg(points: Sequence[Point], own: "set[int | None]") -> str:
    """Returns hit ratios by capacity as an SVG: one step per point, as capacities double.

    Args:
        points: The points, by capacity.
        own: The capacities that caches have now.
    """
    width, height, left, bottom = 520, 150, 38, 20
    across = (width - left - 40) / max(1, len(points) - 1)
    places = [(left + 16 + place * across, 8 + (1 - point.hit_ratio) * (height - bottom - 8)) for place, point in enumerate(points)]
    grid = "".join(
        f'<line x1="{left}" x2="{width}" y1="{8 + (1 - level) * (height - bottom - 8):.1f}" y2="{8 + (1 - level) * (height - bottom - 8):.1f}" stroke="var(--line)"/>'
        f'<text x="{left - 5}" y="{12 + (1 - level) * (height - bottom - 8):.1f}" text-anchor="end">{level * 100:.0f}%</text>'
        for level in (0, 0.5, 1)
    )
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    dots = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{5 if point.capacity in own else 3}" fill="var(--accent)"/>'
        f'<text x="{x:.1f}" y="{height - 4}" text-anchor="middle">{fmt.count(point.capacity)}</text>'
        for (x, y), point in zip(places, points, strict=True)
    )
    return (
        f'<svg class="curve" viewBox="0 0 {width} {height}" role="img" aria-label="hit ratio by capacity">{grid}'
        f'<polyline points="{line}" fill="none" stroke="var(--accent)" stroke-width="2"/>{dots}</svg>'
    )


def _processes(row: Row, snapshot: Snapshot, key: str) -> str:
    lines: list[str] = []
    for member in row.members:
        seconds, hits, misses = member.recent
        ratio = hits / (hits + misses) if hits + misses else None
        fill = "-" if not member.cache.capacity else f"{member.cache.weight / member.cache.capacity * 100:.0f}%"
        age = fmt.duration(max(0.0, snapshot.monotonic - member.process.monotonic))
        mark = " ?" if member.process.alive is None else ""
        cells = [f"{member.process.pid}{mark}", _percent(ratio), fmt.count((hits + misses) / seconds), fill, age]
        lines.append("<tr>" + "".join(f"<td>{cell if '%' in cell else html.escape(cell)}</td>" for cell in cells) + "</tr>")
    head = "".join(f"<th>{name}</th>" for name in ("PID", "hit ratio", "lookups/s", "fill", "updated before"))
    return f'<details data-key="processes {key}"><summary>Processes</summary><div class="scroll"><table><tr>{head}</tr>{"".join(lines)}</table></div></details>'


def question(row: Row, token: str) -> str:
    """Returns the body of the page that asks before clearing.

    Args:
        row: The caches to clear.
        token: The token of the form.
    """
    fields = "".join(f'<input type="hidden" name="{name}" value="{html.escape(value, quote=True)}">' for name, value in {**_query(row), "token": token}.items())
    pids = [member.process.pid for member in row.members]
    return (
        f"<header><h1>Clear {_text(row.name)}?</h1></header><p>All entries of this cache are removed in {len(pids)} "
        f"{'process' if len(pids) == 1 else 'processes'} of {_text(row.program)}: {pids_text(pids, most=50)}.</p>"
        f'<form method="post" action="?">{fields}<button>Clear</button> <a href="?">Cancel</a></form>'
    )
