"""Opening images as sources."""

import pytest

from gpuenc.dicom.source import DicomFile


@pytest.fixture
def opened(tmp_path):
    """Return a function that writes an image and opens it; both ways of having it, file and dataset, must agree."""
    sources = []

    def open_image(image, data=None):
        path = tmp_path / f"{len(sources)}.dcm"
        path.write_bytes(image.file() if data is None else data)
        sources.append(DicomFile(path))
        return sources[-1]

    yield open_image
    for each in sources:
        each.close()
