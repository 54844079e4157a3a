"""Charts show the figures of the results, and only those that are measured; the same results give the same bytes."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from gpuenc.bench import charts
from gpuenc.bench.measure import figure

pytest.importorskip("matplotlib", reason="pip install 'gpuenc[bench]'")
MACHINE = {"cpu": "Nonesuch <9>", "cores": 2, "gpus": [{"name": "NVIDIA Nonesuch"}]}


def of(median):
    return figure([0.9 * median, median, 1.1 * median]).as_json()


def row(plugin="imagecodecs", syntax="rle", case="a<b", device="cpu", mb_s=5.0, **more):
    return {
        "case": case, "syntax": syntax, "plugin": plugin, "device": device, "status": "measured", "mb_s": of(mb_s),
        **more,
    }  # fmt: skip


def void(part):
    return {"status": "void", "why": "wrong", "case": part, "syntax": "rle", "plugin": "planted-void", "device": "cpu"}


def results():
    sizes = [
        row(device=device, side=side, batch=batch, mb_s=side * batch / 100, plugin=plugin)
        for device, plugin in (("cpu", "imagecodecs"), ("gpu", "nvimgcodec"))
        for side in (64, 128)
        for batch in (1, 16)
    ]
    stages = {"syntax": "rle", "plugin": "cuda-rle", "status": "measured", "frames": 10, "upload_ms": 20.0,
              "kernels_ms": 10.0, "compress_ms": 30.0, "download_ms": 5.0, "check_ms": 7.0}  # fmt: skip
    peer = {"peer": "gpuenc, x", "status": "measured", "case": "a<b", "syntax": "rle", "mb_s": of(4.0), "label": True,
            "lossless": True, "precision_kept": True}  # fmt: skip
    return {
        "machine": MACHINE,
        "settings": {"rounds": 5},
        "noise": {"noisy": True},
        "rows": [void("rows"), row(), row("nvimgcodec", device="gpu", mb_s=123.4), row(case="other case")],
        "sweep": [void("sweep"), *sizes],
        "stages": [void("stages"), stages],
        "transcode": [row(stage_ms={"read": 1.0, "encode": 2.0, "verify": 1.5, "write": 0.5})],
        "workers": [void("workers"), row(workers=1), row(workers=2, mb_s=9.0)],
        "peers": [void("peers") | {"peer": "void"}, peer, peer | {"peer": "loses", "lossless": False}],
    }


NAMES = {"throughput", "cases", "frame-size", "stages", "workers", "peers"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("charts")
    charts.save(results(), made, "x")
    return made


def test_every_chart_is_a_picture_with_its_figures(folder):
    texts = {path.stem.removeprefix("x-"): path.read_text(encoding="utf-8") for path in folder.iterdir()}
    assert set(texts) == NAMES
    for text in texts.values():
        root = ElementTree.fromstring(text)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert "planted-void" not in text
        assert "NVIDIA Nonesuch" in text
        assert "NOISY" in text
    assert ">123<" in texts["throughput"]
    assert "other case" not in texts["throughput"]
    assert "other case" in texts["cases"]
    assert "GPU, nvimgcodec, batch 16" in texts["frame-size"]
    assert "2 cores, imagecodecs, batch 1" in texts["frame-size"]
    for name in ("upload", "kernels", "compress", "download", "check", "read", "verify"):
        assert f">{name}<" in texts["stages"]
    assert "loses (not right: see table)" in texts["peers"]


def test_the_same_results_give_the_same_bytes(folder, tmp_path):
    paths = charts.save(results(), tmp_path, "x")
    assert len(paths) == len(NAMES)
    for path in paths:
        assert path.read_bytes() == (folder / path.name).read_bytes()


def test_png_is_as_good(tmp_path):
    only = results() | {part: [] for part in ("sweep", "stages", "transcode", "workers", "peers")}
    paths = charts.save(only, tmp_path, "x", "png")
    assert len(paths) == 2
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)


def test_what_is_void_or_missing_has_no_chart():
    empty = {"machine": MACHINE, "settings": {"rounds": 5}, "peers": []}
    empty |= {part: [void(part)] for part in ("rows", "sweep", "stages", "transcode", "workers")}
    assert charts.all_of(empty) == {}
