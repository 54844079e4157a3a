// rle.cu: samples -> RLE Lossless frames.
//
// Standard   PS3.5 Annex G: byte planes of each sample, the most significant first (G.2), rows coded by themselves
//            (G.3.1), PackBits (G.3.2), segments of even length behind a header of 16 words (G.5)
// Twin       gpuenc/cpu/rle.py: decodes what these write, and never writes less; tests/simt/references.py: the same bytes
//
// Kernels    N frames of R rows, C columns, S samples of B bytes; planes L = S * B
//   rle_measure  samples -> row_at [N][L][R]: bytes of each coded row
//   rle_place    row_at: bytes -> where the row begins in its frame; segments [N][16], outcomes [N]
//   rle_write    samples, row_at, segments, places -> frames, at their places
//
// Samples    [N][R][C][S], or with `planar` [N][S][R][C], little-endian. segments[n][0] is the end of the frame,
//            [1 .. L] where each segment begins.
// Launch     rle_measure, rle_write: grid (ceil(L * R / rows of a block), min(N, 65535)), a warp codes a row and a block
//            min(8, 2048 / ceil(C / 32)) of them; rle_place: grid (min(N, 65535), 1). Block 256, no dynamic shared
//            memory; any grid is right.
// Bytes      per byte of samples: 2 read (each pass finds the packets anew), up to 1.01 written; for each row of a
//            plane 4 written, 4 read and written, 4 read
// Limits     65535 columns, 15 planes, frames of less than 4 GiB when coded: others get FAULT_JOB
#include "device.cuh"
#include "packed.cuh"
#include "rle.cuh"
#include "scan.cuh"

static const u32 SEGMENT_WORDS = 16, HEADER_BYTES = 64;

struct RleFrames {
    u32 rows, columns, samples, sample_bytes, planar, frames;
    __device__ u32 planes() const { return samples * sample_bytes; }
    __device__ u32 words() const { return (columns + 31) / 32; }
    __device__ bool can_be() const {
        return rows && columns && rows <= 65535 && columns <= 65535 && planes() && planes() < SEGMENT_WORDS;
    }
};

// Where row y of a byte plane begins, and how far its bytes are apart.
__device__ __forceinline__ PlaneRow row_of(GLOBAL(const u8) samples, const RleFrames& all, u32 frame, u32 plane, u32 y) {
    const u32 sample = plane / all.sample_bytes, byte = all.sample_bytes - 1 - plane % all.sample_bytes;
    const u32 together = all.planar ? 1 : all.samples;  // samples of a pixel that lie together
    const u64 frame_samples = u64(all.rows) * all.columns * all.samples;
    const u64 first = (all.planar ? u64(sample) * all.rows * all.columns : sample) + u64(y) * all.columns * together;
    return {samples + (frame * frame_samples + first) * all.sample_bytes + byte, together * all.sample_bytes, all.columns};
}

// Calls body(frame, row of the frame, masks) for the rows that this warp has to do; rows count on over the planes.
template <class Body>
__device__ __forceinline__ void for_rows(const RleFrames& all, const Body& body) {
    SHARED(u32, masks, 2 * MASK_WORDS);
    const u32 words = all.words(), rows_of_block = min(ROWS_OF_BLOCK, MASK_WORDS / words), warp = threadIdx.x / 32;
    if (warp >= rows_of_block) return;
    for (u32 frame = blockIdx.y; frame < all.frames; frame += gridDim.y)
        for (u32 row = blockIdx.x * rows_of_block + warp; row < all.planes() * all.rows; row += gridDim.x * rows_of_block)
            body(frame, row, masks + 2 * warp * words);
}

extern "C" __global__ void __launch_bounds__(256) rle_measure(GLOBAL(const u8) samples, GLOBAL(u32) row_at, u32 rows, u32 columns, u32 components, u32 sample_bytes, u32 planar, u32 frames) {
    const RleFrames all = {rows, columns, components, sample_bytes, planar, frames};
    if (!all.can_be()) return;
    for_rows(all, [&](u32 frame, u32 row, SHARED_PTR(u32) masks) {
        const PlaneRow source = row_of(samples, all, frame, row / rows, row % rows);
        const u32 bytes = find_packets(source, all.words(), masks, masks + all.words());
        if (threadIdx.x % 32 == 0) row_at[u64(frame) * all.planes() * rows + row] = bytes;
    });
}

extern "C" __global__ void __launch_bounds__(256) rle_place(GLOBAL(u32) row_at, GLOBAL(u32) segments, GLOBAL(u64) outcomes, u32 rows, u32 columns, u32 components, u32 sample_bytes, u32 frames) {
    SHARED(u32, sums, 32);
    const RleFrames all = {rows, columns, components, sample_bytes, 0, frames};
    for (u32 frame = blockIdx.x; frame < frames; frame += gridDim.x) {
        if (!all.can_be()) {
            if (threadIdx.x == 0) outcomes[frame] = outcome_of(0, FAULT_JOB);
            continue;
        }
        u64 end = HEADER_BYTES;
        for (u32 plane = 0; plane < all.planes(); plane++) {
            const u64 first_row = (u64(frame) * all.planes() + plane) * rows;
            if (threadIdx.x == 0) segments[frame * SEGMENT_WORDS + 1 + plane] = u32(end);
            for (u32 first = 0; first < rows; first += blockDim.x) {
                const u32 y = first + threadIdx.x;
                const u32 bytes = y < rows ? u32(row_at[first_row + y]) : 0;
                u32 total;
                const u32 until = block_running_sum(bytes, sums, total);
                if (y < rows) row_at[first_row + y] = u32(end) + until - bytes;
                end += total;
            }
            end += end % 2;  // segments are of even length (G.5)
        }
        if (threadIdx.x == 0) {
            segments[frame * SEGMENT_WORDS] = u32(end);
            outcomes[frame] = outcome_of(end, 0);
        }
    }
}

extern "C" __global__ void __launch_bounds__(256) rle_write(GLOBAL(const u8) samples, GLOBAL(const u32) row_at, GLOBAL(const u32) segments, GLOBAL(const u64) places, GLOBAL(u8) packed, u32 rows, u32 columns, u32 components, u32 sample_bytes, u32 planar, u32 frames) {
    const RleFrames all = {rows, columns, components, sample_bytes, planar, frames};
    if (!all.can_be()) return;
    for_rows(all, [&](u32 frame, u32 row, SHARED_PTR(u32) masks) {
        if (fault_of(load(places + PLACE_WORDS * frame + 1))) return;
        const u32 lane = threadIdx.x % 32, plane = row / rows, y = row % rows;
        const PlaneRow source = row_of(samples, all, frame, plane, y);
        const u32 bytes = find_packets(source, all.words(), masks, masks + all.words());
        GLOBAL(u8) out = packed + u64(load(places + PLACE_WORDS * frame));
        const u32 begin = load(row_at + u64(frame) * all.planes() * rows + row), end = begin + bytes;
        write_packets(source, all.words(), masks, masks + all.words(), out + begin);
        if (y + 1 == rows && end % 2 && lane == 0) out[end] = 0;
        if (row == 0 && lane < SEGMENT_WORDS) {  // the header: number of segments, then where they begin
            u32 word = lane ? 0 : all.planes();
            if (lane && lane <= all.planes()) word = load(segments + frame * SEGMENT_WORDS + lane);
            for (u32 byte = 0; byte < 4; byte++) out[4 * lane + byte] = u8(word >> 8 * byte);
        }
    });
}
