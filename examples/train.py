"""Train a toy network for two epochs on a re-encoded archive.

    python examples/train.py [ARCHIVE] [--workers N]

Without ARCHIVE, slices of a drawn trunk are written and re-encoded to HTJ2K by `gpuenc transcode` first. The network
learns which slices lie upside down: half of each batch is turned over. Needs PyTorch.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

import gpuenc
import gpuenc.torch
from gpuenc.bench import phantoms

EPOCHS, BATCH, SIDE = 2, 8, 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path, nargs="?", help="a folder of monochrome images")
    parser.add_argument("--workers", type=int, default=2, help="processes that read and decode")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        archive = args.archive or drawn_archive(Path(folder))
        # The index makes the next start instant; window and size are applied in the workers.
        frames = gpuenc.FrameDataset(
            archive, index=Path(folder) / "frames.index", window=(40, 400), invert=True, size=(SIDE, SIDE)
        )
        train(frames, args.workers)


def train(frames: gpuenc.FrameDataset, workers: int) -> None:
    torch.manual_seed(0)
    stream = gpuenc.torch.FrameStream(frames, BATCH, shuffle=True, seed=1)
    batches = gpuenc.torch.loader(stream, workers=workers)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = torch.nn.Sequential(
        torch.nn.Conv2d(1, 8, 5, stride=4), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.LazyLinear(1)
    ).to(device)
    network(torch.zeros(1, 1, SIDE, SIDE, device=device))
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for epoch in range(EPOCHS):
        stream.set_epoch(epoch)
        losses, seen = [], 0
        for batch in batches:
            images = batch["image"][:, None].to(device, non_blocking=True)
            turned = torch.arange(len(images), device=device) % 2 == 1
            images[turned] = images[turned].flip(2)
            loss = torch.nn.functional.binary_cross_entropy_with_logits(network(images)[:, 0], turned.float())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            seen += len(images)
        print(f"epoch {epoch}: {seen} frames, loss {sum(losses) / len(losses):.4f}")


def drawn_archive(folder: Path) -> Path:
    """Write 64 slices without compression, re-encode them, and return the folder of the outputs."""
    native, archive = folder / "native", folder / "archive"
    native.mkdir()
    for number, picture in enumerate(phantoms.ct(64, 128)):
        ds = Dataset()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, generate_uid()
        ds.Rows, ds.Columns = picture.shape
        ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
        ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 12, 11
        ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = 1, -1024, "HU"
        ds.PixelData = picture.tobytes()
        ds.save_as(native / f"{number:03}.dcm", enforce_file_format=True)
    transcode = [sys.executable, "-m", "gpuenc", "transcode", str(native), "-o", str(archive), "--to", "htj2k-lossless"]
    subprocess.run(transcode, check=True)
    return archive


if __name__ == "__main__":
    main()
