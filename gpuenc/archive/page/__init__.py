"""The page of a job's report: `document.py` writes it, from what `tally.py` gathered."""

from gpuenc.archive.page.document import BEGINNING, make_page, write_page

__all__ = ["BEGINNING", "make_page", "write_page"]
