"""What clients for Python get from the server, run where they are installed: python asking.py JOB.json > results.

Knows nothing of clipsrv but the job: the server's address, and the vectors that its own endpoints give. A case is a
function that gives vectors; what a client has no way to ask is no case of it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float64]
Cases = dict[str, Callable[..., Any]]
#: The most a component of a vector may differ: JSON has all digits of float32.
TOLERANCE = 1e-6
KEY = "no-key-is-needed"


def openai(job: Any) -> Cases:
    from openai import OpenAI

    client = OpenAI(base_url=job["v1"], api_key=KEY, max_retries=0)

    def embed(items: Any, model: str = job["model"], **options: Any) -> Any:
        return [row.embedding for row in client.embeddings.create(model=model, input=items, **options).data]

    return {"texts": embed, "images": embed, "mixed": embed, "many": embed, "unknown": embed}


def langchain(job: Any) -> Cases:
    from langchain_openai import OpenAIEmbeddings

    def embed(items: Any, model: str = job["model"]) -> Any:
        client = OpenAIEmbeddings(
            model=model, base_url=job["v1"], api_key=KEY, check_embedding_ctx_length=False, chunk_size=2048
        )
        return client.embed_documents(items)

    return {"texts": embed, "images": embed, "mixed": embed, "many": embed, "unknown": embed}


def llama_index(job: Any) -> Cases:
    from llama_index.embeddings.openai_like import OpenAILikeEmbedding

    def embed(items: Any, model: str = job["model"]) -> Any:
        client = OpenAILikeEmbedding(
            model_name=model, api_base=job["v1"], api_key=KEY, embed_batch_size=2048, max_retries=0
        )
        return client.get_text_embedding_batch(items)

    return {"texts": embed, "images": embed, "mixed": embed, "many": embed, "unknown": embed}


def llama_index_jina(job: Any) -> Cases:
    from llama_index.embeddings.jinaai import JinaEmbedding

    def client(model: str) -> Any:
        made = JinaEmbedding(model=model, api_key=KEY, embed_batch_size=2048)
        made._api.api_url = f"{job['v1']}/embeddings"  # it has no setting for the address
        return made

    def embed(items: Any, model: str = job["model"]) -> Any:
        return client(model).get_text_embedding_batch(items)

    def images(items: Any) -> Any:
        return client(job["model"]).get_image_embedding_batch(job["paths"])

    return {"texts": embed, "images": images, "many": embed, "unknown": embed}


def haystack(job: Any) -> Cases:
    from haystack import Document
    from haystack.components.embedders import OpenAIDocumentEmbedder
    from haystack.utils import Secret

    def embed(items: Any, model: str = job["model"]) -> Any:
        embedder = OpenAIDocumentEmbedder(
            api_key=Secret.from_token(KEY),
            model=model,
            api_base_url=job["v1"],
            batch_size=2048,
            progress_bar=False,
            raise_on_failure=True,
            max_retries=0,
        )
        documents = [Document(id=str(place), content=item) for place, item in enumerate(items)]
        return [document.embedding for document in embedder.run(documents)["documents"]]

    return {"texts": embed, "images": embed, "mixed": embed, "many": embed, "unknown": embed}


def haystack_jina(job: Any) -> Cases:
    from haystack import Document
    from haystack.utils import Secret
    from haystack_integrations.components.embedders.jina import JinaDocumentEmbedder, JinaDocumentImageEmbedder

    address = {"api_key": Secret.from_token(KEY), "base_url": f"{job['v1']}/embeddings"}

    def embed(items: Any, model: str = job["model"]) -> Any:
        embedder = JinaDocumentEmbedder(model=model, batch_size=2048, progress_bar=False, **address)
        documents = [Document(id=str(place), content=item) for place, item in enumerate(items)]
        return [document.embedding for document in embedder.run(documents)["documents"]]

    def images(items: Any) -> Any:
        embedder = JinaDocumentImageEmbedder(model=job["model"], batch_size=64, **address)
        documents = [Document(id=path, meta={"file_path": path}) for path in job["paths"]]
        return [document.embedding for document in embedder.run(documents)["documents"]]

    return {"texts": embed, "images": images, "many": embed, "unknown": embed}


def litellm_as(provider: str) -> Callable[[Any], Cases]:
    def cases(job: Any) -> Cases:
        import litellm

        litellm.suppress_debug_info = True

        def embed(items: Any, model: str = job["model"], **options: Any) -> Any:
            answer = litellm.embedding(
                model=f"{provider}/{model}", input=items, api_base=job["v1"], api_key=KEY, num_retries=0, **options
            )
            return [row["embedding"] for row in answer.data]

        def bare(items: Any) -> Any:
            return embed([uri.partition(",")[2] for uri in items], modality="image")

        images = bare if provider == "infinity" else embed
        return {"texts": embed, "images": images, "mixed": embed, "many": embed, "unknown": embed}

    return cases


#: Name, package, what it can do.
CLIENTS: tuple[tuple[str, str, Callable[[Any], Cases]], ...] = (
    ("openai", "openai", openai),
    ("langchain-openai", "langchain-openai", langchain),
    ("llama-index, OpenAILikeEmbedding", "llama-index-embeddings-openai-like", llama_index),
    ("llama-index, JinaEmbedding", "llama-index-embeddings-jinaai", llama_index_jina),
    ("Haystack, OpenAIDocumentEmbedder", "haystack-ai", haystack),
    ("Haystack, Jina...Embedder", "jina-haystack", haystack_jina),
    ("litellm, openai/", "litellm", litellm_as("openai")),
    ("litellm, hosted_vllm/", "litellm", litellm_as("hosted_vllm")),
    ("litellm, infinity/", "litellm", litellm_as("infinity")),
    ("litellm, jina_ai/", "litellm", litellm_as("jina_ai")),
)


def tried(case: str, ask: Callable[..., Any], job: Any) -> str:
    """ "yes", or what was wrong."""
    if case == "unknown":
        try:
            ask(["a"], model="another-model")
        except Exception as error:  # noqa: BLE001 - every client has its own
            return "yes" if "there are:" in str(error) else f"{type(error).__name__}: {error}"
        return "a model that is not served gave vectors"
    items, wanted = job["cases"][case]
    try:
        found = np.array(ask(items), np.float64)
    except Exception as error:  # noqa: BLE001
        return f"{type(error).__name__}: {error}"
    if found.shape != np.shape(wanted):
        return f"vectors of shape {found.shape}"
    difference = float(np.abs(found - wanted).max())
    return "yes" if difference < TOLERANCE else f"off by {difference:.2g}"


def main() -> None:
    os.environ |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "HAYSTACK_TELEMETRY_ENABLED": "False"}
    with open(sys.argv[1], encoding="utf-8") as file:
        job = json.load(file)
    for name, package, cases_of in CLIENTS:
        results = {case: tried(case, ask, job) for case, ask in cases_of(job).items()}
        print(json.dumps({"client": f"{name} (Python)", "version": version(package), "results": results}), flush=True)


if __name__ == "__main__":
    main()
