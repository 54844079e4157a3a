"""Images that tests of sources open, and what they ask of any source."""

from pydicom import dcmread

from gpuenc.dicom.source import frames_of
from tests import made

FRAMES = made.noise((3, 5, 7), "u2")
FRAGMENTS = [[b"\xff\xd8ab", b"cd\xff\xd9"], [b"\xff\xd8ef\xff\xd9"], [b"\xff\xd8", b"g\xff\xd9\0"]]
WHOLE = [b"\xff\xd8abcd\xff\xd9", b"\xff\xd8ef\xff\xd9", b"\xff\xd8g\xff\xd9\0"]


def cells(source):
    return [frame.pixels for frame in source.frames()]


def both(source):
    """Return the source, and the same from pydicom's dataset."""
    return source, frames_of(dcmread(source.path, force=True))
