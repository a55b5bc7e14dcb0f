"""A model folder made ready to run: manifest checked, files verified, both towers open on a proven device."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from clipsrv.errors import DeviceError, EngineError
from clipsrv.machine import give_memory_back
from clipsrv.manifest import TEXT, VISION, ModelManifest, load_manifest, verify_files
from clipsrv.models.model import Model
from clipsrv.processor import this_processor
from clipsrv.providers.cpu import CPU
from clipsrv.providers.provider import DevicePlan
from clipsrv.runtime.choice import AUTO_BOUND, candidate_devices, choose_precision, graph_file, variant
from clipsrv.runtime.encoder import Encoder, SessionEncoder, TextEncoder
from clipsrv.runtime.opening import open_encoder
from clipsrv.runtime.session import open_session
from clipsrv.runtime.trial import Trial, beside_cpu, beside_packed
from clipsrv.settings import ModelSettings
from clipsrv.specs import TowerSpec
from clipsrv.text.opening import Tokenizers
from clipsrv.text.tokens import Tokenizer
from clipsrv.topology import inference_threads

logger = logging.getLogger(__name__)

#: Bytes of memory for each byte of a graph and of the weights beside it, as measured: both are packed for the CPU, and
#: what was read of a graph stays. And for a tokenizer and a batch.
_FOR_GRAPH, _FOR_DATA, _BESIDE = 2.25, 1.25, 128 * 2**20


def load_model(
    folder: Path,
    settings: ModelSettings,
    before: Callable[[int], None] = lambda needed: None,
    tokenizers: Tokenizers | None = None,
) -> Model:
    """Opens the model of `folder` on the first possible device. `before` is told the bytes of memory that this takes
    at its height, roughly, and may raise; `tokenizers` opens the tokenizer.

    Raises ModelError for the folder's faults, DeviceError if the device or precision asked for cannot be had.
    Only `auto` may pick another device than the first it tries: where the first does not open, gives other vectors than
    the CPU, or is no faster.
    """
    manifest = load_manifest(folder)
    refusals: list[str] = []
    trials: list[Trial] = []
    for candidate in candidate_devices(settings.device):
        try:
            plan = _plan(manifest, candidate, settings)
            before(_memory(manifest, plan, settings))
            model = _open(folder, manifest, plan, settings, tokenizers or Tokenizers())
            with ExitStack() as undo:  # unless it is taken
                undo.callback(model.close)
                if trial := _trial(folder, model, plan, settings):
                    logger.info("--device auto: %s", trial)
                    trials.append(trial)
                if trial is None or trial.passed:
                    undo.pop_all()
                    return replace(model, trials=tuple(trials))
        except DeviceError as error:
            if settings.device != "auto":
                raise
            refusals.append(error.message)
    raise DeviceError(" ".join(refusals) or "This onnxruntime has no device that clipsrv knows.")


def _plan(manifest: ModelManifest, device: str, settings: ModelSettings) -> DevicePlan:
    errors = manifest.relative_errors(VISION)
    precision = choose_precision(settings.precision, device, manifest.towers[VISION], this_processor(), errors=errors)
    return DevicePlan(device, settings.threads or inference_threads().count, precision)


def _trial(folder: Path, model: Model, plan: DevicePlan, settings: ModelSettings) -> Trial | None:
    """The device of `model` beside the CPU, if `auto` is to choose between them; DeviceError if it does not run."""
    if settings.device != "auto" or plan.device == CPU.device or CPU.device not in candidate_devices("auto"):
        return None
    manifest, tower = model.manifest, model.manifest.towers[VISION]
    try:
        instead = _plan(manifest, CPU.device, settings)
    except DeviceError:  # the precision that was asked for is none of the CPU's
        return None
    errors = manifest.relative_errors(VISION)
    bound = AUTO_BOUND + sum(errors.get(variant(one.device, one.precision), 0.0) for one in (plan, instead))
    graph = folder / graph_file(tower, instead.device, instead.precision)

    def on_cpu(measure: Callable[[Encoder], Trial], *, packed: bool) -> Trial:
        cpu = SessionEncoder(open_session(graph, instead, packed=packed), tower, manifest.dimensions)
        try:
            return measure(cpu)
        except EngineError as error:
            raise DeviceError(f"--device {plan.device} is there and does not compute: {error.message}") from None
        finally:
            cpu.close()

    side = manifest.preprocess.crop_size
    trial = on_cpu(lambda cpu: beside_cpu(plan.device, model.image_encoder, cpu, side, bound), packed=False)
    # Packing its weights, as for serving, takes the CPU longer than all else of the trial: only where it may decide.
    return on_cpu(lambda cpu: beside_packed(trial, cpu, side), packed=True) if trial.is_close else trial


def _open(
    folder: Path, manifest: ModelManifest, plan: DevicePlan, settings: ModelSettings, tokenizers: Tokenizers
) -> Model:
    spec = _text_tower(manifest, settings)
    with ExitStack() as undo:  # what was opened before something else could not be
        # Both towers at once: hashing their files and packing their weights are one core's work each.
        with ThreadPoolExecutor(1, thread_name_prefix="open") as beside:
            text_tower = beside.submit(_open_text, folder, manifest, spec, plan, undo, tokenizers)
            image_encoder = _open_tower(folder, manifest, manifest.towers[VISION], plan, undo)
        text_encoder, tokenizer = text_tower.result()
        undo.pop_all()
    give_memory_back()  # what graphs and tokenizers were read from
    return Model(
        manifest=manifest,
        device=plan.device,
        precision=plan.precision,
        threads=plan.threads,
        image_encoder=image_encoder,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        decoding=settings.decoding,
    )


def _text_tower(manifest: ModelManifest, settings: ModelSettings) -> TowerSpec | None:
    return manifest.towers.get(TEXT) if settings.text else None


def _memory(manifest: ModelManifest, plan: DevicePlan, settings: ModelSettings) -> int:
    needed = _BESIDE
    for tower in filter(None, [manifest.towers[VISION], _text_tower(manifest, settings)]):
        graph, *data = (manifest.files[name].size for name in _graph_files(manifest, tower, plan))
        needed += int(_FOR_GRAPH * graph + _FOR_DATA * sum(data))
    return needed


def _graph_files(manifest: ModelManifest, tower: TowerSpec, plan: DevicePlan) -> list[str]:
    graph = graph_file(tower, plan.device, plan.precision)
    return [name for name in (graph, f"{graph}.data") if name in manifest.files]


def _open_text(
    folder: Path,
    manifest: ModelManifest,
    spec: TowerSpec | None,
    plan: DevicePlan,
    undo: ExitStack,
    tokenizers: Tokenizers,
) -> tuple[TextEncoder, Tokenizer] | tuple[None, None]:
    if spec is None or spec.tokenizer is None:
        return None, None
    verify_files(folder, manifest, [spec.tokenizer])
    tokenizer = tokenizers.open(folder / spec.tokenizer, spec, manifest.files[spec.tokenizer].sha256)
    return _open_tower(folder, manifest, spec, plan, undo), tokenizer


def _open_tower(
    folder: Path, manifest: ModelManifest, tower: TowerSpec, plan: DevicePlan, undo: ExitStack
) -> SessionEncoder:
    graph, *_ = names = _graph_files(manifest, tower, plan)
    verify_files(folder, manifest, names)
    encoder = open_encoder(folder / graph, tower, manifest.dimensions, plan)
    undo.callback(encoder.close)
    return encoder
