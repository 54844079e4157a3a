// Steps of the HT cleanup encoder (T.814 7.3, read backwards) for one warp: a row of up to 32 quads, a quad for each
// lane. A quad is 2 x 2 samples in the order top left, bottom left, top right, bottom right.
#pragma once
#include "bit_stuffing.cuh"
#include "device.cuh"
#include "htj2k.cuh"

static const u32 MEL_WORDS = MEL_BYTES / 4;

// The adaptive run-length coder of the events "is a quad of context 0 significant" (T.814 7.3.3). It is the same in all
// lanes; lane 0 stores.
struct MelCoder {
    u32 run, state;
    u32 bits;     // written
    u64 pending;  // those of them that are not stored, first bit lowest
};

// Exponents of the 13 states (T.814 table 2), three bits each: 0 0 0 1 1 1 2 2 2 3 3 4 5.
__device__ __forceinline__ u32 mel_exponent(u32 state) {
    const u64 exponents = 1ull << 9 | 1ull << 12 | 1ull << 15 | 2ull << 18 | 2ull << 21 | 2ull << 24 | 3ull << 27 |
                          3ull << 30 | 4ull << 33 | 5ull << 36;
    return u32(exponents >> (3 * state)) & 7;
}

__device__ __forceinline__ void mel_put(MelCoder& mel, SHARED_PTR(u32) words, u32 bits, u32 count) {
    mel.pending |= u64(bits) << (mel.bits % 32);
    const u32 word = mel.bits / 32;
    mel.bits += count;
    if (mel.bits / 32 == word) return;
    if (threadIdx.x % 32 == 0) words[word] = u32(mel.pending);
    mel.pending >>= 32;
}

// Codes events in order from bit 0: `valid` has the places where there is one, `significant` those that are 1.
__device__ __forceinline__ void mel_code(MelCoder& mel, SHARED_PTR(u32) words, u64 valid, u64 significant) {
    significant &= valid;
    while (valid) {
        const u32 place = significant ? u32(__ffsll(i64(significant))) - 1 : 64;
        const u64 before = place == 64 ? valid : valid & ((1ull << place) - 1);
        mel.run += u32(__popcll(before));
        for (u32 whole; mel.run >= (whole = 1u << mel_exponent(mel.state));) {
            mel_put(mel, words, 1, 1);
            mel.run -= whole;
            mel.state = min(12u, mel.state + 1);
        }
        if (place == 64) return;
        const u32 exponent = mel_exponent(mel.state);
        mel_put(mel, words, exponent ? __brev(mel.run) >> (32 - exponent) << 1 : 0, exponent + 1);
        mel.run = 0;
        mel.state -= mel.state > 0;
        const u64 behind = ~((2ull << place) - 1);
        valid &= behind;
        significant &= behind;
    }
}

struct Quad {
    u32 significance;  // a bit for each sample
    u32 exponent[4];   // bits of 2 * magnitude - 1, 0 where the sample is 0
    u32 value[4];      // 2 * (magnitude - 1) + sign
    u32 largest;       // exponent
    u32 magnitudes;    // OR-ed
};

__device__ __forceinline__ Quad quad_of(const i32* samples) {
    Quad quad = {};
#pragma unroll
    for (u32 n = 0; n < 4; n++) {
        const u32 magnitude = u32(samples[n] < 0 ? -samples[n] : samples[n]), twice = 2 * magnitude;
        quad.exponent[n] = twice ? 32 - u32(__clz(i32(twice - 1))) : 0;
        quad.value[n] = twice - 2 + (u32(samples[n]) >> 31);
        quad.significance |= (twice ? 1u : 0u) << n;
        quad.largest = max(quad.largest, quad.exponent[n]);
        quad.magnitudes |= magnitude;
    }
    return quad;
}

// What the next row needs to know of a quad: significance | exponent of bottom left << 8 | of bottom right << 16.
__device__ __forceinline__ u32 bottom_of(const Quad& quad) {
    return quad.significance | quad.exponent[1] << 8 | quad.exponent[3] << 16;
}

struct Context {
    u32 number;  // of the context
    u32 kappa;   // predicted exponent
};

__device__ __forceinline__ Context first_row_context(u32 left) { return {left >> 1 | (left & 1), 1}; }

// From the quads of the row above, left above and right above, and the significance of the one to the left.
__device__ __forceinline__ Context context_of(u32 significance, u32 left, u32 left_above, u32 above, u32 right_above) {
    Context context;
    context.number = ((left_above >> 3 | above >> 1) & 1) | ((left >> 2 | left >> 3) & 1) << 1 |
                     ((above >> 3 | right_above >> 1) & 1) << 2;
    const u32 outer = max(left_above >> 16 & 0xFF, right_above >> 8 & 0xFF);
    const u32 exponent = max(outer, max(above >> 8 & 0xFF, above >> 16 & 0xFF));
    const bool several = (significance & (significance - 1)) != 0;
    context.kappa = several && exponent > 2 ? exponent - 1 : 1;
    return context;
}

// The samples of the quad that have its largest exponent: what the codeword is chosen by where u is not 0.
__device__ __forceinline__ u32 largest_of(const Quad& quad) {
    u32 which = 0;
#pragma unroll
    for (u32 n = 0; n < 4; n++) which |= (quad.exponent[n] == quad.largest ? 1u : 0u) << n;
    return which;
}

// U-VLC (T.814 table 3) of 0 to 36: prefix | its length << 3 | suffix << 5 | its length << 10.
__device__ __forceinline__ u32 uvlc_code(u32 u) {
    if (u == 0) return 0;
    if (u <= 2) return u | u << 3;
    if (u <= 4) return 4 | 3 << 3 | (u - 3) << 5 | 1 << 10;
    return 3 << 3 | ((u - 5) & 31) << 5 | 5 << 10;
}

// The bits of a pair of quads in the VLC stream: two codewords, then the two u in U-VLC.
struct PairBits {
    u32 bits, count;
};

// `first_code` and `second_code`: codeword | length << 7. `first_u`, `second_u`: as uvlc_code.
__device__ __forceinline__ PairBits pair_bits(u32 first_code, u32 second_code, u32 first_u, u32 second_u) {
    const u32 first_length = first_code >> 7 & 7, first_prefix = first_u >> 3 & 3, first_suffix = first_u >> 10;
    PairBits pair = {(first_code & 127) | (second_code & 127) << first_length, first_length + (second_code >> 7 & 7)};
    pair.bits |= ((first_u & 7) | (second_u & 7) << first_prefix) << pair.count;
    pair.count += first_prefix + (second_u >> 3 & 3);
    pair.bits |= ((first_u >> 5 & 31) | (second_u >> 5 & 31) << first_suffix) << pair.count;
    pair.count += first_suffix + (second_u >> 10);
    return pair;
}
