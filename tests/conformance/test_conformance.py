"""Each row of `syntaxes.TABLE`, encoded by gpuenc's own plug-in and decoded by other people's decoders.

``GPUENC_CONFORMANCE_SEED`` (default 0) chooses other sizes, formats and noise; it stands in every failure's message.
``GPUENC_NO_SKIPS=1`` makes a missing decoder a failure.
"""

from __future__ import annotations

import importlib
import os
import random
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pytest

from gpuenc import codestream as streams
from gpuenc.coding import coding
from gpuenc.frames import Coded, Encoded, Failure, Frame, FrameFormat, FrameRef, Palette
from gpuenc.syntaxes import BY_UID, TABLE
from gpuenc.targets import target
from tests.conformance import decoders, formats, known

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from gpuenc.syntaxes import Row, Syntax
    from gpuenc.targets import Target

SEED = int(os.environ.get("GPUENC_CONFORMANCE_SEED", "0"))
NO_SKIPS = os.environ.get("GPUENC_NO_SKIPS") == "1"
# Whose code the encoder is: decoders of the same code base may share its mistakes.
ENCODER_CODE_BASE = {
    "native": "gpuenc",
    "rle": "gpuenc",
    "jpeg": "libjpeg-turbo",
    "jpeg-lossless": "libjpeg-turbo",
    "jpeg-ls": "charls",
    "jpeg2000": "openjpeg",
    "htj2k": "openjph",
    "jpegxl": "libjxl",
    "deflate": "libdeflate",
}
EDGES = (1, 2, 3, 6, 7, 8, 9, 12, 15, 16, 17, 22, 23, 24, 26, 28, 29, 31, 32)
FORMATS_PER_ROW = 4  # for each Photometric Interpretation


@pytest.fixture(scope="module")
def child() -> Iterator[decoders.Child]:
    process = decoders.Child()
    yield process
    process.close()


def encode(chosen: Target, frames: Sequence[Frame]) -> list[bytes]:
    """Return codestreams of even length, each of which says of itself what `coding` asks."""
    encoder = importlib.import_module("gpuenc.cpu.codecs").BatchEncoder(chosen)
    try:
        results = encoder.encode(list(frames))
    finally:
        encoder.close()
    assert [result.ref for result in results] == [frame.ref for frame in frames]
    made = []
    for result in results:
        assert isinstance(result, Encoded), f"{result} (seed {SEED})"
        streams.check(result.codestream, chosen.syntax, coding(chosen, frames[0].format))
        native = chosen.syntax.family == "native"  # its frames follow each other without padding
        made.append(result.codestream if native else streams.pad_even(result.codestream, chosen.syntax.family))
    return made


def row_formats(syntax: Syntax, row: Row) -> Iterator[FrameFormat]:
    """Yield formats of `row`: the ends of its range always, the rest as the seed has it; sizes in turn."""
    for photometric in row.photometric:
        if photometric in ("YBR_RCT", "YBR_ICT"):
            continue  # what a component transform has made of RGB: no source of samples
        rng = random.Random(f"{SEED} {syntax.uid} {photometric}")
        kinds = [
            (allocated, stored, signed)
            for allocated, signed in product(row.allocated, row.signed)
            for stored in EDGES
            # No SOP class has signed samples of one bit in cells of one bit, and decoders differ on what they are.
            if stored in row.stored and stored <= allocated and not (signed and allocated == 1)
        ]
        rng.shuffle(kinds)
        kinds.sort(key=lambda kind: kind[1] not in (row.stored[0], row.stored[-1]))
        chosen = kinds[:2] + kinds[2:][2 - FORMATS_PER_ROW :]
        for index, (allocated, stored, signed) in enumerate(chosen, rng.randrange(len(formats.SIZES))):
            rows, columns = formats.SIZES[index % len(formats.SIZES)]
            if photometric == "YBR_FULL_422":
                columns += columns % 2
            if allocated == 1 and syntax.family == "native":
                columns += -columns % 8  # frames that begin on a byte; others are the writer's to join
            planar = rng.randrange(2) if row.samples == 3 and photometric != "YBR_FULL_422" else 0
            yield FrameFormat(rows, columns, row.samples, allocated, stored, signed, photometric, planar)


def lossless_cases() -> Iterator[object]:
    for syntax in TABLE:
        if syntax.loss == "always" or syntax.recompresses_jpeg or syntax.uid.endswith("1.99"):
            continue
        for row in syntax.rows:
            if not row.lossy_only:
                for fmt in row_formats(syntax, row):
                    yield pytest.param(syntax, fmt, id=f"{syntax.name}-{formats.name(fmt)}")


def expected(fmt: FrameFormat, many: Sequence[NDArray[np.integer]]) -> NDArray[np.int64]:
    return np.stack(many).astype(np.int64)


def difference(want: NDArray[np.int64], got: NDArray[np.integer]) -> str:
    """Return what differs in one line, or nothing."""
    if got.shape != want.shape:
        return f"shape {got.shape}, not {want.shape}"
    wrong = got.astype(np.int64) != want
    if not wrong.any():
        return ""
    first = tuple(int(index) for index in np.argwhere(wrong)[0])
    return f"{int(wrong.sum())} of {want.size} samples differ, at {first}: {got[first]}, not {want[first]}"


def usable(syntax: Syntax) -> list[decoders.Decoder]:
    """Return the decoders of `syntax` that are installed; with GPUENC_NO_SKIPS=1 all have to be."""
    wanted = decoders.for_syntax(syntax.uid)
    missing = {decoder.name: decoder.missing for decoder in wanted if decoder.missing}
    assert not (NO_SKIPS and missing), f"decoders that are not installed: {missing}"
    return decoders.installed(wanted)


def read_by_all(child: decoders.Child, path: Path, case: known.Case, want: NDArray[np.int64], *, most: int = 0) -> None:
    """Have each decoder read the file; samples may differ by `most` from `want`, which is 0 for lossless ones."""
    syntax = BY_UID[case.uid]
    own = ENCODER_CODE_BASE[syntax.family]
    independent, mistakes = [], []
    for decoder in usable(syntax):
        if known.defect(decoder.name, case):
            continue
        try:
            got = child.decode(decoder, path)
        except decoders.Undecoded as refusal:
            mistakes.append(f"{decoder.name}: {refusal}")
            continue
        if most and got.shape == want.shape:
            error = int(np.abs(got.astype(np.int64) - want).max())
            problem = f"off by {error}, not {most} at most" if error > most else ""
        else:
            problem = difference(want, got)
        if problem:
            mistakes.append(f"{decoder.name}: {problem}")
        elif decoder.code_base != own:
            independent.append(decoder.name)
    assert not mistakes, f"seed {SEED}: " + "; ".join(mistakes)
    if not independent:
        reasons = [why for applies, why in known.NO_INDEPENDENT_DECODER if applies(case)]
        if not reasons and any(decoder.missing for decoder in decoders.for_syntax(syntax.uid)):
            pytest.skip("no decoder of another code base is installed")
        assert reasons, f"no decoder of another code base than {own} read it (seed {SEED})"


def write(path: Path, chosen: Target, fmt: FrameFormat, many: Sequence[NDArray[np.integer]]) -> tuple[Path, known.Case]:
    what = coding(chosen, fmt)
    made = encode(chosen, formats.frames(fmt, many))
    formats.write_file(path, fmt, chosen.syntax.uid, made, photometric=what.photometric, raw=what.raw)
    return path, known.Case(chosen.syntax.uid, fmt, what, tuple(made))


@pytest.mark.parametrize(("syntax", "fmt"), list(lossless_cases()))
def test_every_decoder_reads_lossless_frames_as_they_were(
    child: decoders.Child, tmp_path: Path, syntax: Syntax, fmt: FrameFormat
) -> None:
    many = [formats.samples(fmt, content, SEED) for content in formats.CONTENTS]
    path, case = write(tmp_path / "frames.dcm", target(syntax, lossless=True), fmt, many)
    read_by_all(child, path, case, expected(fmt, many))


@pytest.mark.parametrize(
    ("name", "stored"),
    [("jpeg2000-lossless", stored) for stored in (1, 2, 3, 8, 12, 16, 22, 23)]
    + [("htj2k-lossless", stored) for stored in (1, 2, 3, 8, 12, 16, 27, 28)],
)
@pytest.mark.parametrize("samples", [1, 3])
def test_wavelets_at_their_limits_come_back(
    child: decoders.Child, tmp_path: Path, name: str, stored: int, samples: int
) -> None:
    """Images that drive wavelet coefficients, and the differences of colours, as far as samples can.

    Codecs have too few bits for these first. A grid of plausible images never finds it.
    """
    syntax = next(syntax for syntax in TABLE if syntax.name == name)
    allocated = 8 if stored <= 8 else 16 if stored <= 16 else 32
    photometric = "RGB" if samples == 3 else "MONOCHROME2"
    if not any(photometric in row.photometric and stored in row.stored for row in syntax.rows):
        pytest.skip(f"{name} does not take {stored} bits of {photometric}")
    fmt = FrameFormat(130, 134, samples, allocated, stored, False, photometric)
    contents = [f"wavelet{level}{orientation}" for level in (1, 2, 3, 5) for orientation in range(4)]
    many = [formats.samples(fmt, content, SEED) for content in contents]
    many += [formats.samples(fmt, "blocks", SEED + turn) for turn in range(8)]
    path, case = write(tmp_path / "extreme.dcm", target(syntax, lossless=True), fmt, many)
    read_by_all(child, path, case, expected(fmt, many))


def narrow_cases() -> Iterator[object]:
    for name, (rows, columns) in product(
        ("jpeg2000-lossless", "htj2k-lossless", "htj2k-lossless-rpcl"),
        ((1, 1), (1, 200), (300, 1), (2, 130), (3, 2000)),
    ):
        yield pytest.param(name, rows, columns, id=f"{name}-{rows}x{columns}")


@pytest.mark.parametrize(("name", "rows", "columns"), list(narrow_cases()))
def test_narrow_images_come_back(child: decoders.Child, tmp_path: Path, name: str, rows: int, columns: int) -> None:
    """One-line images are where encoders choose other levels than they were asked for."""
    syntax = next(syntax for syntax in TABLE if syntax.name == name)
    fmt = FrameFormat(rows, columns, 1, 16, 12, False, "MONOCHROME2")
    many = [formats.samples(fmt, content, SEED) for content in ("noise", "lowest", "highest", "gradient")]
    path, case = write(tmp_path / "narrow.dcm", target(syntax, lossless=True), fmt, many)
    read_by_all(child, path, case, expected(fmt, many))


def near_cases() -> Iterator[object]:
    syntax = BY_UID[decoders.JPEG_LS[1]]
    for near, (photometric, allocated, stored, signed) in product(
        (1, 3),
        (
            ("MONOCHROME2", 8, 8, False),
            ("MONOCHROME2", 8, 7, False),
            ("MONOCHROME2", 16, 8, False),
            ("MONOCHROME2", 16, 12, False),
            ("MONOCHROME2", 16, 16, False),
            ("MONOCHROME2", 16, 12, True),
            ("MONOCHROME2", 16, 16, True),
            ("RGB", 8, 8, False),
            ("RGB", 16, 12, False),
            ("YBR_FULL", 8, 8, False),
        ),
    ):
        fmt = FrameFormat(33, 34, 3 if photometric != "MONOCHROME2" else 1, allocated, stored, signed, photometric)
        yield pytest.param(syntax, near, fmt, id=f"near{near}-{formats.name(fmt)}")


@pytest.mark.parametrize(("syntax", "near", "fmt"), list(near_cases()))
def test_near_lossless_samples_stay_near_and_inside_bits_stored(
    child: decoders.Child, tmp_path: Path, syntax: Syntax, near: int, fmt: FrameFormat
) -> None:
    """Decoders clamp to the codestream's precision: where that is wider than Bits Stored, the encoder has to refuse."""
    lowest, highest = formats.limits(fmt)
    chosen = target(syntax, near=near)
    many = [formats.samples(fmt, content, SEED) for content in ("noise", "gradient", "blocks")]
    if coding(chosen, fmt).precision > fmt.bits_stored or fmt.signed:
        for frame in formats.frames(fmt, many[:1]):
            (refused,) = importlib.import_module("gpuenc.cpu.codecs").BatchEncoder(chosen).encode([frame])
            assert isinstance(refused, Failure), "samples at the edge of Bits Stored may leave it"
            assert refused.code == "invalid-pixels"
        many = [np.clip(values, lowest + near if fmt.signed else lowest, highest - near) for values in many]
    path, case = write(tmp_path / "near.dcm", chosen, fmt, many)
    read_by_all(child, path, case, expected(fmt, many), most=near)
    for decoder in usable(syntax):
        if not known.defect(decoder.name, case):
            got = child.decode(decoder, path)
            assert lowest <= int(got.min()), decoder.name
            assert int(got.max()) <= highest, decoder.name


def smooth(fmt: FrameFormat) -> NDArray[np.integer]:
    """Return a slow ramp: one step per pixel at most, so that halved chroma loses nothing to speak of."""
    lowest, highest = formats.limits(fmt)
    y, x = np.mgrid[0 : fmt.rows, 0 : fmt.columns]
    planes = [(x + y), (highest - x - y // 2), (highest // 2 + y - x)][: fmt.samples]
    values = np.clip(np.stack(planes, axis=-1).reshape(fmt.shape), lowest, highest)
    return values.astype(formats.sample_type(fmt))


def ybr(rgb: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return the YBR_FULL of RGB (PS3.3 C.7.6.3.1.2)."""
    red, green, blue = np.moveaxis(rgb.astype(np.float64), -1, 0)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    chroma = (
        128 - 0.168736 * red - 0.331264 * green + 0.5 * blue,
        128 + 0.5 * red - 0.418688 * green - 0.081312 * blue,
    )
    return np.rint(np.stack([luma, *chroma], axis=-1)).astype(np.int64)


GREY = Palette(0, *(bytes(range(256)),) * 3)
# At quality 100 each DCT coefficient is off by 0.5 at most, 64 of them by 4 at most in a sample; 1 for rounding the
# samples, 1 for the decoder's IDCT (ISO 10918-2), 1 for a step of chroma between two pixels.
DCT_ERROR = 7


def dct_cases() -> Iterator[object]:
    for syntax in (BY_UID[uid] for uid in decoders.DCT):
        for row in syntax.rows:
            for photometric in row.photometric:
                for wanted in ("", photometric) if photometric in ("RGB", "YBR_FULL") else ("",):
                    allocated, stored = row.allocated[0], row.stored[-1] if photometric != "PALETTE COLOR" else 8
                    palette = GREY if photometric == "PALETTE COLOR" else None
                    fmt = FrameFormat(
                        33, 34, row.samples, allocated, stored, False, photometric, planar=0, palette=palette
                    )
                    yield pytest.param(
                        syntax, fmt, wanted, id=f"{syntax.name}-{formats.name(fmt)}-as-{wanted or 'usual'}"
                    )


@pytest.mark.parametrize(("syntax", "fmt", "wanted"), list(dct_cases()))
def test_lossy_jpeg_holds_the_colours_that_its_label_says(
    child: decoders.Child, tmp_path: Path, syntax: Syntax, fmt: FrameFormat, wanted: str
) -> None:
    values = smooth(fmt)
    if fmt.subsampled:
        values[:, 1::2, 1:] = values[:, 0::2, 1:]
    chosen = target(syntax, quality=100, photometric=wanted)
    what = coding(chosen, fmt)
    made = encode(chosen, formats.frames(fmt, [values]))
    out = formats.plain(fmt, what)
    path = formats.write_file(tmp_path / "lossy.dcm", out, syntax.uid, made, photometric=what.photometric)
    want = values.astype(np.int64)
    if what.expand:
        want = np.stack([want] * 3, axis=-1)
    if what.photometric.startswith("YBR") and not fmt.photometric.startswith("YBR"):
        want = ybr(want)
    read_by_all(child, path, known.Case(syntax.uid, out, what, tuple(made)), want[None], most=DCT_ERROR)


def lossy_wavelet_cases() -> Iterator[object]:
    for uid, photometric in product((decoders.J2K[1], decoders.HTJ2K[2]), ("MONOCHROME2", "RGB", "YBR_FULL")):
        for allocated, stored in ((8, 8), (16, 12), (16, 16)):
            fmt = FrameFormat(66, 68, 1 if photometric[0] == "M" else 3, allocated, stored, False, photometric)
            yield pytest.param(BY_UID[uid], fmt, id=f"{BY_UID[uid].name}-{formats.name(fmt)}")


@pytest.mark.parametrize(("syntax", "fmt"), list(lossy_wavelet_cases()))
def test_lossy_jpeg_2000_is_as_near_as_was_asked_for(
    child: decoders.Child, tmp_path: Path, syntax: Syntax, fmt: FrameFormat
) -> None:
    """Decoders round the 9-7 wavelet differently, so the measure is the error that was asked for."""
    asked_db = 45.0  # the irreversible colour transform of 8 bits ends at about 50
    many = [formats.samples(fmt, content, SEED) for content in ("gradient", "ct")]
    path, case = write(tmp_path / "lossy.dcm", target(syntax, psnrs=(asked_db,)), fmt, many)
    peak = formats.limits(fmt)[1]
    tried = 0
    for decoder in usable(syntax):
        if known.defect(decoder.name, case):
            continue
        got = child.decode(decoder, path)
        for values, decoded in zip(many, got, strict=True):
            noise = float(np.mean((decoded.astype(np.float64) - values) ** 2))
            assert 10 * np.log10(peak**2 / max(noise, 1e-9)) >= asked_db - 0.5, (decoder.name, SEED)
        tried += 1
    assert tried >= 1


@pytest.mark.parametrize("stored", [8, 12, 16])
@pytest.mark.parametrize("photometric", ["MONOCHROME2", "RGB"])
def test_lossy_jpeg_xl_is_the_picture_that_went_in(
    child: decoders.Child, tmp_path: Path, photometric: str, stored: int
) -> None:
    """XYB comes back as RGB, from both decoders; quality 99 is a distance of 0.1, far below what can be seen."""
    syntax = BY_UID[decoders.JPEG_XL[2]]
    allocated = 8 if stored == 8 else 16
    fmt = FrameFormat(130, 134, 3 if photometric == "RGB" else 1, allocated, stored, False, photometric)
    eight = FrameFormat(fmt.rows, fmt.columns, fmt.samples, 8, 8, False, photometric)
    values = smooth(eight).astype(formats.sample_type(fmt)) << (stored - 8)
    path, case = write(tmp_path / "lossy.dcm", target(syntax, quality=99), fmt, [values])
    assert case.coding.photometric == ("XYB" if photometric == "RGB" else photometric)
    for decoder in usable(syntax):
        got = child.decode(decoder, path)[0].astype(np.float64)
        noise = float(np.mean((got - values) ** 2))
        assert 10 * np.log10(formats.limits(fmt)[1] ** 2 / max(noise, 1e-9)) > 45, decoder.name


def test_a_recompressed_jpeg_shows_the_picture_of_its_jpeg(child: decoders.Child, tmp_path: Path) -> None:
    syntax, jpeg = BY_UID[decoders.JPEG_XL[1]], BY_UID[decoders.DCT[0]]
    fmt = FrameFormat(33, 34, 1, 8, 8, False, "MONOCHROME2")
    values = smooth(fmt)
    baseline = encode(target(jpeg, quality=100), formats.frames(fmt, [values]))
    frame = Frame(FrameRef("conformance", 0), fmt, Coded(jpeg.uid, baseline[0]))
    made = encode(target(syntax), [frame])
    path = formats.write_file(tmp_path / "again.dcm", fmt, syntax.uid, made)
    case = known.Case(syntax.uid, fmt, coding(target(syntax), fmt), tuple(made))
    read_by_all(child, path, case, values[None].astype(np.int64), most=DCT_ERROR)


@pytest.mark.parametrize("defect", known.ALL, ids=lambda defect: f"{defect.decoder}-{formats.name(defect.format)}")
def test_known_defects_are_still_there(child: decoders.Child, tmp_path: Path, defect: known.Known) -> None:
    decoder, syntax = decoders.BY_NAME[defect.decoder], BY_UID[defect.uid]
    if decoder.missing:
        assert not NO_SKIPS, f"{decoder.name} needs {decoder.missing}"
        pytest.skip(f"{decoder.name} is not installed")
    values = formats.samples(defect.format, defect.content)
    chosen = target(syntax, quality=100) if syntax.loss == "always" else target(syntax, lossless=True)
    path, case = write(tmp_path / "defect.dcm", chosen, defect.format, [values])
    assert defect.applies(case)
    try:
        got = child.decode(decoder, path)
    except decoders.Undecoded as refusal:
        symptom = "crashes" if "process ended" in str(refusal) else "refuses"
    else:
        most = DCT_ERROR if syntax.loss == "always" else 0
        apart = got.shape != (1, *values.shape) or int(np.abs(got.astype(np.int64) - values).max()) > most
        symptom = "wrong" if apart else "none"
    assert symptom == defect.symptom, f"{decoder.name} has changed: known.py has to, too"


@pytest.mark.parametrize(
    "syntax", [syntax for syntax in TABLE if decoders.for_syntax(syntax.uid)], ids=lambda s: s.name
)
def test_one_wrong_sample_is_noticed(child: decoders.Child, tmp_path: Path, syntax: Syntax) -> None:
    """The comparison itself: of two frames the last sample of the last is another than in the file."""
    if syntax.recompresses_jpeg:
        return
    stored = 12 if syntax.uid.endswith(".51") else 8
    fmt = FrameFormat(16, 16, 1, 8 if stored == 8 else 16, stored, False, "MONOCHROME2")
    many = [smooth(fmt), smooth(fmt)]
    chosen = target(syntax, quality=100) if syntax.loss == "always" else target(syntax, lossless=True)
    path, case = write(tmp_path / "frames.dcm", chosen, fmt, many)
    most = DCT_ERROR if syntax.loss == "always" else 0
    want = expected(fmt, many)
    read_by_all(child, path, case, want, most=most)
    want[1, -1, -1] += 2 * most + 1
    with pytest.raises(AssertionError):
        read_by_all(child, path, case, want, most=most)


def test_every_syntax_has_decoders() -> None:
    """What is written in a transfer syntax without decoders here would be believed without having been read."""
    without = {syntax.name for syntax in TABLE if not decoders.for_syntax(syntax.uid)}
    assert without == {"deflated-explicit-vr-little-endian"}, "its deflation is the writer's, its frames are native"
