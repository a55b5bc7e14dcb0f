"""The sink that is a collection of Qdrant: a point's id follows from the image's id and the embedding_id."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlsplit

from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse

from clipsrv.bulk.errors import AwayError, OutputError
from clipsrv.bulk.outage import Outage
from clipsrv.bulk.records import Facts, Refusal, Shard
from clipsrv.errors import ConfigError

Result = TypeVar("Result")

#: The variable that holds the key of a server.
KEY = "QDRANT_API_KEY"
#: Whence the ids of points are made: the same image and model are the same point, whoever writes it.
_POINTS = uuid.uuid5(uuid.NAMESPACE_URL, "https://qdrant.tech/clipsrv")
_PORT = 6333
#: Points of one request: some 2 MB of numbers.
_POINTS_AT_ONCE = 256


class QdrantSink:
    """Points of one collection, all of one embedding_id, with id, path, sha256 and embedding_id as payload."""

    def __init__(self, url: str, facts: Facts, outage: Outage) -> None:
        """qdrant://HOST[:PORT]/COLLECTION, qdrants:// for TLS, and qdrant:///FOLDER/COLLECTION for Qdrant's local mode.
        `outage` waits for the server while it is away. Raises ConfigError, or OutputError for a collection of another
        shape or with another embedding_id."""
        self._embedding_id, self._outage = facts["embedding_id"], outage
        self._client, self._collection = _open(url)
        self._retrying(lambda: self._prepare(facts["dimensions"]))

    def begin(self, number: int) -> None:
        pass

    def write(self, shard: Shard) -> list[Refusal]:
        for at in range(0, len(shard.rows), _POINTS_AT_ONCE):
            rows = shard.rows[at : at + _POINTS_AT_ONCE]
            points = models.Batch(
                ids=[point_id(row.id, self._embedding_id) for row in rows],
                vectors=shard.vectors[at : at + _POINTS_AT_ONCE].tolist(),
                payloads=[
                    {"id": row.id, "path": row.path, "sha256": row.sha256, "embedding_id": self._embedding_id}
                    for row in rows
                ],
            )
            self._retrying(partial(self._client.upsert, self._collection, points, wait=True))
        return []

    def publish(self) -> None:
        pass

    def close(self) -> None:
        self._client.close()

    def _prepare(self, dimensions: int) -> None:
        if not self._client.collection_exists(self._collection):
            size = models.VectorParams(size=dimensions, distance=models.Distance.COSINE)
            try:
                self._client.create_collection(self._collection, vectors_config=size)
            except (UnexpectedResponse, ValueError):
                if not self._client.collection_exists(self._collection):  # by another driver, this moment
                    raise
        found: Any = self._client.get_collection(self._collection).config.params.vectors
        if getattr(found, "size", None) != dimensions:
            raise OutputError(
                f"The collection {self._collection} has vectors of {getattr(found, 'size', 'several sizes')}; this "
                f"model's have {dimensions}. Name another."
            )
        ours = models.FieldCondition(key="embedding_id", match=models.MatchValue(value=self._embedding_id))
        others, _ = self._client.scroll(self._collection, scroll_filter=models.Filter(must_not=[ours]), limit=1)
        if others:
            raise OutputError(
                f"The collection {self._collection} holds points of embedding_id "
                f"{(others[0].payload or {}).get('embedding_id')}; this job makes {self._embedding_id}. They cannot be "
                "compared: name another."
            )

    def _retrying(self, run: Callable[[], Result]) -> Result:
        """`run`, again while the server is away. Raises OutputError, GivenUpError."""

        def attempt() -> Result:
            try:
                return run()
            except (ApiException, ValueError) as error:
                reason = str(error).strip().split("\n")[0]
                raise AwayError(reason) if _is_away(error) else OutputError(f"Qdrant refused: {reason}.") from None

        return self._outage.outlast("Qdrant", attempt)


def point_id(identity: str, embedding_id: str) -> str:
    """The id of a point: a UUID of version 5, of both ids."""
    return str(uuid.uuid5(_POINTS, f"{embedding_id}/{identity}"))


def _is_away(error: Exception) -> bool:
    if isinstance(error, UnexpectedResponse):
        return error.status_code is not None and (error.status_code >= 500 or error.status_code == 429)
    return isinstance(error, ResponseHandlingException)


def _open(url: str) -> tuple[QdrantClient, str]:
    try:
        found = urlsplit(url)
        port = found.port or _PORT
    except ValueError:
        raise ConfigError("--out is no URL of Qdrant: qdrant://HOST:PORT/COLLECTION.") from None
    folder, _, collection = found.path.rstrip("/").rpartition("/")
    if not collection or (found.hostname and folder):
        raise ConfigError("--out is no URL of Qdrant: qdrant://HOST:PORT/COLLECTION.")
    if not found.hostname:
        return QdrantClient(path=folder or "/"), collection
    tls = found.scheme == "qdrants"
    key = os.environ.get(KEY)
    client = QdrantClient(host=found.hostname, port=port, https=tls, api_key=key, check_compatibility=False)
    return client, collection
