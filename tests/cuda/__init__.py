"""The GPU engine, proven without a GPU."""
