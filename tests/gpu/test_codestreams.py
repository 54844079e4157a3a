"""Every syntax and format of the table through nvImageCodec, decoded by other people's decoders on the CPU."""

from __future__ import annotations

import struct

import imagecodecs
import numpy as np
import pytest

from gpuenc.codestream import check, parse
from gpuenc.coding import coding
from gpuenc.cpu import lossy, samples
from gpuenc.cuda import nvcodec, nvrules, probe
from gpuenc.frames import Encoded, FrameFormat
from gpuenc.syntaxes import BY_UID, find
from gpuenc.targets import target
from tests.gpu.conftest import CONTENTS, made_frame

LOSSLESS = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91", *(f"1.2.840.10008.1.2.4.20{n}" for n in (1, 2, 3)))
ROWS, COLUMNS = 97, 130


def mono(allocated, stored, signed=False, rows=ROWS, columns=COLUMNS):
    return FrameFormat(rows, columns, 1, allocated, stored, signed, "MONOCHROME2")


def colour(photometric, allocated=8, stored=8, planar=0, rows=ROWS, columns=COLUMNS):
    return FrameFormat(rows, columns, 3, allocated, stored, False, photometric, planar)


FORMATS = {
    **{f"u{bits}": mono(8, bits) for bits in (4, 7, 8)},
    **{f"u{bits}": mono(16, bits) for bits in (9, 10, 12, 14, 15, 16)},
    **{f"s{bits}": mono(16, bits, True) for bits in (9, 12, 14, 16)},
    "palette": FrameFormat(ROWS, COLUMNS, 1, 8, 8, False, "PALETTE COLOR"),
    "rgb8": colour("RGB"),
    "rgb8 planar": colour("RGB", planar=1),
    "rgb12": colour("RGB", 16, 12),
    "rgb16": colour("RGB", 16, 16),
    "ybr": colour("YBR_FULL"),
    "ybr 422": colour("YBR_FULL_422"),
}


def encoded(chosen, batch):
    encoder = nvcodec.BatchEncoder(chosen)
    try:
        return encoder.encode(batch)
    finally:
        encoder.close()


def decoders_of(uid):
    """Return independent decoders that take bare codestreams."""
    if BY_UID[uid].family == "htj2k":
        return {"OpenJPH": openjph, "OpenJPEG": imagecodecs.jpeg2k_decode}
    return {"OpenJPEG": imagecodecs.jpeg2k_decode}


def openjph(data):
    """Return interleaved samples; without being told, it returns components without a transform as planes."""
    colour = {"planar": False} if parse(data, "htj2k").samples > 1 else {}
    return imagecodecs.htj2k_decode(data, **colour)


def wrong(result, frame, chosen):
    """Return what is wrong with a lossless result, or nothing."""
    if not isinstance(result, Encoded):
        return f"{result.code}: {result.reason}"
    wanted = coding(chosen, frame.format)
    try:
        check(result.codestream, chosen.syntax, wanted)
    except ValueError as error:
        return str(error)
    except RuntimeError as error:
        return str(error)
    expected = samples.prepare(frame.pixels, frame.format, wanted)
    for name, decode in decoders_of(chosen.syntax.uid).items():
        back = decode(result.codestream)
        if back.shape != expected.shape or not np.array_equal(back.astype(np.int64), expected.astype(np.int64)):
            return f"{name} gets other samples"
    return ""


def rows_of(fmt):
    rows = ["exact"]
    if fmt.bits_stored not in (8, 16):
        rows.append("exact-12")
    if fmt.signed:
        rows.append("exact-signed")
    if fmt.photometric == "RGB":
        rows.append("exact-rct")
    return rows


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("uid", LOSSLESS)
def test_every_lossless_format_comes_back(gpu, evidence, uid, name):
    chosen, fmt = target(BY_UID[uid], lossless=True), FORMATS[name]
    batch = [made_frame(fmt, n, content) for n, content in enumerate(CONTENTS)]
    found = [wrong(result, frame, chosen) for result, frame in zip(encoded(chosen, batch), batch, strict=True)]
    for content, one in zip(CONTENTS, found, strict=True):
        for row in rows_of(fmt):
            evidence.tally(row, not one, f"{name} {content} .{uid[-3:]}: {one}")
    assert found == [""] * len(batch)


@pytest.mark.parametrize("uid", [LOSSLESS[0], LOSSLESS[2], LOSSLESS[3]])
@pytest.mark.parametrize("size", [(1, 1), (1, 60), (5, 5), (33, 65), (512, 512), (2048, 2500)], ids=str)
def test_images_of_all_sizes_come_back(gpu, evidence, size, uid):
    if gpu.rehearsal and max(size) > 100:
        pytest.skip("too large for a rehearsal")
    chosen = target(BY_UID[uid], lossless=True)
    frame = made_frame(mono(16, 12, False, *size), 0)
    [result] = encoded(chosen, [frame])
    one = wrong(result, frame, chosen)
    evidence.tally("exact-sizes", not one, f"{size[0]} x {size[1]} .{uid[-3:]}: {one}")
    assert not one


def test_noise_of_all_precisions_comes_back(gpu, evidence):
    chosen = target(find("htj2k-lossless"))
    for bits in range(8, 17):
        fmt = mono(8 if bits == 8 else 16, bits, rows=gpu.count(256, 40), columns=gpu.count(256, 44))
        batch = [made_frame(fmt, n, seed=bits) for n in range(gpu.count(24, 2))]
        for result, frame in zip(encoded(chosen, batch), batch, strict=True):
            one = wrong(result, frame, chosen)
            evidence.tally("exact-noise", not one, f"{bits} bits: {one}")
            assert not one


@pytest.mark.parametrize("uid", [LOSSLESS[0], LOSSLESS[2], LOSSLESS[3]])
@pytest.mark.parametrize("name", ["u12", "s12", "rgb8"])
def test_what_the_main_header_says(gpu, evidence, uid, name):
    chosen, fmt = target(BY_UID[uid], lossless=True), FORMATS[name]
    wanted = coding(chosen, fmt)
    nv = probe.load()
    encoder = nv.Encoder(device_id=0, max_num_cpu_threads=1, backends=probe.backends(nv, "jpeg2k"))
    prepared = samples.prepare(made_frame(fmt, 1).pixels, fmt, wanted)
    params = nvrules.settings(nv, chosen, wanted)
    [made] = encoder.encode([nvrules.image(nv, prepared, chosen, wanted)], "jpeg2k", params=params)
    data = bytes(memoryview(made))
    info = parse(data, chosen.syntax.family)
    said = (info.precision, info.signed, info.levels, info.mct, info.progression, info.tlm)
    right = said == (wanted.precision, wanted.signed, wanted.levels, wanted.mct, "RPCL", False)
    # OpenJPEG, with which a rehearsal encodes .90, writes another progression.
    right = right or (gpu.rehearsal and uid.endswith(".90") and info.precision == wanted.precision)
    evidence.tally("siz", right, f"{name} .{uid[-3:]}: {said}")
    if name == "u12":
        evidence.record("markers", f"{jpeg2000_markers(data)} (.{uid[-3:]})", hex=data[:120].hex())
    assert right


def jpeg2000_markers(data):
    """Return the marker segments of a main header and the last marker."""
    at, seen = 2, ["FF4F"]
    while data[at : at + 2] != b"\xff\x90":
        seen.append(data[at : at + 2].hex().upper())
        at += 2 + struct.unpack(">H", data[at + 2 : at + 4])[0]
    return " ".join([*seen, "FF90 …", data[-2:].hex().upper()])


def direct(array, precision, ht=True, **more):
    """Return what nvImageCodec itself makes of an array, past everything gpuenc refuses."""
    nv = probe.load()
    encoder = nv.Encoder(device_id=0, max_num_cpu_threads=1, backends=probe.backends(nv, "jpeg2k"))
    css = nv.ChromaSubsampling.CSS_444 if array.ndim == 3 else nv.ChromaSubsampling.CSS_GRAY
    j2k = nv.Jpeg2kEncodeParams(ht=ht, bitstream_type=nv.Jpeg2kBitstreamType.J2K, num_resolutions=4)
    params = nv.EncodeParams(quality_type=nv.QualityType.LOSSLESS, chroma_subsampling=css, jpeg2k_encode_params=j2k)
    [made] = encoder.encode([nv.as_image(array, precision=precision, **more)], "jpeg2k", params=params)
    return None if made is None else bytes(memoryview(made))


def told(data, array, precision, signed=False):
    """Return in words what became of an array."""
    if data is None:
        return "None"
    info = parse(data, "htj2k")
    if (info.precision, info.signed) != (precision, signed):
        return f"SIZ says {info.precision} bits, signed {info.signed}"
    back = openjph(data)
    return "exact" if np.array_equal(back.astype(int), array.astype(int)) else "other samples"


def test_questions_about_formats_that_are_refused_today(gpu, evidence):
    rng = np.random.default_rng(3)
    low = {
        bits: told(direct(a := rng.integers(0, 1 << bits, (80, 96)).astype("u1"), bits), a, bits)
        for bits in range(1, 8)
    }
    evidence.record("low-precision", ", ".join(f"{bits}: {said}" for bits, said in low.items()))
    if not gpu.rehearsal:  # the encoders of a rehearsal refuse these
        signed = rng.integers(-128, 128, (80, 96)).astype("i2")
        evidence.record("signed-8", told(direct(signed, 8), signed, 8, True))
        two, nv = rng.integers(0, 4096, (80, 96, 2)).astype("u2"), probe.load()
        made = direct(two, 12, sample_format=nv.SampleFormat.I_UNCHANGED)
        evidence.record("two-components", "None" if made is None else told(made, two, 12))


def test_psnr(gpu, evidence):
    said = {}
    for bits in (8, 12):
        for asked in (40, 50):
            chosen = target(find("jpeg2000"), psnrs=(asked,))
            fmt = mono(8 if bits == 8 else 16, bits, rows=gpu.count(512, 96), columns=gpu.count(512, 100))
            frame = made_frame(fmt, 0, "smooth")
            [result] = encoded(chosen, [frame])
            if isinstance(result, Encoded):
                back = imagecodecs.jpeg2k_decode(result.codestream)
                got = lossy.psnr_db(samples.prepare(frame.pixels, fmt, coding(chosen, fmt)), back, bits)
                said[f"{asked} dB, {bits} bits"] = f"{got:.2f} dB"
                assert got >= asked
            else:
                assert result.code in ("device-quality", "device-failed"), result
                said[f"{asked} dB, {bits} bits"] = result.reason
    evidence.record("psnr", "; ".join(f"{asked}: {got}" for asked, got in said.items()))


@pytest.mark.parametrize(
    "fmt", [mono(8, 8, rows=256, columns=300), colour("RGB", rows=256, columns=300)], ids=["gray", "rgb"]
)
def test_jpeg(gpu, evidence, fmt):
    reason = nvcodec.why_unavailable("1.2.840.10008.1.2.4.50")
    if reason:
        evidence.record("jpeg", reason)
        pytest.fail(reason)
    chosen = target(find("jpeg-baseline"), quality=90)
    wanted, frame = coding(chosen, fmt), made_frame(fmt, 0, "smooth")
    [result] = encoded(chosen, [frame])
    assert isinstance(result, Encoded), result
    check(result.codestream, chosen.syntax, wanted)
    back = imagecodecs.jpeg8_decode(result.codestream).astype(int)
    plain = samples.prepare(frame.pixels, fmt, wanted)
    error = np.abs(back - plain)
    more = {"colorspace": "RGB", "outcolorspace": "YCBCR", "subsampling": "422"} if fmt.samples == 3 else {}
    reference = imagecodecs.jpeg8_encode(plain, 90, **more)
    cpu_error = np.abs(imagecodecs.jpeg8_decode(reference).astype(int) - plain)
    same = tables(result.codestream) == tables(reference)
    name = "gray" if fmt.samples == 1 else "RGB"
    evidence.tally("jpeg", error.mean() <= 2 * cpu_error.mean() + 1, f"{name}: mean error {error.mean():.2f}")
    markers = f"{jpeg_markers(result.codestream)}; tables {'as' if same else 'not as'} libjpeg's"
    evidence.record("jpeg-markers", f"{name}: {markers}", same_tables=same)
    assert error.mean() <= 2 * cpu_error.mean() + 1


def segments(data):
    at = 2
    while data[at + 1] != 0xDA:
        size = struct.unpack(">H", data[at + 2 : at + 4])[0]
        yield data[at + 1], data[at + 4 : at + 2 + size]
        at += 2 + size


def jpeg_markers(data):
    return " ".join(f"FF{marker:02X}" for marker, _ in segments(data))


def tables(data):
    """Return quantisation tables by number, however they are spread over DQT segments (T.81 B.2.4.1)."""
    found = {}
    for marker, content in segments(data):
        while marker == 0xDB and content:
            found[content[0]], content = content[1:65], content[65:]
    return found
