"""The whole of it: files, results as JSON, charts, and where a GPU pays."""

from __future__ import annotations

import json
import shutil

import pytest
from pydicom.data import get_testdata_file
from typer.testing import CliRunner

from gpuenc.bench import cases, charts, phantoms, run, stages, sweeps
from gpuenc.bench.cases import Absent, Case, frames_of
from gpuenc.bench.rows import Settings, candidates
from gpuenc.cli import app
from gpuenc.errors import InvalidOption
from gpuenc.syntaxes import find
from gpuenc.targets import target

# Of pylibjpeg's codestreams, which pydicom reads nevertheless.
pytestmark = pytest.mark.filterwarnings("ignore:The decoded RLE segment")
PARTS = {"cases", "absent", "rows", "ratios", "transcode", "workers", "sweep", "crossovers", "stages"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of two images, a text, and an image that is cut off."""
    root = tmp_path_factory.mktemp("study")
    for name in ("CT_small.dcm", "MR_small.dcm"):
        shutil.copy(get_testdata_file(name, download=False), root / name)
    (root / "notes.txt").write_text("no image")
    (root / "cut.dcm").write_bytes((root / "CT_small.dcm").read_bytes()[:-9000])
    return root


@pytest.fixture(scope="module")
def outcome(folder, tmp_path_factory):
    """What the command says and writes of that folder."""
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    out = tmp_path_factory.mktemp("results")
    arguments = ["bench", "--data", str(folder), "--to", "rle", "--device", "cpu", "--quick", "-o", str(out)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "Settings", lambda **options: Settings(**options | {"round_s": 0.01, "latencies": 5}))
        patch.setattr(sweeps, "QUICK_SIDES", (32, 64, 128, 256))
        done = CliRunner().invoke(app, arguments)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    return done, out


def test_command_measures_files_and_says_what_it_cannot(outcome):
    done, out = outcome
    assert done.exit_code == 0, done.stdout + done.stderr
    assert "files cannot be measured: not-dicom" in done.stdout
    assert "files cannot be measured: truncated" in done.stdout
    assert "--device cpu leaves GPUs out" in done.stdout
    [path] = out.glob("*.json")
    results = json.loads(path.read_text(encoding="utf-8"))
    assert PARTS | {"format", "machine", "versions", "commit", "settings", "noise", "measured_at", "seconds"} == set(
        results
    )
    assert results["format"] == "gpuenc-bench/1"
    assert {"cpu", "cores", "gpus", "load_average", "memory_gb", "system"} == set(results["machine"])
    assert {"python", "numpy", "imagecodecs"} <= set(results["versions"])
    assert len(results["cases"]) == 2
    for row in results["rows"] + results["transcode"]:
        assert row["status"] in ("measured", "absent", "void")
        assert (row["status"] == "measured") == ("mb_s" in row)
        assert row["status"] == "measured" or row["why"]
    # RLE has plug-ins of five code bases, and --quick leaves none of the fast ones out.
    measured = {row["plugin"] for row in results["rows"] if row["status"] == "measured"}
    assert {"imagecodecs", "pylibjpeg", "gdcm"} <= measured
    assert results["noise"]["figures"] > 0


def test_no_path_or_patient_is_in_the_results(outcome, folder):
    [path] = outcome[1].glob("*.json")
    text = path.read_text(encoding="utf-8")
    assert str(folder) not in text
    assert "CT_small" not in text
    assert "CompressedSamples" not in text


def test_charts_are_there_or_it_is_said_how_to_have_them(outcome):
    done, out = outcome
    svgs = {path.stem.partition("-quick-")[2] for path in out.glob("*.svg")}
    if charts.available():
        assert svgs == {"throughput", "cases", "frame-size", "workers", "stages"}
    else:
        assert svgs == set()
        assert charts.WHY_NONE in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--data", "nowhere"), 3),
        (("--to", "no-such-syntax"), 2),
        (("--to", "explicit-vr-little-endian"), 2),
        (("--device", "tpu"), 2),
        (("--rounds", "4"), 2),
    ],
)
def test_command_lines_that_are_wrong(arguments, code):
    assert CliRunner().invoke(app, ["bench", *arguments]).exit_code == code


def test_fewer_rounds_than_a_spread_needs_are_refused():
    with pytest.raises(InvalidOption):
        run.Request(rounds=4)


def test_folder_without_images(tmp_path):
    assert [type(one) for one in cases.of_folder(tmp_path)] == [Absent]
    assert [type(one) for one in cases.of_folder(tmp_path / "gone")] == [Absent]


def point(side, times, batch=16, plugin="nvimgcodec", device="gpu"):
    return {
        "syntax": "htj2k-lossless", "plugin": plugin, "device": device, "side": side, "batch": batch,
        "status": "measured", "mb_s": {}, "over_cores": {"median": times},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("times", "from_side"),
    [((0.2, 0.8, 1.5, 4.0), 256), ((2, 3, 4, 5), 64), ((0.1, 0.2, 0.3, 0.9), None), ((3.0, 0.9, 1.1, 2.0), 256)],
)
def test_crossover_is_where_all_larger_frames_pay(times, from_side):
    points = [point(side, one) for side, one in zip((64, 128, 256, 512), times, strict=True)]
    [found] = sweeps.crossovers([*points, {"status": "absent"}, point(64, 9, device="cpu")])
    assert (found["from_side"], found["batch"]) == (from_side, 16)


def test_noise_counts_what_spreads_too_far():
    results = {name: [] for name in PARTS} | {"rows": [{"mb_s": {"spread": 0.1}}, {"mb_s": {"spread": 0.4}}]}
    assert run.noise(results) == {
        "figures": 2, "noisy_figures": 1, "widest_spread": 0.4, "limit": 0.2, "noisy": True
    }  # fmt: skip


def test_stages_of_missing_plugins_say_why():
    chosen = target(find("htj2k-lossless"))
    found = stages.measure(chosen, candidates(chosen, "cpu"), Settings(round_s=0.001))
    assert {row["plugin"]: row["status"] for row in found} == {"nvimgcodec": "absent", "cuda-htj2k": "absent"}


def test_case_json_has_what_describes_its_pixels():
    case = Case("x", "synthetic", frames_of(phantoms.ct(2, 32), 12, "x"))
    assert case.as_json()["bytes"] == 2 * 32 * 32 * 2
    assert case.as_json()["bits_stored"] == 12
