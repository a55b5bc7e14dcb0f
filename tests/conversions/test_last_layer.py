"""The last layer at one token alone is the whole layer's output there, in each family that reads one token."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import ChineseCLIPTextConfig, SiglipTextConfig
from transformers.models.chinese_clip.modeling_chinese_clip import ChineseCLIPTextEncoder
from transformers.models.siglip.modeling_siglip import SiglipEncoder

from conversions.last_layer import FirstTokenOnly, LastTokenOnly

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "attn_implementation": "eager",
}


@pytest.fixture
def states() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(3, 7, 32)


def test_siglip_s_last_text_layer_gives_the_last_token(states: torch.Tensor) -> None:
    config: Any = SiglipTextConfig(**SIZES)
    encoder: Any = SiglipEncoder(config).train(False)
    with torch.inference_mode():
        whole = encoder(states).last_hidden_state
        encoder.layers[-1] = LastTokenOnly(encoder.layers[-1])
        alone = encoder(states).last_hidden_state
    assert alone.shape == (3, 1, 32)
    torch.testing.assert_close(alone[:, 0], whole[:, -1])


def test_bert_s_last_layer_gives_the_first_token_which_sees_no_padding(states: torch.Tensor) -> None:
    encoder: Any = ChineseCLIPTextEncoder(ChineseCLIPTextConfig(**SIZES)).train(False)
    padding = torch.zeros(3, 1, 1, 7)
    padding[1, ..., 4:] = torch.finfo(torch.float32).min
    with torch.inference_mode():
        whole = encoder(states, attention_mask=padding).last_hidden_state
        encoder.layer[-1] = FirstTokenOnly(encoder.layer[-1])
        alone = encoder(states, attention_mask=padding).last_hidden_state
        other = encoder(torch.cat([states[:, :4], -states[:, 4:]], 1), attention_mask=padding).last_hidden_state
    assert alone.shape == (3, 1, 32)
    torch.testing.assert_close(alone[:, 0], whole[:, 0])
    torch.testing.assert_close(other[1], alone[1])
    assert not torch.allclose(other[0], alone[0])
