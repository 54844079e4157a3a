"""The transfer syntax that a file states, against pydicom's reader."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom.data import get_testdata_file
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info

from gpuenc.dicom.stated import STATED_BYTES, stated_syntax
from tests import made

IMAGE = made.of(made.noise((1, 8, 8), "u1")).file()


def by_pydicom(path):
    try:
        return str(read_file_meta_info(path).get("TransferSyntaxUID", ""))
    except (InvalidDicomError, OSError):
        return ""


def test_files_of_pydicom():
    paths = [path for path in Path(get_testdata_file("CT_small.dcm")).parent.rglob("*") if path.is_file()]
    found = {path: stated_syntax(path.read_bytes()[:STATED_BYTES]) for path in paths}
    assert len(set(found.values())) > 10
    assert found == {path: by_pydicom(path) for path in paths}


@pytest.mark.parametrize("end", [0, 100, 131, 132, 140, 150, 200, IMAGE.index(made.EXPLICIT.encode()) + 15])
def test_beginnings_that_do_not_say(end):
    assert stated_syntax(IMAGE) == made.EXPLICIT
    assert stated_syntax(IMAGE[:end]) == ""


def test_what_is_no_uid():
    uid = made.EXPLICIT.encode()
    assert uid in IMAGE
    assert stated_syntax(IMAGE.replace(uid, b"\x1b[31mSMITH^JOHN!!"[: len(uid)].ljust(len(uid), b"!"), 1)) == ""
