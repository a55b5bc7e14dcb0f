"""scripts/bench: what to measure, from the command line; then measure, print and, if asked, publish.

    scripts/bench --models-dir onnx_models --model vit-b-32 --checkpoint path/to/clip-vit-base-patch32

The baseline runs in this environment (torch, transformers, flask); infinity, vLLM and onnxruntime-openvino need their
own, named by --infinity-python, --vllm-python and --openvino-python, since their requirements conflict with ours.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.goals import CEILING, OURS
from benchmarks.loads import (
    BATCH,
    EIGHT,
    IMAGES_AGAIN,
    LOADS,
    MIXED,
    ONE,
    PHONES,
    TEXT_EIGHT,
    TEXT_LISTS,
    TEXT_MANY,
    TEXT_ONE,
    TEXTS_AGAIN,
    Load,
)
from benchmarks.profile import profile
from benchmarks.report import publish, render
from benchmarks.results import Results
from benchmarks.rivals import ceiling_rival, clipsrv_rival, flask_rival, infinity_rival, vllm_rival
from benchmarks.run import Plan, measure
from benchmarks.servers import Rival
from benchmarks.wrk import find_wrk
from clipsrv.errors import StartError
from clipsrv.manifest import TEXT, VISION, ModelManifest, load_manifest

_ROOT = Path(__file__).parents[1]
_IMAGES, _TEXTS = (ONE, EIGHT, BATCH, PHONES), (TEXT_ONE, TEXT_EIGHT, TEXT_MANY, TEXT_LISTS)
_AGAIN = (IMAGES_AGAIN, TEXTS_AGAIN)
_QUICK = (*_IMAGES, *_TEXTS, MIXED, *_AGAIN)


def main() -> int:
    arguments = _parser().parse_args()
    if arguments.render:
        publish(Results.read(arguments.render), _ROOT / "docs")
        return 0
    models, model = arguments.models_dir.resolve(), arguments.model
    work = _ROOT / "build" / "bench"
    work.mkdir(parents=True, exist_ok=True)
    if arguments.profile:
        ours = clipsrv_rival(" ".join(["clipsrv", *arguments.flag]), sys.executable, models, model, arguments.flag, [])
        print(profile(ours, arguments.cores, PHONES if arguments.phones else EIGHT, work, arguments.native))
        return 0
    if not arguments.checkpoint:
        print("Without --checkpoint clipsrv has no rivals.", file=sys.stderr)
    loads = _QUICK if arguments.quick else LOADS
    manifest = load_manifest(models / model)
    rivals, remembering = _rivals(arguments, models, manifest, loads, work), _remembering(arguments, models, manifest)
    plan = Plan(
        rivals=rivals,
        remembering=remembering,
        loads=[load for load in loads if any(load.name in rival.loads for rival in (*rivals, *remembering))],
        ceilings=_ceilings(models, manifest),
        cores=arguments.cores,
        repetitions=arguments.repetitions or (1 if arguments.quick else 3),
        minutes=arguments.minutes or (14 if arguments.quick else 40),
        work=work,
    )
    results = measure(plan, _facts(arguments.cores, manifest))
    results.save(work / "results.json")
    print(render(results))
    if arguments.publish:
        publish(results, _ROOT / "docs")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__, allow_abbrev=False)
    parser.add_argument("--models-dir", type=Path, default=_ROOT / "onnx_models", help="folder of converted models")
    parser.add_argument("--model", default="vit-b-32", help="model to serve")
    parser.add_argument("--checkpoint", type=Path, help="the same model in Hugging Face's layout, for the rivals")
    parser.add_argument("--infinity-python", help="interpreter with infinity-emb[server,torch,vision]")
    parser.add_argument("--vllm-python", help="interpreter with vllm for the CPU")
    parser.add_argument("--openvino-python", help="interpreter with clipsrv's requirements and onnxruntime-openvino")
    parser.add_argument("--quick", action="store_true", help="fewer loads, once, in 14 minutes with all rivals")
    parser.add_argument("--minutes", type=float, help="time to fit all measurements into (default 40)")
    parser.add_argument("--repetitions", type=int, help="times every load is run on every server (default 3)")
    parser.add_argument("--cores", type=_cores, default=sorted(os.sched_getaffinity(0))[:2], help="such as 0,1")
    parser.add_argument("--publish", action="store_true", help="write the results into docs/performance.*")
    parser.add_argument("--render", type=Path, metavar="JSON", help="publish earlier results, measuring nothing")
    parser.add_argument("--profile", action="store_true", help="where a request's time goes (needs py-spy)")
    parser.add_argument("--phones", action="store_true", help="profile with 12-megapixel photos")
    parser.add_argument("--native", action="store_true", help="profile C and C++ too")
    parser.add_argument("--flag", action="append", default=[], help="flag for the profiled server, as --flag=--no-text")
    return parser


def _rivals(
    arguments: argparse.Namespace, models: Path, manifest: ModelManifest, loads: tuple[Load, ...], work: Path
) -> list[Rival]:
    """Ours in fp32 first, then the baseline, the fast variants the model folder has, and rivals that were named."""
    every, some = (
        [load.name for load in loads if load not in _AGAIN],
        [load.name for load in (*_IMAGES, *_TEXTS, MIXED)],
    )
    one_image_each = [name for name in some if name != BATCH.name]
    python, model = sys.executable, arguments.model
    cpu = ("--device", "cpu", "--precision")
    rivals = [clipsrv_rival(OURS, python, models, model, (*cpu, "fp32"), every)]
    alone = [load.name for load in (EIGHT, PHONES, TEXT_EIGHT, TEXT_MANY)]
    rivals.append(ceiling_rival(CEILING, python, models, model, (*cpu, "fp32"), alone, work))
    if arguments.checkpoint:
        rivals.append(flask_rival(python, arguments.checkpoint.resolve(), every))
    if arguments.infinity_python and arguments.checkpoint:
        rivals.append(infinity_rival(arguments.infinity_python, arguments.checkpoint.resolve(), some))
    if arguments.vllm_python and arguments.checkpoint:
        rivals += _vllm(arguments, manifest, one_image_each, remember=False)
    if "int8" in manifest.towers[VISION].variants:
        rivals.append(clipsrv_rival("clipsrv int8", python, models, model, (*cpu, "int8"), some))
    fast = (*cpu, "int8" if "int8" in manifest.towers[VISION].variants else "fp32", "--fast-decode")
    rivals.append(clipsrv_rival(f"clipsrv {fast[3]}, fast decode", python, models, model, fast, [PHONES.name]))
    if arguments.openvino_python:
        for precision in ("bf16", *(["int8"] if "int8-openvino" in manifest.towers[VISION].variants else [])):
            flags = ("--device", "openvino", "--precision", precision)
            name = f"clipsrv openvino {precision}"
            rivals.append(clipsrv_rival(name, arguments.openvino_python, models, model, flags, some))
    return rivals


def _remembering(arguments: argparse.Namespace, models: Path, manifest: ModelManifest) -> list[Rival]:
    """Who is asked the same again, with whatever caches they have; the baseline has none."""
    again, flags = [load.name for load in _AGAIN], ("--device", "cpu", "--precision", "fp32")
    ours = f"{OURS}, cache"
    rivals = [clipsrv_rival(ours, sys.executable, models, arguments.model, flags, again, remember=True)]
    if arguments.checkpoint:
        rivals.append(flask_rival(sys.executable, arguments.checkpoint.resolve(), again))
    if arguments.vllm_python and arguments.checkpoint:
        rivals += _vllm(arguments, manifest, again, remember=True)
    return rivals


def _ceilings(models: Path, manifest: ModelManifest) -> dict[str, list[str]]:
    """Ours, by name, as Plan has them."""
    precisions = [one for one in ("fp32", "int8") if one in manifest.towers[VISION].variants]
    command = [sys.executable, str(models), manifest.name, "--device", "cpu", "--precision"]
    return {f"clipsrv {precision}": [*command, precision] for precision in precisions}


def _vllm(arguments: argparse.Namespace, manifest: ModelManifest, loads: list[str], *, remember: bool) -> list[Rival]:
    text, suffix = manifest.towers.get(TEXT), ", caches" if remember else ""
    options = ("--max-model-len", str((text and text.context_length) or 77), "--dtype")
    python, checkpoint = arguments.vllm_python, arguments.checkpoint.resolve()
    return [
        vllm_rival(
            *(f"vllm {name}{suffix}", python, checkpoint, (*options, dtype), loads),
            cores=arguments.cores,
            remember=remember,
        )
        for name, dtype in (("fp32", "float32"), ("bf16", "bfloat16"))
    ]


def _cores(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _facts(cores: list[int], manifest: ModelManifest) -> dict[str, str]:
    info = dict(line.partition(":")[::2] for line in Path("/proc/cpuinfo").read_text().replace("\t", "").splitlines())
    cpu, flags = info.get("model name", platform.machine()).strip(), info.get("flags", "").split()
    useful = [
        name
        for name in ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
        if name in flags
    ]
    packages = ("onnxruntime", "pillow", "numpy", "aiohttp", "torch", "transformers", "flask")
    source = manifest.source
    return {
        "model": f"{manifest.name}, {manifest.dimensions} dimensions, converted from {source['repo']} "
        f"({source['revision']}, weights {source['weights_sha256'][:12]})",
        "machine": f"{len(cores)} cores of {cpu} ({', '.join(useful)}), Linux {platform.release().partition('-')[0]}",
        "versions": f"Python {platform.python_version()}, "
        + ", ".join(f"{name} {_version(name)}" for name in packages),
        "load generator": _load_generator(),
    }


def _load_generator() -> str:
    program = find_wrk()
    if program is None:
        return "benchmarks/generator.py (wrk is not installed)"
    first_line, *_ = subprocess.run([program, "--version"], capture_output=True, text=True).stdout.splitlines()
    return first_line.partition(" Copyright")[0]


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "(none)"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except StartError as error:
        sys.exit(f"scripts/bench: {error.message}\ndocs/performance.md tells how to make a model to measure.")
