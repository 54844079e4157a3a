"""A small archive of all kinds of files, and what is in a tree."""

from __future__ import annotations

import hashlib
import os
import random
from pathlib import Path

from tests import made

FILES = 40


def write(folder: Path, seed: int, files: int = FILES) -> None:
    """Write an archive: images of several shapes, what is copied, what is skipped, and what fails."""
    chance = random.Random(seed)
    for number in range(files):
        path = folder / f"{'abcd'[number % 4]}" / ("deep" if number % 8 == 5 else "") / f"{number:03}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = number % 10
        if kind == 7:
            path.write_bytes(made.float_pixels().file())
        elif kind == 8:
            path.write_bytes(b"no DICOM file\n" * chance.randrange(1, 9))
        elif kind == 9:
            whole = made.of(made.noise((2, 64, 64), "u2", 12, seed=number), stored=12).file()
            path.write_bytes(whole[: len(whole) // 2])
        else:
            frames, side = chance.choice(((1, 64), (1, 256), (4, 128), (12, 128)))
            made.of(made.noise((frames, side, side), "u2", 12, seed=number), stored=12).write(path)


def tree(folder: Path) -> dict[str, str]:
    """Return the digest of each file below a folder by its path, without what a journal consists of."""
    found = {}
    for path in folder.rglob("*"):
        parts = path.relative_to(folder).parts
        if path.is_file() and parts[0] != ".gpuenc":
            found[os.path.join(*parts)] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def stamps(folder: Path) -> dict[str, tuple[int, int, str]]:
    """Return size, time of the last change and digest of each file below a folder."""
    return {
        name: (os.stat(folder / name).st_size, os.stat(folder / name).st_mtime_ns, digest)
        for name, digest in tree(folder).items()
    }
