"""clipsrv: CLIP embeddings on your own machine."""

import os

__version__ = "0.1.0"

# onnxruntime's official builds report their use to their maker, on Linux too, unless told not to before they are
# loaded (its docs/Privacy.md). What runs here is nobody else's business.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
