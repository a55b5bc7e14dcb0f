"""What two items must have in common to have the same vector: a hash of all of it, in 32 bytes. Pure functions.

The bytes themselves, the part of the image that is meant, and the model: its embedding_id, in which precision, decoding
and preprocessing are, and its files, since a model that is converted anew keeps that id.
"""

from __future__ import annotations

from hashlib import sha256

from clipsrv.images.region import Cropped, Encoded
from clipsrv.models.model import Model
from clipsrv.serving.prompts import Prompt


def space_of(model: Model) -> bytes:
    """What all keys of a model begin with."""
    return sha256(f"{model.embedding_id}\n{model.manifest.to_json()}".encode()).digest()


def image_key(space: bytes, image: Encoded) -> bytes:
    """The key of an encoded image, or of a part of one."""
    blob, region = (image.blob, tuple(image.region)) if isinstance(image, Cropped) else (image, ())
    return _digest(space, b"image", repr(region).encode(), blob)


def text_key(space: bytes, prompt: Prompt) -> bytes:
    """The key of a text; of one text with another label of its own, by which its script is judged, it is another."""
    label = b"" if prompt.label == prompt.text else b"=" + _bytes(prompt.label)
    return _digest(space, b"text", label, _bytes(prompt.text))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")  # a text that is none is refused later


def _digest(space: bytes, kind: bytes, beside: bytes, item: bytes | memoryview) -> bytes:
    """Every part but the last says where it ends, so that none passes for another."""
    digest = sha256(b"%s%s %d %s" % (space, kind, len(beside), beside))
    digest.update(item)
    return digest.digest()
