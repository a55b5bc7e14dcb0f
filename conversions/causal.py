"""Text towers whose tokens see only what comes before them, CLIP's and MetaCLIP 2's, without what reaches no vector.

They compute the rows of clipsrv/runtime/packing.py: what texts of a batch begin with alike once, and no padding. All
begin with the same mark: in each layer its keys and values are constants. And the last layer is computed for the end
mark alone. Same vectors, within rounding; verify.py proves it each time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import Any, NamedTuple

import torch

from conversions.errors import CheckpointError
from conversions.last_layer import onward

#: As CLIP's text tower of transformers has it: an end written as 2 means the largest id of a text.
_LARGEST = 2


class _Begun(NamedTuple):
    """Keys and values (1, width) of the mark that all texts begin with."""

    keys: torch.Tensor
    values: torch.Tensor


class CausalTexts(torch.nn.Module):
    """Packed texts, of which each begins with `begin` whatever it says, to features (texts, dimensions). Changes
    nothing of `tower`, whose weights it borrows.

    States are (1, rows, width): int8 takes products of three dimensions. Attention alone is by text, (heads, texts,
    tokens, size), so that the sums of a text's tokens are rounded the same way in any company.
    """

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

    def forward(self, input_ids: torch.Tensor, paths: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        tower, length = self.tower, input_ids.shape[1]
        asking = paths[:, 1:] - 1  # the begin mark asks nothing, and is none of the rows
        hidden = self.get_buffer("hidden")[: length - 1, :length]
        # Of what was computed by text without the begin mark, the place of each row's first token.
        first = places - torch.div(places, length, rounding_mode="floor") - 1
        tokens = tower.embeddings.token_embedding(input_ids.reshape(-1)[places])
        states = (tokens + tower.embeddings.position_embedding.weight[places % length]).unsqueeze(0)
        *layers, last = tower.encoder.layers
        for place, layer in enumerate(layers):
            normal = layer.layer_norm1(states)
            mixed = self._attend(layer.self_attn, place, normal, normal, asking, paths, hidden)
            states = onward(layer, states, mixed.flatten(1, 2)[:, first].transpose(0, 1))
        ids = input_ids[:, 1:]
        asked = ids.to(torch.int) if self._largest else (ids == tower.eos_token_id).to(torch.int)
        end = asked.argmax(dim=-1)
        token = states[:, asking.gather(1, end.unsqueeze(1))[:, 0]]
        # Normalised by itself: in int8 what reads a normalisation must all be products. It asks twice: onnxruntime
        # multiplies a single row by another kernel, whose sums are rounded by how many there are, weights of 0 too.
        normal, twice = last.layer_norm1(states), torch.arange(input_ids.shape[0]).unsqueeze(1).expand(-1, 2)
        seen = hidden[end].unsqueeze(1)
        mixed = self._attend(last.self_attn, len(layers), last.layer_norm1(token), normal, twice, paths, seen)
        token = onward(last, token, mixed[:, :, 0].transpose(0, 1))
        features: torch.Tensor = self.projection(tower.final_layer_norm(token)[0])
        return features

    def _attend(
        self,
        attention: Any,
        place: int,
        asking: torch.Tensor,
        read: torch.Tensor,
        asking_paths: torch.Tensor,
        paths: torch.Tensor,
        mask: torch.Tensor,
    ) -> torch.Tensor:
        """What the rows `asking` take of those that are `read`, both (1, rows, width) and normalised: (heads, texts,
        asking, size), not yet projected. `place` is the layer's; `mask` is added to the weights."""

        def heads(rows: torch.Tensor, of: torch.Tensor) -> torch.Tensor:
            return rows.view(-1, attention.num_heads, attention.head_dim).transpose(0, 1)[:, of]

        keys = torch.cat([self.get_buffer(f"keys_{place}"), attention.k_proj(read)[0]])
        values = torch.cat([self.get_buffer(f"values_{place}"), attention.v_proj(read)[0]])
        queries = heads(attention.q_proj(asking), asking_paths)
        weights = torch.softmax(queries @ heads(keys, paths).transpose(-1, -2) * attention.scale + mask, dim=-1)
        return weights @ heads(values, paths)


def common_begin(ids: Sequence[Sequence[int]]) -> int:
    """The id that all texts begin with. Raises CheckpointError if there is none, or one has nothing behind it."""
    begins = {text[0] if len(text) > 1 else None for text in ids}
    begin = begins.pop() if len(begins) == 1 else None
    if begin is None:
        raise CheckpointError("Its tokenizer does not frame each text in a mark that begins it and one that ends it.")
    return begin


def _begun(tower: Any, begin: int) -> Iterator[_Begun]:
    """Layer by layer the keys and values of the begin mark: in double precision, so that what is rounded in the end is
    the same on every machine. One token attends to itself alone, so what it takes are its own values."""
    embeddings = tower.embeddings
    state = embeddings.token_embedding.weight[begin].double() + embeddings.position_embedding.weight[0].double()
    state = state.view(1, 1, -1)
    for kept in tower.encoder.layers:
        layer = deepcopy(kept).double()
        normal = layer.layer_norm1(state)
        values = layer.self_attn.v_proj(normal)
        yield _Begun(layer.self_attn.k_proj(normal)[0].float(), values[0].float())
        state = onward(layer, state, values)
