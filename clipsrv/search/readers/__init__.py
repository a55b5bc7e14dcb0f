"""One file a form that `embed` writes. A reader gives facts and vectors in blocks, or asks a database."""
