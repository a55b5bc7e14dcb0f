"""What `auto` asks of a device before it takes it: vectors like the CPU's, and sooner. Knows nothing of model folders.

A provider that is there can be slower than the CPU, several times so where it hands nodes back to it one by one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from clipsrv.runtime.encoder import Encoder
from clipsrv.runtime.vectors import Vectors

#: Images of a trial: two, whose distance is the measure of errors. Each side computes them again until it has taken so
#: many seconds, thrice at most; its best counts.
_IMAGES, _SECONDS, _RUNS = 2, 0.2, 3
#: What the CPU may win at most by packing its weights: ViT-B/32 computes 1.4 times as fast.
_BY_PACKING = 1.6


@dataclass(frozen=True)
class Trial:
    """`error` and `bound` are shares of the distance between the two images' vectors, times are in seconds."""

    device: str
    error: float
    bound: float
    seconds: float
    on_cpu: float

    @property
    def passed(self) -> bool:
        return self.error <= self.bound and self.seconds < self.on_cpu

    @property
    def is_close(self) -> bool:
        """Whether a CPU that had packed its weights might have been as fast."""
        return self.passed and self.on_cpu < _BY_PACKING * self.seconds

    def __str__(self) -> str:
        if self.passed:
            verdict = "taken"
        elif self.error > self.bound:
            verdict = f"not taken, for more than {self.bound:.1%} are other vectors"
        else:
            verdict = "not taken, for it is no faster"
        return (
            f"{self.device} computes {_IMAGES} images in {1000 * self.seconds:.1f} ms, the CPU in "
            f"{1000 * self.on_cpu:.1f} ms; vectors differ by {self.error:.2%} of the distance between images: {verdict}"
        )


def beside_cpu(device: str, encoder: Encoder, cpu: Encoder, side: int, bound: float) -> Trial:
    """The Trial of a device's `encoder`, which takes images of `side` pixels. Raises EngineError if one fails."""
    pixels = photographic(_IMAGES, side)
    theirs, on_cpu = _best(cpu, pixels)
    ours, seconds = _best(encoder, pixels)
    apart = float(np.linalg.norm(theirs[0] - theirs[1]))
    error = float(np.linalg.norm(ours - theirs, axis=-1).max()) / max(apart, float(np.finfo(np.float32).eps))
    return Trial(device, error, bound, seconds, on_cpu)


def beside_packed(trial: Trial, cpu: Encoder, side: int) -> Trial:
    """The same once more beside a CPU that has packed its weights. Raises EngineError if that fails."""
    return replace(trial, on_cpu=_best(cpu, photographic(_IMAGES, side))[1])


def photographic(count: int, side: int) -> NDArray[np.float32]:
    """Normalised pixels (count, 3, side, side) with the spectrum of photographs: amplitude falls as frequency rises
    (Field 1987). The same each time."""
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    frequency[0, 0] = 1 / side
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((2, count, 3, *frequency.shape))
    waves = np.fft.irfft2((noise[0] + 1j * noise[1]) / frequency, s=(side, side))
    pixels: NDArray[np.float64] = waves / waves.std() + rng.normal(size=(count, 3, 1, 1))
    return pixels.astype(np.float32)


def _best(encoder: Encoder, pixels: NDArray[np.float32]) -> tuple[Vectors, float]:
    """Vectors, and the seconds of the fastest run."""
    begun, times = perf_counter(), list[float]()
    while not times or (len(times) < _RUNS and perf_counter() - begun < _SECONDS):
        before = perf_counter()
        vectors = encoder.embed(pixels)
        times.append(perf_counter() - before)
    return vectors, min(times)
