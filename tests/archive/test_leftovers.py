"""Temporary files of a run that was killed: its own are removed, and nobody else's, on a cluster too."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpuenc.archive.leftovers import new_token, remove_leftovers, token_of_worker
from gpuenc.archive.request import Job
from gpuenc.archive.scan import Item
from gpuenc.dicom.atomic import temporaries_of
from gpuenc.syntaxes import find
from gpuenc.targets import target

PLACE = "größe.dcm"


def left(folder, tokens, name=PLACE):
    """Leave what writers with these tokens leave; return the paths."""
    found = [path for token in tokens for path in temporaries_of(str(folder / name), token)]
    for path in found:
        Path(path).touch()
    return {Path(path) for path in found}


@pytest.mark.parametrize("cluster", [False, True])
def test_what_the_run_left_goes_and_nothing_else(tmp_path, cluster):
    run, other = new_token(cluster=cluster), new_token(cluster=True)
    job = Job((tmp_path,), tmp_path, target(find("rle")))
    mine = left(tmp_path, [run, *(token_of_worker(run, number) for number in (1, 2, 300) if cluster)])
    others = left(tmp_path, [other, token_of_worker(other, 1), new_token(cluster=False)])
    others |= left(tmp_path, [run, token_of_worker(run, 1)], "another.dcm")
    (tmp_path / PLACE).touch()
    remove_leftovers([Item(tmp_path / "in", tmp_path / PLACE), Item("in", tmp_path / "absent" / "x")], job, run)
    assert mine
    assert set(tmp_path.iterdir()) == others | {tmp_path / PLACE}


def test_no_two_workers_write_to_the_same_temporary_file():
    run = new_token(cluster=True)
    tokens = [run, *(token_of_worker(run, number) for number in range(1, 5000))]
    assert len(set(tokens)) == len(tokens)
    assert {len(token) for token in tokens} == {12}
