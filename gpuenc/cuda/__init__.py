"""CUDA: the kernels of ``kernels/`` and what launches them. Nothing is imported, compiled or probed by importing this."""
