"""What the rooms take of the settings, as frozen dataclasses, and how a Config becomes them: here and nowhere else.

What only the server takes is mapped where it is joined together (server/app.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from clipsrv.config import Config
from clipsrv.errors import ConfigError
from clipsrv.machine import usable_cores
from clipsrv.topology import Threads, inference_threads

#: Texts that one slot holds: their ids take a thousandth of the memory of an image's pixels, and short ones a tenth of
#: the time.
TEXTS_PER_SLOT = 16
#: What a body of JSON may have for each text or image in it: quotes; and beside strings of more than 64 bytes, other
#: signs (commas, colons, opening brackets) and bytes. An image of OpenAI's shape has 12 quotes, 7 signs and 150 bytes.
JSON_SIGNS_PER_ITEM, JSON_BYTES_PER_ITEM = 64, 512
_USUAL_ITEMS = 2048
#: Batches for which a stream has images in work: one that is computed, one that waits, and as many on their way.
_BATCHES_PER_STREAM = 4
#: Characters of an alias.
_LONGEST_ALIAS = 128


@dataclass(frozen=True)
class ImageLimits:
    """What an image may claim in its header. Pixels are width times height; `max_aspect_ratio` is long by short.

    Canvas formats (GIF, WebP, AVIF) and images deeper than 8 bits have smaller limits, because their decoders
    need more bytes a pixel: a 186-byte WebP of 7000x7000 costs 770 MB.
    """

    max_bytes: int = 20 * 2**20
    max_pixels: int = 50_000_000
    max_canvas_pixels: int = 16_000_000
    max_deep_pixels: int = 25_000_000
    max_side: int = 16_384
    max_aspect_ratio: int = 200

    @property
    def max_cost(self) -> int:
        """Pixels whose memory decoding one image may take: more than it has if they are deep or packed without loss."""
        return 9 * self.max_pixels // 4


DEFAULT_LIMITS = ImageLimits()

#: A phone's photo, or the largest canvas, for each thread that decodes.
_PIXELS_PER_THREAD = 16_000_000


@dataclass(frozen=True)
class Decoding:
    """What may change pixels: turning photos as EXIF says, and `fast` decoding of large JPEGs at 1/2, 1/4 or 1/8."""

    exif_orientation: bool = True
    fast: bool = False


DEFAULT_DECODING = Decoding()


@dataclass(frozen=True)
class ModelSettings:
    """How a model is opened: on which device, in which precision, with or without its text tower.

    `threads` is for one inference; 0 takes one for each core this process may use, of two kinds the fast ones.
    """

    device: str = "auto"
    precision: str = "auto"
    threads: int = 0
    text: bool = True
    decoding: Decoding = DEFAULT_DECODING


@dataclass(frozen=True)
class OfferSettings:
    """Which models are served: `named`, of which the first is meant where none is named, and with `on_demand` every
    other of the models folder. `aliases` maps other names to them. Raises ConfigError."""

    named: tuple[str, ...]
    on_demand: bool = False
    aliases: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, model in self.aliases.items():
            problem = None
            if not (0 < len(name) <= _LONGEST_ALIAS and name.isascii() and name.isprintable()):
                problem = f"a name has 1 to {_LONGEST_ALIAS} printable characters of ASCII"
            elif name in self.named:
                problem = f"{name} is a model itself"
            elif model in self.aliases:
                problem = f"{model} is an alias; name the model itself, {self.aliases[model]}"
            elif model not in self.named and not self.on_demand:
                problem = f"{model} is not served; name it in --models, or start with --on-demand"
            if problem:
                raise ConfigError(f"CLIPSRV_ALIAS (--alias) is {f'{name}={model}'[:200]!a}: {problem}.")


@dataclass(frozen=True)
class ServingSettings:
    """How a server shares its cores and its memory. Times in seconds.

    `decode_threads` decode at once; `max_pixels_in_flight` bounds what they decode together. One caller may hold at
    most `max_queue_per_caller` of `max_queue` slots. An inference longer than `deadline` counts as hung, and after
    `probe_after` without any one is made to see that it still works. Vectors asked for last are kept in `cache_bytes`;
    0 keeps none. At most `max_loaded` models are loaded at once (None: any number); one that nobody has asked for in
    `unload_after` is unloaded (None: never).
    """

    max_batch_size: int = 8
    max_queue: int = 256
    max_queue_per_caller: int | None = None
    decode_threads: int = 2
    max_pixels_in_flight: int = 100_000_000
    deadline: float = 60.0
    probe_after: float = 60.0
    cache_bytes: int = 64 * 2**20
    max_loaded: int | None = None
    unload_after: float | None = None
    limits: ImageLimits = DEFAULT_LIMITS

    @property
    def stream_window(self) -> int:
        """Images of a stream in work at once: enough for batches in a row, at most half of a caller's slots."""
        most = self.max_queue if self.max_queue_per_caller is None else self.max_queue_per_caller
        return max(1, min(_BATCHES_PER_STREAM * self.max_batch_size, most // 2))


def threads_of(config: Config, number: int = 1) -> Threads:
    """Threads for one inference of the server, or of its worker `number`: those asked for, or its share of the machine.

    With more than its NUMA node has CPUs a worker keeps to none.
    """
    share = inference_threads(config.workers, number)
    if not config.threads:
        return share
    return Threads(config.threads, "as set", share.cpus if config.threads <= len(share.cpus or ()) else None)


def share_of(config: Config, threads: int) -> Config:
    """What each of `config.workers` processes takes of what the server may have, with `threads` for one inference; the
    whole for one.

    Each can still answer the largest request alone, so many workers may take more together than was set. Not divided is
    what an attacker is given (`auth_failures`), and what was set for one inference or for decoding in one process.
    """
    count = config.workers
    if count == 1:
        return config
    largest = max(config.max_images, -(-texts_of_a_request(config) // TEXTS_PER_SLOT))
    of_a_caller = max(config.queue_per_caller // count, largest)
    return replace(
        config,
        threads=threads,
        decode_threads=config.decode_threads or max(1, usable_cores() // count),
        max_queue=max(config.max_queue // count, min(config.max_queue, of_a_caller * 4 // 3)),
        max_queue_per_caller=of_a_caller,
        max_bytes_in_flight=max(config.max_bytes_in_flight // count, min(config.max_bytes_in_flight, _body(config))),
        max_pixels_in_flight=max(pixels_in_flight(config) // count, config.max_pixels),
        cache_bytes=config.cache_bytes // count,
        max_connections=max(1, config.max_connections // count),
    )


def _body(config: Config) -> int:
    return max(config.max_body_bytes, config.max_json_bytes)


def image_limits(config: Config) -> ImageLimits:
    return ImageLimits(
        max_bytes=config.max_image_bytes, max_pixels=config.max_pixels, max_aspect_ratio=config.max_aspect_ratio
    )


def model_settings(config: Config) -> ModelSettings:
    return ModelSettings(
        device=config.device,
        precision=config.precision,
        threads=config.threads,
        text=config.text,
        decoding=Decoding(exif_orientation=config.exif_orientation, fast=config.fast_decode),
    )


def offer_settings(config: Config) -> OfferSettings:
    """Raises ConfigError if an alias is none, or more models are named than may be loaded."""
    named = tuple(dict.fromkeys([config.model, *_listed(config.models)]))
    if 0 < config.max_loaded < len(named):
        raise ConfigError(
            f"CLIPSRV_MAX_LOADED (--max-loaded) is {config.max_loaded}, less than the {len(named)} models of --model "
            "and --models, which are loaded at the start."
        )
    aliases: dict[str, str] = {}
    for entry in _listed(config.alias):
        name, equals, model = (part.strip() for part in entry.partition("="))
        if not (name and equals and model) or aliases.get(name, model) != model:
            raise ConfigError(f"CLIPSRV_ALIAS (--alias) has {entry[:200]!a}; it must be NAME=MODEL, each name once.")
        aliases[name] = model
    return OfferSettings(named, config.on_demand, aliases)


def _listed(text: str) -> list[str]:
    return [entry for part in text.split(",") if (entry := part.strip())]


def serving_settings(config: Config) -> ServingSettings:
    return ServingSettings(
        max_batch_size=config.max_batch_size,
        max_queue=config.max_queue,
        max_queue_per_caller=config.queue_per_caller,
        decode_threads=decode_threads(config),
        max_pixels_in_flight=pixels_in_flight(config),
        deadline=config.deadline,
        probe_after=config.probe_after,
        cache_bytes=config.cache_bytes,
        max_loaded=config.max_loaded or None,
        unload_after=config.unload_after or None,
        limits=image_limits(config),
    )


def decode_threads(config: Config) -> int:
    """Threads that decode images: those asked for, or one for each core this process may use."""
    return config.decode_threads or usable_cores()


def pixels_in_flight(config: Config) -> int:
    """Pixels decoded at once: those asked for, or enough for a photo in each thread and for two of the largest."""
    return config.max_pixels_in_flight or max(2 * config.max_pixels, _PIXELS_PER_THREAD * decode_threads(config))


def texts_of_a_request(config: Config) -> int:
    """The most texts of one request: those asked for, as far as the slots of one caller reach."""
    return min(config.max_texts, TEXTS_PER_SLOT * config.queue_per_caller)


def json_items(config: Config) -> int:
    """The texts or images for which a body of JSON has room."""
    return max(_USUAL_ITEMS, config.max_texts, config.max_images)
