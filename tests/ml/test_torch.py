"""`gpuenc.torch` with real tensors and worker processes: no frame lost, none twice, the same order every time."""

from __future__ import annotations

import numpy as np
import pytest

import gpuenc
from gpuenc.errors import DecodeFailed, InvalidOption, InvalidPixels
from gpuenc.pipelines.display import TOLERANCE, resized
from tests import made
from tests.ml.libraries import needed
from tests.pipelines.test_dataset import cine

torch = needed("torch")
gpuenc_torch = needed("gpuenc.torch")
FrameStream, loader, collate = gpuenc_torch.FrameStream, gpuenc_torch.loader, gpuenc_torch.collate

pytestmark = [
    # Of forking with threads, and of more workers than cores: both are meant here.
    pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
]

FRAMES = 53


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Return a folder of several objects, 53 frames, and its index, which is built."""
    folder = tmp_path_factory.mktemp("archive")
    for number, count in enumerate((20, 1, 30, 2)):
        cine(folder / f"{number}.dcm", count=count)
    index = folder / "frames.index"
    gpuenc.FrameDataset(folder, index=index, columns=("Modality", "InstanceNumber", "SliceThickness")).close()
    return folder, index


@pytest.fixture
def frames(archive):
    with gpuenc.FrameDataset(archive[0], index=archive[1]) as opened:
        yield opened


def numbers(batches):
    return [batch["index"].tolist() for batch in batches]


def flat(batches):
    return [number for batch in batches for number in batch]


@pytest.mark.parametrize("start", ["fork", "spawn", "forkserver"])
def test_an_epoch_has_each_frame_once_and_the_right_one(frames, start):
    expected = {one["index"]: one["image"] for one in frames}
    stream = FrameStream(frames, 4, shuffle=True, seed=7)
    seen = []
    for batch in loader(stream, workers=3, start=start):
        for number, image in zip(batch["index"].tolist(), batch["image"], strict=True):
            assert np.array_equal(image.numpy(), expected[number])
            seen.append(number)
    assert sorted(seen) == list(range(FRAMES))


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("shuffle", [False, True])
def test_ranks_and_workers_share_without_loss_or_repetition(frames, shuffle, drop_last):
    for world in (1, 2, 3, 5, 60):
        for workers in (1, 2, 3):
            ranks = []
            for rank in range(world):
                stream = FrameStream(
                    frames, 4, shuffle=shuffle, seed=1, rank=rank, world_size=world, drop_last=drop_last
                )
                # What each worker is given, as the DataLoader interleaves them.
                dealt = [_dealt(stream, worker, workers) for worker in range(workers)]
                merged = [dealt[n % workers][n // workers] for n in range(sum(map(len, dealt)))]
                assert len(merged) == len(stream)
                share = stream.numbers().tolist()
                assert flat(merged) == share
                ranks.append(share)
            together = sorted(flat(ranks))
            assert len(together) == len(set(together))
            if drop_last:
                assert {len(share) for share in ranks} == {FRAMES // world // 4 * 4}
            else:
                assert together == list(range(FRAMES))
                assert max(map(len, ranks)) - min(map(len, ranks)) <= 1


def _dealt(stream, worker, workers):
    """Return the batches of one worker without its process."""
    info = type("Info", (), {"id": worker, "num_workers": workers})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpuenc_torch, "get_worker_info", lambda: info)
        patch.setattr(stream, "_batch", list)
        return list(stream)


def test_the_order_is_the_seeds_and_the_epochs_alone(frames):
    orders = {}
    for seed in (0, 1):
        stream = FrameStream(frames, 4, shuffle=True, seed=seed)
        batches = [loader(stream, workers=workers, start="fork" if workers else None) for workers in (0, 1, 3)]
        for epoch in (0, 1, 0, 5):
            stream.set_epoch(epoch)  # workers that live since the first epoch see it too
            found = [numbers(each) for each in batches]
            assert found[0] == found[1] == found[2]
            assert sorted(flat(found[0])) == list(range(FRAMES))
            assert orders.setdefault((seed, epoch), found[0]) == found[0]
    assert len({str(order) for order in orders.values()}) == 6


def test_a_map_style_loader_takes_the_dataset_as_it_is(frames):
    for options in ({}, {"collate_fn": collate}):
        found = torch.utils.data.DataLoader(frames, batch_size=8, num_workers=2, shuffle=True, **options)
        batches = list(found)
        assert sorted(flat(numbers(batches))) == list(range(FRAMES))
        assert batches[0]["image"].shape == (8, 24, 32)
        assert batches[0]["image"].dtype == torch.uint16


def test_batches_are_tensors_numbers_and_lists(archive):
    columns = ("Modality", "InstanceNumber", "SliceThickness")
    with gpuenc.FrameDataset(archive[0], index=archive[1], columns=columns, window=(2048, 4096)) as frames:
        batch = collate(frames.__getitems__([3, 20]))
    assert batch["image"].dtype == torch.float32
    assert (batch["index"].tolist(), batch["frame"].tolist()) == ([3, 20], [3, 0])
    assert (batch["Modality"], batch["InstanceNumber"], batch["SliceThickness"]) == (["OT"] * 2, [None] * 2, [None] * 2)


def test_tensors_share_the_memory_of_arrays(frames):
    image = frames[0]["image"]
    torch.from_dlpack(image)[0, 0] = 77
    assert image[0, 0] == 77


def test_frames_that_differ_are_told_of(tmp_path):
    made.of(made.noise((1, 4, 6))).write(tmp_path / "a")
    made.of(made.noise((1, 5, 6), "u1")).write(tmp_path / "b")
    with gpuenc.FrameDataset(tmp_path) as frames, pytest.raises(InvalidPixels, match="size= makes them") as caught:
        collate(frames.__getitems__([0, 1]))
    assert caught.value.code == "not-alike"
    with gpuenc.FrameDataset(tmp_path, size=(4, 4), rescale=True) as frames:
        assert collate(frames.__getitems__([0, 1]))["image"].shape == (2, 4, 4)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_corrupt_frame_ends_the_epoch_with_its_name(tmp_path, workers):
    cine(tmp_path / "a.dcm")
    at, count = gpuenc.FrameDataset(tmp_path)._index.find(0)[0].pieces_of(2)[0]
    data = bytearray((tmp_path / "a.dcm").read_bytes())
    data[at + 60 : at + count - 2] = bytes(count - 62)
    (tmp_path / "a.dcm").write_bytes(data)
    batches = loader(FrameStream(gpuenc.FrameDataset(tmp_path), 1), workers=workers)
    with pytest.raises(DecodeFailed, match=r"a\.dcm, frame 2"):
        list(batches)


@pytest.mark.parametrize("prefetch", [0, 1, 5, 100])
def test_reading_ahead_changes_nothing_and_ends_with_its_reader(frames, prefetch):
    stream = FrameStream(frames, 4, prefetch=prefetch)
    assert flat(numbers(stream)) == list(range(FRAMES))
    some = iter(stream)
    assert next(some)["index"].tolist() == [0, 1, 2, 3]
    some.close() if prefetch else None


def test_a_transform_is_applied_to_batches(frames):
    batches = loader(FrameStream(frames, 8, transform=_halved), workers=1, start="fork")
    assert {tuple(batch.shape[1:]) for batch in batches} == {(12, 32)}


def _halved(batch):
    return batch["image"][:, ::2]


def test_ranks_are_those_of_torch_distributed(frames, tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        assert len(FrameStream(frames, 4).numbers()) == FRAMES
    finally:
        torch.distributed.destroy_process_group()


def test_options_are_checked(frames, archive):
    for options in ({"rank": 2, "world_size": 2}, {"prefetch": -1}, {"seed": -1}):
        with pytest.raises(InvalidOption):
            FrameStream(frames, 4, **options)
    with pytest.raises(InvalidOption):
        FrameStream(frames, 0)
    with gpuenc.FrameDataset(archive[0], device="gpu") as there:
        for options in ({"pin_memory": True}, {"workers": 1, "start": "fork"}, {"workers": -1}):
            with pytest.raises(InvalidOption):
                loader(FrameStream(there, 4), **options)


def test_pinned_memory_is_asked_of_the_loader(frames):
    assert not loader(FrameStream(frames, 4)).pin_memory or torch.cuda.is_available()
    if torch.cuda.is_available():
        assert all(batch["image"].is_pinned() for batch in loader(FrameStream(frames, 4), workers=1))


@pytest.mark.parametrize("size", [(12, 16), (48, 64), (10, 45), (24, 7)])
def test_resizing_is_that_of_torch(size):
    image = made.noise((24, 32), "u2", 12).astype(np.float32)
    theirs = torch.nn.functional.interpolate(
        torch.from_numpy(image)[None, None], size=size, mode="bilinear", antialias=True, align_corners=False
    )
    assert np.abs(theirs[0, 0].numpy() - resized(image, size)).max() <= TOLERANCE * image.max()
