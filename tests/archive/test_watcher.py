"""Several watchers as one."""

from __future__ import annotations

import pytest

from gpuenc.archive.earlier import Earlier, columns_of
from gpuenc.archive.report import Record, Summary
from gpuenc.archive.watcher import Several
from tests.archive.watcher import Records


class Workers(Records):
    def workers(self, states):
        self.states = list(states)


def test_all_are_told():
    plain, more = Records(), Workers()
    several = Several(plain, more)
    record, summary = Record("a", "copied"), Summary()
    several.start(3, 4)
    several.planned(5, 6)
    several.workers(["worker 1: idle"])
    several.earlier(Earlier(1, "a", 0, *columns_of(record)))
    several.done(record)
    several.finish(summary)
    for watcher in (plain, more):
        assert (watcher.files, watcher.bytes_total, watcher.records) == (5, 6, [record, record])
        assert watcher.summary is summary
    assert more.states == ["worker 1: idle"]


def test_all_are_told_of_the_end_whatever_one_raises():
    class Broken(Records):
        def finish(self, summary):
            super().finish(summary)
            raise ZeroDivisionError

    watchers = [Broken(), Records(), Broken()]
    with pytest.raises(ZeroDivisionError):
        Several(*watchers).finish(Summary())
    assert all(watcher.summary for watcher in watchers)
    with pytest.raises(AttributeError):
        Several(object()).done(Record("a", "copied"))  # type: ignore[arg-type]
