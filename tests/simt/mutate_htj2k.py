"""Plants errors in the HTJ2K kernels, one at a time, and tells which the comparisons find.

python -m tests.simt.mutate_htj2k [word ...]     all, or those whose name has one of the words

Each is built in a folder of its own and run in a process of its own: a planted error may crash or never end. Not part
of ``make test``: it takes some minutes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gpuenc.cuda import htj2k_plan
from gpuenc.cuda.htj2k import Pipeline
from gpuenc.cuda.kernels import read_source
from gpuenc.errors import CodecError
from tests.simt import htj2k, shim
from tests.simt.shim import SCHEDULES, KernelMisbehaved, Library, SimtDevice
from tests.simt.test_htj2k import (
    blocks_of_four_samples,
    check_what_a_refused_block_leaves_behind,
    frame_of_a_segment_of,
    frames_that_would_share_0xff,
)

SOURCES = ("dwt53.cu", "ht_block.cu", "packet_headers.cu", "gather.cu")
TIMEOUT_S = 240
NOT_BUILT = "does not build"
BUILD_FOLDER = "GPUENC_MUTANT_FOLDER"


@dataclass(frozen=True)
class Mutant:
    """An error: `old` of the sources, which is there once, becomes `new`."""

    name: str
    old: str
    new: str


SYNC, BLOCK_SYNC = "__syncwarp();", "__syncthreads();"
MUTANTS = [
    Mutant("MagSgn is filled with zeros", "bits | ~valid : bits & valid", "bits & valid : bits & valid"),
    Mutant("VLC stuffs above 0x90", "before > 0x8F", "before > 0x90"),
    Mutant("VLC stuffs after six ones", "(byte & 0x7F) == 0x7F", "(byte & 0x7F) >= 0x7E"),
    Mutant("MagSgn stuffs after 0xFE", "7F : before == 0xFF", "7F : before >= 0xFE"),
    Mutant("zero in another bit", "RULE == HIGH_FIRST ? 0 : 7;", "RULE == HIGH_FIRST ? 0 : 6;"),
    Mutant(
        "last byte of a chunk forgotten",
        "stream.last = __shfl_sync(ALL_LANES, chunk.word, 31) >> 24;\n        const u32 read",
        "stream.last = 0;\n        const u32 read",
    ),
    Mutant(
        "last byte of the rest forgotten",
        "stream.last = __shfl_sync(ALL_LANES, chunk.word, 31) >> 24;\n        stream.head",
        "stream.last = 0;\n        stream.head",
    ),
    Mutant("ring not cleared", "if (lane < stream.head / 32 - read) ring[(read + lane) % WORDS] = 0;", "(void)read;"),
    Mutant("ring cleared too far", "if (lane < stream.head / 32 - read)", "if (lane <= stream.head / 32 - read)"),
    Mutant("insertion at the end not counted", "chunk.end += bit <= chunk.end;", "chunk.end += bit < chunk.end;"),
    Mutant("insertion counted twice", "chunk.inserted++;", "chunk.inserted += 2;"),
    Mutant("no zero behind a last 0xFF", "8 * at <= chunk.end : 8", "8 * at < chunk.end : 8"),
    Mutant("later lanes do not move", "            source--;\n", ""),
    Mutant(
        "barrier before a ring is cleared",
        f"stream.bytes += CHUNK_BYTES;\n        {SYNC}",
        "stream.bytes += CHUNK_BYTES;",
    ),
    Mutant("barrier after a ring is cleared", f"% WORDS] = 0;\n        {SYNC}", "% WORDS] = 0;"),
    Mutant("word behind the end not stored", "if (32 * lane <= chunk.end)", "if (32 * lane < chunk.end)"),
    Mutant("VLC words forwards", "(-i64(byte) - 4)) = __byte_perm(word, 0, 0x0123)", "(-i64(byte) - 4)) = word"),
    Mutant("fourth word of MagSgn bits lost", "__funnelshift_l(high, 0, shift)}", "0}"),
    Mutant("MEL exponent of state 10", "3ull << 30", "4ull << 30"),
    Mutant("MEL stops at state 11", "min(12u, mel.state + 1)", "min(11u, mel.state + 1)"),
    Mutant("MEL state does not fall", "mel.state -= mel.state > 0;", ""),
    Mutant("MEL run lowest bit first", "__brev(mel.run) >> (32 - exponent) << 1", "mel.run << 1"),
    Mutant("exponent of twice the magnitude", "__clz(i32(twice - 1))", "__clz(i32(twice))"),
    Mutant("sign lost", "+ (u32(samples[n]) >> 31)", ""),
    Mutant("context without the sample left below", "(left >> 2 | left >> 3)", "(left >> 2)"),
    Mutant("context without the quad right above", "(above >> 3 | right_above >> 1)", "(above >> 3)"),
    Mutant("context without the quad left above", "(left_above >> 3 | above >> 1)", "(above >> 1)"),
    Mutant("kappa without the quad right above", "right_above >> 8 & 0xFF)", "0u)"),
    Mutant("kappa of lone samples", "several && exponent > 2", "(several || exponent) && exponent > 2"),
    Mutant("context of the first row", "left >> 1 | (left & 1)", "left >> 1"),
    Mutant("first row has two more of U-VLC", "3 << 3 | ((u - 5) & 31) << 5", "3 << 3 | ((u - 4) & 31) << 5"),
    Mutant(
        "U-VLC suffixes in another order",
        "(first_u >> 5 & 31) | (second_u >> 5 & 31) << first_suffix",
        "(second_u >> 5 & 31) | (first_u >> 5 & 31) << (second_u >> 10)",
    ),
    Mutant("column beyond the block", "2 * lane + 1 < block.columns;", "true;"),
    Mutant("row beyond the block", "if (row + 1 < block.rows)", ""),
    Mutant("pair event of the last pair lost", "if (place >= 48)", "if (place >= 47)"),
    Mutant("pair event of the larger u", "min(u, other_u) > 2", "max(u, other_u) > 2"),
    Mutant("single bit of u lost", "!both_large && u > 2 ?", "false ?"),
    Mutant("both u not lessened", "pair_event && both_large ? 2 : 0", "0"),
    Mutant("lane 0 has a left neighbour", "if (lane == 0) left = left_above = 0;", ""),
    Mutant("lane 31 has a right neighbour", "if (lane == 31) right_above = 0;", ""),
    Mutant("rows under significance skipped", "(significance | coder.above) != 0", "significance != 0"),
    Mutant("barrier before rings leave", f"{SYNC}\n    drain<MAGSGN", "drain<MAGSGN"),
    Mutant("barrier behind the tables", f"{BLOCK_SYNC}\n    const u32 warp", "const u32 warp"),
    Mutant("barrier behind MEL's last word", f"{SYNC}\n    BlockBytes bytes", "BlockBytes bytes"),
    Mutant("barrier before Scup", f"{SYNC}\n    if (mel_bits", "if (mel_bits"),
    Mutant("barrier between blocks", f"{SYNC}  // the rings may still be read for the block before", ""),
    Mutant("barrier behind cleared rings", f"// which this lane has cleared\n    {SYNC}", ""),
    Mutant("last 0xFF kept", "bytes.magsgn && last == 0xFF", "bytes.magsgn && last == 0x1FF"),
    Mutant("shared byte of 0xFF", "agree && both != 0xFF", "agree && both != 0x1FF"),
    Mutant("byte shared with the first of VLC", "0xFF && bytes.vlc > 1", "0xFF"),
    Mutant("last run of MEL lost", "if (coder.mel.run) mel_put(coder.mel, memory.mel, 1, 1);", ""),
    Mutant("bit-planes not looked at", "quad.magnitudes >> block.kmax != 0", "false"),
    Mutant("empty block has bytes", "if (!coder.magsgn.tail) return true;", ""),
    Mutant("Scup's low bits", "(scup & 15)", "(scup & 7)"),
    Mutant("second row of the tables", "(row ? 2048 : 0)", "0"),
    Mutant("wavelet's rounding", "even + ((before + behind + 2) >> 2)", "even + ((before + behind + 1) >> 2)"),
    Mutant("wavelet's border", "2 * (count - 1) - place", "2 * count - 1 - place"),
    Mutant("wavelet with one buffer", "rows + (row & 2)", "rows + 0 * (row & 2)"),
    Mutant("barrier in the wavelet", f"even = next;\n        {BLOCK_SYNC}", "even = next;"),
    Mutant("barrier between tiles", f"{BLOCK_SYNC}  // the next tile begins with the buffer that was read last", ""),
    Mutant("sample outside of signed precision", "u32(value + (layout.is_signed ? half : 0))", "u32(value)"),
    Mutant("level shift of signed samples", "value - (layout.is_signed ? 0 : half)", "value - half"),
    Mutant("component transform", "(red + 2 * green + blue) >> 2", "(red + green + blue) >> 2"),
    Mutant("nodes below an empty one", "if (first == NOT_INCLUDED) open = false;", ""),
    Mutant("every block tells of its nodes", "if (open && !(x & size) && !(y & size))", "if (open && !(x & size))"),
    Mutant("zero bit-planes", "header.planes.count += band.kmax - 1;", "header.planes.count += band.kmax;"),
    Mutant("length lowest bit first", "u64(__brev(bytes) >> (32 - size))", "u64(bytes)"),
    Mutant("Lblock", "header.count += size - 2;", "header.count += size - 3;"),
    Mutant("last byte of a header lost", "stream.bytes + (rest.bits + 7) / 8", "stream.bytes + rest.bits / 8"),
    Mutant("barrier behind the leaves", f": NOT_INCLUDED;\n    {SYNC}", ": NOT_INCLUDED;"),
    Mutant(
        "barrier behind a level of nodes",
        f"nodes[next + at] = first;\n        }}\n        {SYNC}",
        "nodes[next + at] = first;\n        }",
    ),
    Mutant("barrier between packets", f"{SYNC}  // the ring may still be read for the packet before", ""),
    Mutant("fourth node of a square", "first = min(first, u32(corner[across + 1]));", ";"),
    Mutant("place in the body", "offsets[at] = body + sum - bytes;", "offsets[at] = body + sum;"),
    Mutant("room not looked at", "if (bytes > layout.frame_output_bytes) fault |= FAULT_ROOM;", ""),
    Mutant("frame with a fault has bytes", "if (fault) bytes = 0;", ""),
    Mutant("frames not aligned", "(u32(bytes) + 15) / 16", "(u32(bytes) + 14) / 16"),
    Mutant("Psot", "psot = bytes - 2 - layout.sot_at", "psot = bytes - layout.sot_at"),
    Mutant("Ptlm", "if (at - layout.tlm_at < 4)", "if (at - layout.tlm_at < 3)"),
    Mutant("words read beyond the source", "if (shift) value = ", "value = "),
    Mutant("head of a copy", "min(count, (4 - target_over % 4) % 4)", "min(count, 3 - target_over % 4)"),
    Mutant("tail of a copy", "if (lane < count - done)", "if (lane + 1 < count - done)"),
    Mutant("nothing between frames", "if (lane < (16 - bytes % 16) % 16) frame[bytes + lane] = 0;", ""),
]

# What cannot be told from the right kernels, and why.
EQUIVALENT: dict[str, str] = {}


def checks(library: Library) -> Iterator[Callable[[], None]]:
    """Yield comparisons, the cheap ones first; each raises where something is wrong."""
    for number, schedule in enumerate(SCHEDULES * 3):
        yield lambda number=number, schedule=schedule: _blocks(library, schedule, number)  # type: ignore[misc]
        yield lambda number=number, schedule=schedule: _batch(library, schedule, number)  # type: ignore[misc]
    yield lambda: _small(library)
    yield lambda: _faults(library)
    yield lambda: _mel_state_12(library)
    yield lambda: _large(library)


def _blocks(library: Library, schedule: str, seed: int) -> None:
    rng = np.random.default_rng([seed, 1])
    blocks = [htj2k.random_block(rng) for _ in range(20)]
    blocks[1] = blocks[5] = np.zeros((64, 64), np.int32)
    most = (1, 1) if seed % 2 else (1 << 31, 1)
    device = SimtDevice(schedule, seed=seed + 1, most_blocks=most, library=library)
    assert htj2k.kernel_blocks(device, blocks) == [htj2k.coded_block(block) for block in blocks]


GEOMETRIES = (
    ((130, 67), 12, False, 5), ((66, 130, 3), 8, False, 2), ((5, 300), 16, True, 1), ((200, 3), 7, True, 6),
    ((300, 200), 1, False, 0), ((131, 129), 16, False, 2), ((1, 1), 9, True, 0), ((260, 20), 8, True, 3),
)  # fmt: skip


def _batch(library: Library, schedule: str, seed: int) -> None:
    rng = np.random.default_rng([seed, 2])
    shape, precision, signed, levels = GEOMETRIES[seed % len(GEOMETRIES)]
    contents = rng.permutation(htj2k.CONTENTS)[:3]
    frames = [htj2k.image(rng, str(content), shape, precision, signed) for content in contents]
    most = (1, 1) if seed % 2 else (1 << 31, 1 << 16)
    device = SimtDevice(schedule, seed=seed + 1, most_blocks=most, library=library)
    htj2k.check_batch(device, frames, htj2k.coding(shape, precision, signed=signed, levels=levels))


def _small(library: Library) -> None:
    """Streams that end at every bit of a byte and of a word; a packet header that ends in 0xFF."""
    rng = np.random.default_rng(0)
    for shape in ((11, 14), (20, 24)):
        few = rng.random((300, *shape)) < rng.choice([0.01, 0.05, 0.2, 0.8], (300, 1, 1))
        frames = np.where(few, rng.integers(0, 256, few.shape), 128).astype(np.uint8)
        htj2k.check_batch(SimtDevice(library=library), list(frames), htj2k.coding(shape, 8, levels=0))
    htj2k.check_batch(
        SimtDevice(library=library), blocks_of_four_samples(), htj2k.coding((2, 2), 8, signed=True, levels=0)
    )
    for sparse in frames_that_would_share_0xff():
        wanted = htj2k.coding(sparse.shape, 8, signed=True, levels=0)
        htj2k.check_batch(SimtDevice(library=library), [sparse], wanted)
    frame = frame_of_a_segment_of(255)
    htj2k.check_batch(SimtDevice(library=library), [frame], htj2k.coding(frame.shape, 6, levels=0))


def _faults(library: Library) -> None:
    for signed, value in ((False, 512), (True, -257), (True, 256)):
        wanted = htj2k.coding((20, 30), 9, signed=signed, levels=1)
        frames = np.zeros((3, 20, 30), np.int16 if signed else np.uint16)
        frames[1, 19, 29] = value
        device = SimtDevice(library=library)
        made = Pipeline(device, 1 << 30).encode(device.put(frames), wanted)
        assert isinstance(made[1], CodecError)
        assert made[0] == made[2] == htj2k.encoded(frames[0], wanted)
    block = np.full((64, 64), 1 << 9, np.int32)
    try:
        htj2k.kernel_blocks(SimtDevice(library=library), [block], kmax=9)
    except OverflowError:
        pass
    else:
        raise AssertionError("a coefficient beyond its bit-planes was coded")
    check_what_a_refused_block_leaves_behind(library)
    wanted = htj2k.coding((50, 50), 8, levels=1)
    plan = htj2k_plan.plan(wanted)
    plan.layout["frame_output_bytes"] = 200
    device = SimtDevice(library=library)
    [made_one] = Pipeline(device, 1 << 30).encode(
        device.put(np.arange(2500, dtype=np.uint8).reshape(1, 50, 50)), wanted
    )
    assert isinstance(made_one, CodecError)


def _mel_state_12(library: Library) -> None:
    """Long runs of zeros, which end in every state."""
    rng = np.random.default_rng(0)
    blocks = []
    for count in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32):
        block = np.zeros((64, 64), np.int32)
        block[rng.integers(0, 64, count), rng.integers(0, 64, count)] = 5
        blocks.append(block)
    assert htj2k.kernel_blocks(SimtDevice(library=library), blocks) == [htj2k.coded_block(block) for block in blocks]


def _large(library: Library) -> None:
    """More blocks than a warp has lanes, many of them empty."""
    rng = np.random.default_rng(0)
    for shape in ((400, 700), (2, 4200)):
        frames = [htj2k.image(rng, content, shape, 12, False) for content in ("zero", "zero", "noise")]
        frames[0][-1, -1] = frames[1][shape[0] // 2, shape[1] // 2] = 4000
        htj2k.check_batch(SimtDevice(library=library), frames, htj2k.coding(shape, 12, levels=1))


def found_as(mutant: Mutant | None) -> str:
    """Return as what the comparisons find a mutant, nothing if they do not; None is the kernels themselves."""
    shim.own_kernels()
    htj2k.reference()
    text = read_source(*SOURCES)
    if mutant:
        assert text.count(mutant.old) == 1, f"{mutant.old!r} is there {text.count(mutant.old)} times"
        text = text.replace(mutant.old, mutant.new)
    shim.CACHE = Path(os.environ[BUILD_FOLDER])
    try:
        library = Library(text)
    except RuntimeError as error:
        return f"{NOT_BUILT}: {str(error)[:200]}"
    for check in checks(library):
        try:
            check()
        except KernelMisbehaved as wrong:
            return ", ".join(wrong.counts)
        except (AssertionError, OverflowError):
            return "wrong bytes"
    return ""


def main(words: list[str]) -> int:
    """Try all mutants, and return how many were neither found nor known to be equivalent."""
    chosen = [mutant for mutant in MUTANTS if not words or any(word in mutant.name for word in words)]
    missed = []
    for mutant in [None, *chosen]:
        with tempfile.TemporaryDirectory(prefix="gpuenc-mutant-") as folder:
            number = -1 if mutant is None else MUTANTS.index(mutant)
            command = [sys.executable, "-m", "tests.simt.mutate_htj2k", f"--one={number}"]
            try:
                done = subprocess.run(
                    command, env=os.environ | {BUILD_FOLDER: folder}, capture_output=True, text=True, timeout=TIMEOUT_S,
                    check=False,
                )  # fmt: skip
            except subprocess.TimeoutExpired:
                said = "never ends"
            else:
                said = done.stdout.strip() if not done.returncode else f"crash {done.returncode}: {done.stderr[-200:]}"
        name = mutant.name if mutant else "nothing planted"
        if mutant and (not said or said.startswith(NOT_BUILT)) and mutant.name not in EQUIVALENT:
            missed.append(name)
        print(f"{said or EQUIVALENT.get(name, 'nothing found'):30} {name}", flush=True)
    found = len(chosen) - len(missed) - sum(mutant.name in EQUIVALENT for mutant in chosen)
    print(f"{found} of {len(chosen)} found; missed: {missed or 'none'}")
    return len(missed)


if __name__ == "__main__":
    if sys.argv[1:] and sys.argv[1].startswith("--one="):
        which = int(sys.argv[1].removeprefix("--one="))
        print(found_as(None if which < 0 else MUTANTS[which]))
    else:
        sys.exit(main(sys.argv[1:]))
