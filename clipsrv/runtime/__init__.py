"""Arrays to unit vectors on a device that was proven: the only importer of onnxruntime."""
