// Samples to the wavelet's input, and the reversible 5/3 wavelet (T.800 Annexes F and G), one number at a time.
#pragma once
#include "device.cuh"
#include "htj2k.cuh"

// The place outside 0 .. count - 1 that stands for `place`, mirrored at both ends (T.800 F.4.7).
__device__ __forceinline__ i32 mirrored(i32 place, i32 count) {
    if (count == 1) return 0;
    for (;;) {
        if (place < 0) place = -place;
        else if (place >= count) place = 2 * (count - 1) - place;
        else return place;
    }
}

// High-pass from its even neighbours, low-pass from its high-pass neighbours (T.800 equations F-9, F-10).
__device__ __forceinline__ i32 high_pass(i32 before, i32 odd, i32 behind) { return odd - ((before + behind) >> 1); }
__device__ __forceinline__ i32 low_pass(i32 before, i32 even, i32 behind) {
    return even + ((before + behind + 2) >> 2);
}

// The number in a cell, moved by half the range if it is unsigned (T.800 G.1). Collects in `outside` what shows above
// the precision if a sample is not within it.
template <int SIZE>
__device__ __forceinline__ i32 shifted_sample(u32 cell, const Layout& layout, u32& outside) {
    const u32 unused = layout.is_signed ? 32 - 8 * SIZE : 0;
    const i32 value = i32(cell << unused) >> unused, half = 1 << (layout.precision - 1);
    outside |= u32(value + (layout.is_signed ? half : 0));
    return value - (layout.is_signed ? 0 : half);
}

// One component of the reversible component transform (T.800 G.2.1).
__device__ __forceinline__ i32 rct_component(i32 red, i32 green, i32 blue, u32 component) {
    return component == 0 ? (red + 2 * green + blue) >> 2 : component == 1 ? blue - green : red - green;
}
