"""The kernels on the CPU: CUDA C++ compiled by g++ with a shim that runs and watches its threads."""
