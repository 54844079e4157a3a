"""Pages made of committed results: nothing is typed, what is missing is said, what is missed is called so."""

from __future__ import annotations

import json
import re

import pytest

from benchmarks import peers, readme, speed, targets
from gpuenc.bench import phantoms
from gpuenc.bench.cases import Case, frames_of
from gpuenc.bench.measure import figure

MACHINE = {"cpu": "Nonesuch 9", "cores": 2, "gpus": []}
GPU_MACHINE = MACHINE | {"gpus": [{"name": "NVIDIA Nonesuch", "driver": "1", "memory": ""}]}


def of(median, spread=0.1):
    return figure([median * (1 - spread / 2), median, median * (1 + spread / 2)]).as_json()


def results(form, machine=MACHINE, **parts):
    noise = {"noisy": False, "figures": 1, "noisy_figures": 0, "limit": 0.2}
    return {
        "format": form, "machine": machine, "measured_at": "2026-01-02T00:00:00+00:00", "commit": "abc", "noise": noise,
        "settings": {"quick": False, "rounds": 5, "files": 400}, "seconds": 300.0,
    } | parts  # fmt: skip


def lines_of(text, what):
    found = [line for line in text.splitlines() if what in line]
    assert found
    return found


def test_the_table_of_targets_is_that_of_committed_results():
    found = readme.TARGETS.search(readme.PAGE.read_text(encoding="utf-8"))
    assert found
    assert found[0] == readme.table(), "python -m benchmarks --readme"
    found = readme.FIGURES.search(readme.PAGE.read_text(encoding="utf-8"))
    assert found
    assert found[0] == readme.figures(), "python -m benchmarks --readme"


def test_without_results_everything_is_open(tmp_path):
    table = readme.table(tmp_path)
    assert table.count(targets.OPEN) == len(targets.TARGETS)
    text = readme.section(tmp_path)
    assert "no run of it is committed yet" in text
    assert f"On a GPU: {targets.OPEN}." in text


def test_met_missed_and_noisy_are_told_apart(monkeypatch):
    monkeypatch.setattr(targets, "PROFILES", {"files-none-workers": "why it is slow"})
    row = {"status": "measured", "syntax": "htj2k-lossless", "by": "gpuenc, threads, --verify none", "files_s": of(10)}
    workers = row | {"by": "gpuenc, 2 worker processes, --verify none", "share_of_bare": of(0.9, 0.5)}
    document = results(targets.SPEED, files=[row | {"share_of_bare": of(0.5), "times_pydicom": of(20)}, workers])
    table = targets.table({targets.SPEED: [document]})
    [missed] = lines_of(table, "`--verify none`, threads of one process")
    assert "0.50 (0.47–0.53), **missed**" in missed
    assert targets.NO_PROFILE in missed
    [met] = lines_of(table, "`--verify none` ÷ pydicom's")
    assert "20.0 × (19.0–21.0), met" in met
    [noisy] = lines_of(table, "a worker process for each core ÷ the bare codec")[:1]
    assert ", met, noisy" in noisy
    assert "Nonesuch 9, 2 cores, 2026-01-02" in noisy


def test_profiles_belong_to_targets():
    assert set(targets.PROFILES) <= set(targets.TARGETS)


def test_every_committed_miss_has_its_profile():
    committed = {form: [one for _, one in found] for form, found in readme.committed().items()}
    quiet = [
        key
        for key, target in targets.TARGETS.items()
        for found in target.found(committed)
        if not target.met(found) and not found.noisy and key not in targets.PROFILES
    ]
    # Said in the table; a noisy figure is to be measured again before it is explained.
    table = readme.table()
    assert table.count(targets.NO_PROFILE) >= len(quiet)


def test_figures_of_a_gpu_are_found():
    shares = {"device_share": of(0.97), "host_share": of(0.5), "side": 512, "status": "measured", "syntax": "x"}
    document = results(
        targets.GPU, GPU_MACHINE, engine=[{"status": "absent", "why": "x"}, shares],
        transcode=[{"status": "measured", "peer": "NVIDIA's x", "gpuenc_times": of(7)}],
        kernels=[
            {"status": "measured", "batch": "prepare_16_16", "kernel": "prepare_16_16", "share_of_copy": 0.91},
            {"status": "measured", "batch": "rle 12 bits", "kernel": "all launches", "gb_s": of(12)},
        ],
    )  # fmt: skip
    table = targets.table({targets.GPU: [document]})
    for what, said in (
        ("frames on the GPU", "0.97 (0.92–1.02), met"), ("frames on the host", "0.50 (0.47–0.53), **missed**"),
        ("NVIDIA's converter", "7.00 × "), ("16-bit samples", "0.91, met"), ("RLE kernels", "**missed**"),
    ):  # fmt: skip
        assert said in lines_of(table, what)[0]
    assert "NVIDIA Nonesuch" in table
    assert targets.OPEN in lines_of(table, "Our HTJ2K")[0]


def test_what_jobs_cost_reaches_the_targets():
    def told(median):
        return {"median": median, "min": 0.9 * median, "max": 1.1 * median}

    document = results(
        targets.JOBS, planning={"names": {"files_s": told(9)}, "headers": {"files_s": told(2500)}},
        job={"100": {"cpu_us_per_file": told(1000)}, "10000": {"cpu_us_per_file": told(1050)}},
        resume_of_a_finished_job={"200000": {"wall_s": told(38)}},
    )  # fmt: skip
    table = targets.table({targets.JOBS: [document]})
    assert "2500 files/s (2250–2750), met" in lines_of(table, "Planning")[0]
    assert "1.05 (0.86–1.28), met" in lines_of(table, "of 10,000")[0]
    assert targets.OPEN in lines_of(table, "job of 200,000 ÷")[0]
    assert "38.0 s (34.2–41.8), **missed**" in lines_of(table, "Resuming")[0]


def test_rle_over_gdcm_is_the_inverse_of_what_results_have():
    document = results(targets.BENCH, ratios=[{"syntax": "rle", "plugin": "gdcm", "times": of(0.25)}])
    [found] = targets.TARGETS["rle-gdcm"].found({targets.BENCH: [document]})
    assert found.median == 4
    assert found.low < 4 < found.high


def test_peers_that_are_wrong_are_said_to_be(tmp_path):
    row = {
        "status": "measured", "case": "c", "syntax": "rle", "peer": "p", "version": "1.2", "on": "2 processes",
        "mb_s": of(5), "ratio": 2.0, "lossless": True, "label": True, "precision": 12, "precision_kept": True,
        "gpuenc_times": of(3), "gpuenc_unverified_times": of(4),
    }  # fmt: skip
    several = [
        row, row | {"peer": "q", "lossless": False}, row | {"peer": "r", "label": False},
        row | {"peer": "s", "precision": 16, "precision_kept": False},
        {"status": "absent", "peer": "t", "case": "c", "syntax": "rle", "why": "not here"},
    ]  # fmt: skip
    document = results(targets.BENCH, rows=[], peers=several)
    (tmp_path / "2026-01-02-nonesuch.json").write_text(json.dumps(document))
    text = readme.section(tmp_path)
    assert "| p (1.2) | 2 processes | 5.0 | 3.0 | 4.0 | 2.00 | lossless |" in text
    for name, fault in (("q", "**not lossless**"), ("r", "**wrong label**"), ("s", "precision **16**")):
        assert fault in lines_of(text, f"| {name} (1.2)")[0]
    assert "Not there: t (not here)." in text


def test_the_newest_of_each_machine_counts(tmp_path):
    for day, cores in (("2026-01-01", 1), ("2026-01-03", 3), ("2026-01-02", 2)):
        document = results(targets.BENCH, MACHINE | {"cores": cores}, rows=[])
        (tmp_path / f"{day}-same.json").write_text(json.dumps(document))
    (tmp_path / "2026-01-04-old.json").write_text('{"rows": "of another format"}')
    [(path, newest)] = readme.committed(tmp_path)[targets.BENCH]
    assert (path.name, newest["machine"]["cores"]) == ("2026-01-03-same.json", 3)


@pytest.fixture(scope="module")
def measured():
    """A run of the archive's benchmark over four small files."""
    with pytest.MonkeyPatch.context() as patch:
        made = frames_of(phantoms.ct(4, 64), 12, "small")
        patch.setattr(speed, "series", lambda count: Case("small", "synthetic", made[:4], "CT", True))
        patch.setattr(speed, "SYNTAXES", ("htj2k-lossless", "rle"))
        # Worker processes have tests of their own, and take a second to start.
        patch.setattr(speed, "transcode", lambda name, verify, workers=0: peers.transcode(name, verify))
        return speed.run(4, 2, ("encoder", "files", "peers"), lambda line: None)


def test_jobs_are_compared_with_codec_loop_and_peers(measured):
    assert [row["status"] for row in measured["encoder"]] == ["measured"] * 2
    by = {row["by"]: row for row in measured["files"]}
    assert len(by) == 6
    assert all(row["status"] == "measured" and row["files"] == 4 for row in by.values()), by
    for verify in ("none", "all"):
        row = by[f"gpuenc, threads, --verify {verify}"]
        assert row["share_of_bare"]["rounds"] == row["times_pydicom"]["rounds"] == 2
    ours = [row for row in measured["peers"] if row["by"].startswith("gpuenc")]
    assert len(ours) == 3
    others = {row["by"]: row for row in measured["peers"] if row["status"] == "measured" and row not in ours}
    assert {row["best_peer"] for row in ours} <= set(others)
    best = max(others.values(), key=lambda row: row["files_s"]["median"])
    assert ours[0]["best_peer"] == best["by"]


def test_figures_of_jobs_reach_the_pages(measured, tmp_path):
    path = speed.write(measured, tmp_path)
    text = readme.section(tmp_path)
    assert path.name in text
    assert re.search(r"\| `htj2k-lossless` \| gpuenc, threads, --verify all \| \d+ \| [\d.]+ \(", text)
    table = readme.table(tmp_path)
    assert targets.OPEN not in lines_of(table, "`--verify all`, threads of one process")[0]
    assert targets.OPEN in lines_of(table, "`import gpuenc`")[0]
    assert "gpuenc, threads, --verify all" in speed.said(measured)
