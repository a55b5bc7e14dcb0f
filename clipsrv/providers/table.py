"""The table of providers: devices are listed here and nowhere else."""

from __future__ import annotations

from clipsrv.errors import DeviceError
from clipsrv.installation import how_to_install
from clipsrv.providers.coreml import COREML
from clipsrv.providers.cpu import CPU
from clipsrv.providers.cuda import CUDA
from clipsrv.providers.openvino import OPENVINO
from clipsrv.providers.provider import Provider

PROVIDERS = (CPU, CUDA, COREML, OPENVINO)

_BY_NAME = {name: row for row in PROVIDERS for name in (row.device, *row.aliases)}

#: What may be asked for.
DEVICES = ("auto", *_BY_NAME)

#: The way out that is always there: every onnxruntime has this device.
OTHERWISE = f"Or use --device {CPU.device}."


def provider(device: str) -> Provider:
    """The row of a device, or of another word for it. Raises DeviceError if there is none."""
    try:
        return _BY_NAME[device]
    except KeyError:
        raise DeviceError(f"There is no device {device!r}; it must be one of {', '.join(DEVICES)}.") from None


def auto_order() -> list[Provider]:
    """What `auto` tries, in this order."""
    ranks = {row.device: row.auto_rank for row in PROVIDERS if row.auto_rank is not None}
    return [provider(device) for device in sorted(ranks, key=ranks.__getitem__)]


def cure(row: Provider) -> str:
    """What a device needs that is not there, in a sentence."""
    others = tuple(name for other in PROVIDERS if other.extra != row.extra for name in other.packages)
    command = how_to_install(row.extra, instead_of=others)
    return f"It needs {f'{row.needs}, and ' if row.needs else ''}{command}."


def extras() -> list[str]:
    """clipsrv's extras that carry an onnxruntime: exactly one of them is to be installed."""
    return list(dict.fromkeys(row.extra for row in PROVIDERS))
