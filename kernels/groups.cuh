// Global memory in groups: each thread reads and writes 16 bytes at a time where addresses allow, and less, down to
// bytes, where they do not. The frame's own bytes only: nothing beyond source_bytes or target_bytes is touched.
#pragma once
#include "device.cuh"
#include "job.cuh"

template <int WORDS>
struct Words {
    u32 at[WORDS];
};

// Cell `index` of SIZE bytes in little-endian words. Indices are constants after unrolling: no memory is used.
template <int SIZE>
__device__ __forceinline__ u32 get_cell(const u32* words, int index) {
    if (SIZE == 4) return words[index];
    const int byte = index * SIZE;
    return words[byte / 4] >> (8 * (byte % 4)) & (SIZE == 1 ? 0xFFu : 0xFFFFu);
}

// `words` must be zero there before.
template <int SIZE>
__device__ __forceinline__ void put_cell(u32* words, int index, u32 value) {
    const int byte = index * SIZE;
    if (SIZE == 4) words[index] = value;
    else words[byte / 4] |= (value & (SIZE == 1 ? 0xFFu : 0xFFFFu)) << (8 * (byte % 4));
}

// The first `bytes` of the 4 * WORDS at `address`, the others 0; [begin, end) may be read, and `bytes` lie in it.
template <int WORDS>
__device__ __forceinline__ Words<WORDS> read_words(u64 address, u32 bytes, u64 begin, u64 end) {
    constexpr int VECTOR = WORDS % 4 == 0 ? 16 : WORDS % 2 == 0 ? 8 : 4;
    Words<WORDS> words;
    const u32 over = u32(address % 4);
    const u64 floor = address - over;
    if (bytes == 4 * WORDS && address % VECTOR == 0) {
#pragma unroll
        for (int word = 0; word < WORDS; word += VECTOR / 4) {
            if (VECTOR == 16) {
                const uint4 four = load(global_at<const uint4>(address + 4 * word));
                words.at[word] = four.x;
                words.at[(word + 1) % WORDS] = four.y;
                words.at[(word + 2) % WORDS] = four.z;
                words.at[(word + 3) % WORDS] = four.w;
            } else if (VECTOR == 8) {
                const uint2 two = load(global_at<const uint2>(address + 4 * word));
                words.at[word] = two.x;
                words.at[(word + 1) % WORDS] = two.y;
            } else {
                words.at[word] = load(global_at<const u32>(address + 4 * word));
            }
        }
    } else if (bytes == 4 * WORDS && floor >= begin && floor + 4 * (WORDS + 1) <= end) {
        u32 low = load(global_at<const u32>(floor));
#pragma unroll
        for (int word = 0; word < WORDS; word++) {
            const u32 high = load(global_at<const u32>(floor + 4 * (word + 1)));
            words.at[word] = __funnelshift_r(low, high, 8 * over);
            low = high;
        }
    } else {  // from the last byte to the first, each moving those before it up
#pragma unroll
        for (int word = 0; word < WORDS; word++) words.at[word] = 0;
#pragma unroll 1
        for (u32 byte = bytes; byte--;) {
#pragma unroll
            for (int word = WORDS - 1; word > 0; word--)
                words.at[word] = words.at[word] << 8 | words.at[(word + WORDS - 1) % WORDS] >> 24;
            words.at[0] = words.at[0] << 8 | load(global_at<const u8>(address + byte));
        }
    }
    return words;
}

// The first `bytes` of the words.
template <int WORDS>
__device__ __forceinline__ void write_words(u64 address, u32 bytes, Words<WORDS> words) {
    constexpr int VECTOR = WORDS % 4 == 0 ? 16 : WORDS % 2 == 0 ? 8 : 4;
    if (bytes == 4 * WORDS && address % VECTOR == 0) {
#pragma unroll
        for (int word = 0; word < WORDS; word += VECTOR / 4) {
            if (VECTOR == 16) {
                uint4 four;
                four.x = words.at[word];
                four.y = words.at[(word + 1) % WORDS];
                four.z = words.at[(word + 2) % WORDS];
                four.w = words.at[(word + 3) % WORDS];
                global_at<uint4>(address + 4 * word)[0] = four;
            } else if (VECTOR == 8) {
                uint2 two;
                two.x = words.at[word];
                two.y = words.at[(word + 1) % WORDS];
                global_at<uint2>(address + 4 * word)[0] = two;
            } else {
                global_at<u32>(address + 4 * word)[0] = words.at[word];
            }
        }
    } else if (bytes == 4 * WORDS && address % 4 == 0) {
#pragma unroll
        for (int word = 0; word < WORDS; word++) global_at<u32>(address + 4 * word)[0] = words.at[word];
    } else {
#pragma unroll 1
        for (u32 byte = 0; byte < bytes; byte++) {
            global_at<u8>(address + byte)[0] = u8(words.at[0]);
#pragma unroll
            for (int word = 0; word + 1 < WORDS; word++) words.at[word] = words.at[word] >> 8 | words.at[word + 1] << 24;
            words.at[WORDS - 1] >>= 8;
        }
    }
}

// CELLS cells of SIZE bytes, of which the frame has the first `count`; the others are 0.
template <int SIZE, int CELLS>
__device__ __forceinline__ Words<SIZE * CELLS / 4> read_cells(const FrameJob& job, u64 offset, u32 count) {
    return read_words<SIZE * CELLS / 4>(job.source + offset, count * SIZE, job.source, job.source + job.source_bytes);
}

// The first `count` of CELLS samples of SIZE bytes.
template <int SIZE, int CELLS>
__device__ __forceinline__ void write_cells(const FrameJob& job, u64 offset, u32 count,
                                            const Words<SIZE * CELLS / 4>& words) {
    write_words<SIZE * CELLS / 4>(job.target + offset, count * SIZE, words);
}

// One byte.
__device__ __forceinline__ u32 load_byte(u64 address) { return load(global_at<const u8>(address)); }

#if defined(__CUDACC__) || defined(GPUENC_SIMT)

// Calls body(first item, number of items) for the groups of GROUP items that fall to this thread. The grid's x walks
// groups, so the lanes of a warp touch neighbouring memory; all groups but the first and the last are whole.
template <int GROUP, class Body>
__device__ __forceinline__ void for_groups(u64 items, u32 skip, Body body) {
    const u64 groups = (items + skip + GROUP - 1) / GROUP;
    const u64 step = u64(gridDim.x) * blockDim.x;
    for (u64 group = u64(blockIdx.x) * blockDim.x + threadIdx.x; group < groups; group += step) {
        const u64 end = group * GROUP + GROUP - skip;
        const u64 first = group ? end - GROUP : 0;
        body(first, u32((end < items ? end : items) - first));
    }
}

// Adds what the threads of a warp found to their frame's status. Called by all 32 lanes.
__device__ __forceinline__ void report(GLOBAL(u64) status, u32 frame, const Found& found) {
    if (!__any_sync(ALL_LANES, (found.cells | found.bits | found.fault) != 0)) return;
    const u32 cells = warp_sum(found.cells);
    const u32 bits = warp_or(found.bits);
    const u32 fault = warp_or(found.fault);
    if (threadIdx.x % 32 == 0) {
        atomicAdd(status + u64(STATUS_WORDS) * frame, u64(cells));
        atomicOr(status + (u64(STATUS_WORDS) * frame + 1), u64(fault) << 32 | bits);
    }
}

// The fault of a job that cannot be done with parameters and buffers like these, 0 if it can.
__device__ __forceinline__ u32 refuse(const FrameJob& job, u64 source_bytes, u64 target_bytes, u32 group) {
    if (job.items >> 40 || job.skip >= group || job.left > 31 || job.right > 31 || job.bit_offset > 7)
        return FAULT_JOB;
    return job.source_bytes < source_bytes || job.target_bytes < target_bytes ? FAULT_TRUNCATED : 0;
}

// Calls body(job, first item, number of items, found) for this thread's part of every frame of the batch, and reports
// what it found. An item has IN bytes in the source and OUT in the target.
template <int GROUP, int IN, int OUT, class Body>
__device__ __forceinline__ void for_frames(GLOBAL(const FrameJob) jobs, u32 frames, GLOBAL(u64) status, Body body) {
    for (u32 frame = blockIdx.y; frame < frames; frame += gridDim.y) {
        const FrameJob job = jobs[frame];
        Found found = {0, 0, refuse(job, job.items * IN, job.items * OUT, GROUP)};
        if (!found.fault) for_groups<GROUP>(job.items, job.skip, [&](u64 first, u32 count) {
            body(job, first, count, found);
        });
        report(status, frame, found);
    }
}

#endif
