"""Drawings of things the demo model knows by name, made here: nobody has ever trained on them.

`python -m tests.support.drawings` writes examples/, with which the documentation shows what there is.
"""

from __future__ import annotations

from io import BytesIO
from math import cos, pi, sin

from PIL import Image, ImageDraw, ImageFilter

SIDE = 256
WHITE, BLACK, YELLOW, GREEN = "#ffffff", "#202020", "#ffcc22", "#43a047"
RED, BLUE = "#e02020", "#2266dd"
PAGE = (216, 212, 204)

Point = tuple[float, float]


def drawings() -> dict[str, Image.Image]:
    """RGB images of SIDE pixels on white, by the name a person would search."""
    made = {
        **{f"{name} heart": _heart(colour) for name, colour in (("red", RED), ("blue", BLUE), ("green", GREEN))},
        **{f"{name} circle": _circle(colour) for name, colour in (("red", RED), ("blue", BLUE), ("yellow", YELLOW))},
        "star": _star(),
        "slightly smiling face": _face(),
        "crescent moon": _moon(),
        "check mark": _check_mark(),
        "envelope": _envelope(),
        "Christmas tree": _tree(),
    }
    for name, (upright, colours) in FLAGS.items():
        made[f"flag {name}"] = _stripes(colours, upright)
    return made


#: Stripes side by side (True) or one above the other, and their colours.
FLAGS: dict[str, tuple[bool, tuple[str, ...]]] = {
    "France": (True, ("#0055a4", WHITE, "#ef4135")),
    "Italy": (True, ("#009246", WHITE, "#ce2b37")),
    "Germany": (False, ("#000000", "#dd0000", "#ffce00")),
    "Ukraine": (False, ("#0057b7", "#ffd700")),
}


def disturbed(image: Image.Image) -> bytes:
    """The thing as a photo might show it: smaller, turned, off the middle, on grey, blurred, and as a poor JPEG."""
    outside = image.copy()
    for corner in ((0, 0), (SIDE - 1, 0), (0, SIDE - 1), (SIDE - 1, SIDE - 1)):
        ImageDraw.floodfill(outside, corner, PAGE)
    thing = outside.resize((200, 200)).rotate(7, Image.Resampling.BILINEAR, fillcolor=PAGE)
    photo = Image.new("RGB", (300, 260), PAGE)
    photo.paste(thing, (35, 25))
    file = BytesIO()
    photo.filter(ImageFilter.GaussianBlur(1)).save(file, "JPEG", quality=40)
    return file.getvalue()


def _page() -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGB", (SIDE, SIDE), WHITE)
    return image, ImageDraw.Draw(image)


def _polygon(points: list[Point], colour: str) -> Image.Image:
    image, draw = _page()
    draw.polygon([(SIDE / 2 + x, SIDE / 2 - y) for x, y in points], colour)
    return image


def _heart(colour: str) -> Image.Image:
    turns = [2 * pi * k / 200 for k in range(200)]
    x = [16 * sin(t) ** 3 for t in turns]
    y = [13 * cos(t) - 5 * cos(2 * t) - 2 * cos(3 * t) - cos(4 * t) for t in turns]
    return _polygon([(7 * a, 7 * b) for a, b in zip(x, y, strict=True)], colour)


def _circle(colour: str) -> Image.Image:
    image, draw = _page()
    draw.ellipse((20, 20, 236, 236), colour)
    return image


def _star() -> Image.Image:
    corners = [(115 if k % 2 == 0 else 50, pi / 2 + pi * k / 5) for k in range(10)]
    return _polygon([(radius * cos(turn), radius * sin(turn)) for radius, turn in corners], YELLOW)


def _face() -> Image.Image:
    image, draw = _page()
    draw.ellipse((20, 20, 236, 236), YELLOW)
    draw.ellipse((80, 85, 104, 120), "#664422")
    draw.ellipse((152, 85, 176, 120), "#664422")
    draw.arc((75, 90, 181, 190), 25, 155, "#664422", width=11)
    return image


def _moon() -> Image.Image:
    image, draw = _page()
    draw.ellipse((30, 25, 230, 225), YELLOW)
    draw.ellipse((0, 5, 170, 175), WHITE)
    return image


def _check_mark() -> Image.Image:
    image, draw = _page()
    draw.line([(40, 140), (100, 205), (215, 50)], GREEN, 34, joint="curve")
    return image


def _envelope() -> Image.Image:
    image, draw = _page()
    draw.rectangle((20, 60, 236, 200), "#eeeeee", "#778899", 6)
    draw.line([(20, 62), (128, 145), (236, 62)], "#778899", 7)
    return image


def _tree() -> Image.Image:
    image, draw = _page()
    draw.rectangle((112, 200, 144, 240), "#795548")
    for top, half in ((25, 45), (75, 65), (125, 85)):
        draw.polygon([(128, top), (128 - half, top + 85), (128 + half, top + 85)], "#2e7d32")
    for x, y in ((110, 90), (145, 130), (100, 165), (150, 185), (128, 70)):
        draw.ellipse((x - 8, y - 8, x + 8, y + 8), RED)
    draw.ellipse((116, 14, 140, 38), YELLOW)
    return image


def _stripes(colours: tuple[str, ...], upright: bool) -> Image.Image:
    image, draw = _page()
    left, top, right, bottom = 18, 54, 238, 202
    for k, colour in enumerate(colours):
        share = (k / len(colours), (k + 1) / len(colours))
        if upright:
            width = right - left
            draw.rectangle((left + width * share[0], top, left + width * share[1], bottom), colour)
        else:
            height = bottom - top
            draw.rectangle((left, top + height * share[0], right, top + height * share[1]), colour)
    draw.rectangle((left, top, right, bottom), None, "#888888", 1)
    return image


def file_name(name: str) -> str:
    """That of a drawing in examples/."""
    return f"{name.lower().replace(' ', '-')}.png"


if __name__ == "__main__":
    for name, image in drawings().items():
        image.save(f"examples/{file_name(name)}", optimize=True)
