"""Bad input: the file's own outcome, in words, and nothing else lost."""

from __future__ import annotations

import imagecodecs
import numpy as np
import pytest

from gpuenc.cpu import rle
from tests import made
from tests.archive import damaged, oracle
from tests.archive.watcher import transcode


def test_every_damaged_file_has_its_outcome(tmp_path):
    (tmp_path / "in").mkdir()
    expected = damaged.write_all(tmp_path / "in")
    records = transcode(tmp_path / "in", tmp_path / "out", "jpegxl-lossless", jobs=3)
    got = {record.source.rpartition("/")[2]: (record.status, record.reason) for record in records}
    own = {"garbage in .4.110.dcm", "nothing in .4.110.dcm"}  # they have the target's syntax, and are left alone
    assert {name: got[name] for name in expected if name not in own} == {
        name: outcome for name, outcome in expected.items() if name not in own
    }
    for record in records:
        name = record.source.rpartition("/")[2]
        output = tmp_path / "out" / name
        assert output.exists() == (record.status in ("encoded", "copied"))
        if record.status == "copied":
            assert output.read_bytes() == (tmp_path / "in" / name).read_bytes()
        if record.reason:
            assert record.message
        assert "\n" not in record.message
        assert "SECRET" not in record.as_json()
    ds = oracle.read(tmp_path / "out" / "good.dcm")
    np.testing.assert_array_equal(oracle.samples(ds).reshape(damaged.SAMPLES.shape), damaged.SAMPLES)
    assert not [path for path in (tmp_path / "out").rglob("*") if path.name not in expected]


SAMPLES = made.noise((1, 96, 96), "u2", 12, seed=9)
STREAMS = {
    ".5": rle.encode(SAMPLES[0]),
    ".4.80": imagecodecs.jpegls_encode(SAMPLES[0], bitspersample=12),
    ".4.90": imagecodecs.jpeg2k_encode(SAMPLES[0], level=0, codecformat="j2k", reversible=True, bitspersample=12),
    ".4.201": imagecodecs.htj2k_encode(SAMPLES[0], reversible=True, bitspersample=12),
    ".4.110": imagecodecs.jpegxl_encode(SAMPLES[0], lossless=True, bitspersample=16),
}


@pytest.mark.parametrize("syntax", STREAMS)
@pytest.mark.parametrize("piece", [1, 40, 400])
@pytest.mark.parametrize("place", [0.3, 0.6, 0.9])
def test_codestreams_with_a_hole_are_not_made_up(syntax, piece, place, tmp_path):
    """Some decoders fill what is missing with samples of their own; JPEG-LS by pylibjpeg-libjpeg is one."""
    stream = bytes(STREAMS[syntax])
    at = int(len(stream) * place)
    path = damaged.coded(stream[:at] + stream[at + piece :], syntax, 96, 96).write(tmp_path / "in.dcm")
    (record,) = transcode(path, tmp_path / "out", "explicit-vr-little-endian")
    assert (record.status, record.reason) == ("failed", "decode-failed")
    whole = damaged.coded(stream, syntax, 96, 96).write(tmp_path / "whole.dcm")
    (record,) = transcode(whole, tmp_path / "out", "explicit-vr-little-endian")
    ds = oracle.read(tmp_path / "out" / "whole.dcm")
    np.testing.assert_array_equal(oracle.samples(ds).reshape(SAMPLES.shape), SAMPLES)
