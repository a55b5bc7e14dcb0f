"""Layers of transformers that compute nothing which reaches no vector: a tower that pools one token reads no other.

Written in the operators of transformers' own eager attention: onnxruntime's shape inference, and with it fp16's
fusions, gives up on others. Knows no family's whole towers.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import torch


def attend(
    attention: Any,
    asking: torch.Tensor,
    read: torch.Tensor,
    *,
    mask: torch.Tensor | None = None,
    padded: bool = False,
) -> torch.Tensor:
    """What each token that is `asking` takes of those that are `read`, both (batch, tokens, width) and normalised:
    (batch, asking, heads, size), not yet projected. `mask` is added to the weights (batch, heads, asking, read).

    `padded`: how many are read depends on what else is in the batch, and one is asking. It asks twice: onnxruntime
    multiplies a single row by another kernel, whose sums are rounded by how many there are, those of weight 0 too.
    """

    def heads(values: torch.Tensor) -> torch.Tensor:
        return values.view(*values.shape[:2], -1, attention.head_dim).transpose(1, 2)

    queries = heads(attention.q_proj(asking))
    if padded:
        queries = queries.expand(-1, -1, 2, -1)
    weights = queries @ heads(attention.k_proj(read)).transpose(-1, -2) * attention.scale
    if mask is not None:
        weights = weights + mask
    weights = torch.softmax(weights, dim=-1)
    mixed = weights @ heads(attention.v_proj(read))
    return (mixed[:, :, :1] if padded else mixed).transpose(1, 2)


def onward(layer: Any, states: torch.Tensor, mixed: torch.Tensor) -> torch.Tensor:
    """An encoder layer's output at `states` (batch, tokens, width), which took `mixed` of the tokens (`attend`)."""
    states = states + layer.self_attn.out_proj(mixed.reshape(states.shape))
    output: torch.Tensor = states + layer.mlp(layer.layer_norm2(states))
    return output


class ClassTokenOnly(torch.nn.Module):
    """An encoder layer's output at the first token only: (batch, tokens, width) to (batch, 1, width).

    After the last layer CLIP reads nothing but the class token, so queries, output projection and MLP of the others
    are five sixths of a layer's work for nothing. The token still attends to all of them.
    """

    def __init__(self, layer: torch.nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, states: torch.Tensor, *_: object, **__: object) -> tuple[torch.Tensor]:
        layer = cast(Any, self.layer)
        normal, token = layer.layer_norm1(states), states[:, 0].unsqueeze(1)
        return (onward(layer, token, attend(layer.self_attn, normal[:, 0].unsqueeze(1), normal)),)


class LastTokenOnly(torch.nn.Module):
    """SigLIP's last text layer, at the last token only, which is all that is pooled: as ClassTokenOnly."""

    def __init__(self, layer: torch.nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, states: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
        layer, token = cast(Any, self.layer), states[:, -1].unsqueeze(1)
        # The token is normalised by itself: in int8 what reads a normalisation must all be products.
        asking, read = layer.layer_norm1(token), layer.layer_norm1(states)
        return onward(layer, token, attend(layer.self_attn, asking, read, padded=True))


class FirstTokenOnly(torch.nn.Module):
    """BERT's last layer at the first token only: as ClassTokenOnly. It normalises behind attention and MLP."""

    def __init__(self, layer: torch.nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor, *_: object, **__: object
    ) -> tuple[torch.Tensor]:
        layer, token = cast(Any, self.layer), hidden_states[:, 0].unsqueeze(1)
        inner = layer.attention.self
        attention = SimpleNamespace(
            q_proj=inner.query,
            k_proj=inner.key,
            v_proj=inner.value,
            head_dim=inner.attention_head_size,
            scale=inner.scaling,
        )
        mixed = attend(attention, token, hidden_states, mask=attention_mask, padded=True).reshape(token.shape)
        return (layer.feed_forward_chunk(layer.attention.output(mixed, token)),)
