"""Text towers whose tokens see only what comes before them, CLIP's and MetaCLIP 2's, without what reaches no vector.

Every text begins with the same mark, which sees nothing but itself: in each layer its keys and values are constants.
And the last layer is computed for the end mark alone. Same vectors, within rounding; verify.py proves it each time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import Any

import torch

from conversions.errors import CheckpointError
from conversions.last_layer import Before, attend, one_token, onward

#: As CLIP's text tower of transformers has it: an end written as 2 means the largest id of a text.
_LARGEST = 2


class CausalTexts(torch.nn.Module):
    """Ids (n, tokens), of which the first is `begin` whatever it says, to features (n, dimensions). Changes nothing of
    `tower`, whose weights it borrows."""

    def __init__(self, tower: Any, projection: torch.nn.Module, begin: int, *, largest_ends: bool = False) -> None:
        """The vector is taken at the first end mark; if `largest_ends` and the end is written as 2, at the first of
        the largest ids."""
        super().__init__()
        self.tower, self.projection = tower, projection
        self._largest = largest_ends and tower.eos_token_id == _LARGEST
        context = tower.embeddings.position_embedding.num_embeddings
        # Row i is that of token i + 1, which sees i + 2 tokens.
        hidden = torch.full((context, context), torch.finfo(torch.float32).min).triu(1)[1:]
        self.register_buffer("hidden", hidden)
        with torch.no_grad():
            for place, (keys, values) in enumerate(_begun(tower, begin)):
                self.register_buffer(f"keys_{place}", keys)
                self.register_buffer(f"values_{place}", values)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        tower, ids = self.tower, input_ids[:, 1:]
        # A lone end mark is computed beside another, which nothing reads: a single row is rounded otherwise (`attend`).
        ids = torch.cat([ids, ids[:, -1:][:, : 2 - ids.shape[1]]], dim=1)
        length = ids.shape[1]
        positions = tower.embeddings.position_embedding.weight[1:][:length]
        states = tower.embeddings.token_embedding(ids) + positions
        hidden = self.get_buffer("hidden")[:length, : length + 1]
        *layers, last = tower.encoder.layers
        for place, layer in enumerate(layers):
            normal = layer.layer_norm1(states)
            mixed = attend(layer.self_attn, normal, normal, before=self._before(place), mask=hidden)
            states = onward(layer, states, mixed)
        asked = ids.to(torch.int) if self._largest else (ids == tower.eos_token_id).to(torch.int)
        end = asked.argmax(dim=-1)
        token = states[torch.arange(states.shape[0]), end].unsqueeze(1)
        seen = hidden[end].unsqueeze(1).unsqueeze(1)
        token = one_token(last, states, token, before=self._before(len(layers)), mask=seen)
        features: torch.Tensor = self.projection(tower.final_layer_norm(token)[:, 0])
        return features

    def _before(self, place: int) -> Before:
        return Before(self.get_buffer(f"keys_{place}"), self.get_buffer(f"values_{place}"))


def common_begin(ids: Sequence[Sequence[int]]) -> int:
    """The id that all texts begin with. Raises CheckpointError if there is none, or one has nothing behind it."""
    begins = {text[0] if len(text) > 1 else None for text in ids}
    begin = begins.pop() if len(begins) == 1 else None
    if begin is None:
        raise CheckpointError("Its tokenizer does not frame each text in a mark that begins it and one that ends it.")
    return begin


def _begun(tower: Any, begin: int) -> Iterator[Before]:
    """Layer by layer the keys and values of the begin mark: in double precision, so that what is rounded in the end is
    the same on every machine. One token attends to itself alone, so what it takes are its own values."""
    embeddings = tower.embeddings
    state = embeddings.token_embedding.weight[begin].double() + embeddings.position_embedding.weight[0].double()
    state = state.view(1, 1, -1)
    for kept in tower.encoder.layers:
        layer = deepcopy(kept).double()
        normal = layer.layer_norm1(state)
        values = layer.self_attn.v_proj(normal)
        yield Before(layer.self_attn.k_proj(normal).float(), values.float())
        state = onward(layer, state, values)
