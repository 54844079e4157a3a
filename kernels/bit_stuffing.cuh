// Bits written by a whole warp at once, with the bit stuffing of HT cleanup segments and packet headers.
//
// The bits come in order of the stream, first bit lowest, through a ring of 32-bit words in shared memory: each lane
// knows from a scan where its bits go and ORs them in. Once 1024 bits are there, they leave as a chunk of 128 bytes, a
// word for each lane. Wherever the rule asks for a zero bit, all later bits move up by one. That is rare, so the places
// are found by vote and mended one after another: the lane of the place inserts the zero, later lanes fetch their words
// again from one bit earlier.
#pragma once
#include "device.cuh"

enum Stuffing {
    MAGSGN,      // T.814 7.1: after 0xFF a byte's highest bit is 0; forwards, filled up with ones
    VLC,         // T.814 7.1: after a byte above 0x8F, seven ones are followed by a 0; backwards from the end
    HIGH_FIRST,  // MEL (T.814 7.1) and packet headers (T.800 B.10.1): as MagSgn, but a byte begins with its highest bit
};

static const u32 CHUNK_BITS = 1024, CHUNK_BYTES = 128;

struct Stream {
    u32 head, tail;  // where in the ring the next bit is read, and written
    u32 bytes;       // that have left
    u32 last;        // the last of them
};

struct Chunk {
    u32 word;      // this lane's
    u32 end;       // bits with stuffing, may be more than a chunk
    u32 inserted;  // zeros among those of the chunk
};

// 32 bits of the ring from `bit` on; what lies behind the stream's end is filled.
template <Stuffing RULE, u32 WORDS>
__device__ __forceinline__ u32 ring_word(SHARED_PTR(u32) ring, u32 bit, u32 tail) {
    const u32 at = bit / 32;
    const u32 bits = __funnelshift_r(ring[at % WORDS], ring[(at + 1) % WORDS], bit % 32);
    const i32 left = i32(tail - bit);
    const u32 valid = left >= 32 ? ALL_LANES : left <= 0 ? 0 : (1u << left) - 1;
    return RULE == MAGSGN ? bits | ~valid : bits & valid;
}

// Whether a byte that follows `before` must get a zero bit; bits are in order of the stream, first bit lowest.
template <Stuffing RULE>
__device__ __forceinline__ bool needs_zero(u32 before, u32 byte) {
    return RULE == VLC ? before > 0x8F && (byte & 0x7F) == 0x7F : before == 0xFF;
}

template <Stuffing RULE, u32 WORDS>
__device__ __forceinline__ Chunk stuffed_chunk(SHARED_PTR(u32) ring, const Stream& stream) {
    const u32 lane = threadIdx.x % 32;
    const u32 zero_at = RULE == HIGH_FIRST ? 0 : 7;  // bit of the byte
    u32 source = stream.head + 32 * lane;
    Chunk chunk = {ring_word<RULE, WORDS>(ring, source, stream.tail), stream.tail - stream.head, 0};
    u32 unchecked = 0;  // first byte of the chunk in which a zero may still be missing
    for (;;) {
        u32 before = __shfl_up_sync(ALL_LANES, chunk.word, 1) >> 24;
        if (lane == 0) before = stream.last;
        before |= chunk.word << 8;
        u32 places = 0;
#pragma unroll
        for (u32 byte = 0; byte < 4; byte++) {
            const u32 at = 4 * lane + byte;
            // After a last byte of 0xFF, MEL and packet headers need one more, which holds but the zero.
            const bool inside = RULE == HIGH_FIRST ? 8 * at <= chunk.end : 8 * at < chunk.end;
            const bool missing = needs_zero<RULE>(before >> (8 * byte) & 0xFF, chunk.word >> (8 * byte) & 0xFF);
            if (missing && inside && at >= unchecked) places |= 1u << byte;
        }
        const u32 lanes = __ballot_sync(ALL_LANES, places != 0);
        if (!lanes) return chunk;
        const u32 first = u32(__ffs(i32(lanes))) - 1;
        const u32 byte = 4 * first + u32(__ffs(i32(__shfl_sync(ALL_LANES, places, first)))) - 1;
        const u32 bit = 8 * byte + zero_at;
        if (lane == first) {
            const u32 below = (1u << bit % 32) - 1;
            chunk.word = (chunk.word & below) | (chunk.word & ~below) << 1;
        } else if (lane > first) {
            source--;
            chunk.word = ring_word<RULE, WORDS>(ring, source, stream.tail);
        }
        chunk.end += bit <= chunk.end;
        chunk.inserted++;
        unchecked = byte + 1;
    }
}

// Stores a word of the stream; `out` is where the stream begins, for VLC the place behind it.
template <Stuffing RULE>
__device__ __forceinline__ void store_word(GLOBAL(u8) out, u32 byte, u32 word) {
    if (RULE == VLC) *viewed_as<u32>(out + (-i64(byte) - 4)) = __byte_perm(word, 0, 0x0123);
    else if (RULE == HIGH_FIRST) *viewed_as<u32>(out + byte) = __byte_perm(__brev(word), 0, 0x0123);
    else *viewed_as<u32>(out + byte) = word;
}

// Lets whole chunks leave, and clears their words of the ring. The warp has met before, so that all bits are there.
template <Stuffing RULE, u32 WORDS>
__device__ __forceinline__ void drain(SHARED_PTR(u32) ring, Stream& stream, GLOBAL(u8) out) {
    const u32 lane = threadIdx.x % 32;
    while (stream.tail - stream.head >= CHUNK_BITS) {
        const Chunk chunk = stuffed_chunk<RULE, WORDS>(ring, stream);
        store_word<RULE>(out, stream.bytes + 4 * lane, chunk.word);
        stream.last = __shfl_sync(ALL_LANES, chunk.word, 31) >> 24;
        const u32 read = stream.head / 32;
        stream.head += CHUNK_BITS - chunk.inserted;
        stream.bytes += CHUNK_BYTES;
        __syncwarp();
        if (lane < stream.head / 32 - read) ring[(read + lane) % WORDS] = 0;
        __syncwarp();
    }
}

struct Rest {
    u32 bits;  // behind stream.bytes
    u32 word;  // this lane's of the last chunk
    // Byte `at` of the last chunk; every lane gets it.
    __device__ __forceinline__ u32 byte(u32 at) const {
        return __shfl_sync(ALL_LANES, word, i32(at / 4 % 32)) >> (8 * (at % 4)) & 0xFF;
    }
};

// Lets everything leave. The word behind the last bit is stored too: a byte may still be put there.
template <Stuffing RULE, u32 WORDS>
__device__ __forceinline__ Rest finish(SHARED_PTR(u32) ring, Stream& stream, GLOBAL(u8) out) {
    const u32 lane = threadIdx.x % 32;
    for (;;) {
        const Chunk chunk = stuffed_chunk<RULE, WORDS>(ring, stream);
        if (32 * lane <= chunk.end) store_word<RULE>(out, stream.bytes + 4 * lane, chunk.word);
        if (chunk.end < CHUNK_BITS) return {chunk.end, chunk.word};
        stream.last = __shfl_sync(ALL_LANES, chunk.word, 31) >> 24;
        stream.head += CHUNK_BITS - chunk.inserted;
        stream.bytes += CHUNK_BYTES;
    }
}

// ORs up to 64 bits into the ring at bit `at`.
template <u32 WORDS>
__device__ __forceinline__ void put_bits(SHARED_PTR(u32) ring, u32 at, u64 bits) {
    const u32 word = at / 32, shift = at % 32;
    const u64 shifted = bits << shift;
    const u32 low = u32(shifted), middle = u32(shifted >> 32), high = shift ? u32(bits >> (64 - shift)) : 0;
    if (low) atomicOr(ring + word % WORDS, low);
    if (middle) atomicOr(ring + (word + 1) % WORDS, middle);
    if (high) atomicOr(ring + (word + 2) % WORDS, high);
}

// The same for up to 32 bits.
template <u32 WORDS>
__device__ __forceinline__ void put_word(SHARED_PTR(u32) ring, u32 at, u32 bits) {
    const u64 shifted = u64(bits) << (at % 32);
    if (u32(shifted)) atomicOr(ring + at / 32 % WORDS, u32(shifted));
    if (u32(shifted >> 32)) atomicOr(ring + (at / 32 + 1) % WORDS, u32(shifted >> 32));
}

// The same for up to 96 bits, in three words, lowest first.
template <u32 WORDS>
__device__ __forceinline__ void put_words(SHARED_PTR(u32) ring, u32 at, u32 low, u32 middle, u32 high) {
    const u32 word = at / 32, shift = at % 32;
    const u32 shifted[4] = {low << shift, __funnelshift_l(low, middle, shift), __funnelshift_l(middle, high, shift),
                            __funnelshift_l(high, 0, shift)};
#pragma unroll
    for (u32 i = 0; i < 4; i++)
        if (shifted[i]) atomicOr(ring + (word + i) % WORDS, shifted[i]);
}
