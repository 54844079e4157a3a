"""Temporary files of writers with the same token: nobody's is taken for another's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gpuenc.dicom.atomic import AtomicFile, temporaries_of
from gpuenc.errors import DestinationError

TOKEN = "0123456789ab"


@pytest.fixture
def places(tmp_path):
    """Two paths to the same place."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").symlink_to("a")
    return tmp_path / "a" / "x", tmp_path / "b" / "x"


def complete(place, data, **options):
    found = []
    with AtomicFile(place, defer=found.append, token=TOKEN, **options) as file:
        file.file.write(data)
        file.publish()
    return found[0]


def test_two_paths_to_the_same_place(places):
    first, second = complete(places[0], b"first"), complete(places[1], b"second")
    for unnamed, place in ((first, places[0]), (second, places[1])):
        assert unnamed.temporary in temporaries_of(os.fspath(place), TOKEN)
    first.name()
    with pytest.raises(DestinationError) as caught:
        second.name()
    assert caught.value.code == "destination-exists"
    second.remove()
    assert places[0].read_bytes() == b"first"
    assert [path.name for path in places[0].parent.iterdir()] == ["x"]


def test_a_folder_that_is_not_there_is_named(places):
    folder = places[0].parent
    with pytest.raises(DestinationError) as begun:
        AtomicFile(folder / "no" / "deeper" / "x")
    unnamed = complete(places[0], b"data")
    folder.rename(folder.with_name("moved"))
    with pytest.raises(DestinationError) as ended:
        unnamed.name()
    for caught, missing in ((begun, folder / "no" / "deeper"), (ended, folder)):
        said = f"the destination cannot be written: there is no folder '{missing}'"
        assert (caught.value.code, str(caught.value)) == ("destination-unwritable", said)


def test_one_is_written_while_another_is(places):
    with AtomicFile(places[0], token=TOKEN) as one, AtomicFile(places[1], token=TOKEN) as other:
        other.file.write(b"other")
        one.file.write(b"one")
        with other.rewritten(), one.rewritten():
            other.file.write(b"other, again")
            one.file.write(b"one, again")
        other.publish()
        with pytest.raises(DestinationError):
            one.publish()
    assert places[0].read_bytes() == b"other, again"
    assert [path.name for path in places[0].parent.iterdir()] == ["x"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_took_its_place_gets_no_name_and_stays(tmp_path, overwrite):
    unnamed = complete(tmp_path / "x", b"mine", overwrite=overwrite)
    (tmp_path / "new").write_bytes(b"not mine")  # while the first one is there: inodes are used again
    os.replace(tmp_path / "new", unnamed.temporary)
    with pytest.raises(DestinationError) as caught:
        unnamed.name()
    assert caught.value.code == "destination-unwritable"
    unnamed.remove()
    assert Path(unnamed.temporary).read_bytes() == b"not mine"
    assert not (tmp_path / "x").exists()
