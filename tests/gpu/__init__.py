"""What only a GPU can show: `make gpu-test`. Without one everything here is skipped, unless GPUENC_REQUIRE_CUDA=1."""
