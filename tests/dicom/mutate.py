"""Damaged files: random changes to headers, fragment items and lengths."""

from __future__ import annotations

from tests import made
from tests.dicom import files

FRAMES = made.noise((3, 5, 7), "u2")
FRAGMENTS = [[b"\xff\xd8ab", b"cd\xff\xd9"], [b"\xff\xd8ef\xff\xd9"], [b"\xff\xd8", b"g\xff\xd9\0"]]


def mutated(data, rng):
    """Return `data` with a few of its header bytes, or of its fragment headers, changed, cut or doubled."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(changed)) if rng.random() < 0.3 else rng.randrange(min(len(changed), 3000))
        what = rng.randrange(5)
        if what == 0:
            changed[at] = rng.randrange(256)
        elif what == 1:
            changed[at : at + 4] = rng.choice(
                (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0")
            )
        elif what == 2:
            del changed[at : at + rng.randint(1, 20)]
        elif what == 3:
            changed[at:at] = changed[at : at + rng.randint(1, 40)]
        else:
            del changed[at:]
        if not changed:
            break
    return bytes(changed)


def fuzz_corpus():
    small = [path.read_bytes() for path in files.every() if path.stat().st_size < 20_000]
    odd = [
        made.of(FRAMES, elements=(made.icon(), *made.odd_private())).file(),
        made.of(FRAMES, syntax=made.IMPLICIT, elements=(made.icon(),)).file(),
        made.of(FRAMES, syntax=made.BIG, elements=(made.icon(),)).file(),
        made.compressed([[b"ab"], [b"cd"]], "extended").file(),
        made.compressed(FRAGMENTS, "empty").file(),
        made.palette(made.noise((1, 4, 4), "u1"), made.noise((3, 256), "u2")).file(),
    ]
    return small + odd * 5
