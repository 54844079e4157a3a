// Parts of a packet header (T.800 B.10) for one code block.
#pragma once
#include "device.cuh"

// The raster index of the first code block below a tag-tree node that has bytes, or that there is none. Every zero
// bit-plane count of a band is kmax - 1, and a block is included in the one layer or never: of a node, nothing else
// has to be known.
static const u32 NOT_INCLUDED = 0xFFFFFFFFu;

struct HeaderBits {  // in order of the stream, first bit lowest
    u64 bits;
    u32 count;
    __device__ __forceinline__ void put(u32 bit) { bits |= u64(bit) << count++; }
};

__device__ __forceinline__ u32 halved(u32 size) { return (size + 1) / 2; }

// Levels of a tag tree over this many leaves.
__device__ __forceinline__ u32 tree_levels(u32 across, u32 down) {
    u32 levels = 1;
    for (; across > 1 || down > 1; levels++) across = halved(across), down = halved(down);
    return levels;
}

// One coding pass, then the segment's length in max(3, its bits) bits: Lblock starts at 3 (T.800 B.10.6, B.10.7).
__device__ __forceinline__ HeaderBits length_bits(u32 bytes) {
    const u32 size = max(3u, 32 - u32(__clz(i32(bytes))));
    HeaderBits header = {0, 1};                                // 0: one pass
    header.bits |= ((1ull << (size - 3)) - 1) << header.count;  // ones that raise Lblock, and a 0
    header.count += size - 2;
    header.bits |= u64(__brev(bytes) >> (32 - size)) << header.count;
    header.count += size;
    return header;
}
