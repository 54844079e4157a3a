// Colours, one pixel at a time, in integers with one exact result. Twin: gpuenc/cpu/colour.py.
#pragma once
#include "device.cuh"

struct Triple {
    u32 a, b, c;
};

__device__ __forceinline__ u32 at_most(u32 value, u32 limit) { return value < limit ? value : limit; }

// Numerators below zero are cut to 0 before the division, which then rounds down whatever the sign was.
__device__ __forceinline__ u32 divided(i32 numerator, u32 denominator) {
    return at_most(u32(numerator < 0 ? 0 : numerator) / denominator, 255);
}

// PS3.3 C.7.6.3.1.2; samples 0 to 255. Twin: rgb_to_ybr.
__device__ __forceinline__ Triple rgb_to_ybr_of(Triple rgb) {
    const u32 red = rgb.a, green = rgb.b, blue = rgb.c;
    return {(299 * red + 587 * green + 114 * blue + 500) / 1000,
            at_most((128 * 1772 + 886 + 886 * blue - 299 * red - 587 * green) / 1772, 255),
            at_most((128 * 1402 + 701 + 701 * red - 587 * green - 114 * blue) / 1402, 255)};
}

// The inverse; samples 0 to 255. Twin: ybr_to_rgb.
__device__ __forceinline__ Triple ybr_to_rgb_of(Triple ybr) {
    const i32 luma = i32(ybr.a), blue = i32(ybr.b) - 128, red = i32(ybr.c) - 128;
    return {divided(500 * luma + 701 * red + 250, 500),
            divided(293500 * luma - 101004 * blue - 209599 * red + 146750, 293500),
            divided(250 * luma + 443 * blue + 125, 250)};
}

// The chroma of two pixels. Twin: downsample_422.
__device__ __forceinline__ u32 mean_of(u32 one, u32 other) { return (one + other + 1) >> 1; }

// Entry of a palette for a sample (PS3.3 C.7.6.3.1.5): beyond either end, the last there. Twin: expand_palette.
__device__ __forceinline__ u32 palette_index(u32 sample, i32 first, u32 entries) {
    const i64 index = i64(sample) - first;
    return index < 0 ? 0 : index >= entries ? entries - 1 : u32(index);
}

struct Wide {
    i64 a, b, c;
};

__device__ __forceinline__ bool fits_32_bits(const Wide& values) {
    return values.a == i32(values.a) && values.b == i32(values.b) && values.c == i32(values.c);
}

// The reversible component transform (T.800 G.2.1). Twin: rct_forward.
__device__ __forceinline__ Wide rct_forward_of(const Wide& rgb) {
    return {(rgb.a + 2 * rgb.b + rgb.c) >> 2, rgb.c - rgb.b, rgb.a - rgb.b};
}

// Its inverse (T.800 G.2.2). Twin: rct_inverse.
__device__ __forceinline__ Wide rct_inverse_of(const Wide& ybr) {
    const i64 green = ybr.a - ((ybr.b + ybr.c) >> 2);
    return {ybr.c + green, green, ybr.b + green};
}

// The irreversible component transform (T.800 G.3.1) in units of 1/4096, each result rounded to nearest. In integers,
// because no two compilers agree on floats: one fuses a multiplication with an addition where another does not.
// Components of at most 32 bits make numerators of less than 2^61. Twin: ict_forward.
static const i64 ICT_UNIT = 100000;
static const u32 ICT_FRACTION_BITS = 12;

// Division that rounds down, by a positive number; C's rounds towards zero.
__device__ __forceinline__ i64 floor_divided(i64 numerator, i64 denominator) {
    return numerator / denominator - (numerator % denominator < 0);
}

__device__ __forceinline__ i64 ict_rounded(i64 exact) {
    return floor_divided(exact * (i64(1) << ICT_FRACTION_BITS) + ICT_UNIT / 2, ICT_UNIT);
}

__device__ __forceinline__ Wide ict_forward_of(const Wide& rgb) {
    return {ict_rounded(29900 * rgb.a + 58700 * rgb.b + 11400 * rgb.c),
            ict_rounded(-16875 * rgb.a - 33126 * rgb.b + 50000 * rgb.c),
            ict_rounded(50000 * rgb.a - 41869 * rgb.b - 8131 * rgb.c)};
}

// Its inverse (T.800 G.3.2), rounded to nearest, halves up. Twin: ict_inverse.
__device__ __forceinline__ Wide ict_inverse_of(const Wide& ybr) {
    const i64 unit = ICT_UNIT << ICT_FRACTION_BITS, luma = ICT_UNIT * ybr.a + unit / 2;
    return {floor_divided(luma + 140200 * ybr.c, unit),
            floor_divided(luma - 34413 * ybr.b - 71414 * ybr.c, unit),
            floor_divided(luma + 177200 * ybr.b, unit)};
}
