"""`python -m clipsrv doctor`: what this machine has, what would run, how fast, and the one thing to change.

Uses the server's own decisions (models/, runtime/), so it cannot promise what the server would not do.
"""

from __future__ import annotations

import os
import platform
import re
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import onnxruntime as ort

from clipsrv import __version__
from clipsrv.config import Config
from clipsrv.errors import StartError
from clipsrv.images.agreement import resize_is_pillows
from clipsrv.images.resize import COMPILED, FASTEST_NAME, HOW_TO_COMPILE
from clipsrv.installation import how_to_install, installations, pip
from clipsrv.machine import memory_limit, physical_memory, usable_cores
from clipsrv.manifest import TEXT, ModelManifest, list_models, verify_files
from clipsrv.models.folders import KNOWN_MODELS, available_models, find_model
from clipsrv.models.known import CHOICES, KNOWN, in_words, suited
from clipsrv.models.library import Library
from clipsrv.models.model import Model
from clipsrv.processor import CANNOT_TELL, this_processor
from clipsrv.providers.cpu import CPU
from clipsrv.providers.instructions import VNNI
from clipsrv.providers.openvino import OPENVINO
from clipsrv.providers.table import PROVIDERS, cure, extras
from clipsrv.runtime.trial import photographic
from clipsrv.search.served import describe_served
from clipsrv.settings import model_settings, offer_settings, share_of, threads_of

#: Seconds of the measured run at each batch size, and images that a precision is compared with fp32 on.
_MEASURE, _IMAGES = 2.0, 16


def run(config: Config) -> int:
    """Prints the report to standard output; 0 if the configured model would be served, else 1."""
    threads = threads_of(config)
    config = share_of(config, threads.count)
    for title, lines in (("machine", _machine()), ("runtime", _runtime()), ("models", _models(config))):
        _print(title, lines)
    with ExitStack() as opened:
        try:
            library = _library(config)
            models = {name: opened.enter_context(closing(library.load(name))) for name in library.named}
            model, *_ = models.values()
            searched = [describe_served(config.index, library, models)] if config.index else []
        except StartError as error:
            _print("would run", [f"nothing: {error.message}"])
            _print("change this", [_advice(config, None)])
            _print("to choose", _choices(None))
            return 1
        _print(
            "would run",
            [*_chosen(model, config, threads.why), *(f"beside it {name}" for name in library.named[1:]), *searched],
        )
        _print("change this", [_advice(config, model)])
        _print("to choose", _choices(model))
    return 0


def _machine() -> Iterator[str]:
    this, *others = installations()
    yield f"clipsrv {__version__} of {this.folder}, Python {platform.python_version()}, {platform.platform()}"
    for other in others:
        yield f"it runs in the place of clipsrv {other.version} of {other.folder}"
    cpu = this_processor()
    features = f"cannot tell: {CANNOT_TELL}" if cpu.features is None else ", ".join(cpu.features) or "none"
    yield f"{cpu.name}: {usable_cores()} cores usable (of {os.cpu_count()}), by affinity and cgroup quota"
    yield f"CPU features that matter here: {features}"
    yield f"images are resized by {FASTEST_NAME if COMPILED and resize_is_pillows() else 'Pillow'}"
    limit = memory_limit()
    yield f"memory {physical_memory() / 2**30:.1f} GiB" + (f", cgroup limit {limit / 2**30:.1f} GiB" if limit else "")


def _runtime() -> Iterator[str]:
    installed = list(_installed())
    yield ", ".join(f"{name} {number}" for name, number in installed) or "no onnxruntime package"
    if len(installed) > 1:
        yield "MORE THAN ONE is installed and they overwrite one another: uninstall all, then install exactly one"
    available = ort.get_available_providers()
    for row in PROVIDERS:
        yield f"{row.device}: {'built in' if row.onnx_name in available else f'not in this onnxruntime. {cure(row)}'}"


def _models(config: Config) -> Iterator[str]:
    folder = Path(config.models_dir)
    for name, manifest in available_models(folder).items():
        yield f"{name}: {_facts(manifest)}; {_checksums(find_model(folder, name), manifest)}"
    if not list_models(folder):
        yield f"none in {config.models_dir}; make one with: python -m conversions {KNOWN_MODELS[0]}"


def _chosen(model: Model, config: Config, why: str) -> Iterator[str]:
    yield (
        f"{config.model} on {model.device}, {model.precision}, {model.threads} threads ({why}), "
        f"batches of up to {config.max_batch_size}, text {'on' if model.text_encoder else 'off'}"
        + (f", in each of {config.workers} workers" if config.workers > 1 else "")
    )
    for trial in model.trials:
        yield f"measured by --device auto: {trial}"
    for batch_size in sorted({1, min(8, config.max_batch_size), config.max_batch_size}):
        yield f"batch {batch_size:>3}: {_images_per_second(model, batch_size):.1f} images/s (model alone, no decoding)"
    if model.precision != "fp32":
        mean, worst = _difference(model, config)
        yield (
            f"vectors differ from those of fp32 by {mean:.2%} of the mean distance between two images, "
            f"at worst by {worst:.2%} ({_IMAGES} synthetic images)"
        )
    if _port_is_taken(config):
        yield f"but port {config.port} on {config.host} is in use: choose another with --port"


def _library(config: Config) -> Library:
    return Library(Path(config.models_dir), offer_settings(config), model_settings(config))


def _difference(model: Model, config: Config) -> tuple[float, float]:
    """Mean and worst distance between an image's vector and its fp32 vector on the same device, relative to the mean
    distance between the fp32 vectors of two images."""
    pixels = photographic(_IMAGES, model.manifest.preprocess.crop_size)
    wanted = replace(config, device=model.device, precision="fp32", text=False)
    with closing(_library(wanted).load(config.model)) as exact:
        ours, theirs = (one.image_encoder.embed(pixels) for one in (model, exact))
    distances = np.linalg.norm(theirs[:, None] - theirs[None], axis=-1)
    errors = np.linalg.norm(ours - theirs, axis=-1) / (distances.sum() / (_IMAGES * (_IMAGES - 1)))
    return float(errors.mean()), float(errors.max())


def _images_per_second(model: Model, batch_size: int) -> float:
    size = model.manifest.preprocess.crop_size
    batch = np.ones((batch_size, 3, size, size), np.float32)
    model.image_encoder.embed(batch)
    runs, started = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - started) < _MEASURE:
        model.image_encoder.embed(batch)
        runs += 1
    return runs * batch_size / elapsed


def _advice(config: Config, model: Model | None) -> str:
    """The single most useful change, by what was found."""
    installed = dict(_installed())
    if len(installed) > 1:
        ways = "; ".join(how_to_install(extra) for extra in extras())
        return f"{pip()} uninstall {' '.join(installed)}, then one of: {ways}"
    if model is None:
        return "see the reason above"
    if _port_is_taken(config):
        return f"the port: --port {config.port + 1}"
    if not COMPILED:
        this, *others = installations()
        for other in others:
            if other.compiled:
                return (
                    f"the slow resize: that of {other.folder} is compiled. Run `clipsrv`, or Python outside of "
                    f"{this.folder.parent}; or compile this one: pip install --editable . there"
                )
        return f"the slow resize: {HOW_TO_COMPILE}"
    language = _language()
    if language and model.languages and not {language, "many"} & {*model.languages}:
        return (
            f"the model, if texts are in the language of this machine ({language}): {config.model} knows "
            f"{in_words(model.languages)}. See what there is to choose below"
        )
    if (
        model.device == CPU.device
        and {*VNNI.any_of} & {*(this_processor().features or ())}
        and model.precision == "fp32"
    ):
        return (
            "the precision, if a search may be a little less exact: --precision int8 (closer to fp32 with --device "
            f"{OPENVINO.device}); docs/precision.md has what it costs"
        )
    if model.device == CPU.device and config.model in KNOWN_MODELS[2:]:
        return f"{config.model} is slow on a CPU: use a GPU, or --model vit-b-32"
    return "nothing"


def _language() -> str:
    """The language this machine speaks to its user, as `ja`; none if it has not been told."""
    named = next(filter(None, (os.environ.get(name) for name in ("LC_ALL", "LC_MESSAGES", "LANG"))), "")
    code = re.split("[_.@-]", named)[0]
    return code if len(code) in (2, 3) else ""


def _choices(model: Model | None) -> Iterator[str]:
    """For each need the model to take on this machine: one without a GPU, unless the model runs on it."""
    memory = min(physical_memory(), memory_limit() or physical_memory())
    on_cpu = model is None or model.device in (CPU.device, OPENVINO.device)
    for need in CHOICES:
        name = suited(need, memory, on_cpu=on_cpu)
        if name is None:
            yield f"{need}: none that this machine can convert and serve well; a converted folder may be copied here"
        else:
            yield f"{need}: {name} ({KNOWN[name].purpose}; knows {in_words(KNOWN[name].languages)})"
    yield "make one with: python -m conversions NAME; docs/models.md tells what each finds, its speed and its licence"


def _installed() -> Iterator[tuple[str, str]]:
    for name in (package for row in PROVIDERS for package in row.packages):
        try:
            yield name, version(name)
        except PackageNotFoundError:
            continue


def _facts(manifest: ModelManifest) -> str:
    precisions = ", ".join(sorted(manifest.towers["vision"].variants))
    return f"{manifest.dimensions} dimensions, {precisions}" + (", text" if TEXT in manifest.towers else "")


def _checksums(folder: Path, manifest: ModelManifest) -> str:
    try:
        verify_files(folder, manifest)
    except StartError as error:
        return error.message
    return "checksums right"


def _port_is_taken(config: Config) -> bool:
    try:
        with socket.create_server((config.host, config.port)):
            return False
    except OSError:
        return True


def _print(title: str, lines: Iterator[str] | list[str]) -> None:
    for number, line in enumerate(lines):
        print(f"{title if number == 0 else '':<12} {line}", flush=True)
