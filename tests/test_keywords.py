"""Options that nobody knows are refused by name; those of pydicom, of ours and of foreign plug-ins are not."""

from __future__ import annotations

import inspect
import sys
from types import ModuleType

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.pixels import as_pixel_options, pixel_array
from pydicom.pixels.encoders.base import EncodeOptions, RunnerOptions

import gpuenc
from gpuenc import datasets, encoder, keywords
from gpuenc.errors import InvalidOption
from gpuenc.pipelines import write_dicom
from tests.dicom.files import named

HT = "htj2k-lossless"
ARRAY = np.arange(30, dtype="u2").reshape(5, 6)


def refused(function, *arguments, name, near, **options):
    with pytest.raises(InvalidOption, match=rf"no option '{name}': did you mean '{near}'\?") as caught:
        function(*arguments, **options)
    assert caught.value.code == "invalid-option"


def test_write_dicom(tmp_path):
    template, out = dcmread(named("CT_small.dcm")), tmp_path / "out.dcm"
    pixels = pixel_array(template)
    refused(gpuenc.write_dicom, template, pixels, HT, out, rescal=(2, 0), verfy=True, name="rescal", near="rescale")
    refused(gpuenc.write_dicom, template, pixels, HT, out, rescale="template", verfy=True, name="verfy", near="verify")
    refused(
        gpuenc.write_dicom, template, pixels, HT, out, rescale="template", photometric_interpretation="MONOCHROME1",
        name="photometric_interpretation", near="photometric",
    )  # fmt: skip
    with pytest.raises(InvalidOption, match=r"no option 'frames': .*series_number"):
        gpuenc.write_dicom(template, pixels, HT, out, rescale="template", frames=[1])
    assert not out.exists()


def test_compress_leaves_the_dataset_alone():
    ds = dcmread(named("CT_small.dcm"))
    before = ds.to_json()
    refused(gpuenc.compress, ds, HT, verfy=True, devise="gpu", name="verfy", near="verify")
    refused(gpuenc.compress, ds, HT, devise="gpu", name="devise", near="device")
    assert ds.to_json() == before
    gpuenc.compress(ds, HT, **as_pixel_options(dcmread(named("CT_small.dcm"))))


@pytest.mark.parametrize("label", ["", "imagecodecs"])
def test_encoders(label):
    found = gpuenc.get_encoder(HT)
    asked = {"encoding_plugin": label, "bits_store": 12}
    refused(found.encode, ARRAY, index=0, **asked, name="bits_store", near="bits_stored")
    refused(lambda **options: list(found.iter_encode(ARRAY, **options)), **asked, name="bits_store", near="bits_stored")


def test_what_pydicom_knows_is_known():
    names = {*EncodeOptions.__annotations__, *RunnerOptions.__annotations__}
    names |= set(as_pixel_options(dcmread(named("SC_rgb.dcm"))))
    assert names <= keywords.CODEC | keywords.PIXELS
    ds = dcmread(named("SC_rgb.dcm"))
    options = as_pixel_options(ds)
    gpuenc.get_encoder("rle").encode(ds.PixelData, transfer_syntax_uid=ds.file_meta.TransferSyntaxUID, **options)
    gpuenc.get_encoder("jpeg2000-lossless").encode(ds.pixel_array, use_mct=False, encoding_plugin="imagecodecs")


def test_the_names_that_may_be_meant_are_those_of_the_functions():
    for own, function in (
        (datasets._OWN, gpuenc.compress),
        (write_dicom._OWN, gpuenc.write_dicom),
        (encoder._OWN, encoder.Encoder.encode),
    ):
        assert set(own) <= set(inspect.signature(function).parameters)
    taken = {"ds", "transfer_syntax_uid", "options"}
    assert set(inspect.signature(gpuenc.compress).parameters) - taken == datasets._OWN
    taken = {"template", "array", "target", "out", "options"}
    assert set(inspect.signature(gpuenc.write_dicom).parameters) - taken == write_dicom._OWN


def test_a_foreign_plugin_is_given_options_of_its_own(monkeypatch):
    got = []

    def encode_frame(src, runner):
        got.append(runner.get_option("effort_of_mine"))
        return b"\0" * 64 + b"abcd"

    module = ModuleType("foreign_codec")
    module.ENCODER_DEPENDENCIES = {"1.2.840.10008.1.2.5": ()}
    module.is_available = lambda uid: True
    module.encode_frame = encode_frame
    monkeypatch.setitem(sys.modules, "foreign_codec", module)
    found = encoder.Encoder(gpuenc.get_encoder("rle").UID)
    found.add_plugin("imagecodecs", ("gpuenc.cpu.codecs", "encode_frame"))
    found.add_plugin("foreign", ("foreign_codec", "encode_frame"))
    found.encode(ARRAY, effort_of_mine=7)  # the first that is tried has no use for it
    with pytest.raises(RuntimeError):
        found.encode(ARRAY, effort_of_mine=7, encoding_plugin="foreign")  # what it returns is no RLE
    assert got == [7]
    with pytest.raises(InvalidOption, match="no option 'effort_of_mine'"):
        found.encode(ARRAY, effort_of_mine=7, encoding_plugin="imagecodecs")
