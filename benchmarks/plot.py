"""Images or texts a second of every server under every load, as an SVG with no dependency."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from itertools import cycle

from benchmarks.results import Results

#: Colours are ours, greys are rivals'.
_COLOURS = ("#1f6fb2", "#2b9348", "#8f3f97", "#d1495b", "#12355b", "#e08e0b", "#3aa6a6", "#7a4b2a")
_GREYS = ("#9a9a9a", "#5c5c5c", "#c8c8c8", "#7b8794", "#b3a79c", "#3d4852", "#ded9d2")
_WIDTH, _LEFT, _BAR, _GAP = 860, 210, 13, 14


def draw(results: Results) -> str:
    """Horizontal bars, one group a load, one bar a server, each with its figure."""
    servers, loads = results.servers(), results.loads()
    colours = _colours(servers)
    rows = [
        (load, [s for s in servers if not math.isnan(results.median(s, load, "items_per_second"))]) for load in loads
    ]
    most = max(results.median(s, load, "items_per_second") for load, present in rows for s in present)
    scale, top = (_WIDTH - _LEFT - 60) / most, 26 + 18 * len(servers)
    parts = []
    for index, server in enumerate(servers):
        parts.append(f'<rect x="{_LEFT}" y="{10 + 18 * index}" width="12" height="12" fill="{colours[server]}"/>')
        parts.append(f'<text x="{_LEFT + 18}" y="{20 + 18 * index}">{escape(server)}</text>')
    for load, present in rows:
        middle = top + _BAR * len(present) / 2 + 4
        parts.append(f'<text x="{_LEFT - 8}" y="{middle:.0f}" text-anchor="end">{escape(load)}</text>')
        for server in present:
            rate = results.median(server, load, "items_per_second")
            width, fill = rate * scale, colours[server]
            parts.append(f'<rect x="{_LEFT}" y="{top}" width="{width:.1f}" height="{_BAR - 2}" fill="{fill}"/>')
            parts.append(f'<text x="{_LEFT + width + 4:.1f}" y="{top + 10}" class="n">{rate:.1f}</text>')
            top += _BAR
        top += _GAP
    style = "text{font:12px sans-serif;fill:#222}.n{font-size:10px}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top}" role="img" '
        f'aria-label="Images and texts a second by load and server"><style>{style}</style>'
        f'<rect width="{_WIDTH}" height="{top}" fill="#fff"/>' + "".join(parts) + "</svg>\n"
    )


def _colours(servers: Sequence[str]) -> dict[str, str]:
    ours, greys = cycle(_COLOURS), cycle(_GREYS)
    return {server: next(ours if server.startswith("clipsrv") else greys) for server in servers}
