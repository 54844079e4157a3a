// Cells and samples, one at a time (PS3.5 8.1.1, 8.1.2). Twin: gpuenc/cpu/samples.py.
#pragma once
#include "device.cuh"
#include "job.cuh"

// The cell as a number, from its bytes in the order of the frame. Twin: to_little_endian.
template <int SIZE>
__device__ __forceinline__ u32 native_cell(u32 cell, bool big_endian) {
    if (SIZE == 1 || !big_endian) return cell;
    if (SIZE == 2) return cell >> 8 | (cell & 0xFF) << 8;
    return cell >> 24 | (cell >> 8 & 0xFF00) | (cell << 8 & 0xFF0000) | cell << 24;
}

// The sample's bits moved to bit 0, sign-extended or masked to 32 bits. `left` is 31 - High Bit, `right` is
// 32 - Bits Stored: shifted up first, the sample's top bit is the word's. Twin: extract_samples.
__device__ __forceinline__ u32 sample_of(u32 cell, u32 left, u32 right, bool is_signed) {
    const u32 up = cell << left;
    return is_signed ? u32(i32(up) >> right) : up >> right;
}

// Bits that must not be set: `outside` are the bits of a cell that are neither the sample's nor an overlay's, `above`
// those of them above High Bit, which a negative sample may have set, all of them. Twin: outside_bits.
__device__ __forceinline__ u32 stray_of(u32 cell, u32 left, u32 outside, u32 above, bool is_signed) {
    const u32 stray = cell & outside;
    const bool negative = cell << left >> 31;
    return is_signed && negative && (stray & above) == above ? stray ^ above : stray;
}

// The number that SIZE bytes hold.
template <int SIZE>
__device__ __forceinline__ i64 number_of(u32 cell, bool is_signed) {
    const u32 unused = 32 - 8 * SIZE;
    return is_signed ? i64(i32(cell << unused) >> unused) : i64(cell);
}

// Eight bits from bit `shift` of `low` on, which go over into `high`. Twin: align_bits.
__device__ __forceinline__ u32 aligned_byte(u32 low, u32 high, u32 shift) {
    return (high << 8 | low) >> shift & 0xFF;
}

// The sample in a cell of a job's frame; stray bits are added to what the thread found. Twin: prepare.
template <int SIZE>
__device__ __forceinline__ u32 take_sample(u32 bytes, const FrameJob& job, Found& found) {
    const bool is_signed = job.flags & SIGNED_SAMPLES;
    const u32 cell = native_cell<SIZE>(bytes, job.flags & BIG_ENDIAN_CELLS);
    const u32 stray = stray_of(cell, job.left, job.outside, job.above, is_signed);
    found.cells += stray != 0;
    found.bits |= stray;
    return sample_of(cell, job.left, job.right, is_signed);
}
