"""What `gpuenc doctor` finds."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest

from gpuenc import doctor

ROOT = Path(__file__).parents[1]


@pytest.fixture
def found(monkeypatch):
    """Return a function that says what is found where two GPUs are visible, and these plug-ins fail on the second."""

    def findings(failing):
        def why(label):
            return lambda uid, device=0: f"{label} is broken" if (label, device) in failing else ""

        for module, label in (("nvcodec", "nvimgcodec"), ("htj2k", "cuda-htj2k"), ("rle", "cuda-rle")):
            monkeypatch.setattr(f"gpuenc.cuda.{module}.why_unavailable", why(label))
        monkeypatch.setattr("gpuenc.cuda.jpeg_lossless.why_unavailable", why("cuda-jpeg-lossless"))
        monkeypatch.setattr(doctor, "why_unavailable", why("nvimgcodec"))
        monkeypatch.setattr(doctor, "device_count", lambda: 2)
        answer = SimpleNamespace(reason="", detail="found")
        monkeypatch.setattr(doctor, "probe", lambda device: answer)
        monkeypatch.setattr(doctor, "kernels", lambda device: answer)
        return dict(doctor.findings())

    return findings


def test_every_plugin_is_asked_on_every_gpu(found):
    said = found({("cuda-rle", 1), ("nvimgcodec", 1)})
    assert said["cuda-rle on GPU 0"] == "works (rle)"
    assert said["cuda-rle on GPU 1"] == "cuda-rle is broken (rle)"
    assert said["cuda-jpeg-lossless on GPU 1"] == "works (jpeg-lossless, jpeg-lossless-sv1)"
    assert said["cuda-htj2k on GPU 1"] == "works (htj2k-lossless, htj2k-lossless-rpcl)"
    assert said["nvimgcodec on GPU 1"].startswith("nvimgcodec is broken (jpeg-baseline, ")
    assert said["GPU 1"] == "nvimgcodec is broken"


def test_without_a_gpu_one_line_says_why(monkeypatch):
    monkeypatch.setattr(doctor, "device_count", lambda: 0)
    monkeypatch.setattr(doctor, "why_unavailable", lambda uid, device: "there is no driver")
    said = list(doctor.findings())
    assert [found for what, found in said if "GPU" in what] == ["there is no driver"]


def test_the_extras_are_named(monkeypatch):
    here = {"obstore", "matplotlib", "distributed"}
    monkeypatch.setattr(doctor, "_version", lambda package: "1.0" if package in here else "")
    assert dict(doctor.findings())["extras"] == (
        "installed: cloud, bench; missing: plugins, independent, dicomweb, dask, torch, cuda12 or cuda13, "
        "pip install '.[plugins,independent,dicomweb,dask,torch,cuda12]'"
    )
    here.update(*(packages for extra, packages in doctor.EXTRAS.items() if extra not in ("cuda12", "dask")))
    assert dict(doctor.findings())["extras"] == (
        "installed: plugins, independent, cloud, dicomweb, bench, torch, cuda13; missing: dask, pip install '.[dask]'"
    )
    here.update(doctor.EXTRAS["dask"])
    assert "missing" not in dict(doctor.findings())["extras"]


def test_the_extras_are_those_of_the_project():
    said = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]

    def packages(extra):
        for line in said[extra]:
            of_ours = re.fullmatch(r"gpuenc\[(.*)\]", line)
            if of_ours:
                for each in of_ours[1].split(","):
                    yield from packages(each)
            else:
                yield re.match(r"[\w-]+", line)[0]

    for extra, listed in doctor.EXTRAS.items():
        assert tuple(packages(extra)) == listed, extra
    part = {"pylibjpeg", "pyjpegls", "gdcm"}  # of plugins
    assert set(said) - part - {"demo", "test", "test-ml", "dev"} == set(doctor.EXTRAS)
