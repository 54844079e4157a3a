"""What a job was asked for, in the words in which it was asked."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from gpuenc.archive.request import Job, asked_otherwise
from gpuenc.cli.jobs import target_of
from gpuenc.syntaxes import find
from gpuenc.targets import target
from tests import made
from tests.test_cli import gpuenc, transcode

JOB = Job((Path("/in"),), Path("/out"), target(find("rle")))


def said(one, other):
    found = asked_otherwise(one.about(), other.about())
    assert "True" not in found
    assert "False" not in found
    assert "None" not in found
    return found.removeprefix("the job to resume was asked for ").partition(": go on with that")[0]


def test_nothing_is_said_of_the_same():
    assert asked_otherwise(JOB.about(), replace(JOB, overwrite=True, jobs=5).about()) == ""


def test_two_manifests():
    assert said(replace(JOB, manifest="01"), replace(JOB, manifest="23")) == "what another manifest says"


@pytest.mark.parametrize("told", ["", "e", "jpeg2000 psnr=(e,-)", "jpeg2000 psnr=1" + "0" * 400, "lossless=True"])
def test_a_journal_that_was_written_to(told):
    """What it says of its target may be anything, and is shown as it can be."""
    assert asked_otherwise(JOB.about() | {"target": told}, JOB.about()).startswith(
        "the job to resume was asked for --to "
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"extended_offsets": True}, "without --extended-offsets, not with it"),
        ({"in_place": True}, "without --in-place, not with it"),
        ({"keep_lossy": False}, "--lossy-sources keep, not encode"),
        ({"whole_cells": True}, "--out-of-range keep, not whole-cells"),
        ({"keep_unsupported": True}, "--unsupported fail, not keep"),
        ({"plugin": "pyjpegls"}, "no --plugin, not pyjpegls"),
        ({"verify": "none"}, "--verify all, not none"),
        ({"verify_share": 0.01}, "--verify all, not sample=1.000000%"),
        ({"manifest": "0123"}, "no --manifest"),
        ({"sources": (Path("/in"), Path("/more"))}, "sources /in, not /in, /more"),
        ({"destination": Path("/other")}, "output /out, not /other"),
        ({"target": target(find("jpeg2000"), psnrs=(40.0, 50.5))}, "--to rle, not --to jpeg2000 --psnr 40 50.5"),
    ],
)
def test_each_difference_has_its_words(options, words):
    assert said(JOB, replace(JOB, **options)) == words


@pytest.mark.parametrize(
    "typed",
    [
        "--to rle",
        "--to htj2k --lossless",
        "--to htj2k --psnr 47.5",
        "--to jpeg2000 --ratio 12",
        "--to jpeg-ls --near 2",
        "--to jpegxl --quality 90",
        "--to jpegxl --lossless",
        "--to htj2k-lossless",
    ],
)
def test_what_is_said_of_a_target_is_what_can_be_typed(typed):
    words = shlex.split(typed)
    options = {name[2:]: value for name, value in zip(words[::2], [*words[1::2], ""], strict=False)}
    asked = target_of(
        options["to"],
        *(float(options[name]) if name in options else None for name in ("quality", "psnr", "ratio")),
        int(options.get("near", 0)),
        "lossless" in options,
    )
    other = target(find("jpeg-lossless"))
    assert said(replace(JOB, target=asked), replace(JOB, target=other)) == f"{typed}, not --to jpeg-lossless"


def test_on_the_command_line(tmp_path):
    (tmp_path / "in").mkdir()
    made.of(made.noise((1, 8, 8), "u1")).write(tmp_path / "in" / "a.dcm")
    assert transcode(tmp_path / "in", "-o", tmp_path / "out", "--lossless", to="htj2k")[0] == 0
    code, out, err = transcode(tmp_path / "in", "-o", tmp_path / "out", "--resume", to="htj2k-lossless")
    assert (code, out) == (2, "")
    assert err == (
        "gpuenc: the job to resume was asked for --to htj2k --lossless, not --to htj2k-lossless: go on with that, or "
        "choose another output\n"
    )


def test_paths_to_verify(tmp_path):
    for name in ("one", "two", "out"):
        (tmp_path / name).mkdir()
    one, two, out = (str(tmp_path / name) for name in ("one", "two", "out"))
    code, _, err = gpuenc("verify", one, two, out)
    assert code == 2
    assert "3 paths were given: name one source and its output. A job of several sources" in err
    assert f"`gpuenc verify {one} {out}/one`" in err
    code, _, err = gpuenc("verify", one)
    assert (code, "with --record REPORT" in err) == (2, True)
    code, _, err = gpuenc("verify", one, out, "--record", tmp_path / "r.jsonl")
    assert (code, "with --record, name the output alone" in err) == (2, True)
