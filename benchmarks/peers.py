"""What else people compress DICOM with: each reads files and writes files, on as many cores as gpuenc has.

pydicom's `Dataset.compress` with its plug-ins, in one process for each core, as people write it who are in a hurry;
GDCM's and DCMTK's programs, a process for each file, as many at once as cores; NVIDIA's converter, one process with the
GPU. What is not here says why. `python -m benchmarks.peers` lists them with their versions.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydicom import dcmread

import gpuenc
from gpuenc.archive.job import run as run_job
from gpuenc.archive.request import Job
from gpuenc.archive.watcher import Watcher
from gpuenc.cuda import probe
from gpuenc.plugins import usable_cores
from gpuenc.syntaxes import find
from gpuenc.targets import target

Work = Callable[[Sequence[Path], Path], Any]

# Name → program and options, and the transfer syntax that it is asked for.
PROGRAMS: dict[str, tuple[tuple[str, ...], str]] = {
    "gdcmconv (JPEG 2000)": (("gdcmconv", "--j2k"), "jpeg2000-lossless"),
    "gdcmconv (JPEG-LS)": (("gdcmconv", "--jpegls"), "jpeg-ls-lossless"),
    "gdcmconv (JPEG Lossless)": (("gdcmconv", "--jpeg"), "jpeg-lossless-sv1"),
    "gdcmconv (RLE)": (("gdcmconv", "--rle"), "rle"),
    "dcmcjpeg": (("dcmcjpeg", "+e1"), "jpeg-lossless-sv1"),
    "dcmcjpls": (("dcmcjpls", "+el"), "jpeg-ls-lossless"),
    "dcmcrle": (("dcmcrle",), "rle"),
}
# pydicom's label of each plug-in, and the package that has its version.
PLUGINS = {
    "jpeg2000-lossless": {"pylibjpeg": "pylibjpeg-openjpeg"},
    "jpeg-ls-lossless": {"pyjpegls": "pyjpegls"},
    "rle": {"pylibjpeg": "pylibjpeg-rle", "gdcm": "python-gdcm", "pydicom": "pydicom"},
}
_APT = {"gdcmconv": "libgdcm-tools", "dcmcjpeg": "dcmtk", "dcmcjpls": "dcmtk", "dcmcrle": "dcmtk"}
NVIDIA = "nvidia.nvimgcodec.tools.dicom.convert_htj2k"
# NVIDIA's converter has one for each transfer syntax.
_ORDERS = {"htj2k-lossless": "LRCP", "htj2k-lossless-rpcl": "RPCL"}


@dataclass(frozen=True)
class Peer:
    """Something that compresses files, or why it is not here.

    Parameters
    ----------
    name : str
        What it is called in results.
    work : callable, optional
        Gets paths of files, and a folder to write into.
    why : str
        Why there is no `work`.
    version : str
        Of what does the work.
    on : str
        How many processes and threads it has.
    """

    name: str
    work: Work | None = None
    why: str = ""
    version: str = ""
    on: str = ""


def compress_share(paths: Sequence[Path], out: Path, uid: str, plugin: str) -> None:
    """What people write today: dcmread, compress, save_as."""
    for path in paths:
        ds = dcmread(path)
        ds.compress(uid, encoding_plugin=plugin)
        ds.save_as(out / path.name)


def ready() -> None:
    """Do nothing, in a process that has imported all this meanwhile."""


def pydicom_loops(uid: str, plugin: str, pool: Executor, processes: int) -> Work:
    """Return pydicom's loop over an equal share of the files in each process of a pool that is already there."""

    def work(paths: Sequence[Path], out: Path) -> None:
        shares = [paths[number::processes] for number in range(processes)]
        for done in [pool.submit(compress_share, share, out, uid, plugin) for share in shares if share]:
            done.result()

    return work


def program(command: tuple[str, ...], processes: int) -> Work:
    """Return one call of a program for each file, so many at once."""

    def one(path: Path, out: Path) -> None:
        done = subprocess.run([*command, str(path), str(out / path.name)], capture_output=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{command[0]} ends with {done.returncode}")

    def work(paths: Sequence[Path], out: Path) -> None:
        with ThreadPoolExecutor(processes) as pool:
            list(pool.map(lambda path: one(path, out), paths))

    return work


def transcode(name: str, verify: str, workers: int = 0, device: str = "auto") -> Work:
    """Return `gpuenc transcode` without the start of its own process, on all cores: in threads, or in workers."""

    def work(paths: Sequence[Path], out: Path) -> None:
        jobs = max(2, usable_cores()) if workers else usable_cores() + 2
        chosen: Any = verify
        job = Job(
            tuple(paths), out, target(find(name)), jobs=jobs, verify=chosen, overwrite=True, workers=workers,
            device=device, durability="none",
        )  # fmt: skip
        run_job(job, Watcher())

    return work


def nvidia_converter(name: str) -> Work:
    """Return NVIDIA's own converter of pydicom's datasets, and the reading and writing around it."""
    convert = import_module(NVIDIA).transcode_datasets_to_htj2k

    def work(paths: Sequence[Path], out: Path) -> None:
        made = convert([dcmread(path) for path in paths], progression_order=_ORDERS[name])
        for path, ds in zip(paths, made, strict=True):
            ds.save_as(out / path.name)

    return work


def why_no_gpu_tools() -> str:
    """Return why NVIDIA's tools cannot run here, or nothing."""
    if not probe.device_count():
        return "no NVIDIA GPU on this machine"
    missing = [name for name in ("cupy", "nvidia.nvimgcodec") if find_spec(name.split(".")[0]) is None]
    return f"{', '.join(missing)} not installed: pip install 'gpuenc[cuda13]'" if missing else ""


def peers_of(name: str, pool: Executor | None = None, processes: int | None = None) -> Iterator[Peer]:
    """Yield all that write this transfer syntax, gpuenc first; of those that are not here, why.

    Parameters
    ----------
    name : str
        Of the transfer syntax.
    pool : Executor, optional
        Processes for pydicom's loops; without it they have no work.
    processes : int, optional
        How many processes, or threads of gpuenc; by default one for each core.
    """
    count = processes or usable_cores()
    many = f"{count} process{'es' * (count > 1)}"
    ours = gpuenc.__version__
    for verify, said in (("all", "every sample verified"), ("none", "not verified")):
        yield Peer(f"gpuenc, {said}", transcode(name, verify), version=ours, on=f"1 process, {count} cores")
    uid = find(name).uid
    for plugin, package in PLUGINS.get(name, {}).items():
        label, found = f"pydicom compress, {plugin}", package_version(package)
        if plugin not in gpuenc.get_encoder(uid).labels:
            yield Peer(label, why=f"{package} is not installed: make bench-peers")
        elif pool is not None:
            yield Peer(label, pydicom_loops(uid, plugin, pool, count), version=f"{package} {found}", on=many)
        else:
            yield Peer(label, why="there is no pool of processes", version=f"{package} {found}")
    for label, (command, writes) in PROGRAMS.items():
        if writes == name and shutil.which(command[0]):
            on = f"a process per file, {count} at once"
            yield Peer(label, program(command, count), version=program_version(command[0]), on=on)
        elif writes == name:
            yield Peer(label, why=f"{command[0]} is not installed: apt-get install {_APT[command[0]]}")
    if name in _ORDERS:
        label, why = "NVIDIA's transcode_datasets_to_htj2k", why_no_gpu_tools()
        found = package_version("nvidia-nvimgcodec-cu13") or package_version("nvidia-nvimgcodec-cu12")
        on = "1 process, 1 GPU"
        yield Peer(label, why=why) if why else Peer(label, nvidia_converter(name), version=found, on=on)


def package_version(package: str) -> str:
    """Return the version of a package; empty where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def program_version(name: str) -> str:
    """Return the first line in which a program says its version."""
    done = subprocess.run([name, "--version"], capture_output=True, text=True, check=False)
    lines = [line.strip("$ \t") for line in (done.stdout + done.stderr).splitlines() if any(map(str.isdigit, line))]
    return lines[0].removeprefix("dcmtk: ") if lines else ""


def main() -> None:
    """List the peers: here with which version, or why not."""
    seen = set()
    for name in ("htj2k-lossless", "jpeg2000-lossless", "jpeg-ls-lossless", "jpeg-lossless-sv1", "rle"):
        for peer in peers_of(name):
            if (peer.name, peer.version) not in seen and not peer.name.startswith("gpuenc"):
                seen.add((peer.name, peer.version))
                print(f"{name:18} {peer.name:38} {peer.version or peer.why}")


if __name__ == "__main__":
    main()
