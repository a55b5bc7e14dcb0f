"""A provider is one row: what it says is what the command line, the refusals and doctor say."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields

import onnxruntime as ort
import pytest

from clipsrv.config import Config
from clipsrv.errors import DeviceError
from clipsrv.providers.provider import PRECISIONS, DevicePlan, Provider
from clipsrv.providers.table import DEVICES, PROVIDERS, auto_order, cure, extras, provider

every_provider = pytest.mark.parametrize("row", PROVIDERS, ids=lambda row: row.device)


@every_provider
def test_every_row_is_whole(row: Provider) -> None:
    assert row.onnx_name.endswith("ExecutionProvider")
    assert set(row.precisions) <= set(PRECISIONS)
    assert "fp32" in row.precisions, "every model has it, and auto falls back to it"
    assert re.fullmatch(r"It needs (an? .+, and )?.*pip install .+\.", cure(row))
    for precision in row.precisions:
        assert isinstance(row.options(DevicePlan(row.device, 2, precision)), dict)


def test_no_two_rows_share_a_name_a_package_or_a_turn() -> None:
    names = [name for row in PROVIDERS for name in (row.device, *row.aliases)]
    packages = [package for row in PROVIDERS for package in row.packages]
    turns = [row.auto_rank for row in PROVIDERS if row.auto_rank is not None]
    for found in (names, packages, turns, [row.onnx_name for row in PROVIDERS]):
        assert len(found) == len(set(found))


def test_the_devices_that_may_be_asked_for_are_those_of_the_table() -> None:
    choices = {item.name: item.metadata["choices"] for item in fields(Config)}
    assert choices["device"] == DEVICES == ("auto", "cpu", "cuda", "coreml", "mps", "openvino")
    assert choices["precision"] == ("auto", "fp32", "bf16", "fp16", "int8")
    assert [row.device for row in auto_order()] == ["cuda", "coreml", "openvino", "cpu"]
    assert extras() == ["cpu", "gpu", "openvino"]


def test_another_word_for_a_device_leads_to_the_same_row() -> None:
    assert provider("mps") is provider("coreml")


def test_a_device_that_nobody_knows_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(DeviceError, match=r"no device 'gpu'; it must be one of auto, cpu, cuda"):
        provider("gpu")


@every_provider
def test_onnxruntime_knows_every_provider_by_the_name_of_its_row(row: Provider) -> None:
    assert row.onnx_name in ort.get_all_providers()


def test_the_table_is_read_without_onnxruntime_and_numpy() -> None:
    program = "import sys, clipsrv.providers.table; print({'onnxruntime', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
