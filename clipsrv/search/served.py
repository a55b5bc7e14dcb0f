"""What a server of an index would search, and by which model: the answer of doctor, which serves nothing."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing

from clipsrv.models.library import Library
from clipsrv.models.model import Model
from clipsrv.search.maker import maker_among
from clipsrv.search.opening import open_held


def describe_served(where: str, library: Library, models: Mapping[str, Model]) -> str:
    """In one line, where `models` of the library are loaded. Raises StartError if the index cannot be served."""
    with closing(open_held(where)) as index:
        ids = {name: model.embedding_id for name, model in models.items()}
        made_by = index.facts.model
        if made_by in library.names() and made_by not in models:
            with closing(library.load(made_by)) as on_demand:
                ids[made_by] = on_demand.embedding_id
        return f"{len(index):,} vectors of {index.name}, searched by {maker_among(index, ids)}"
