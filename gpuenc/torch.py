"""Frames as PyTorch wants them: batches of tensors, shared out among ranks and workers. The only importer of torch.

`gpuenc.FrameDataset` itself is a map-style dataset that a ``DataLoader`` takes as it is; here is what reads an epoch::

    stream = gpuenc.torch.FrameStream(gpuenc.FrameDataset("archive", index="archive.index"), 64, shuffle=True)
    loader = gpuenc.torch.loader(stream, workers=8)
    for epoch in range(2):
        stream.set_epoch(epoch)
        for batch in loader:
            batch["image"]  # (64, rows, columns)
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

try:
    import torch
    from torch.utils.data import DataLoader, IterableDataset, default_collate, get_worker_info
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("gpuenc.torch needs PyTorch: pip install 'gpuenc[torch]'", name=error.name) from None

from gpuenc.errors import InvalidOption, InvalidPixels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Future

    from numpy.typing import NDArray

    from gpuenc.pipelines.dataset import FrameDataset, Sample

__all__ = ["FrameStream", "collate", "loader"]

Batch = dict[str, Any]


class FrameStream(IterableDataset[Batch]):
    """The frames of a `FrameDataset` in batches, each frame once an epoch, over all ranks and workers.

    The order is that of the dataset, or a permutation which seed and epoch determine. Of that, rank r of n takes
    positions r, r + n, … and makes batches of them; whole batches are dealt out to its workers in turn, so that a
    ``DataLoader`` yields the same batches in the same order with any number of workers.

    Parameters
    ----------
    dataset : FrameDataset
        The frames.
    batch_size : int
        Frames of a batch, which are decoded together; the last of a rank may be smaller.
    shuffle : bool
        Permute them, anew in each epoch.
    seed : int
        Of the permutations, the same on all ranks; 0 or more.
    rank, world_size : int, optional
        Which share of how many this process reads; by default those of ``torch.distributed`` if it is initialised, and
        else everything.
    drop_last : bool
        Leave out the frames at the end of the order that would make a smaller batch, or more batches on one rank than
        on another. Without it shares differ by one frame at most, and nothing is left out or repeated.
    prefetch : int
        Batches read ahead by a thread where there are no worker processes; 0 for none.
    transform : callable, optional
        Called in the worker with each batch; what it returns is the batch.

    Raises
    ------
    InvalidOption
        An option is wrong.
    """

    def __init__(
        self,
        dataset: FrameDataset,
        batch_size: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
        drop_last: bool = False,
        prefetch: int = 2,
        transform: Callable[[Batch], Any] | None = None,
    ) -> None:
        super().__init__()
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        if world_size is None:
            world_size = torch.distributed.get_world_size() if distributed else 1
        if rank is None:
            rank = torch.distributed.get_rank() if distributed else 0
        if not 0 <= rank < world_size or batch_size < 1 or prefetch < 0 or seed < 0:
            raise InvalidOption(
                f"there is no rank {rank} of {world_size}, batch of {batch_size}, prefetch of {prefetch} or seed {seed}"
            )
        self.dataset, self.batch_size = dataset, batch_size
        self._shuffle, self._seed, self._rank, self._world_size = shuffle, seed, rank, world_size
        self._drop_last, self._prefetch, self._transform = drop_last, prefetch, transform
        # In shared memory, so that workers which outlive an epoch see the next one's number.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    @property
    def epoch(self) -> int:
        """The epoch whose permutation the next iteration has."""
        return int(self._epoch.item())

    def set_epoch(self, epoch: int) -> None:
        """Choose the permutation of the next iteration, in all worker processes too; the same on all ranks."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        """Return the number of batches of this rank."""
        if self._drop_last:
            return len(self.dataset) // self._world_size // self.batch_size
        return math.ceil(len(range(self._rank, len(self.dataset), self._world_size)) / self.batch_size)

    def numbers(self) -> NDArray[np.int64]:
        """Return the numbers of this rank's frames in the order of this epoch."""
        order = np.arange(len(self.dataset))
        if self._shuffle:
            order = np.random.default_rng((self._seed, self.epoch)).permutation(order)
        share = order[self._rank :: self._world_size]
        return share[: len(self) * self.batch_size] if self._drop_last else share

    def __iter__(self) -> Iterator[Any]:
        share, info = self.numbers(), get_worker_info()
        first, step = (0, 1) if info is None else (info.id, info.num_workers)
        starts = range(first * self.batch_size, len(share), step * self.batch_size)
        batches = (share[start : start + self.batch_size].tolist() for start in starts)
        if info is None and self._prefetch:
            return self._ahead(batches)
        return map(self._batch, batches)

    def _batch(self, numbers: Sequence[int]) -> Any:
        batch = collate(self.dataset.__getitems__(numbers))
        return batch if self._transform is None else self._transform(batch)

    def _ahead(self, batches: Iterator[Sequence[int]]) -> Iterator[Any]:
        # One thread, so that batches stay in order, and a transform is never called twice at once.
        pool = ThreadPoolExecutor(1, "gpuenc-ahead")
        try:
            waiting: deque[Future[Any]] = deque(
                pool.submit(self._batch, numbers) for numbers in itertools.islice(batches, self._prefetch)
            )
            while waiting:
                done = waiting.popleft().result()
                waiting.extend(pool.submit(self._batch, numbers) for numbers in itertools.islice(batches, 1))
                yield done
        finally:
            pool.shutdown(cancel_futures=True)


def loader(
    stream: FrameStream,
    *,
    workers: int = 0,
    prefetch: int = 2,
    pin_memory: bool | None = None,
    start: Literal["fork", "spawn", "forkserver"] | None = None,
) -> DataLoader[Batch]:
    """Return a ``DataLoader`` that yields the batches of `stream`.

    Parameters
    ----------
    stream : FrameStream
        Makes the batches.
    workers : int
        Worker processes, which stay from one epoch to the next; 0 reads in this process.
    prefetch : int
        Batches that each worker reads ahead.
    pin_memory : bool, optional
        Copy batches into pinned memory, from which a GPU fetches them while it computes; by default where there is a
        GPU and frames are decoded on the CPU.
    start : {'fork', 'spawn', 'forkserver'}, optional
        How workers are started; by default as Python does. Once CUDA was used, or `stream` decodes on a GPU, it must
        not be ``"fork"``.

    Raises
    ------
    InvalidOption
        An option is wrong, or does not go with where `stream` decodes.
    """
    on_cpu = stream.dataset.device == "cpu"
    if pin_memory is None:
        pin_memory = on_cpu and torch.cuda.is_available()
    if pin_memory and not on_cpu:
        raise InvalidOption("pin_memory is for frames that are decoded on the CPU")
    if workers < 0 or (workers and prefetch < 1):
        raise InvalidOption(f"there cannot be {workers} workers that read {prefetch} batches ahead")
    if workers and not on_cpu and start == "fork":
        raise InvalidOption("CUDA does not survive a fork: start='spawn' or 'forkserver' starts workers for a GPU")
    options: dict[str, Any] = {"pin_memory": pin_memory}
    if workers:
        options |= {"prefetch_factor": prefetch, "persistent_workers": True, "multiprocessing_context": start}
    return DataLoader(stream, batch_size=None, num_workers=workers, **options)


def collate(samples: Sequence[Sample]) -> Batch:
    """Return a batch of samples: images as one tensor, numbers as tensors, everything else as lists.

    Parameters
    ----------
    samples : sequence of dict
        As `FrameDataset.__getitems__` returns them; a ``DataLoader`` over the dataset takes this as ``collate_fn``.

    Returns
    -------
    dict
        ``"image"``: (frames, rows, columns) or (frames, rows, columns, samples), on the device of the images, and in
        a worker process in shared memory. Columns with a missing value anywhere are lists, with None there.

    Raises
    ------
    InvalidPixels
        ``not-alike``: images have different shapes or types.
    """
    images = [sample["image"] for sample in samples]
    kinds = {(image.shape, str(image.dtype)) for image in images}
    if len(kinds) > 1:
        told = ", ".join(sorted(f"{kind} of shape {shape}" for shape, kind in kinds))
        raise InvalidPixels(
            f"the frames of a batch differ ({told}): size= makes them of one size, and a window or rescale of one type",
            code="not-alike",
        )
    batch: Batch = {"image": default_collate([torch.from_dlpack(image) for image in images])}
    for name in samples[0]:
        if name != "image":
            values = [sample[name] for sample in samples]
            numbers = {type(value) for value in values} <= {int, float}
            batch[name] = torch.tensor(values) if numbers else values
    return batch
