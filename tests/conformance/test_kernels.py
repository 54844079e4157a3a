"""What our own kernels write, run thread by thread on the CPU, read by other people's decoders."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from gpuenc import codestream as streams
from gpuenc.coding import coding
from gpuenc.cuda import jpeg_lossless, memory, packed, rle
from gpuenc.frames import Frame, FrameFormat
from gpuenc.syntaxes import BY_UID
from gpuenc.targets import Target, target
from tests.conformance import decoders, formats, known
from tests.conformance.test_conformance import SEED, child, expected, read_by_all, row_formats
from tests.cuda.conftest import SimtWorkspace

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from gpuenc.syntaxes import Syntax

__all__ = ["child"]  # a fixture
CODECS = dict.fromkeys(jpeg_lossless.UIDS, jpeg_lossless.BatchEncoder.codec) | dict.fromkeys(
    rle.UIDS, rle.BatchEncoder.codec
)


def made_by_kernels(chosen: Target, frames: Sequence[Frame]) -> list[bytes]:
    """Return codestreams of even length, each of which says of itself what `coding` asks."""
    wanted = coding(chosen, frames[0].format)
    session = packed.Session(CODECS[chosen.syntax.uid], chosen, 0)
    made = []
    for codestream in session.encode(frames, wanted):
        assert isinstance(codestream, bytes), codestream
        streams.check(codestream, chosen.syntax, wanted)
        made.append(streams.pad_even(codestream, chosen.syntax.family))
    return made


def cases() -> Iterator[object]:
    for uid in CODECS:
        syntax = BY_UID[uid]
        for row in syntax.rows:
            for fmt in row_formats(syntax, row):
                yield pytest.param(syntax, fmt, id=f"{syntax.name}-{formats.name(fmt)}")


@pytest.fixture(autouse=True)
def simt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "open_workspace", lambda device: SimtWorkspace())


@pytest.mark.parametrize(("syntax", "fmt"), list(cases()))
def test_every_decoder_reads_what_the_kernels_write(
    child: decoders.Child,
    tmp_path: Path,
    syntax: Syntax,
    fmt: FrameFormat,
) -> None:
    chosen = target(syntax)
    many = [formats.samples(fmt, content, SEED) for content in formats.CONTENTS]
    made = made_by_kernels(chosen, formats.frames(fmt, many))
    what = coding(chosen, fmt)
    path = formats.write_file(tmp_path / "a.dcm", fmt, syntax.uid, made, photometric=what.photometric, raw=what.raw)
    read_by_all(child, path, known.Case(syntax.uid, fmt, what, tuple(made)), expected(fmt, many))


def test_planar_sources_and_signed_ones_are_among_them() -> None:
    every = [case.values[1] for case in cases()]  # type: ignore[attr-defined]
    assert any(fmt.planar for fmt in every)
    assert any(fmt.signed and fmt.bits_stored < fmt.bits_allocated for fmt in every)
    assert {fmt.bits_allocated for fmt in every} >= {8, 16}


@pytest.mark.parametrize("name", ["jpeg-lossless-sv1", "rle"])
def test_bytes_of_ones_and_long_runs_are_read_by_all(
    child: decoders.Child,
    tmp_path: Path,
    name: str,
) -> None:
    """Code full of FF, differences of 32768, and packets at their limits."""
    from tests.simt import encoders

    syntax = next(BY_UID[uid] for uid in CODECS if BY_UID[uid].name == name)
    fmt, rng = FrameFormat(40, 400, 1, 16, 16, False, "MONOCHROME2"), np.random.default_rng(SEED)
    many = [content(rng, (40, 400), np.dtype("u2")) for content in encoders.CONTENTS]
    made = made_by_kernels(target(syntax), formats.frames(fmt, many))
    what = coding(target(syntax), fmt)
    path = formats.write_file(tmp_path / "a.dcm", fmt, syntax.uid, made, photometric=what.photometric, raw=what.raw)
    read_by_all(child, path, known.Case(syntax.uid, fmt, what, tuple(made)), expected(fmt, many))
