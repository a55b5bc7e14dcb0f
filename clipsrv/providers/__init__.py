"""The execution providers of onnxruntime that clipsrv knows: one file each, and one table. Facts, no onnxruntime."""
