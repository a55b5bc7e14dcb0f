"""What was found as one web page that needs nothing beside itself: thumbnails, scores and paths."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from html import escape

from clipsrv.errors import ImageError, OriginalError
from clipsrv.images.thumbnail import thumbnail
from clipsrv.search.words import Found, Item
from clipsrv.settings import ImageLimits

#: Pixels of a thumbnail's longer side: twice what is shown, for screens that have them.
_SIDE = 320

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; font: 16px/1.4 system-ui, sans-serif }}
body {{ margin: 1rem }}
ol {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(160px, 1fr)); gap: 1rem }}
ol {{ padding: 0; list-style: none }}
figure {{ margin: 0 }}
img, .none {{ display: block; width: 100%; height: 160px; object-fit: contain; background: #8881 }}
.none {{ display: grid; place-items: center; text-align: center; font-size: .8rem }}
figcaption {{ overflow-wrap: anywhere; font-size: .8rem }}
</style>
<h1>{title}</h1>
<p>{about}</p>
<ol>
{figures}
</ol>
</html>
"""


def sheet(title: str, about: str, found: Sequence[Found], read: Callable[[Item], bytes], limits: ImageLimits) -> str:
    """The page; `read` gives an item's bytes or raises OriginalError. What cannot be shown says why in its place."""
    figures = "\n".join(_figure(one, read, limits) for one in found)
    return _PAGE.format(title=_shown(title), about=_shown(about), figures=figures)


def _figure(found: Found, read: Callable[[Item], bytes], limits: ImageLimits) -> str:
    path = _shown(found.item.path)
    name = "" if found.item.id == found.item.path else f"<br>{_shown(found.item.id)}"
    try:
        data = base64.b64encode(thumbnail(read(found.item), _SIDE, limits)).decode()
        image = f'<img alt="{path}" src="data:image/jpeg;base64,{data}">'
    except (OriginalError, ImageError) as error:
        image = f'<div class="none">{_shown(error.message)}</div>'
    caption = f"<figcaption><b>{found.score:.4f}</b> {path}{name}</figcaption>"
    return f"<li><figure>{image}{caption}</figure></li>"


def _shown(text: str) -> str:
    """`text` in HTML; a half of a character that is none is shown as its number."""
    return escape(text.encode("utf-8", "backslashreplace").decode())
