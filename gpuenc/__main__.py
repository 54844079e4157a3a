"""`python -m gpuenc`."""

from gpuenc.cli import main

main()
