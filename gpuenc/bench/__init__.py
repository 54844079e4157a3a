"""`gpuenc bench`: how fast, how small, and from where on a GPU pays, of output that was decoded and compared."""
