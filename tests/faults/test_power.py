"""A power cut or two, and that what they would show is seen."""

from __future__ import annotations

import json
import random
import sqlite3
from types import SimpleNamespace

import pytest

from tests.faults import power, sources
from tests.faults.power import PowerCuts


@pytest.mark.skipif(bool(power.why_not()), reason=f"no power cuts here: {power.why_not()}")
def test_a_job_goes_on_where_the_power_was_cut(tmp_path, monkeypatch):
    monkeypatch.setattr(power, "DISKS", {"btrfs": power.DISKS["btrfs"]})
    monkeypatch.setattr(power, "WAYS", ("in-place",))
    cuts = PowerCuts(tmp_path, random.Random(1), files=10)
    assert [wrong for found in cuts.rounds(2) for wrong in found] == []


@pytest.fixture
def cuts(tmp_path):
    """What an archive of two files, one of which is encoded, has become on a disk."""
    found = SimpleNamespace(folder=tmp_path, _disk=tmp_path / "disk", found_outputs=0, found_done=0)
    found._originals, found._expected = {"a": "", "b": ""}, {}
    for name in "ab":
        (tmp_path / "x").write_bytes(b"original " + name.encode())
        found._originals[name] = sources.tree(tmp_path)["x"]
        (tmp_path / "x").write_bytes(b"output " + name.encode())
        found._expected[name] = sources.tree(tmp_path)["x"]
    (tmp_path / "x").unlink()
    found._backup = lambda: tmp_path / "disk" / "backup"
    return found


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def test_a_partial_output_is_seen(cuts):
    write(cuts._disk / "out", a=b"output a", b=b"out")
    assert PowerCuts._look_at_names(cuts, "threads") == ["not whole: b"]


def test_temporary_files_are_no_outputs(cuts):
    write(cuts._disk / "out", **{".b.0123456789ab.gpuenc-tmp": b"out"})
    assert PowerCuts._look_at_names(cuts, "threads") == []


@pytest.mark.parametrize(
    ("there", "kept", "said"),
    [
        ({"a": b"original a", "b": b"original b"}, {}, []),
        ({"a": b"output a", "b": b"original b"}, {"a": b"original a"}, []),
        ({"a": b"output a", "b": b"original b"}, {}, ["the original is lost: a"]),
        ({"a": b"output a", "b": b"original b"}, {"a": b""}, ["the original is lost: a"]),
        ({"b": b"original b"}, {}, ["the original is lost: a"]),
        ({"a": b"", "b": b"original b"}, {"a": b"original a"}, ["neither original nor output: a"]),
    ],
)
def test_a_lost_original_is_seen(cuts, there, kept, said):
    write(cuts._disk / "in", **there)
    write(cuts._disk / "backup", **kept)
    assert PowerCuts._look_at_names(cuts, "in-place") == said


def test_what_is_done_and_not_there_is_seen(cuts):
    write(cuts._disk / "out", a=b"output a")
    journal = cuts._disk / "journal.sqlite"
    db = sqlite3.connect(journal)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("CREATE TABLE files (place BLOB, state INTEGER, record TEXT)")
    for name in "ab":
        place = str(cuts._disk / "out" / name).encode()
        db.execute("INSERT INTO files VALUES (?, 2, ?)", (place, json.dumps({"status": "encoded"})))
    db.commit()  # in the log alone, as long as this is open
    assert PowerCuts._look_at_done(cuts, journal) == ["done, and not there: b"]
    db.close()
