"""Whole images that decoders by themselves stumble over, and what is said of those that are not read."""

from __future__ import annotations

import base64
import subprocess
import sys
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageFile

from clipsrv.errors import InvalidImageError, TruncatedImageError, UnsupportedImageFormatError
from clipsrv.images import decode, formats
from clipsrv.images.decode import decode_image
from clipsrv.images.open import open_image
from tests.support.heif import container, frame, shown
from tests.support.photos import encode, opened

SMALL = opened("rocket.jpg").resize((64, 48))

#: 64x48 soft shades; made with jpegtran -arithmetic, of a sequential and of a progressive JPEG.
ARITHMETIC = base64.b85decode(
    "|JeWF01!$>Nk#wx0RR9200961|JwjV01XKW3knDg3knMk4h;_zAQcl55)&sJ9v2`kDKRiEDJ?8BI!Zn>HbyrrEkIX6ModmpQ&KWM"
    "T47pHU`kO^PygEhLjevB4iga*CKVMXPc<zyPft%zPft%zPft%zPft%zPft%zPft%zPft%zPft%zPft%zPft%zPft%zPft%zPf!2J"
    "01*fPFaSUU0U`hb5di}c0sqVZ3IGrg1pyEd1^?Or3<CiG0ucid06zf#0J4X{xUXk=cvOGp(RuzKKn`tQs|V^HPD&-3V9Ucn`BYMt"
    "4)-}e1m?&s=4b+r!uvHmn8zZSlc=9G-DmJLMaV24<jUPPlleSYxTZ1^Z5U?-qpU+;Xl+iIW^WQLdGpHaPsj}OrivcQf~cTI*5%nX"
    "grjeYjk|>IA7s+0B3j$eO#j&"
)
PROGRESSIVE_ARITHMETIC = base64.b85decode(
    "|JeWF01!$>Nk#wx0RR9200961|JwjV01XKW3knDg3knMk4h;_zAQcl55)&sJ9v2`kDKRiEDJ?8BI!Zn>HbyrrEkIX6ModmpQ&KWM"
    "T47pHU`kO^PygEhLjevB4iga*CKVMXPc<zyPft%zPft%zPft%zPft%zPft%zPft%zPft%zPft%zPft%zPft%zPft%zPft%zPf!2K"
    "01*fPFaSUU0U`hb5di}c0sqVZ1^^HN5dYc$3<CiG0uTcb000610A%xt%D%2ZnGrFfd~Z<2mXa}d2MnKt(^L$m=iBPv6*4BE|I7dc"
    "5C#9*00;pA009L8mJ<XS<B1ZbDN0hH|I7dc5e5I+00;pC0RcY&9z%f?2yo%i0HFWO00a>Q|Jncu0RjO5KLLJ%I{(Z71P}%P+5iXv"
    "0RRR+0;vDY00a;P|Jncu0RaF3KOyzn$ks_Dl1U_z|Jncy0|5X600RI301(6B3;-ik#a!Kh|I7dc5e5I+00;pC0RcY{ynz4A00a>Q"
    "|Jncu0RjO5KM>zjh`|5M00a;P|Jncu0RaF3KM<xd-On0e$j*Szd$@-<82{M"
)


@pytest.mark.parametrize("blob", [ARITHMETIC, PROGRESSIVE_ARITHMETIC], ids=["sequential", "progressive"])
def test_an_arithmetic_jpeg_is_decoded_in_one_piece_however_large(blob: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """libjpeg cannot stop in the middle of one: Pillow's pieces, of 64 KiB otherwise, are of 100 bytes here."""
    down, across = np.mgrid[0:48, 0:64]
    whole = np.stack([across * 4, down * 5, (across + down) * 2], -1)
    assert np.abs(np.asarray(decode_image(blob)).astype(int) - whole).mean() < 5
    expected = np.asarray(decode_image(blob))
    monkeypatch.setattr(ImageFile, "MAXBLOCK", 100)
    assert np.array_equal(np.asarray(decode_image(blob)), expected)


def test_an_arithmetic_jpeg_needs_its_end_mark() -> None:
    """Its data ends where the mark stands."""
    for blob in (ARITHMETIC, PROGRESSIVE_ARITHMETIC):
        with pytest.raises(TruncatedImageError):
            open_image(blob[:-2])


def test_pillows_own_limit_of_pixels_is_ours_where_that_is_more(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit in (1000, None):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        assert decode_image(encode(SMALL)).size == (64, 48)
        assert (Image.MAX_IMAGE_PIXELS or 64 * 48) >= 64 * 48


def test_a_jpeg_without_its_end_that_the_decoder_gives_up_is_truncated(monkeypatch: pytest.MonkeyPatch) -> None:
    opened_small = open_image(encode(SMALL, "JPEG")[:-2])

    def give_up(image: Image.Image) -> None:
        raise OSError("broken data stream")

    monkeypatch.setattr("PIL.JpegImagePlugin.JpegImageFile.load", give_up)
    with pytest.raises(TruncatedImageError):
        decode.decode(opened_small)


def test_a_jpeg_at_whose_end_the_decoder_gives_up_is_truncated() -> None:
    """What is put behind it becomes a part of a table."""
    blob = encode(SMALL, "JPEG", progressive=True)
    with pytest.raises(TruncatedImageError):
        decode_image(blob[:-2] + b"\xff\xc4\0\x50")


def test_a_decoder_that_finds_more_than_was_judged_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """It should never come to that; the walk over the file and the decoder would have to read it differently."""
    opened_small = open_image(encode(SMALL))
    larger = Image.open(BytesIO(encode(SMALL.resize((65, 48)))))
    monkeypatch.setattr(Image, "open", lambda *_, **__: larger)
    with pytest.raises(InvalidImageError, match="larger than its header says"):
        decode.decode(opened_small)


@pytest.mark.parametrize("format", ["AVIF", "HEIF"])
def test_without_its_decoder_a_container_is_called_by_its_coding(format: str) -> None:
    """mif1 may hold either."""
    blob = container(shown(frame(SMALL.resize((64, 64)), format), 64, 64), brand=b"mif1")
    program = f"""
import sys
sys.modules["pillow_heif"] = None
from clipsrv.images.open import open_image
print(open_image(bytes.fromhex("{blob.hex()}")).header.format)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    if format == "AVIF":
        assert done.stdout == "AVIF\n"
    else:
        assert "UnsupportedImageFormatError: The image looks like HEIC; accepted are" in done.stderr
        assert "HEIC is read where the package pillow-heif is installed." in done.stderr


def test_what_has_no_decoder_here_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "FORMATS", ("JPEG",))
    for blob in (container(shown(frame(SMALL.resize((64, 64)), "HEIF"), 64, 64), brand=b"mif1"), b"\0\0\0\x18ftypheic"):
        with pytest.raises(UnsupportedImageFormatError, match=r"looks like HEIC.* pillow-heif is installed") as caught:
            open_image(blob)
        assert caught.value.details == {"format": "HEIC"}
    with pytest.raises(UnsupportedImageFormatError, match=r"looks like AVIF; accepted are [^.]*\.$"):
        open_image(encode(SMALL, "AVIF"))


def test_an_image_without_a_side_is_damaged() -> None:
    blob = bytearray(encode(SMALL))
    blob[16:20] = bytes(4)
    with pytest.raises(InvalidImageError, match="begins like PNG"):
        open_image(bytes(blob))
