"""A few rounds of the campaign, and that it finds what it is there to find."""

from __future__ import annotations

import random
import sys

import pytest

from gpuenc.dicom.atomic import TEMPORARY_SUFFIX
from tests.faults import campaign as campaign_module
from tests.faults import jobs, sources
from tests.faults.campaign import Campaign

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="children of processes are read from /proc")


def test_two_rounds(tmp_path, monkeypatch):
    monkeypatch.setattr(campaign_module, "FAULTS", ("worker", "group"))
    monkeypatch.setattr(campaign_module, "WAYS", ("workers",))
    campaign = Campaign(tmp_path, random.Random(5), files=10)
    assert campaign.round(1) + campaign.round(2) == []
    assert campaign.looked >= 16
    assert campaign.runs > 2


def test_what_the_eyes_see(tmp_path):
    """A partial file under a final name, however short it is there; temporary files and journals are none."""
    for name in ("a/whole", "a/partial", f"a/.x{TEMPORARY_SUFFIX}", ".gpuenc/journal.sqlite"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"whole")
    allowed = {name: {digest} for name, digest in sources.tree(tmp_path).items()}
    with jobs.watched(tmp_path, allowed) as eyes:
        (tmp_path / "a" / "partial").write_bytes(b"who")
        while not eyes.wrong:
            pass
        (tmp_path / "a" / "partial").write_bytes(b"whole")
    assert set(eyes.wrong) == {"a/partial"}


def test_what_is_compared(tmp_path):
    found = Campaign.__new__(Campaign)
    found._wrong = []
    found._compare("outputs", {"a": "1", "b": "2", "c": "3"}, {"a": "1", "b": "9", "d": "4"})
    assert found._wrong == ["outputs: b is different", "outputs: c is too many", "outputs: d is missing"]
