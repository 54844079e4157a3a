# ruff: noqa: E501 - a mutant a line
"""One error after the other, planted in the kernels that encode, and which check finds it.

python -m tests.simt.mutate_encoders            all of them; some minutes
python -m tests.simt.mutate_encoders 7 12       these

All are built at once and chosen by a number at run time. Each runs in a process of its own, since some never end.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np

from gpuenc.cuda import jpeg_lossless, packed, rle
from gpuenc.cuda.kernels import read_source
from gpuenc.errors import CodecError
from tests.simt import encoders, references
from tests.simt.shim import SCHEDULES, KernelMisbehaved, Library, SimtDevice

SECONDS = 600
SOURCES = ("packed.cu", "jpeg_lossless.cu", "rle.cu")
BARRIER, WARP_BARRIER = "__syncthreads();", "__syncwarp();"
JPEG, RLE = "jpeg-lossless", "rle"


@dataclass(frozen=True)
class Mutant:
    """After the text `before`, `old` becomes `new`; without `new`, it is a statement and left out.

    `equivalent` says why nothing can find it.
    """

    codec: str
    before: str
    old: str
    new: str = ""
    equivalent: str = ""


M = Mutant
MUTANTS = (
    # scan.cuh, packed.cuh, packed.cu
    M(JPEG, "const T inclusive = warp_running_sum(value);\n    ", BARRIER),
    M(JPEG, "sums[warp] = inclusive;\n    ", BARRIER),
    M(JPEG, "if (", "threadIdx.x % 32 == 31", "threadIdx.x % 32 == 30"),
    M(JPEG, "const T before = __shfl_up_sync(ALL_LANES, value, distance);\n        if (", "lane >= distance", "lane > distance"),
    M(JPEG, "if (", "other < warp", "other <= warp"),
    M(JPEG, "if (", "end > u64(room) * ROOM_UNIT_BYTES", "end > u64(room + 1) * ROOM_UNIT_BYTES"),
    M(JPEG, "            places[u64(PLACE_WORDS) * frame + 1] = outcome;\n        }\n        ", "begin += total;"),
    M(JPEG, "if (", "bytes >> 32", "false", "a codestream of 4 GiB takes too long here"),
    M(JPEG, "return ", "fault ? u64(fault) << 32 : bytes", "bytes"),
    # jpeg_lossless.cuh
    M(JPEG, "samples && samples < 1ull << 31 && ", "rows <= 65535", "true"),
    M(JPEG, "rows <= 65535 && ", "columns <= 65535 && components <= 4", "components <= 4"),
    M(JPEG, "if (", "at >= row", "at > row"),
    M(JPEG, "1u << ", "(8 * sizeof(Sample) - 1)", "(8 * sizeof(Sample) - 2)"),
    M(JPEG, "if (", "column >= scan.components", "column > scan.components"),
    M(JPEG, "else if (", "i >= scan.row", "i > scan.row"),
    M(JPEG, "return 32 - __clz(", "value < 0 ? -value : value", "value < 0 ? ~value : value"),
    M(JPEG, "entry = table[category], more = ", "category % 16", "category"),
    M(JPEG, "const u32 low = ", "u32(value < 0 ? value - 1 : value)", "u32(value)"),
    M(JPEG, "return (table[category] & 0xFF) + ", "category % 16", "category"),
    M(JPEG, "making.length[leaf] = 0;\n    }\n    ", "making.frequency[CATEGORIES] = 1;"),
    M(JPEG, "if (rarest < 0 || ", "frequency <= least", "frequency < least"),
    M(JPEG, "else if (second < 0 || ", "frequency <= next_least", "frequency < next_least"),
    M(JPEG, "making.frequency[second] = 0;\n        i32 leaf = rarest;\n        ", "making.length[leaf] += 1;"),
    M(JPEG, "leaf = on;\n            ", "making.length[leaf] += 1;"),
    M(JPEG, "leaf = making.next[leaf]) ", "making.length[leaf] += 1;"),
    M(JPEG, "for (u32 length = CATEGORIES; ", "length > 16", "length > 17"),
    M(JPEG, "u32 shorter = ", "length - 2", "length - 1"),
    M(JPEG, "count[length - 1] += 1;\n            ", "count[shorter + 1] += 2;"),
    M(JPEG, "while (!count[longest]) longest--;\n    ", "count[longest] = count[longest] - 1;"),
    M(JPEG, "table[category] = 0;\n    u32 code = 0, value = 0;\n    for (u32 length = 1; ", "length <= 16", "length <= 15"),
    M(JPEG, "if (", "making.length[category] == length", "making.length[category] >= length"),
    M(JPEG, "(10 + 3 * components) + ", "(21 + values)", "(20 + values)"),
    M(JPEG, "byte(component);\n        ", "byte(0x11);"),
    # jpeg_lossless.cu
    M(JPEG, "body(frame, chunk);\n            ", BARRIER),
    M(JPEG, "chunk < scan.chunks; ", "chunk += gridDim.x", "chunk += 1"),
    M(JPEG, "Column column(", "chunk * CHUNK + threadIdx.x", "threadIdx.x"),
    M(JPEG, "category_of(difference_of(here, i, column.at, scan)) : ", "31", "0"),
    M(JPEG, "for (u32 bit = 0; ", "bit < 5", "bit < 4"),
    M(JPEG, "counts[threadIdx.x] = count;\n        ", BARRIER),
    M(JPEG, "sum += of_warps[threadIdx.x * (THREADS / 32) + other];\n        frequency[threadIdx.x] = sum;\n    }\n    ", BARRIER),
    M(JPEG, "(THREADS / 32) + warp] = sum;\n    }\n    ", BARRIER),
    M(JPEG, "assign_codes(making, dht, table);\n        }\n        ", BARRIER),
    M(JPEG, "faults[frame] = ", "begin > u64(words) * 32", "false"),
    M(JPEG, "if (chunk < scan.chunks) bits[chunk] = begin + until - mine;\n            ", "begin += total;"),
    M(JPEG, "if (", "filled >= 32", "filled > 32"),
    M(JPEG, "const u32 whole = u32(pending >> filled);\n            if (", "shared", "false"),
    M(JPEG, "if (", "filled && first < end", "false"),
    M(JPEG, "u32 needed = ", "(0 - at) % 8", "(0 - at) % 4"),
    M(JPEG, "Code code = {(1u << needed) - 1, needed};\n        if (", "i < available", "false"),
    M(JPEG, "code = {", "code.bits >> (code.length - needed)", "code.bits"),
    M(JPEG, "if (", "at >= first && at + 4 <= last", "at + 4 <= last"),
    M(JPEG, "stuffed += ", "(bits >> 8 * byte & 0xFF) == 0xFF", "(bits >> 8 * byte & 0xFF) == 0xFE"),
    M(JPEG, "if (at + byte >= first && ", "at + byte < last", "at + byte <= last"),
    M(JPEG, "u8(value);\n                stuffed += ", "value == 0xFF", "false"),
    M(JPEG, "for_chunks(scan, frames, [&](u32 frame, u32 chunk) {\n        if (", "load(faults + frame)", "false"),
    M(JPEG, "min(scan.samples - base, ", "CHUNK + BORROWED", "CHUNK"),
    M(JPEG, "(skipped + u32(end - begin) + 7 + 31) / 32;\n        if (", "threadIdx.x < CATEGORIES", "threadIdx.x < 5"),
    M(JPEG, "code_words[word] = 0;\n        ", BARRIER),
    M(JPEG, "differences, table, code_words);\n        ", "if (threadIdx.x == 0) fill_last_byte(skipped + u32(end - begin), available, differences, table, code_words);"),
    M(JPEG, "fill_last_byte(skipped + u32(end - begin), available, differences, table, code_words);\n        ", BARRIER),
    M(JPEG, "counts[chunk] = u32(before) + until - count;\n            ", "before += total;"),
    M(JPEG, "const u32 fault = ", "load(faults + frame)", "0u"),
    M(JPEG, "const u32 head = ", "min(u32(0 - address) % 4, count)", "0u"),
    M(JPEG, "for (u32 i = ", "head + 4 * whole + threadIdx.x", "head + 4 * whole + threadIdx.x + 1"),
    M(JPEG, "for_chunks(scan, frames, [&](u32 frame, u32 chunk) {\n        GLOBAL(const u64) place = places + u64(PLACE_WORDS) * frame;\n        if (", "fault_of(load(place + 1))", "false"),
    M(JPEG, "share = ", "(count + THREADS - 1) / THREADS", "count / THREADS"),
    M(JPEG, "code[i] = load(global_at<const u8>(source + i));\n        ", BARRIER),
    M(JPEG, "result[at++] = value;\n            if (", "value == 0xFF", "false"),
    M(JPEG, "result[at++] = 0;\n        }\n        ", BARRIER),
    M(JPEG, "if (", "chunk + 1 == scan.chunks", "chunk == 0"),
    # rle.cuh
    M(RLE, "columns - 32 * word >= 32 ? ALL_LANES : ", "(1u << (columns - 32 * word)) - 1", "ALL_LANES"),
    M(RLE, "const u32 wanted = ", "(2u << last) - 1", "(1u << last) - 1"),
    M(RLE, "u32 before = __shfl_up_sync(ALL_LANES, byte, 1);\n        if (", "lane == 0", "false"),
    M(RLE, "__ballot_sync(ALL_LANES, ", "x > 0", "true", "the first byte is where cut_runs cuts first"),
    M(RLE, "&& ", "x < row.columns", "true"),
    M(RLE, "last = __shfl_sync(ALL_LANES, byte, ", "31", "30"),
    M(RLE, "if (", "lane == word % 32", "lane == 0", "each word is read by another lane only behind a barrier"),
    M(RLE, "if (lane == word % 32) same[word] = bits;\n    }\n    ", WARP_BARRIER, "", "the lane that has written a word reads it"),
    M(RLE, "const u32 last_start = ", "~bits ? x + 31 - __clz(~bits) : 0", "x"),
    M(RLE, "warp_running_max(last_start);\n        u32 start = __shfl_up_sync(ALL_LANES, latest, 1);\n        if (lane == 0 || ", "start < begun", "false"),
    M(RLE, "if (word < words && cut < 32 && ", "all_up_to(bits, cut)", "true"),
    M(RLE, "same[word] = bits & ~(1u << cut);\n        ", "begun = max(begun, __shfl_sync(ALL_LANES, latest, 31));"),
    M(RLE, "same[word] = bits & ~(1u << cut);\n        begun = max(begun, __shfl_sync(ALL_LANES, latest, 31));\n    }\n    ", WARP_BARRIER),
    M(RLE, "one_on = here >> 1 | ", "after << 31", "0"),
    M(RLE, "two_on = here >> 2 | ", "after << 30", "0"),
    M(RLE, "const u32 in_run = ", "one_on & (here | two_on)", "one_on & here"),
    M(RLE, "cut_pairs |= literal_starts(word, literals, before, begun).cut & ", "pairs", "0"),
    M(RLE, "__ballot_sync(ALL_LANES, ", "pair == ALL_LANES", "false"),
    M(RLE, "const u64 over = u64(generates | passes) + generates + ", "open", "0"),
    M(RLE, "generates) >> lane & 1;\n        ", "open = u32(over >> 32);"),
    M(RLE, "const u32 open_before = (u32(sum) + ", "enters", "0"),
    M(RLE, "literal[word] = single | (pair & open_before);\n    }\n    ", WARP_BARRIER),
    M(RLE, "const u32 begins = literals & ~(literals << 1 | ", "before >> 31", "0"),
    M(RLE, "runs = ~u32(same[word]) & ~literals & ", "bits_in_row(word, columns)", "ALL_LANES"),
    M(RLE, "cut < 32 && all_up_to(literals, cut) && ", "!(begins & 1)", "true"),
    M(RLE, "const bool goes_on = cut < 32 && ", "all_up_to(literals, cut)", "true"),
    M(RLE, "__popc(literals) + __popc(starts) + ", "__popc(starts & ~literals)", "0"),
    M(RLE, "const u32 cut = (start - x) % 128;\n    ", "begun = max(begun, __shfl_sync(ALL_LANES, latest, 31));"),
    M(RLE, "if (x + 1 == columns || ", "!bit_of(same, x + 1)", "true"),
    M(RLE, "", "length == 128 ? 1 : length + 1", "length + 1"),
    M(RLE, "else if (length && ", "length <= 126", "length <= 127"),
        M(RLE, "x++;\n        } else {\n            ", "length = 0;"),
    M(RLE, "            pairs = u32(same[word]) | ", "u32(same[word]) >> 1", "0"),
    M(RLE, "            pairs = ", "u32(same[word])", "0"),
    M(RLE, "u32(same[word]) >> 1 | ", "after << 31", "0"),
    M(RLE, "literal_starts(word, literals, before, begun).cut & pairs;\n    }\n    ", WARP_BARRIER),
    M(RLE, "if (lane == 0) take_out_pairs(columns, same, literal);\n    ", WARP_BARRIER),
    M(RLE, "__any_sync(ALL_LANES, ", "cut_pairs != 0", "false"),
    M(RLE, "u32 later = u32(starts[word]) & ~(", "(2u << x % 32) - 1", "(1u << x % 32) - 1"),
    M(RLE, "while (!later && ", "++word < words", "false"),
    M(RLE, "length - 1 : ", "257 - length", "256 - length"),
    M(RLE, "out = out + (__popc(literals) + __popc(first) + ", "__popc(runs)", "0"),
    M(RLE, "out = out + (__popc(literals) + __popc(first) + __popc(runs));\n    }\n    ", WARP_BARRIER),
    # rle.cu
    M(RLE, "rows && columns && ", "rows <= 65535", "true"),
    M(RLE, "rows <= 65535 && ", "columns <= 65535 && planes()", "planes()"),
    M(RLE, "planes() && ", "planes() < SEGMENT_WORDS", "true"),
    M(RLE, "byte = ", "all.sample_bytes - 1 - plane % all.sample_bytes", "plane % all.sample_bytes"),
    M(RLE, "all.planar ? ", "u64(sample) * all.rows * all.columns", "u64(sample)"),
    M(RLE, "const u32 together = ", "all.planar ? 1 : all.samples", "all.samples"),
    M(RLE, "if (", "warp >= rows_of_block", "false"),
    M(RLE, "body(frame, row, masks + ", "2 * warp * words", "warp * words"),
    M(RLE, "row < all.planes() * all.rows; ", "row += gridDim.x * rows_of_block", "row += rows_of_block"),
    M(RLE, "row_at[first_row + y] = u32(end) + until - bytes;\n                ", "end += total;"),
    M(RLE, "end += total;\n            }\n            ", "end += end % 2;"),
    M(RLE, "u64 end = ", "HEADER_BYTES", "HEADER_BYTES - 4"),
    M(RLE, "if (", "fault_of(load(places + PLACE_WORDS * frame + 1))", "false", "sizes that cannot be end before it, and the room is the bound"),
    M(RLE, "if (", "y + 1 == rows && end % 2 && lane == 0", "false"),
    M(RLE, "if (lane && ", "lane <= all.planes()", "lane < all.planes()"),
    M(RLE, "out[4 * lane + byte] = u8(word >> ", "8 * byte", "24 - 8 * byte"),
)  # fmt: skip


def library() -> Library:
    """Return the kernels with all mutants in them; ``simt_mutant`` says which one runs."""
    text = read_source(*SOURCES)
    places = [mutant.before + mutant.old for mutant in MUTANTS]
    wrong = [f"{place!r} is there {text.count(place)} times" for place in places if text.count(place) != 1]
    if wrong:
        raise ValueError("\n".join(wrong))
    spans = []
    for number, (mutant, where) in enumerate(zip(MUTANTS, places, strict=True), 1):
        if not mutant.new:
            chosen = f"if (simt_mutant != {number}) {mutant.old}"
        else:
            chosen = f"(simt_mutant == {number} ? ({mutant.new}) : ({mutant.old}))"
        end = text.index(where) + len(where)
        spans.append((end - len(mutant.old), end, chosen))
    spans.sort()
    for (_, end, chosen), (start, _, _) in pairwise(spans):
        if start < end:
            raise ValueError(f"another mutant lies in {chosen!r}")
    for start, end, chosen in reversed(spans):
        text = text[:start] + chosen + text[end:]
    return Library(f'extern "C" {{ int simt_mutant; }}\n{text}')


def checks(codec: str) -> Iterator[Callable[[SimtDevice], None]]:
    """Yield checks, the quick ones first; each is for a device that is made for it."""
    check = encoders.check_jpeg_lossless if codec == JPEG else encoders.check_rle
    kinds = ("u1", "u2") if codec == JPEG else ("u1", "u2", "u4")
    for seed in range(40):
        rng = np.random.default_rng(seed)
        shape = (int(rng.integers(1, 30)), int(rng.integers(1, 140)))
        batch = encoders.batch_of(rng, shape if seed % 3 else (*shape, 3), kinds[seed % len(kinds)])
        yield partial(check, batch=batch)
        if codec == RLE and batch.ndim == 4:
            yield partial(encoders.check_rle, batch=batch, planar=True)
    yield from (partial(refuses, codec, change) for change in LIES[codec])
    rng = np.random.default_rng(1)
    if codec == JPEG:
        yield short_of_scratch
        yield many_places
        yield partial(check, batch=encoders.ones(rng, (1, 9, 60000), np.dtype("u2")))
        yield partial(check, batch=encoders.fibonacci(rng, (70, 100), np.dtype("u2"))[None])
    else:
        for columns in (1025, 2100, 8193, 9000, 20000):
            yield partial(
                check, batch=np.stack([f(rng, (9, columns), np.dtype("u1")) for f in (encoders.runs, encoders.pairs)])
            )
        yield partial(check, batch=rng.integers(0, 3, (2, 530, 7)).astype(np.uint8))
        yield partial(check, batch=encoders.word_edges(rng, (1, 60, 260), np.dtype("u1")))
    for seed in range(3):
        for batch in encoders.adversarial(seed, kinds):
            if batch.shape[1] < 1000 or codec == JPEG:
                yield partial(check, batch=batch)


LIES: dict[str, list[dict[str, int]]] = {
    JPEG: [{"rows": 0}, {"columns": 0}, {"rows": 65536}, {"columns": 65536}, {"samples": 5}],
    RLE: [{"rows": 0}, {"rows": 65536}, {"columns": 65536}, {"samples": 8}, {"samples": 0}],
}


def refuses(codec: str, change: dict[str, int], on: SimtDevice) -> None:
    from dataclasses import replace

    measure = jpeg_lossless.measure if codec == JPEG else rle.measure
    told = replace(encoders.wanted((2, 3), "u2"), **change)
    results = packed.collect(on, measure(on, on.put(np.zeros((2, 2, 3), np.uint16)), told))
    assert all(isinstance(result, CodecError) for result in results)


def short_of_scratch(on: SimtDevice) -> None:
    batch = np.stack([f(np.random.default_rng(7), (40, 50), np.dtype("u2")) for f in (encoders.flat, encoders.noise)])
    before = jpeg_lossless._scratch_words
    jpeg_lossless._scratch_words = lambda samples, bits: 800  # type: ignore[assignment]
    try:
        one, two = encoders.encoded(jpeg_lossless.measure, on, batch)
    finally:
        jpeg_lossless._scratch_words = before
    assert one == references.jpeg_lossless(batch[0])
    assert isinstance(two, CodecError)


def many_places(on: SimtDevice) -> None:
    sizes = np.random.default_rng(8).integers(0, 90, 600).astype(np.uint64)
    ends = np.cumsum(sizes)
    for room in (40, int(ends[299]) // 256):
        places = on.empty((600, 2), np.uint64)
        on.launch("packed", "place_streams", (1, 1), 256, (on.put(sizes), places, np.uint32(600), np.uint32(room)))
        got = on.download(places)
        np.testing.assert_array_equal(got[:, 0], ends - sizes)
        np.testing.assert_array_equal(got[:, 1] >> np.uint64(32) > 0, ends > room * 256)


def found(built: Library, number: int, codec: str) -> str:
    """Return as what a mutant is found, or nothing."""
    ctypes.c_int.in_dll(built.functions, "simt_mutant").value = number
    for turn, check in enumerate(checks(codec)):
        few = (1, 2) if turn % 2 else (1 << 31, 1 << 16)
        on = SimtDevice(SCHEDULES[turn % 5], seed=turn + 1, misalign=turn % 16, most_blocks=few, library=built)
        try:
            check(on)
        except KernelMisbehaved as wrong:
            return f"{', '.join(wrong.counts)} (check {turn})"
        except Exception as wrong:  # noqa: BLE001 - whatever it is, it was found
            return f"{type(wrong).__name__} (check {turn})"
    return ""


def in_a_process(built: Library, number: int, codec: str) -> str:
    """Return as what a mutant is found; one that crashes or does not end is found as well."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(SECONDS)
        os.write(write, (found(built, number, codec) or "-").encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        said = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    return "" if said == "-" else said or f"ended by signal {os.WTERMSIG(status)}"


def main(numbers: list[int]) -> int:
    """Run the mutants of these numbers, 0 for none planted; return how many of them nothing has found."""
    built, missed, killed = library(), 0, 0
    for number in numbers:
        mutant = MUTANTS[number - 1] if number else None
        for codec in [mutant.codec] if mutant else [JPEG, RLE]:
            how = in_a_process(built, number, codec)
            planted = f"{mutant.old!r:.70} -> {mutant.new!r:.40}" if mutant else f"nothing, {codec}"
            expected = f" EQUIVALENT: {mutant.equivalent}" if mutant and mutant.equivalent else ""
            print(f"{number:4} {how or 'NOT FOUND'}{expected} | {planted}", flush=True)
            wrong = bool(how) if not mutant or mutant.equivalent else not how
            missed += wrong
            killed += bool(how)
    print(f"{killed} found, {missed} not as they should be, of {len(numbers)}")
    return missed


if __name__ == "__main__":
    sys.exit(main([int(word) for word in sys.argv[1:]] or list(range(len(MUTANTS) + 1))) > 0)
