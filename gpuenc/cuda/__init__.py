"""CUDA: the kernels of ``kernels/`` and what launches them. Importing this imports, compiles and probes nothing."""
