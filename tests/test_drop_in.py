"""`install`: pydicom's own functions with these encoders; `uninstall`: pydicom as it was."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from pydicom import dcmread
from pydicom._uid_dict import UID_dictionary
from pydicom.pixels import get_encoder
from pydicom.pixels.encoders import base
from pydicom.uid import JPEG2000, UID, HTJ2KLossless, JPEG2000Lossless, JPEGLSNearLossless, RLELossless

import gpuenc
from gpuenc.syntaxes import TABLE
from tests import made
from tests.archive import oracle

REGISTRY = base._PIXEL_DATA_ENCODERS
GREY = made.noise((3, 32, 24), "u2", 12)
LOSSLESS = [
    syntax for syntax in TABLE if syntax.encapsulated and syntax.loss == "never" and syntax.name != "jpegxl-jpeg"
]


@pytest.fixture
def installed():
    gpuenc.install()
    yield
    gpuenc.uninstall()


def read(image=None):
    return dcmread(BytesIO((image or made.of(GREY, stored=12)).file()))


def snapshot():
    return [(uid, id(entry), id(entry[0])) for uid, entry in REGISTRY.items()], list(UID_dictionary.items())


def test_everything_is_put_back():
    before = snapshot()
    gpuenc.uninstall()  # nothing to do
    assert snapshot() == before
    for _ in range(2):
        gpuenc.install()
        gpuenc.install()
        for syntax in TABLE:
            if syntax.encapsulated:
                assert get_encoder(UID(syntax.uid)) is gpuenc.get_encoder(syntax.uid)
        gpuenc.uninstall()
        assert snapshot() == before
    with pytest.raises(NotImplementedError):
        get_encoder(HTJ2KLossless)
    gpuenc.uninstall()
    assert snapshot() == before


def test_encoders_of_others_survive():
    before, theirs, original = snapshot(), gpuenc.Encoder(HTJ2KLossless), REGISTRY[RLELossless]
    gpuenc.install()
    entries = dict.fromkeys((RLELossless, HTJ2KLossless, UID("1.2.3.4")), (theirs, "theirs"))
    try:
        REGISTRY.update(entries)
        gpuenc.uninstall()
        for uid, entry in entries.items():
            assert REGISTRY[uid] is entry
    finally:
        gpuenc.uninstall()
        for uid in (HTJ2KLossless, UID("1.2.3.4")):
            del REGISTRY[uid]
        REGISTRY[RLELossless] = original
    assert snapshot() == before


@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda syntax: syntax.name)
def test_compress(syntax, installed, tmp_path):
    ds = read()
    ds.compress(syntax.uid)
    assert ds.file_meta.TransferSyntaxUID == syntax.uid
    assert ds.SOPInstanceUID != made.INSTANCE  # pydicom 3.0's default, for lossless too
    ds.save_as(tmp_path / "x.dcm")
    got = oracle.samples(oracle.read(tmp_path / "x.dcm"))
    np.testing.assert_array_equal(got.reshape(GREY.shape), GREY)


def test_our_encoder_is_the_one_that_works(installed, monkeypatch):
    seen = []
    right = gpuenc.Encoder.iter_encode

    def watched(self, *args, **options):
        seen.append(self.UID)
        return right(self, *args, **options)

    monkeypatch.setattr(gpuenc.Encoder, "iter_encode", watched)
    read().compress(RLELossless)
    assert seen == [RLELossless]


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL"])
@pytest.mark.parametrize(
    "name", ["rle", "htj2k-lossless", "jpeg2000-lossless", "jpeg-lossless-sv1", "jpeg-ls-lossless"]
)
def test_colour_is_what_the_dataset_goes_on_to_say(photometric, name, installed):
    """pydicom leaves Photometric Interpretation alone, so no colour transform may be made."""
    samples = made.noise((1, 32, 24, 3), "u1", seed=3)
    ds = read(made.of(samples, photometric=photometric))
    ds.compress(gpuenc.get_encoder(name).UID)
    assert ds.PhotometricInterpretation == photometric
    np.testing.assert_array_equal(oracle.samples(ds), samples)
    again = dcmread(BytesIO(saved(ds)))
    np.testing.assert_array_equal(oracle.samples(again), samples)


def saved(ds):
    buffer = BytesIO()
    ds.save_as(buffer)
    return buffer.getvalue()


def test_subsampled_colour_is_refused_rather_than_mislabelled(installed):
    ds = read(made.ybr_422(made.noise((1, 8, 4, 4), "u1")))
    before = saved(ds)
    with pytest.raises(ValueError, match="YBR_FULL_422"):
        ds.compress(HTJ2KLossless)
    assert saved(ds) == before


def test_keyword_arguments_of_pydicom(installed):
    ds = read()
    ds.compress(RLELossless, encapsulate_ext=True, generate_instance_uid=False)
    assert ds.SOPInstanceUID == made.INSTANCE
    assert len(ds.ExtendedOffsetTable) == len(ds.ExtendedOffsetTableLengths) == 24
    np.testing.assert_array_equal(oracle.samples(ds).reshape(GREY.shape), GREY)

    ds = read()
    ds.compress(JPEGLSNearLossless, jls_error=3)
    difference = np.abs(oracle.samples(ds).reshape(GREY.shape).astype(int) - GREY)
    assert 0 < difference.max() <= 3

    smooth = (np.add.outer(np.arange(64), np.arange(64)) * 30).astype("u2")[None]
    sizes = []
    for ratio in (5, 20):
        ds = read(made.of(smooth + made.noise((1, 64, 64), "u2", 6), stored=16))
        ds.compress(JPEG2000, j2k_cr=[ratio])
        sizes.append(len(ds.PixelData))
        assert len(ds.PixelData) < 64 * 64 * 2 / ratio * 1.2 + 100
    assert sizes[1] < sizes[0]
    ds = read(made.of(smooth))
    ds.compress(JPEG2000, j2k_psnr=[60])
    assert np.abs(oracle.samples(ds).reshape(64, 64).astype(int) - smooth[0]).max() < 1000
    with pytest.raises(RuntimeError):
        read().compress(JPEG2000)
    with pytest.raises((ValueError, RuntimeError)):
        read().compress(JPEG2000, j2k_cr=[5], j2k_psnr=[40])


def test_array_and_plugin(installed):
    other = made.noise(GREY.shape, "u2", 12, seed=9)
    ds = read()
    ds.compress(RLELossless, other, encoding_plugin="pylibjpeg")
    np.testing.assert_array_equal(oracle.samples(ds).reshape(GREY.shape), other)
    ds = read()
    ds.compress(JPEG2000Lossless, other, encoding_plugin="imagecodecs")
    np.testing.assert_array_equal(oracle.samples(ds).reshape(GREY.shape), other)
    with pytest.raises(ValueError, match="nobody"):
        read().compress(RLELossless, encoding_plugin="nobody")


def test_compressed_sources_go_as_pydicom_says(installed):
    ds = read()
    ds.compress(RLELossless)
    with pytest.raises(ValueError, match="uncompressed"):
        ds.compress(HTJ2KLossless)
    np.testing.assert_array_equal(ds.pixel_array, GREY)


@pytest.mark.parametrize("with_array", [False, True])
def test_xyb_is_refused_rather_than_called_rgb(installed, with_array):
    samples = made.noise((1, 32, 24, 3), "u1", seed=3)
    ds = read(made.of(samples, photometric="RGB"))
    before = saved(ds)
    with pytest.raises(ValueError, match=r"it would be XYB.*gpuenc\.compress"):
        ds.compress("1.2.840.10008.1.2.4.112", samples[0] if with_array else None, quality=90)
    assert saved(ds) == before
    gpuenc.compress(ds, "jpegxl", quality=90)
    assert ds.PhotometricInterpretation == "XYB"


@pytest.mark.parametrize("uid", [RLELossless, HTJ2KLossless])
def test_embedded_overlays_are_refused_rather_than_lost(installed, uid):
    samples, plane = made.noise((1, 8, 8), "u2", 12), made.noise((1, 8, 8), "u1", 1)
    ds = read(made.embedded_overlays(samples, {14: plane}))
    before = saved(ds)
    with pytest.raises(ValueError, match=r"overlays embedded.*gpuenc\.compress"):
        ds.compress(uid)
    assert saved(ds) == before
    gpuenc.compress(ds, uid)
    assert (0x6000, 0x3000) in ds
