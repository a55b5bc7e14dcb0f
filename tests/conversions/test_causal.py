"""Texts whose tokens see only what is before them: what they begin with alike is computed once, the begin mark is
constants, the last layer the end mark's alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from transformers import CLIPModel

from clipsrv.manifest import TEXT
from clipsrv.providers.provider import DevicePlan
from clipsrv.runtime.packing import pack
from clipsrv.runtime.session import open_session
from conversions.causal import CausalTexts, common_begin
from conversions.errors import CheckpointError
from conversions.export import export_tower
from conversions.families.family import Exportable

pytestmark = pytest.mark.filterwarnings("ignore")  # torch's tracer and the exporters warn of their own doings

BEGIN, END, CONTEXT = 524, 525, 77

Ids = NDArray[np.int64]


@pytest.fixture(scope="module")
def original(tiny_checkpoint: Path) -> Any:
    model: Any = CLIPModel.from_pretrained(tiny_checkpoint).train(False)
    model.set_attn_implementation("eager")
    return model


@pytest.fixture(scope="module")
def graph(original: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("causal") / "text.onnx"
    export_tower(Exportable(causal(original), heads=4, width=64, through="torch", packed=True), TEXT, path)
    return path


@pytest.fixture(scope="module")
def session(graph: Path) -> ort.InferenceSession:
    return open_session(graph, DevicePlan("cpu", 1))


def causal(original: Any) -> CausalTexts:
    return CausalTexts(original.text_model, original.text_projection, BEGIN, largest_ends=True)


def texts(*lengths: int) -> Ids:
    """Of so many tokens each, its marks included, filled up with the end mark to the longest."""
    ids = np.full((len(lengths), max(lengths)), END)
    rng = np.random.default_rng(0)
    for row, length in zip(ids, lengths, strict=True):
        row[0], row[1 : length - 1] = BEGIN, rng.integers(0, BEGIN, length - 2)
    return ids


def features(session: ort.InferenceSession, ids: Ids) -> NDArray[np.float32]:
    found: NDArray[np.float32]
    (found,) = session.run(None, pack(ids)._asdict())
    return found


def expected(original: Any, ids: Ids) -> NDArray[np.float32]:
    with torch.inference_mode():
        found: NDArray[np.float32] = original.get_text_features(input_ids=torch.from_numpy(ids)).numpy()
        return found


@pytest.mark.parametrize("lengths", [(2,), (3,), (CONTEXT,), (2, 9, 5, CONTEXT), (14,) * 5], ids=str)
def test_features_are_the_originals_whatever_a_text_is_padded_to(
    original: Any, session: ort.InferenceSession, lengths: tuple[int, ...]
) -> None:
    ids = texts(*lengths)
    np.testing.assert_allclose(features(session, ids), expected(original, ids), atol=1e-5)


def test_padding_and_company_change_no_bit_of_a_texts_features(session: ort.InferenceSession) -> None:
    lengths = range(2, CONTEXT + 1)
    ids = texts(*lengths)
    together = features(session, ids)
    alone = [features(session, ids[place : place + 1, :length]) for place, length in enumerate(lengths)]
    np.testing.assert_array_equal(together, np.concatenate(alone))


def test_what_texts_share_changes_no_bit_of_their_features(session: ort.InferenceSession) -> None:
    """Texts that begin alike for a while, to their ends, and all the way."""
    ids = texts(*[CONTEXT] * 9)
    ids[1, 3:] = END
    ids[2, :5] = ids[0, :5]
    ids[3] = ids[0]
    ids[4, 30:] = END
    ids[5, :30] = ids[4, :30]
    ids[6, 2:] = END
    ids[7, 1:] = END
    ids[8, :76] = ids[0, :76]
    together = features(session, ids)
    np.testing.assert_array_equal(together, np.concatenate([features(session, row[None]) for row in ids]))
    np.testing.assert_array_equal(together[::-1], features(session, ids[::-1]))


def test_every_layer_computes_beginnings_once_without_the_begin_mark_and_the_last_one_the_end_marks_alone(
    graph: Path,
) -> None:
    model = onnx.load(graph)
    widened = [node.output[0] for node in model.graph.node if node.op_type == "MatMul" and "mlp/fc1" in node.name]
    model.graph.output.extend(onnx.helper.make_tensor_value_info(name, 1, None) for name in widened)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    ids = texts(9, 5, 9)
    ids[2, :4] = ids[0, :4]
    shapes = [values.shape[:2] for values in session.run(widened, pack(ids)._asdict())]
    assert shapes == [(1, 8 + 4 + 5), (1, 3)]


def test_the_begin_mark_is_in_the_graph_and_not_read_from_the_input(session: ort.InferenceSession) -> None:
    ids = texts(9, 5)
    other = ids.copy()
    other[:, 0] = 7
    np.testing.assert_array_equal(features(session, other), features(session, ids))


@pytest.mark.parametrize("end", [2, 123], ids=["the largest id", "its own id"])
def test_the_vector_is_taken_at_the_first_end_mark_as_the_configuration_means_it(
    original: Any, monkeypatch: pytest.MonkeyPatch, end: int
) -> None:
    """An end that is written as 2 means the largest id of each text, whatever it is."""
    monkeypatch.setattr(original.text_model, "eos_token_id", end)
    ids = np.array([[BEGIN, 123, 2, 400, END, END, 123, 5], [BEGIN, 3, END, 2, 123, END, END, 5]])
    with torch.inference_mode():
        found = causal(original)(*map(torch.from_numpy, pack(ids))).numpy()
    np.testing.assert_allclose(found, expected(original, ids), atol=1e-5)


def test_an_end_of_2_is_an_id_where_the_family_has_no_other_meaning_for_it(
    original: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(original.text_model, "eos_token_id", 2)
    ids = np.array([[BEGIN, 5, 2, END, 2]])
    part = CausalTexts(original.text_model, original.text_projection, BEGIN)
    with torch.inference_mode():
        found = part(*map(torch.from_numpy, pack(ids))).numpy()
        states = original.text_model(input_ids=torch.from_numpy(ids)).last_hidden_state
        at_the_two = original.text_projection(states[:, 2]).numpy()
    np.testing.assert_allclose(found, at_the_two, atol=1e-5)


def test_the_begin_marks_keys_and_values_are_those_that_the_original_computes(original: Any) -> None:
    seen: dict[str, torch.Tensor] = {}
    hooks = [
        getattr(layer.self_attn, name).register_forward_hook(
            lambda module, inputs, output, key=f"{kind}_{place}": seen.__setitem__(key, output[:, :1])
        )
        for place, layer in enumerate(original.text_model.encoder.layers)
        for name, kind in (("k_proj", "keys"), ("v_proj", "values"))
    ]
    expected(original, texts(9))
    for hook in hooks:
        hook.remove()
    constants = dict(causal(original).named_buffers(recurse=False))
    assert set(seen) == set(constants) - {"hidden"}
    for name, values in seen.items():
        np.testing.assert_allclose(constants[name].numpy(), values[0].numpy(), atol=1e-6, err_msg=name)


def test_texts_that_do_not_all_begin_with_one_mark_are_refused() -> None:
    assert common_begin([[5, 7], [5, 1, 2, 7]]) == 5
    for ids in ([[5, 7], [6, 7]], [[5], [5, 7]], [[], [5, 7]], []):
        with pytest.raises(CheckpointError, match="frame"):
            common_begin(ids)
