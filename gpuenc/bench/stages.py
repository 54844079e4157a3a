"""Where the time of a GPU's batch goes: upload, kernels, compress, download, check.

Stages run one into the next on one stream, so they are told apart by what is timed up to them: staging cells, staging
and preparing them, and encoding the batch. Download is a copy of as many bytes as the codestreams have. A plug-in of
our own compresses by kernels too: that is its "compress".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpuenc.bench import phantoms
from gpuenc.bench.cases import frames_of
from gpuenc.bench.lanes import Kept
from gpuenc.bench.measure import Contender, figure, interleave
from gpuenc.bench.referee import Referee
from gpuenc.coding import coding
from gpuenc.cuda import memory, staging
from gpuenc.errors import GpuencError
from gpuenc.frames import Failure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpuenc.bench.rows import Settings
    from gpuenc.frames import Frame
    from gpuenc.plugins import Plugin
    from gpuenc.targets import Target

_FRAMES, _SIDE = 32, 512


def measure(
    target: Target, plugins: Sequence[tuple[str, Plugin | str]], settings: Settings, frames: Sequence[Frame] = ()
) -> list[dict[str, Any]]:
    """Return a row for each plug-in of a GPU: milliseconds of each stage of a batch, or why there are none."""
    rows: list[dict[str, Any]] = []
    for label, plugin in plugins:
        row = {"syntax": target.syntax.name, "plugin": label}
        if isinstance(plugin, str):
            rows.append(row | {"status": "absent", "why": plugin})
        elif plugin.device == "gpu":
            batch = frames or frames_of(phantoms.ct(_FRAMES, _SIDE), 12, "stages")
            try:
                rows.append(row | _measured(target, plugin, settings, batch))
            except Exception as error:  # noqa: BLE001 - whatever a device's libraries raise is a row's reason
                rows.append(row | {"status": "void", "why": " ".join(str(error).split()) or type(error).__name__})
    return rows


def _measured(target: Target, plugin: Plugin, settings: Settings, frames: Sequence[Frame]) -> dict[str, Any]:
    wanted = coding(target, frames[0].format)
    with Kept(plugin) as kept:
        encoder: Any = kept.plugin.open(target)
        workspace = memory.open_workspace(getattr(encoder, "device", 0))
        if workspace is None:
            return {"status": "absent", "why": "stages are told apart with CuPy: install 'gpuenc[cuda13]'"}
        try:
            referee = Referee(frames, target)
            made = encoder.encode(list(frames))
            referee.judge(made)
            codestreams = [one.codestream for one in made]
            with workspace.current():
                room = workspace.kernels.zeros((sum(map(len, codestreams)),), "u1")
            cells = [frame.host_cells() for frame in frames]

            def stage() -> None:
                with workspace.current():
                    # What comes back has to wait for the copy before it.
                    workspace.kernels.download(workspace.stage(cells)[-1])

            def download() -> None:
                with workspace.current():
                    workspace.kernels.download(room)

            contenders = [
                Contender("upload", stage, lambda _: None),
                Contender("prepared", lambda: staging.on_device(workspace, frames, wanted), _demand_staged),
                Contender("encoded", lambda: encoder.encode(list(frames)), referee.judge),
                Contender("download", download, lambda _: None),
            ]
            if target.lossless:
                check = Contender("check", lambda: encoder.verify(list(frames), codestreams), _demand_equal)
                contenders.append(check)
            interleave(contenders, settings.rounds)
        finally:
            encoder.close()
            workspace.close()
    return _split(contenders, len(frames))


def _split(contenders: Sequence[Contender], frames: int) -> dict[str, Any]:
    """Return the stages' milliseconds, as differences between what was timed up to them."""
    by = {one.name: one for one in contenders}
    for name in ("upload", "prepared", "encoded", "download"):
        if by[name].why_void:
            return {"status": "void", "why": f"{name}: {by[name].why_void}"}
    upload, prepared, encoded, download = (
        figure(by[name].seconds).median * 1e3 for name in ("upload", "prepared", "encoded", "download")
    )
    found: dict[str, Any] = {
        "status": "measured",
        "frames": frames,
        "upload_ms": upload,
        "kernels_ms": max(0.0, prepared - upload),
        "compress_ms": max(0.0, encoded - prepared - download),
        "download_ms": download,
        "encode_ms": {**figure([seconds * 1e3 for seconds in by["encoded"].seconds]).as_json()},
    }
    if "check" in by and by["check"].seconds:
        found["check_ms"] = figure(by["check"].seconds).median * 1e3
    else:
        found["check_why"] = by["check"].why_void if "check" in by else "lossy"
    return found


def _demand_staged(staged: staging.Staged) -> None:
    for error in staged.wrong.values():
        raise error


def _demand_equal(verdicts: Sequence[Any]) -> None:
    for verdict in verdicts:
        if isinstance(verdict, Failure):
            raise GpuencError(verdict.reason)
        if verdict.differing:
            raise GpuencError(f"{verdict.differing} samples differ")
