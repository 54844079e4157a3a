"""What differs between a source and its output is found, named and counted; what may differ is not."""

import json
import os
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import imagecodecs
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import UID
from typer.testing import CliRunner

from gpuenc.archive import comparison
from gpuenc.archive.dicomdir import rebuild
from gpuenc.archive.findings import Finding
from gpuenc.archive.verify import unfit, verify
from gpuenc.cli import app
from gpuenc.cpu import decoders
from gpuenc.errors import DecodeFailed
from tests import made
from tests.archive.watcher import transcode

NOISE = made.noise((3, 8, 10), "u2", 12)
LOSSLESS = (
    "htj2k-lossless",
    "jpeg2000-lossless",
    "rle",
    "jpeg-lossless-sv1",
    "deflated-image-frame",
    "deflated-explicit-vr-little-endian",
)


class Findings:
    def __init__(self):
        self.findings = []

    def start(self, files):
        self.files = files

    def done(self, finding):
        self.findings.append(finding)

    def finish(self, verified):
        self.verified = verified


def found(source, output, **options):
    """Return the findings, in order, and the totals."""
    watcher = Findings()
    verified = verify(source, output, watcher, **options)
    assert watcher.verified is verified
    assert sum(verified.files.values()) == len(watcher.findings)
    for finding in watcher.findings:
        json.loads(finding.as_json())
        assert "SECRET" not in finding.as_json()
    return watcher.findings, verified


def one(source, output, **options):
    (finding,), _ = found(source, output, **options)
    return finding


def images():
    """Return one image of each odd kind."""
    signed = made.noise((2, 8, 10), "i2", 12)
    rgb = made.noise((2, 8, 10, 3), "u1")
    pairs = made.noise((2, 8, 5, 4), "u1")
    planes = {12: made.noise((3, 8, 10), "u1", 1), 14: made.noise((3, 8, 10), "u1", 1, seed=1)}
    return {
        "plain": made.of(NOISE, stored=12),
        "one-frame": made.of(NOISE[:1], stored=12),
        "implicit": made.of(NOISE, stored=12, syntax=made.IMPLICIT, elements=(made.icon(undefined=False),)),
        "big": made.of(NOISE, stored=12, syntax=made.BIG, elements=(made.icon(),)),
        "big-bytes": made.of(NOISE.astype("u1"), syntax=made.BIG, pixel_vr="OW"),
        "deflated": made.of(NOISE, stored=12, syntax=made.DEFLATED),
        "signed": made.of(signed, stored=12),
        "not-extended": made.of((signed & 0xFFF).astype("u2"), stored=12, signed=True),
        "shifted": made.shifted(signed, 15),
        "shifted-big": made.shifted(NOISE.astype("u2"), 13, syntax=made.BIG),
        "overlays": made.embedded_overlays(NOISE, planes),
        "rgb": made.of(rgb),
        "planar": made.of(rgb, planar=1),
        "ybr": made.of(rgb, photometric="YBR_FULL"),
        "ybr-422": made.ybr_422(pairs),
        "bits": made.segmentation(made.noise((5, 3, 7), "u1", 1)),
        "bits-big": made.segmentation(made.noise((5, 3, 7), "u1", 1), syntax=made.BIG, pixel_vr="OW"),
        "odd": made.of(NOISE, stored=12, elements=made.odd_private(), trailer=made.PADDING),
        "odd-implicit": made.of(NOISE, stored=12, syntax=made.IMPLICIT, elements=made.odd_private()[:3]),
        "bare": made.of(NOISE, stored=12, preamble=None, meta=False),
    }  # fmt: skip


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    folder = tmp_path_factory.mktemp("odd")
    for name, image in images().items():
        image.write(folder / f"{name}.dcm")
    return folder


@pytest.mark.parametrize("to", LOSSLESS)
def test_every_odd_format_is_equal(tmp_path, odd, to):
    records = transcode(odd, tmp_path / "out", to)
    findings, _ = found(odd, tmp_path / "out")
    wanted = {record.source: "missing" if record.status == "failed" else "equal" for record in records}
    assert {each.source: each.verdict for each in findings} == wanted, [each.message for each in findings]
    assert sum(verdict == "equal" for verdict in wanted.values()) > 12
    frames = {record.source: record.frames for record in records if record.status == "encoded"}
    assert {each.source: each.frames for each in findings if not each.identical and each.verdict == "equal"} == frames
    assert not any(each.elements or each.differing for each in findings)


def test_whole_cells_are_compared_with_whole_cells(tmp_path):
    path = made.of(NOISE | 0x8000, stored=12).write(tmp_path / "in.dcm")
    (record,) = transcode(path, tmp_path / "out", whole_cells=True)
    assert record.status == "encoded"
    assert one(path, tmp_path / "out").verdict == "equal"
    cut = made.of(NOISE, stored=12).write(tmp_path / "cut.dcm")
    finding = one(path, cut)
    assert (finding.verdict, finding.differing_samples) == ("differs", NOISE.size)


def changed(path, change):
    """Write what pydicom makes of a file once `change` had its dataset."""
    ds = dcmread(path)
    change(ds)
    ds.save_as(path)


@pytest.fixture
def pair(tmp_path):
    source = made.of(NOISE, stored=12, elements=(made.icon(),), trailer=made.PADDING).write(tmp_path / "x.dcm")
    (record,) = transcode(source, tmp_path / "out")
    assert record.status == "encoded"
    return source, tmp_path / "out" / "x.dcm"


def test_one_sample_off_by_one_is_found(tmp_path, pair):
    source, _ = pair
    samples = NOISE.copy()
    samples[1, 3, 4] ^= 1
    samples[2, 0, 0] ^= 1
    samples[2, 7, 9] ^= 0x800
    made.of(samples, stored=12, elements=(made.icon(),), trailer=made.PADDING).write(tmp_path / "y.dcm")
    transcode(tmp_path / "y.dcm", tmp_path / "other")
    finding = one(source, tmp_path / "other" / "y.dcm")
    assert (finding.verdict, finding.differing, finding.elements) == ("differs", {1: 1, 2: 2}, ())
    assert (finding.differing_frames, finding.differing_samples, finding.frames) == (2, 3, 3)
    assert "3 of 240 samples differ, in 2 of 3 frames" in finding.message


def test_swapped_frames_are_found(tmp_path, pair):
    source, _ = pair
    made.of(NOISE[[1, 0, 2]], stored=12, elements=(made.icon(),), trailer=made.PADDING).write(tmp_path / "y.dcm")
    transcode(tmp_path / "y.dcm", tmp_path / "other")
    assert set(one(source, tmp_path / "other" / "y.dcm").differing) == {0, 1}


@pytest.mark.parametrize(
    ("change", "element"),
    [
        (lambda ds: setattr(ds, "PatientName", "OTHER^SECRET"), "(0010,0010)"),
        (lambda ds: setattr(ds, "SOPInstanceUID", "1.2.3"), "(0008,0018)"),
        (lambda ds: setattr(ds, "PixelSpacing", [1, 1]), "(0028,0030)"),
        (lambda ds: setattr(ds, "LossyImageCompression", "01"), "(0028,2110)"),
        (lambda ds: setattr(ds, "PlanarConfiguration", 0), "(0028,0006)"),
        (lambda ds: setattr(ds.IconImageSequence[0], "Rows", 5), "(0088,0200)"),
        (lambda ds: ds.IconImageSequence.append(ds.IconImageSequence[0]), "(0088,0200)"),
        (lambda ds: delattr(ds, "Modality"), "(0008,0060)"),
        (lambda ds: ds.pop(0xFFFCFFFC), "(FFFC,FFFC)"),
        (lambda ds: ds[0xFFFCFFFC].__setattr__("value", b"12"), "(FFFC,FFFC)"),
        (lambda ds: setattr(ds.file_meta, "MediaStorageSOPInstanceUID", "1.2.3"), "(0002,0003)"),
        (lambda ds: setattr(ds.file_meta, "ImplementationClassUID", "1.2.3"), "(0002,0012)"),
    ],
)  # fmt: skip
def test_an_element_that_changed_is_named(pair, change, element):
    source, output = pair
    assert one(source, output).verdict == "equal"
    changed(output, change)
    finding = one(source, output)
    assert (finding.verdict, finding.elements, finding.differing) == ("differs", (element,), {})


@pytest.mark.parametrize("syntax", [made.IMPLICIT, made.BIG])
@pytest.mark.parametrize(
    ("change", "element"),
    [
        (lambda ds: setattr(ds, "PatientName", "OTHER^SECRET"), "(0010,0010)"),
        (lambda ds: setattr(ds.IconImageSequence[0], "Rows", 5), "(0088,0200)"),
        (lambda ds: setattr(ds.IconImageSequence[0], "PixelData", bytes(16)), "(0088,0200)"),
        (lambda ds: setattr(ds, "SmallestImagePixelValue", 256), "(0028,0106)"),
        (lambda ds: ds.pop(0xFFFCFFFC), "(FFFC,FFFC)"),
    ],
)
def test_elements_of_other_encodings_are_compared_by_value(tmp_path, syntax, change, element):
    elements = (made.icon(), made.Element(0x00280106, "US", 1), made.Element(0x00181063, "FD", 0.5))
    image = made.of(NOISE, stored=12, syntax=syntax, elements=elements, trailer=made.PADDING)
    source = image.write(tmp_path / "x.dcm")
    transcode(source, tmp_path / "out")
    assert one(source, tmp_path / "out").verdict == "equal"
    changed(tmp_path / "out" / "x.dcm", change)
    assert one(source, tmp_path / "out").elements == (element,)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda ds: setattr(ds, "NumberOfFrames", 2), "frames"),
        (lambda ds: setattr(ds, "Rows", 10), "rows"),
        (lambda ds: setattr(ds, "PhotometricInterpretation", "MONOCHROME1"), "MONOCHROME1"),
        (lambda ds: setattr(ds, "PixelRepresentation", 1), "(0028,0103)"),
        (lambda ds: setattr(ds, "HighBit", 15), "(0028,0102)"),
        (lambda ds: setattr(ds, "BitsStored", 16), "High Bit"),
    ],
)
def test_a_description_that_makes_other_pixels_is_a_difference(pair, change, said):
    source, output = pair
    changed(output, change)
    finding = one(source, output)
    assert finding.verdict == ("unreadable" if said == "High Bit" else "differs")
    assert said in finding.message


def test_an_overlay_that_was_lost_is_found(tmp_path, odd):
    transcode(odd / "overlays.dcm", tmp_path / "out")
    assert one(odd / "overlays.dcm", tmp_path / "out").verdict == "equal"
    output = tmp_path / "out" / "overlays.dcm"
    before = output.read_bytes()

    def flip(ds):
        data = bytearray(ds[0x60023000].value)
        data[0] ^= 1
        ds[0x60023000].value = bytes(data)

    changed(output, flip)
    assert one(odd / "overlays.dcm", output).elements == ("(6002,3000)",)
    output.write_bytes(before)

    def drop(ds):
        for tag in [tag for tag in ds if tag.tag.group == 0x6002]:
            del ds[tag.tag]

    changed(output, drop)
    assert "(6002,3000)" in one(odd / "overlays.dcm", output).elements
    # Left in the cells of a file that keeps them there, they are part of these.
    transcode(odd / "overlays.dcm", tmp_path / "native", "deflated-explicit-vr-little-endian")
    kept = tmp_path / "native" / "overlays.dcm"
    assert one(odd / "overlays.dcm", kept).verdict == "equal"

    def erase(ds):
        cells = np.frombuffer(ds.PixelData, "<u2") & 0xBFFF
        ds.PixelData = cells.tobytes()

    changed(kept, erase)
    assert one(odd / "overlays.dcm", kept).verdict == "differs"


@pytest.mark.parametrize("to", ["jpeg2000", "jpeg-baseline", "jpegxl"])
@pytest.mark.parametrize("name", ["grey", "colour", "palette"])
def test_lossy_outputs_say_how_far_they_are_off(tmp_path, to, name):
    ramp = np.add.outer(np.arange(64), np.arange(64)).astype("u1")
    image = {
        "grey": made.of(ramp[None]),
        "colour": made.of(np.stack([ramp, ramp.T // 2, 255 - ramp], -1)[None]),
        "palette": None,
    }[name]
    source = image.write(tmp_path / "x.dcm") if image else Path(get_testdata_file("OBXXXX1A.dcm"))
    loss = {"ratio": 8} if to == "jpeg2000" else {"quality": 90}
    records = transcode(source, tmp_path / "out", to, **loss)
    if records[0].status == "failed":
        pytest.skip(records[0].message)
    findings, verified = found(source, tmp_path / "out")
    (finding,) = findings
    assert finding.verdict == "lossy", finding.message
    if finding.psnr_db is not None:
        assert 25 < finding.psnr_db < 70
    else:
        assert not finding.differing_samples
    assert not verified.good()
    assert verified.good(allow_lossy=True)
    # Samples that changed without a word are no lossy output.
    output = tmp_path / "out" / source.name
    said = made.encoded(made.Element(0x00282110, "CS", "01"))
    output.write_bytes(output.read_bytes().replace(said, said[:-2] + b"00"))
    assert one(source, tmp_path / "out").verdict == "differs"


def test_the_ratio_is_that_of_the_definition(tmp_path):
    samples = made.noise((1, 16, 16), "u1")
    source = made.of(samples).write(tmp_path / "x.dcm")
    transcode(source, tmp_path / "out", "jpeg-baseline", quality=70)
    decoded = imagecodecs.jpeg8_decode(next(_fragments(tmp_path / "out" / "x.dcm")))
    mean = np.mean((decoded.astype(float) - samples[0]) ** 2)
    assert one(source, tmp_path / "out").psnr_db == pytest.approx(10 * np.log10(255**2 / mean))


def _fragments(path):
    from pydicom.encaps import generate_frames

    yield from generate_frames(dcmread(path).PixelData, number_of_frames=1)


def test_copies_have_to_be_equal_byte_for_byte(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    made.float_pixels().write(folder / "float.dcm")
    made.Image(pixels=b"", without=frozenset({0x7FE00010}), pixel_tag=0x00420011).write(folder / "document.dcm")
    lossy = Path(get_testdata_file("SC_rgb_jpeg_dcmtk.dcm"))
    (folder / "lossy.dcm").write_bytes(lossy.read_bytes())
    records = transcode(folder, tmp_path / "out")
    assert {record.status for record in records} == {"copied"}
    findings, verified = found(folder, tmp_path / "out")
    assert all(each.identical and each.verdict == "equal" for each in findings)
    assert verified.identical == 3
    for name in ("float.dcm", "document.dcm", "lossy.dcm"):
        path = tmp_path / "out" / name
        data = path.read_bytes()
        path.write_bytes(data.replace(b"SECRET^PATIENT", b"SECRET^OTHERS!", 1) if b"SECRET" in data else data + b"\0\0")
        (finding,) = (each for each in found(folder, tmp_path / "out")[0] if each.source.endswith(name))
        # Of an image the samples and elements count, and not two zeros behind them.
        assert (finding.verdict, finding.identical) == ("equal" if name == "lossy.dcm" else "differs", False)
        path.write_bytes(data)


def test_missing_extra_and_left_out_files(tmp_path):
    folder, output = tmp_path / "in", tmp_path / "out"
    (folder / "sub").mkdir(parents=True)
    for name in ("a.dcm", "sub/b.dcm"):
        made.of(NOISE, stored=12).write(folder / name)
    (folder / "README").write_text("no DICOM file")
    (folder / "link").symlink_to("/etc")
    (folder / "dangling").symlink_to("nowhere")
    transcode(folder, output)
    (output / "sub" / "b.dcm").rename(output / "sub" / "c.dcm")
    findings, verified = found(folder, output, report=output / "none")
    verdicts = {Path(each.source or each.output).name: each.verdict for each in findings}
    assert verdicts == {
        "a.dcm": "equal", "b.dcm": "missing", "c.dcm": "extra", "README": "left-out", "link": "left-out",
        "dangling": "unreadable",
    }  # fmt: skip
    assert not verified.good()
    (folder / "dangling").unlink()
    (output / "sub" / "c.dcm").rename(output / "sub" / "b.dcm")
    assert found(folder, output)[1].good()


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_a_folder_that_cannot_be_read_is_no_empty_one(tmp_path):
    (tmp_path / "in" / "closed").mkdir(parents=True)
    (tmp_path / "out").mkdir()
    (tmp_path / "in" / "closed").chmod(0)
    try:
        assert one(tmp_path / "in", tmp_path / "out").verdict == "unreadable"
    finally:
        (tmp_path / "in" / "closed").chmod(0o700)


def test_outputs_of_every_length_are_unreadable_or_differ(tmp_path, pair):
    source, output = pair
    data = output.read_bytes()
    for cut in range(0, len(data), 13):
        output.write_bytes(data[:cut])
        assert one(source, output).verdict in ("unreadable", "differs")


def test_no_byte_of_an_output_can_be_flipped(tmp_path):
    """But for bytes that nothing reads, and those of which a retired group length and the like are made."""
    source = made.of(NOISE, stored=12).write(tmp_path / "x.dcm")
    transcode(source, tmp_path / "out")
    output = tmp_path / "out" / "x.dcm"
    data = output.read_bytes()
    quiet = []
    for at in range(len(data)):
        output.write_bytes(data[:at] + bytes([data[at] ^ 0x04]) + data[at + 1 :])
        if one(source, output).verdict == "equal":
            quiet.append(at)
    # The preamble and the reserved bytes of Pixel Data have no meaning; nor have parts of a codestream, such as its
    # comment, for the samples.
    pixels = data.index(b"\xe0\x7f\x10\0")
    assert {at for at in quiet if at < pixels + 12} == {*range(128), pixels + 6, pixels + 7}
    assert len([at for at in quiet if at >= pixels]) < (len(data) - pixels) // 3


def test_a_dicomdir_that_describes_the_outputs_is_equal(tmp_path):
    source = Path(get_testdata_file("DICOMDIR")).parent
    transcode(source, tmp_path / "out")
    assert found(source, tmp_path / "out")[1].files["equal"] > 80
    output = tmp_path / "out"
    result = rebuild(source / "DICOMDIR", output / "DICOMDIR")
    assert result.files
    (finding,) = (each for each in found(source, output)[0] if each.source == str(source / "DICOMDIR"))
    assert finding.verdict == "equal"
    data = (output / "DICOMDIR").read_bytes()
    (output / "DICOMDIR").write_bytes(data[:-2] + b"XX")
    (finding,) = (each for each in found(source, output)[0] if each.output == str(output / "DICOMDIR"))
    assert finding.verdict == "differs"


def test_large_images_are_spread_over_threads(tmp_path, monkeypatch, pair):
    monkeypatch.setattr("gpuenc.archive.pairs._SPREAD_BYTES", 1)
    monkeypatch.setattr("gpuenc.archive.pairs.usable_cores", lambda: 4)
    source, output = pair
    assert one(source, output).verdict == "equal"
    swapped = made.of(NOISE[[2, 1, 0]], stored=12, elements=(made.icon(),), trailer=made.PADDING).write(
        tmp_path / "y.dcm"
    )
    assert set(one(swapped, output).differing) == {0, 2}


def test_memory_is_taken_from_the_budget(tmp_path, pair):
    taken = []

    class Budget(SimpleNamespace):
        def share(self, wanted):
            taken.append(wanted)
            return comparison_budget.share(wanted)

    from gpuenc.archive.budget import ByteBudget

    comparison_budget = ByteBudget(1000)
    assert one(*pair, budget=Budget()).verdict == "equal"
    assert taken[0] >= 8 * 10 * 2


def test_what_is_no_file_is_no_output(tmp_path, pair):
    source, output = pair
    output.unlink()
    for make in (os.mkfifo, os.mkdir, lambda path: path.symlink_to("nowhere")):
        make(output)
        finding = one(source, output.parent)
        assert (finding.verdict, finding.message) == ("differs", "what is in its place in the output is no file")
        output.rmdir() if output.is_dir() else output.unlink()
    os.mkfifo(tmp_path / "pipe")
    assert "neither" in unfit([source, tmp_path / "pipe"])


def test_folders_are_the_same_however_they_are_named(tmp_path, pair, monkeypatch):
    folder = tmp_path / "in"
    folder.mkdir()
    pair[0].rename(folder / "x.dcm")
    monkeypatch.chdir(tmp_path / "out")
    for source, output in ((Path("../in"), Path()), (folder, Path("../out")), (Path("../in/."), Path("./../out/"))):
        assert [each.verdict for each in found(source, output)[0]] == ["equal"]


def test_it_stops_when_told(tmp_path, pair):
    stop = threading.Event()
    stop.set()
    findings, verified = found(*pair, stop=stop)
    assert verified.interrupted
    assert not findings
    assert not verified.good()


def test_a_defect_of_ours_is_no_verdict_of_equality(pair, monkeypatch):
    monkeypatch.setattr(comparison, "compare_frames", lambda *_, **__: 1 / 0)
    finding = one(*pair)
    assert (finding.verdict, finding.reason) == ("unreadable", "internal-error")


def test_the_independent_decoder_is_the_one_that_is_asked(pair, monkeypatch):
    asked = []

    def theirs(codestream, syntax, wanted):
        asked.append((syntax.name, wanted.precision, wanted.cell_bits, wanted.signed, wanted.lossless))
        if len(asked) == 3:
            raise DecodeFailed("nobody else reads it", code="no-independent-decoder")
        decoded = decoders.decode_samples(codestream, syntax, wanted)
        return decoded ^ (len(asked) == 2)

    monkeypatch.setattr(comparison, "import_module", lambda _: SimpleNamespace(decode_samples=theirs))
    finding = one(*pair, independent=True)
    assert asked == [("htj2k-lossless", 12, 16, False, True)] * 3
    assert (finding.verdict, finding.differing) == ("differs", {1: 80})


@pytest.mark.parametrize("to", ["deflated-image-frame", "rle", "jpegxl-lossless"])
def test_an_independent_decoder_may_return_cells_or_samples(tmp_path, odd, monkeypatch, to):
    monkeypatch.setattr(comparison, "import_module", lambda _: decoders)
    records = transcode(odd, tmp_path / "out", to)
    findings, _ = found(odd, tmp_path / "out", independent=True)
    wanted = {record.source: "missing" if record.status == "failed" else "equal" for record in records}
    assert {each.source: each.verdict for each in findings} == wanted, [each.message for each in findings]


def test_codings_are_those_of_the_encoder(tmp_path, odd):
    """What `coding_of` reads off a codestream is what the encoder was told."""
    from gpuenc.coding import coding
    from gpuenc.dicom.cells import encoded_format
    from gpuenc.dicom.source import DicomFile
    from gpuenc.syntaxes import find
    from gpuenc.targets import target

    compared = 0
    for to in ("jpeg-ls-lossless", *LOSSLESS[:-1]):
        chosen = target(find(to))
        for record in transcode(odd, tmp_path / to, to):
            if record.status != "encoded":
                continue
            with DicomFile(record.source) as source, DicomFile(record.destination) as output:
                wanted = coding(chosen, encoded_format(source, chosen))
                got = comparison.coding_of(output.frame(0))
            fields = ("rows", "columns", "samples", "precision", "signed", "cell_bits", "lossless", "raw")
            have = {field: getattr(got, field) for field in fields}
            assert have == {field: getattr(wanted, field) for field in fields}, (record.source, to)
            compared += 1
    assert compared > 60


def test_the_command(tmp_path, pair):
    source, output = pair
    (tmp_path / "in").mkdir()
    source.rename(tmp_path / "in" / "x.dcm")
    source = tmp_path / "in"

    def run(*arguments):
        return CliRunner().invoke(app, ["verify", *map(str, arguments)])

    result = run(source, output.parent, "--report", tmp_path / "v.jsonl")
    assert result.exit_code == 0, result.output
    assert "equal" in result.output
    (line,) = (tmp_path / "v.jsonl").read_text().splitlines()
    assert json.loads(line)["verdict"] == "equal"
    assert run(source / "x.dcm", output).exit_code == 0
    assert run(source, tmp_path / "nowhere").exit_code == 3
    assert run(source, source).exit_code == 2
    assert run(source).exit_code == 2
    assert run(source, output).exit_code == 2
    (tmp_path / "empty").mkdir()
    assert run(tmp_path / "empty", output.parent).exit_code == 3
    changed(output, lambda ds: setattr(ds, "PatientName", "OTHER"))
    result = run(source, output.parent)
    assert result.exit_code == 1
    assert "(0010,0010)" in result.output
    assert "OTHER" not in result.output
    assert "SECRET" not in result.output


def test_names_that_are_no_utf_8_are_reported(tmp_path):
    finding = Finding(os.fsdecode(b"\xff\n.dcm"), "", "missing")
    assert json.loads(finding.as_json())["source"] == os.fsdecode(b"\xff\n.dcm")
    assert "\n" not in replace(finding).as_json()


def test_a_jpeg_kept_bit_for_bit_is_compared_bit_for_bit(tmp_path):
    source = Path(get_testdata_file("SC_rgb_small_odd_jpeg.dcm"))
    (record,) = transcode(source, tmp_path / "out", "jpegxl-jpeg")
    if record.status != "encoded":
        pytest.skip(record.message)
    assert one(source, tmp_path / "out").verdict == "equal"
    other = tmp_path / "other.dcm"
    ds = dcmread(source)
    jpeg = next(_fragments(source))
    # A comment changes no sample.
    from pydicom.encaps import encapsulate

    ds.PixelData = encapsulate([jpeg[:2] + b"\xff\xfe\0\x04ab" + jpeg[2:]])
    ds.save_as(other)
    assert one(other, tmp_path / "out" / source.name).verdict == "differs"
    assert UID(ds.file_meta.TransferSyntaxUID).is_encapsulated
