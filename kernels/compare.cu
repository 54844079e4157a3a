// compare.cu: do two batches hold the same samples, and what is the checksum of one.
//
// Standard   CRC-32: ISO 3309 / ITU-T V.42 8.1.1.6.2
// Twin       count_differing and checksum of gpuenc/cpu/samples.py: equal bit for bit
//
// Kernels    N frames of P samples; <a>, <b> bits of a sample, <a> <= <b>
//   count_differing_<a>_<b>  samples [N][P] and [N][P], each signed or not -> status: how many differ in value
//   crc32_tables             -> the 2336 constants that crc32 wants, u32
//   crc32                    bytes [N][B] -> sums [N], u32, zeroed by the host: the CRC-32 of each frame
//
// Launch     count_differing: grid (ceil(groups / 1024), min(N, 65535)), block 256; a group is 16 bytes of the wider
//            samples. crc32_tables: grid 1, block 256. crc32: grid (ceil(B / 131072), min(N, 65535)), block 256, 8.3 KB
//            of static shared memory; a block takes 128 KiB at a time. Any grid is right.
// Bytes      count_differing: (a + b) / 8 read per sample. crc32: 1 read per byte. Jobs: 80 per frame.
// Limits     blocks of exactly 256 for crc32 and crc32_tables, of a multiple of 32 for the others.
#include "compare.cuh"
#include "device.cuh"
#include "groups.cuh"
#include "job.cuh"
#include "samples.cuh"

// items: samples; the other samples lie at job.target
template <int ONE, int OTHER>
__device__ void count_frames(GLOBAL(const FrameJob) jobs, u32 frames, GLOBAL(u64) status) {
    constexpr int GROUP = 16 / OTHER;
    for_frames<GROUP, ONE, OTHER>(jobs, frames, status, [](const FrameJob& job, u64 first, u32 count, Found& found) {
        FrameJob second = job;
        second.source = job.target;
        second.source_bytes = job.target_bytes;
        const auto one = read_cells<ONE, GROUP>(job, first * ONE, count);
        const auto other = read_cells<OTHER, GROUP>(second, first * OTHER, count);
#pragma unroll
        for (int i = 0; i < GROUP; i++)
            found.cells += number_of<ONE>(get_cell<ONE>(one.at, i), job.flags & SIGNED_SAMPLES) !=
                           number_of<OTHER>(get_cell<OTHER>(other.at, i), job.flags & SIGNED_TARGET);
    });
}

// How crc32 divides its work: a message is thought to begin with zero bytes, which change nothing, so that it is whole
// chunks; thread t of a block sums the 16 bytes at 16 * t of every row of its chunk.
static const u32 CRC_THREADS = 256;
static const u32 CRC_ROW = 16 * CRC_THREADS;  // bytes
static const u32 CRC_CHUNK_LOG2 = 17;
static const u32 CRC_CHUNK = 1u << CRC_CHUNK_LOG2;  // bytes

// Places in `tables`, which has 2336.
static const u32 CRC_BY_ROW = 0;       // [4][256]: byte k of a word, times x^(8 * CRC_ROW)
static const u32 CRC_BY_WORD = 1024;   // [4][256]: byte k of a word, times x^32
static const u32 CRC_TO_END = 2048;    // [256]: x^8 for every byte from the last word of thread t to the chunk's end
static const u32 CRC_SQUARES = 2304;   // [32]: x^(2^k)

// The word times what the table `by` stands for.
__device__ __forceinline__ u32 crc_advance(SHARED_PTR(u32) by, u32 word) {
    return by[word & 0xFF] ^ by[256 + (word >> 8 & 0xFF)] ^ by[512 + (word >> 16 & 0xFF)] ^ by[768 + (word >> 24)];
}

// x^(exponent << log2), the product taken by the 32 lanes of a warp; every lane gets it. x^(2^32) is x, so the upper
// half of the exponent counts as a second lower one.
__device__ __forceinline__ u32 crc_warp_power(GLOBAL(const u32) tables, u64 exponent, u32 log2) {
    const u32 lane = threadIdx.x % 32;
    const u32 square = load(tables + (CRC_SQUARES + (lane + log2) % 32));
    u32 power = exponent >> lane & 1 ? square : CRC_ONE;
    if (exponent >> 32 >> lane & 1) power = crc_product(power, square);
    for (int distance = 16; distance; distance >>= 1)
        power = crc_product(power, __shfl_xor_sync(ALL_LANES, power, distance));
    return power;
}

// This thread's part of the chunk, as a sum at the chunk's end.
__device__ __forceinline__ u32 crc_of_rows(SHARED_PTR(u32) by, u32 to_end, const FrameJob& job, u64 chunk, u64 missing) {
    u32 sums[4] = {0, 0, 0, 0};
    for (u32 row = 0; row < CRC_CHUNK / CRC_ROW; row++) {
        const u64 end = chunk * CRC_CHUNK + row * CRC_ROW + 16 * threadIdx.x + 16;
        if (end <= missing) continue;
        Words<4> words = {};
        if (end >= missing + 16) {
            words = read_words<4>(job.source + (end - 16 - missing), 16, job.source, job.source + job.items);
        } else {
            const int absent = int(missing + 16 - end);
#pragma unroll
            for (int i = 0; i < 16; i++)
                if (i >= absent) put_cell<1>(words.at, i, load_byte(job.source + (i - absent)));
        }
#pragma unroll
        for (int i = 0; i < 4; i++) sums[i] = crc_advance(by + CRC_BY_ROW, sums[i]) ^ words.at[i];
    }
    u32 sum = sums[0];
    for (int i = 1; i < 4; i++) sum = crc_advance(by + CRC_BY_WORD, sum) ^ sums[i];
    return crc_product(to_end, sum);
}

// items: bytes
extern "C" __global__ void __launch_bounds__(256)
    crc32(GLOBAL(const FrameJob) jobs, u32 frames, GLOBAL(u64) status, GLOBAL(u32) sums, GLOBAL(const u32) tables) {
    SHARED(u32, by, 2048);
    SHARED(u32, parts, 8);
    const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    for (u32 i = threadIdx.x; i < 2048; i += CRC_THREADS) by[i] = load(tables + i);
    const u32 to_end = load(tables + (CRC_TO_END + threadIdx.x));
    __syncthreads();
    for (u32 frame = blockIdx.y; frame < frames; frame += gridDim.y) {
        const FrameJob job = jobs[frame];
        const Found found = {0, 0, refuse(job, job.items, 0, 1)};
        report(status, frame, found);
        if (found.fault) continue;
        const u64 chunks = (job.items + CRC_CHUNK - 1) / CRC_CHUNK, missing = chunks * CRC_CHUNK - job.items;
        for (u64 chunk = blockIdx.x; chunk < chunks; chunk += gridDim.x) {
            const u32 part = warp_xor(crc_of_rows(by, to_end, job, chunk, missing));
            if (lane == 0) parts[warp] = part;
            __syncthreads();
            if (warp == 0) {
                const u32 sum = warp_xor(lane < CRC_THREADS / 32 ? parts[lane] : 0);
                const u32 power = crc_warp_power(tables, chunks - 1 - chunk, CRC_CHUNK_LOG2 + 3);
                if (lane == 0) atomicXor(sums + frame, crc_product(power, sum));
            }
            __syncthreads();  // parts are written again
        }
        // The register begins as all ones, in front of the message, and the result is inverted.
        if (blockIdx.x == 0 && warp == 0) {
            const u32 power = crc_warp_power(tables, job.items, 3);
            if (lane == 0) atomicXor(sums + frame, ~crc_product(power, ~0u));
        }
    }
}

extern "C" __global__ void __launch_bounds__(256) crc32_tables(GLOBAL(u32) tables) {
    const u32 row = crc_x_to(8 * CRC_ROW), word = crc_x_to(32);
    for (u32 byte = 0; byte < 4; byte++) {
        tables[CRC_BY_ROW + 256 * byte + threadIdx.x] = crc_product(row, threadIdx.x << 8 * byte);
        tables[CRC_BY_WORD + 256 * byte + threadIdx.x] = crc_product(word, threadIdx.x << 8 * byte);
    }
    tables[CRC_TO_END + threadIdx.x] = crc_x_to(8 * (CRC_ROW - 16 * threadIdx.x - 12));
    if (threadIdx.x < 32) tables[CRC_SQUARES + threadIdx.x] = crc_x_to_2_to(threadIdx.x);
}

// clang-format off: one kernel a line
extern "C" __global__ void __launch_bounds__(256) count_differing_8_8(GLOBAL(const FrameJob) jobs, u32 frames, GLOBAL(u64) status) { count_frames<1, 1>(jobs, frames, status); }
extern "C" __global__ void __launch_bounds__(256) count_differing_16_16(GLOBAL(const FrameJob) jobs, u32 frames, GLOBAL(u64) status) { count_frames<2, 2>(jobs, frames, status); }
extern "C" __global__ void __launch_bounds__(256) count_differing_32_32(GLOBAL(const FrameJob) jobs, u32 frames, GLOBAL(u64) status) { count_frames<4, 4>(jobs, frames, status); }
extern "C" __global__ void __launch_bounds__(256) count_differing_8_16(GLOBAL(const FrameJob) jobs, u32 frames, GLOBAL(u64) status) { count_frames<1, 2>(jobs, frames, status); }
extern "C" __global__ void __launch_bounds__(256) count_differing_8_32(GLOBAL(const FrameJob) jobs, u32 frames, GLOBAL(u64) status) { count_frames<1, 4>(jobs, frames, status); }
extern "C" __global__ void __launch_bounds__(256) count_differing_16_32(GLOBAL(const FrameJob) jobs, u32 frames, GLOBAL(u64) status) { count_frames<2, 4>(jobs, frames, status); }
// clang-format on
