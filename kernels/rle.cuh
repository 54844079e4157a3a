// PackBits of one row of one byte plane (PS3.5 G.3), by one warp.
//
// A row of `columns` bytes is a row of bits, byte x being bit x % 32 of word x / 32, and every question about it is
// answered for 32 bytes at a time:
//
//   byte      a  a  a  a  b  c  c  d  e  e  e  f  f
//   same      .  1  1  1  .  .  1  .  .  1  1  .  1     equals the byte before it
//   long      1  1  1  .  .  .  .  .  1  1  .  .  .     part of a run of three or more, but for its last byte
//   single    .  .  .  .  1  .  .  1  .  .  .  .  .     equals neither neighbour: always literal
//   pair      .  .  .  1  .  1  1  .  .  .  1  1  1     literal if a Literal Run is open before it, else replicated
//   literal   .  .  .  .  1  1  1  1  .  .  .  .  .
//   starts    1  .  .  .  1  .  .  .  1  .  .  1  .     first byte of a packet
//
// "Open before it" is the carry of an addition: a single byte generates it, a pair hands it on, a long run stops it; to
// its last byte none is handed.
// So is the same question for 32 words, of which each lane of the warp holds one. A pair costs two bytes either way, but
// a literal one saves the header of the literals behind it; so says G.3.1 too.
//
// No packet has more than 128 bytes (G.3.2): runs are cut every 128 bytes first, so that a remainder of one or two bytes
// follows the same rules, literals last. Where the cut falls on a pair, the pair is replicated after all.
#pragma once
#include "device.cuh"
#include "scan.cuh"

// Words of shared memory for the masks of a block's rows, and rows of a block: 8 of up to 8192 columns, 1 of 65535.
static const u32 MASK_WORDS = 2048, ROWS_OF_BLOCK = 8;

struct PlaneRow {
    GLOBAL(const u8) bytes;  // the first one
    u32 step;                // from one to the next
    u32 columns;
};

// The bits of a word that are bytes of the row.
__device__ __forceinline__ u32 bits_in_row(u32 word, u32 columns) {
    return columns - 32 * word >= 32 ? ALL_LANES : (1u << (columns - 32 * word)) - 1;
}

// Bits 0 to `last` of `bits` are all set.
__device__ __forceinline__ bool all_up_to(u32 bits, u32 last) {
    const u32 wanted = (2u << last) - 1;
    return (bits & wanted) == wanted;
}

// same[]: which bytes equal the one before them. Byte 0 does not.
__device__ __forceinline__ void mark_same(const PlaneRow& row, u32 words, SHARED_PTR(u32) same) {
    const u32 lane = threadIdx.x % 32;
    u32 last = 0;  // byte of the word before
    for (u32 word = 0; word < words; word++) {
        const u32 x = 32 * word + lane;
        const u32 byte = x < row.columns ? u32(load(row.bytes + u64(x) * row.step)) : 0;
        u32 before = __shfl_up_sync(ALL_LANES, byte, 1);
        if (lane == 0) before = last;
        const u32 bits = __ballot_sync(ALL_LANES, x > 0 && x < row.columns && byte == before);
        last = __shfl_sync(ALL_LANES, byte, 31);
        if (lane == word % 32) same[word] = bits;
    }
    __syncwarp();
}

// Where a run has lasted for 128 bytes, it begins anew. That cannot happen twice in a word, nor to a run that begins
// in it.
__device__ __forceinline__ void cut_runs(u32 words, SHARED_PTR(u32) same) {
    const u32 lane = threadIdx.x % 32;
    u32 begun = 0;  // where the run began that goes on into the next 32 words
    for (u32 first = 0; first < words; first += 32) {
        const u32 word = first + lane, x = 32 * word;
        const u32 bits = word < words ? u32(same[word]) : 0;
        const u32 last_start = ~bits ? x + 31 - __clz(~bits) : 0;
        const u32 latest = warp_running_max(last_start);
        u32 start = __shfl_up_sync(ALL_LANES, latest, 1);
        if (lane == 0 || start < begun) start = begun;
        const u32 cut = (start - x) % 128;  // of this word's bits, if it has so many
        if (word < words && cut < 32 && all_up_to(bits, cut)) same[word] = bits & ~(1u << cut);
        begun = max(begun, __shfl_sync(ALL_LANES, latest, 31));
    }
    __syncwarp();
}

// literal[]: which bytes are part of Literal Runs.
__device__ __forceinline__ void find_literals(u32 columns, u32 words, SHARED_PTR(u32) same, SHARED_PTR(u32) literal) {
    const u32 lane = threadIdx.x % 32;
    u32 open = 0;  // a Literal Run goes on into the next 32 words
    for (u32 first = 0; first < words; first += 32) {
        const u32 word = first + lane;
        u32 here = 0, after = 0, inside = 0;
        if (word < words) {
            here = same[word];
            after = word + 1 < words ? u32(same[word + 1]) : 0;
            inside = bits_in_row(word, columns);
        }
        const u32 one_on = here >> 1 | after << 31, two_on = here >> 2 | after << 30;
        const u32 in_run = one_on & (here | two_on);
        const u32 single = ~here & ~one_on & ~in_run & inside, pair = ~in_run & ~single & inside;
        // Within the word, then over the words of the warp, then back into the word.
        const u64 sum = u64(single | pair) + single;
        const u32 generates = __ballot_sync(ALL_LANES, int(sum >> 32)), passes = __ballot_sync(ALL_LANES, pair == ALL_LANES);
        const u64 over = u64(generates | passes) + generates + open;
        const u32 enters = (u32(over) ^ (generates | passes) ^ generates) >> lane & 1;
        open = u32(over >> 32);
        const u32 open_before = (u32(sum) + enters) ^ (single | pair) ^ single;
        if (word < words) literal[word] = single | (pair & open_before);
    }
    __syncwarp();
}

// Where the Literal Runs of a word begin, and where one that goes on for 128 bytes is cut.
struct LiteralStarts {
    u32 begins, cut;
};

// Of the word that this lane has. `begun` is where the Literal Run began that reaches into these 32 words, and becomes
// that for the next; at most one cut is in a word, and none belongs to a run that begins there.
__device__ __forceinline__ LiteralStarts literal_starts(u32 word, u32 literals, u32 before, u32& begun) {
    const u32 lane = threadIdx.x % 32, x = 32 * word;
    const u32 begins = literals & ~(literals << 1 | before >> 31);
    const u32 latest = warp_running_max(begins ? x + 31 - __clz(begins) : 0);
    u32 start = __shfl_up_sync(ALL_LANES, latest, 1);
    if (lane == 0 || start < begun) start = begun;
    const u32 cut = (start - x) % 128;
    begun = max(begun, __shfl_sync(ALL_LANES, latest, 31));
    const bool goes_on = cut < 32 && all_up_to(literals, cut) && !(begins & 1);
    return {begins, goes_on ? 1u << cut : 0};
}

__device__ __forceinline__ bool bit_of(SHARED_PTR(u32) bits, u32 x) { return bits[x / 32] >> x % 32 & 1; }

// Pairs for which a Literal Run has no room become Replicate Runs, and so do those that follow at once. One lane, one
// byte after the other.
__device__ __forceinline__ void take_out_pairs(u32 columns, SHARED_PTR(u32) same, SHARED_PTR(u32) literal) {
    u32 length = 0;  // of the Literal Run
    for (u32 x = 0; x < columns; x++) {
        if (!bit_of(literal, x)) {
            length = 0;
        } else if (x + 1 == columns || !bit_of(same, x + 1)) {
            length = length == 128 ? 1 : length + 1;
        } else if (length && length <= 126) {
            length += 2;
            x++;
        } else {
            length = 0;
            literal[x / 32] = literal[x / 32] & ~(1u << x % 32);
            x++;
            literal[x / 32] = literal[x / 32] & ~(1u << x % 32);
        }
    }
}

// Finds out whether there are such pairs, which is rare: a cut falls on one.
__device__ __forceinline__ void fit_pairs(u32 columns, u32 words, SHARED_PTR(u32) same, SHARED_PTR(u32) literal) {
    const u32 lane = threadIdx.x % 32;
    u32 begun = 0, cut_pairs = 0;
    for (u32 first = 0; first < words; first += 32) {
        const u32 word = first + lane;
        u32 literals = 0, before = 0, pairs = 0;
        if (word < words) {
            const u32 after = word + 1 < words ? u32(same[word + 1]) : 0;
            literals = literal[word];
            before = word ? u32(literal[word - 1]) : 0;
            pairs = u32(same[word]) | u32(same[word]) >> 1 | after << 31;
        }
        cut_pairs |= literal_starts(word, literals, before, begun).cut & pairs;
    }
    __syncwarp();
    if (!__any_sync(ALL_LANES, cut_pairs != 0)) return;
    if (lane == 0) take_out_pairs(columns, same, literal);
    __syncwarp();
}

// same[] becomes starts[]: first bytes of packets. Returns how many bytes the row has when it is coded: every literal
// byte and a header for each packet, and a byte for each Replicate Run.
__device__ __forceinline__ u32 find_starts(u32 columns, u32 words, SHARED_PTR(u32) same, SHARED_PTR(u32) literal) {
    const u32 lane = threadIdx.x % 32;
    u32 begun = 0, bytes = 0;
    for (u32 first = 0; first < words; first += 32) {
        const u32 word = first + lane;
        u32 literals = 0, before = 0, runs = 0;
        if (word < words) {
            literals = literal[word];
            before = word ? u32(literal[word - 1]) : 0;
            runs = ~u32(same[word]) & ~literals & bits_in_row(word, columns);
        }
        const LiteralStarts here = literal_starts(word, literals, before, begun);
        const u32 starts = here.begins | here.cut | runs;
        if (word < words) {
            same[word] = starts;
            bytes += __popc(literals) + __popc(starts) + __popc(starts & ~literals);
        }
    }
    __syncwarp();
    return warp_sum(bytes);
}

// starts[], literal[]: see above. Returns the bytes of the coded row. All lanes of the warp must take part.
__device__ __forceinline__ u32 find_packets(const PlaneRow& row, u32 words, SHARED_PTR(u32) starts, SHARED_PTR(u32) literal) {
    mark_same(row, words, starts);
    cut_runs(words, starts);
    find_literals(row.columns, words, starts, literal);
    fit_pairs(row.columns, words, starts, literal);
    return find_starts(row.columns, words, starts, literal);
}

// Where the packet behind that of byte x begins: at most 128 bytes on.
__device__ __forceinline__ u32 next_start(u32 x, u32 columns, u32 words, SHARED_PTR(u32) starts) {
    u32 word = x / 32;
    u32 later = u32(starts[word]) & ~((2u << x % 32) - 1);
    while (!later && ++word < words) later = starts[word];
    return later ? 32 * word + __ffs(later) - 1 : columns;
}

// The packets of a row, to `out`, by what find_packets has left.
__device__ __forceinline__ void write_packets(
    const PlaneRow& row, u32 words, SHARED_PTR(u32) starts, SHARED_PTR(u32) literal, GLOBAL(u8) out) {
    const u32 lane = threadIdx.x % 32, below = (1u << lane) - 1;
    for (u32 word = 0; word < words; word++) {
        const u32 x = 32 * word + lane, first = starts[word], literals = literal[word], runs = first & ~literals;
        if (x < row.columns) {
            const u32 at = __popc(literals & below) + __popc(first & below) + __popc(runs & below);
            const bool is_literal = literals >> lane & 1;
            if (first >> lane & 1) {
                const u32 length = next_start(x, row.columns, words, starts) - x;
                out[at] = u8(is_literal ? length - 1 : 257 - length);
                out[at + 1] = load(row.bytes + u64(x) * row.step);
            } else if (is_literal) {
                out[at] = load(row.bytes + u64(x) * row.step);
            }
        }
        out = out + (__popc(literals) + __popc(first) + __popc(runs));
    }
    __syncwarp();  // before the masks become those of another row
}
