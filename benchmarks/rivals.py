"""How each server is started that scripts/bench measures: ours, the baseline, and other people's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.asking import ask_infinity, ask_vllm
from benchmarks.servers import Rival


def clipsrv_rival(
    name: str,
    python: str,
    models: Path,
    model: str,
    flags: Sequence[str],
    loads: Sequence[str],
    *,
    remember: bool = False,
) -> Rival:
    """Our own server with `flags`, run by the interpreter `python`. Unless it is to `remember`, it has no cache, since
    loads send the same images again and again."""
    serve = ("-m", "clipsrv", "--models-dir", str(models), "--model", model, "--port", "{port}")
    quiet = ("--log-level", "warning", *(() if remember else ("--cache-bytes", "0")))
    return Rival(name, (python, *serve, *quiet, *flags), tuple(loads))


def ceiling_rival(
    name: str, python: str, models: Path, model: str, flags: Sequence[str], loads: Sequence[str], work: Path
) -> Rival:
    """Our own server without HTTP."""
    ours = ("--models-dir", str(models), "--model", model, "--cache-bytes", "0", *flags)
    command = (python, "-m", "benchmarks.in_process", str(work / "images"), *ours)
    return Rival(name, command, tuple(loads), in_process=True)


def flask_rival(python: str, checkpoint: Path, loads: Sequence[str], device: str = "cpu") -> Rival:
    command = (python, "-m", "benchmarks.flask_baseline", str(checkpoint), "{port}", device)
    return Rival("flask + torch", command, tuple(loads))


def infinity_rival(python: str, checkpoint: Path, loads: Sequence[str]) -> Rival:
    """infinity's torch engine; `python` is the interpreter it is installed for."""
    command = (
        str(Path(python).parent / "infinity_emb"),
        "v2",
        "--model-id",
        str(checkpoint),
        "--served-model-name",
        "rival",
    )
    flags = ("--engine", "torch", "--device", "cpu", "--no-bettertransformer", "--no-model-warmup", "--port", "{port}")
    return Rival("infinity", (*command, *flags), tuple(loads), ask_infinity)


def vllm_rival(
    name: str,
    python: str,
    checkpoint: Path,
    options: Sequence[str],
    loads: Sequence[str],
    *,
    cores: Sequence[int],
    remember: bool,
) -> Rival:
    """vLLM with `options`; `python` is the interpreter it is installed for. Unless it is to `remember`, it keeps
    neither images nor the beginnings of texts."""
    # Left to itself it computes on all cores but one, which halves what it does with two.
    both = ("env", f"VLLM_CPU_OMP_THREADS_BIND={','.join(map(str, cores))}")
    command = (*both, str(Path(python).parent / "vllm"), "serve", str(checkpoint), "--served-model-name", "rival")
    # It would take nine tenths of the memory for a cache of what it generates, and refuses to start without it.
    flags = ("--runner", "pooling", "--gpu-memory-utilization", "0.15", "--port", "{port}")
    forget = () if remember else ("--mm-processor-cache-gb", "0", "--no-enable-prefix-caching")
    return Rival(name, (*command, *flags, *forget, *options), tuple(loads), ask_vllm)
