"""Decoders of other code bases: every format comes back, a wrong sample shows, the encoder's code has no part."""

import itertools
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import imagecodecs
import numpy as np
import pytest

from gpuenc.codestream import pad_even
from gpuenc.coding import coding
from gpuenc.cpu import codecs, decoders, encoders, independent, rle, samples
from gpuenc.dicom.source import DicomFile
from gpuenc.errors import DecodeFailed, GpuencError
from gpuenc.frames import Coded, FrameFormat
from gpuenc.syntaxes import BY_UID, TABLE, find
from gpuenc.targets import target
from tests.conformance import formats
from tests.cpu.images import LOSSLESS, content, frame_of, mono, rgb
from tests.dicom import files

# What the encoder of a family, or imagecodecs' verification of it, decodes with: none of it may be needed.
DECODER_OF_ENCODER = {
    "rle": "packbits_decode",
    "jpeg-lossless": "jpeg8_decode",
    "jpeg-ls": "jpegls_decode",
    "jpeg2000": "jpeg2k_decode",
    "htj2k": "htj2k_decode",
    "jpegxl": "jpegxl_decode",
    "deflate": "deflate_decode",
}
DECODED = [syntax for syntax in LOSSLESS if syntax.family != "native"]
SEVERAL = (mono(37, 50, 12), mono(37, 50, 16, signed=True), mono(8, 9, 8), rgb(21, 30), rgb(10, 8, 16))


@pytest.fixture(params=DECODED, ids=lambda syntax: syntax.name)
def syntax(request):
    return request.param


def chosen(syntax, near=0):
    lossless = {"lossless": True} if syntax.loss == "option" and syntax.family != "jpeg-ls" else {}
    return target(syntax, **({"near": near} if near else lossless))


def encoded(pixels, fmt, goal):
    """Return what a frame is coded for, its prepared samples and its codestream."""
    wanted = coding(goal, fmt)
    frame = formats.frames(fmt, [pixels])[0]
    prepared = samples.prepare(frame.pixels, fmt, wanted)
    return wanted, prepared, encoders.encode_samples(prepared, goal, wanted, fmt)


def assert_equal(got, prepared):
    assert got.dtype == prepared.dtype
    assert got.flags.c_contiguous
    np.testing.assert_array_equal(got, prepared, strict=True)


def readable(syntax, fmt, near=0):
    try:
        return not independent.independent_reason(syntax, coding(chosen(syntax, near), fmt))
    except GpuencError:
        return False


def every_format(syntax):
    """All formats of a syntax's table, each with a size of its own."""
    number = 0
    for row in syntax.rows:
        if row.lossy_only:
            continue
        for photometric in row.photometric:
            for allocated in row.allocated:
                for stored in (bits for bits in row.stored if bits <= allocated):
                    for signed in row.signed:
                        number += 1
                        rows, columns = formats.SIZES[number % len(formats.SIZES)]
                        columns += columns % 2 if photometric == "YBR_FULL_422" else 0
                        yield FrameFormat(rows, columns, row.samples, allocated, stored, signed, photometric)


def test_every_format_comes_back(syntax):
    goal, number, read, unread = chosen(syntax), 0, 0, set()
    for fmt in every_format(syntax):
        number += 1
        if reason := independent.independent_reason(syntax, coding(goal, fmt)):
            unread.add(reason.partition("because ")[2])
            continue
        kind = formats.CONTENTS[number % len(formats.CONTENTS)]
        for each in ("noise", kind):
            wanted, prepared, codestream = encoded(formats.samples(fmt, each), fmt, goal)
            assert_equal(independent.decode_samples(codestream, syntax, wanted), prepared)
        read += 1
    assert read > 30
    limited = syntax.family in ("jpeg-ls", "jpeg2000", "htj2k")
    assert bool(unread) == limited, unread


@pytest.mark.parametrize(
    "syntax", [syntax for syntax in LOSSLESS if syntax.family == "native"], ids=lambda one: one.name
)
def test_cells_are_compared_as_they_are(syntax):
    for fmt in SEVERAL:
        wanted, prepared, cells = encoded(content("noise", fmt), fmt, chosen(syntax))
        assert_equal(independent.decode_samples(cells, syntax, wanted), prepared)
        with pytest.raises(DecodeFailed, match="bytes, not"):
            independent.decode_samples(cells[:-1], syntax, wanted)


@pytest.mark.parametrize("near", [1, 3, 20])
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_near_lossless_has_one_decoding_too(near, bits):
    syntax, fmt = find("jpeg-ls"), mono(40, 31, bits)
    middle = content("noise", fmt) // 2 + (1 << bits) // 4
    wanted, prepared, codestream = encoded(middle, fmt, chosen(syntax, near))
    got = independent.decode_samples(codestream, syntax, wanted)
    assert_equal(got, decoders.decode_samples(codestream, syntax, wanted))
    assert 0 < np.abs(got.astype(int) - prepared).max() <= near


def test_the_encoder_s_code_has_no_part(syntax, monkeypatch):
    ready = [(fmt, *encoded(content("noise", fmt), fmt, chosen(syntax))) for fmt in SEVERAL if readable(syntax, fmt)]

    def called(*arguments, **options):
        raise AssertionError("a decoder of the encoder's code base was called")

    monkeypatch.setattr(imagecodecs, DECODER_OF_ENCODER[syntax.family], called)
    for _, wanted, prepared, codestream in ready:
        assert_equal(independent.decode_samples(codestream, syntax, wanted), prepared)
    assert len(ready) >= 3
    if syntax.family not in ("deflate", "htj2k"):  # those are verified by another code base anyway, where they can be
        with pytest.raises(AssertionError, match="was called"):
            decoders.decode_samples(ready[0][3], syntax, ready[0][1])


def test_one_wrong_sample_shows_where_it_is(syntax):
    rng = np.random.default_rng(3)
    for fmt in (fmt for fmt in SEVERAL if readable(syntax, fmt)):
        right = content("noise", fmt)
        place = tuple(int(rng.integers(0, size)) for size in right.shape)
        wrong = right.copy()
        wrong[place] ^= 1
        wanted, prepared, _ = encoded(right, fmt, chosen(syntax))
        codestream = encoded(wrong, fmt, chosen(syntax))[2]
        got = independent.decode_samples(codestream, syntax, wanted)
        if wanted.raw:
            assert np.count_nonzero(got != prepared) == 1
        else:
            np.testing.assert_array_equal(np.argwhere(got != prepared), [place])


@pytest.mark.filterwarnings("ignore:The decoded RLE segment:UserWarning")  # pydicom's, of a few bytes too many
def test_flipped_bits_are_noticed_and_nothing_else_is_raised(syntax):
    rng = np.random.default_rng(4)
    header = rle.HEADER.size if syntax.family == "rle" else 0  # most of its offsets are unused
    unnoticed, tried, refusals = 0, 0, []
    for fmt in (fmt for fmt in SEVERAL if readable(syntax, fmt)):
        wanted, prepared, codestream = encoded(content("noise", fmt), fmt, chosen(syntax))
        for _ in range(150):
            changed = bytearray(codestream)
            changed[rng.integers(header, len(changed))] ^= 1 << int(rng.integers(0, 8))
            if rng.random() < 0.2:
                del changed[int(rng.integers(0, len(changed))) :]
            tried += 1
            try:
                unnoticed += np.array_equal(independent.decode_samples(bytes(changed), syntax, wanted), prepared)
            except DecodeFailed as error:
                refusals.append(error)
    assert {error.code for error in refusals} == {"decode-failed"}
    assert not [error for error in refusals if "\n" in str(error)]
    # A few bits mean nothing: reserved, comments, padding.
    assert unnoticed < 0.06 * tried


def test_an_image_of_another_size_or_type_is_refused(syntax):
    fmt = mono(24, 18, 8)
    wanted, prepared, codestream = encoded(content("noise", fmt), fmt, chosen(syntax))
    for other in (replace(wanted, rows=25), replace(wanted, columns=12), replace(wanted, precision=16, cell_bits=16)):
        try:
            got = independent.decode_samples(codestream, syntax, other)
        except DecodeFailed:
            continue
        # Cells may be wider than the codestream's samples, as in `gpuenc.cpu.decoders`.
        assert syntax.family not in ("rle", "deflate")
        assert other.cell_bits == 16
        np.testing.assert_array_equal(got, prepared)


def test_lanes_may_decode_at_once(syntax):
    ready = [encoded(content("noise", fmt), fmt, chosen(syntax)) for fmt in SEVERAL if readable(syntax, fmt)] * 12
    with ThreadPoolExecutor(6) as pool:
        for got, (_, prepared, _) in zip(
            pool.map(lambda one: independent.decode_samples(one[2], syntax, one[0]), ready), ready, strict=True
        ):
            assert_equal(got, prepared)


REAL = (
    "CT_small.dcm", "MR_small.dcm", "OBXXXX1A.dcm", "SC_rgb_small_odd.dcm", "SC_ybr_full_422_uncompressed.dcm",
    "liver_1frame.dcm", "693_UNCI.dcm", "mlut_18.dcm",
)  # fmt: skip


@pytest.mark.parametrize("name", REAL)
def test_real_images_come_back(name):
    with DicomFile(files.named(name)) as source:
        frame = source.frame(0)
    frame = decoders.decode_frame(frame) if isinstance(frame.pixels, Coded) else frame
    read = 0
    for syntax in TABLE:
        if syntax.loss == "never" and readable(syntax, frame.format):
            goal = target(syntax)
            wanted = coding(goal, frame.format)
            prepared = samples.prepare(frame.pixels, frame.format, wanted, bit_offset=frame.bit_offset)
            [made] = codecs.BatchEncoder(goal).encode([frame])
            assert_equal(independent.decode_samples(made.codestream, syntax, wanted), prepared)
            read += 1
    assert read >= 4


# What cannot be verified so is said before, and in words.


def test_each_syntax_has_its_decoder_or_none():
    named = {syntax.name: independent.decoder_of(syntax) for syntax in TABLE}
    assert [name for name, decoder in named.items() if decoder is None] == [
        "jpeg-baseline", "jpeg-extended", "jpegxl-jpeg",
    ]  # fmt: skip
    for decoder in independent.TABLE:
        assert decoder.name != decoder.encoder
        assert decoder.installed


def lossy(name, fmt, **options):
    syntax = find(name)
    return syntax, coding(target(syntax, **options), fmt)


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (lossy("jpeg-baseline", mono(8, 8, 8), quality=90), "round differently"),
        (lossy("jpeg2000", mono(8, 8, 8), psnrs=(50,)), "round differently"),
        (lossy("htj2k", rgb(8, 8), psnrs=(50,)), "round differently"),
        (lossy("jpegxl", mono(8, 8, 8), quality=90), "round differently"),
        (lossy("jpegxl-jpeg", mono(8, 8, 8)), "bit for bit"),
        (lossy("jpeg-ls", rgb(8, 8), near=2), "one component only"),
        (lossy("jpeg-ls-lossless", rgb(8, 8, 16)), "one component only"),
        (lossy("jpeg2000-lossless", mono(8, 8, 17)), "more than 16 bits, and there are 17"),
        (lossy("htj2k-lossless", mono(8, 8, 29)), "more than 28 bits"),
        (lossy("htj2k-lossless-rpcl", rgb(8, 8, 28)), "more than 28 bits"),
        (lossy("jpeg-ls-lossless", mono(16384, 16384, 8)), "as large as 16384 x 16384"),
        (lossy("jpeg2000-lossless", rgb(65535, 65535, 8)), "as large as 65535 x 65535"),
    ],
)
def test_what_has_no_independent_decoder_is_said_at_the_door(asked, why):
    syntax, wanted = asked
    reason = independent.independent_reason(syntax, wanted)
    assert reason.startswith(f"{syntax.name} cannot be verified")
    assert why in reason
    with pytest.raises(DecodeFailed, match=why) as caught:
        independent.decode_samples(b"", syntax, wanted)
    assert caught.value.code == "no-independent-decoder"


@pytest.mark.parametrize(
    "decoder",
    [decoder for decoder in independent.TABLE if decoder.requirement],
    ids=lambda decoder: decoder.families[0],
)
def test_what_is_not_installed_is_named_with_what_to_install(decoder, monkeypatch):
    syntax = next(syntax for syntax in LOSSLESS if syntax.family == decoder.families[0])
    wanted = coding(chosen(syntax), mono(8, 8, 8))
    assert independent.independent_reason(syntax, wanted) == ""
    monkeypatch.setattr(independent, "_found", lambda module: module != decoder.module)
    assert not decoder.installed
    reason = independent.independent_reason(syntax, wanted)
    assert reason.endswith(f"because {decoder.name} is not installed: pip install 'gpuenc[independent]'")
    assert independent.decoder_of(syntax) == decoder.name


def test_what_cannot_be_imported_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    independent._found.cache_clear()
    try:
        assert "FFmpeg is not installed" in independent.independent_reason(*lossy("jpeg2000-lossless", mono(8, 8, 8)))
    finally:
        independent._found.cache_clear()


def test_a_panic_of_rust_is_a_failure_and_an_interrupt_is_not():
    class PanicException(BaseException):
        pass

    def raises(error):
        raise error

    with pytest.raises(DecodeFailed, match="Rust: index out of bounds"):
        independent._call("Rust", lambda: raises(PanicException("index out\nof bounds")))
    with pytest.raises(KeyboardInterrupt):
        independent._call("Rust", lambda: raises(KeyboardInterrupt()))


def test_a_kept_jpeg_is_not_decoded():
    syntax = BY_UID["1.2.840.10008.1.2.4.50"]
    kept = coding(target(syntax, quality=90), rgb(8, 8), keeps_jpeg=True)
    assert "bit for bit" in independent.independent_reason(syntax, kept)


def test_frames_of_batches_are_what_is_decoded():
    """The codestream as the plug-in returns it, which may be padded afterwards."""
    fmt, odd = mono(15, 15, 12), 0
    for syntax, seed in itertools.product(DECODED, range(4)):
        goal = chosen(syntax)
        wanted = coding(goal, fmt)
        [made] = codecs.BatchEncoder(goal).encode([frame_of(content("noise", fmt, seed), fmt)])
        odd += len(made.codestream) % 2
        for padded in (made.codestream, pad_even(made.codestream, syntax.family)):
            got = independent.decode_samples(padded, syntax, wanted)
            expected = decoders.decode_samples(padded, syntax, wanted)
            assert_equal(got, expected)
    assert odd > 5
