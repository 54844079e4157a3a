"""The GPU tests, tested without a GPU: rehearsed on the fake device, made to fail by faults; and the page they make."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
import zipfile
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

import pytest

from tests.gpu import evidence

ROOT = Path(__file__).resolve().parents[2]


def gpu_tests(*arguments, **environment):
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/gpu", *arguments],
        capture_output=True, text=True, cwd=ROOT, timeout=300, check=False,
        env=os.environ | {"PYTHONPATH": path} | environment,
    )  # fmt: skip


def test_the_gpu_tests_pass_in_a_rehearsal_and_write_no_result():
    before = sorted(evidence.RESULTS.glob("*")), evidence.PAGE.read_bytes()
    done = gpu_tests(GPUENC_GPU_REHEARSAL="1")
    assert done.returncode == 0, done.stdout[-3000:]
    assert re.search(r"[1-9][0-9]{2,} passed", done.stdout)
    assert (sorted(evidence.RESULTS.glob("*")), evidence.PAGE.read_bytes()) == before


@pytest.mark.parametrize("fault", ["wrong sample", "none"])
def test_the_gpu_tests_notice_a_device_that_is_wrong(fault):
    done = gpu_tests("-x", "-k", "comes_back", GPUENC_GPU_REHEARSAL=fault)
    assert done.returncode == 1, done.stdout[-3000:]


def test_without_a_gpu_they_are_skipped_unless_that_is_forbidden():
    done = gpu_tests("-x", GPUENC_REQUIRE_CUDA="0", GPUENC_GPU_REHEARSAL="", CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 0
    assert "passed" not in done.stdout.splitlines()[-1]
    assert gpu_tests("-x", GPUENC_REQUIRE_CUDA="1", GPUENC_GPU_REHEARSAL="", CUDA_VISIBLE_DEVICES="").returncode == 1


def test_the_page_is_generated_and_not_typed():
    assert evidence.PAGE.read_text(encoding="utf-8") == evidence.page(), "python -m tests.gpu.evidence"


def test_every_row_is_recorded_by_the_test_that_it_names():
    for row, (_, where) in evidence.ROWS.items():
        if where != evidence.NO_TEST:
            assert f'"{row}"' in (ROOT / where).read_text(encoding="utf-8"), row


def test_the_newest_result_of_each_row_is_shown(tmp_path):
    def run(date, **rows):
        found = {
            "date": date,
            "device": "One GPU",
            "commit": "abc",
            "rows": {k: {"figure": v} for k, v in rows.items()},
        }
        (tmp_path / f"{date}-one-gpu-gputest.json").write_text(json.dumps(found), encoding="utf-8")

    assert evidence.page(tmp_path).count(evidence.OPEN) == len(evidence.ROWS)
    run("2030-01-01", rates="an older figure", markers="a | b")
    run("2030-02-01", rates="new")
    page = evidence.page(tmp_path)
    assert page.count(evidence.OPEN) == len(evidence.ROWS) - 2
    assert "| new | One GPU, 2030-02-01, abc |" in page
    assert "older figure" not in page
    assert "a \\| b" in page


def test_tallies_name_what_was_wrong(tmp_path):
    found = evidence.Evidence()
    for number in range(9):
        found.tally("exact", number not in (3, 7), f"case {number}")
    found.record("rates", "5 GB/s", lanes=2)
    with pytest.raises(KeyError):
        found.record("no such row", "")
    path = evidence.write(found.finished(evidence.machine("NVIDIA X-1 (80GB)", "1.2")), tmp_path)
    assert path.name.endswith("-nvidia-x-1-80gb-gputest.json")
    page = evidence.page(tmp_path)
    assert "7 of 9 right; wrong: case 3, case 7" in page
    assert "5 GB/s" in page


@pytest.fixture(scope="module")
def bundle():
    loader = SourceFileLoader("gpu_bundle", str(ROOT / ".ci" / "gpu-bundle"))
    module = module_from_spec(spec_from_loader("gpu_bundle", loader))
    loader.exec_module(module)
    return module


def wheel(path, names, digest="sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU"):
    rows = io.StringIO()
    csv.writer(rows, lineterminator="\n").writerows(
        [*((name, digest, 0) for name in names), ("x.dist-info/RECORD", "", "")]
    )
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, b"")
        archive.writestr("x.dist-info/RECORD", rows.getvalue())
    return path


def test_the_bundles_wheels_keep_what_python_312_needs_and_their_records_agree(bundle, tmp_path):
    here = "nvidia/nvimgcodec/nvimgcodec_impl.cpython-312-x86_64-linux-gnu.so"
    spare = [here.replace("312", other) for other in ("39", "310", "313", "313t", "314t")]
    made = wheel(tmp_path / "nvidia_nvimgcodec-1.whl", [here, *spare, "nvidia/nvimgcodec/include/a.h", "nvidia/lib.so"])
    bundle.slim(made)
    with zipfile.ZipFile(made) as archive:
        assert archive.namelist() == [here, "nvidia/lib.so", "x.dist-info/RECORD"]
    bundle.verify(made)


def test_a_wheel_that_is_not_what_its_record_says_is_not_bundled(bundle, tmp_path):
    with pytest.raises(SystemExit, match=r"a\.py is not what its record says"):
        bundle.verify(wheel(tmp_path / "x-1.whl", ["a.py"], "sha256=AAAA"))
