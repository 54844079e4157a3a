// Bytes from anywhere to anywhere, by a warp.
#pragma once
#include "device.cuh"

// Copies `count` bytes. Whole words of the target are written as such; the words in which the source's bytes lie may be
// read whole.
// `target_over` and `source_over` are the addresses, of which only the last two bits count.
__device__ __forceinline__ void copy_bytes(GLOBAL(u8) target, GLOBAL(const u8) source, u32 count, u32 target_over,
                                           u32 source_over) {
    const u32 lane = threadIdx.x % 32;
    const u32 head = min(count, (4 - target_over % 4) % 4);
    if (lane < head) target[lane] = source[lane];
    const u32 words = (count - head) / 4, shift = (source_over + head) % 4;
    const auto to = viewed_as<u32>(target + head);
    const auto from = viewed_as<const u32>(source + (i64(head) - i64(shift)));
    for (u32 word = lane; word < words; word += 32) {
        u32 value = from[word];
        if (shift) value = __funnelshift_r(value, from[word + 1], 8 * shift);
        to[word] = value;
    }
    const u32 done = head + 4 * words;
    if (lane < count - done) target[done + lane] = source[done + lane];
}

// Byte `place` of a big-endian number of four bytes.
__device__ __forceinline__ u8 big_endian_byte(u32 number, u32 place) { return u8(number >> (24 - 8 * place)); }
