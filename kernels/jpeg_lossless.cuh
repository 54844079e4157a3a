// Lossless JPEG with selection value 1 (T.81 Annex H, process 14): differences, their categories and codes, and the
// optimal Huffman table of a frame.
//
// The order of a scan of interleaved components with sampling factors of 1 (T.81 A.2.3) is the order in which samples
// lie in memory, so a frame is a run of samples, and the sample to the left is `components` before it. It is cut into
// chunks of CHUNK samples; a block takes one at a time.
#pragma once
#include "device.cuh"

// Threads of a block, samples of a thread, and of a chunk.
static const u32 THREADS = 256, PER_THREAD = 8, CHUNK = THREADS * PER_THREAD;
// Categories 0 to 16 (T.81 table H.2), and the code of all ones, which must not be used (T.81 K.2).
static const u32 CATEGORIES = 17, LEAVES = CATEGORIES + 1;
// A sample has a code of at most 16 bits and 15 more; the first word of a chunk is the last one of another.
static const u32 MOST_BITS = 31, CHUNK_WORDS = (31 + CHUNK * MOST_BITS + 7 + 31) / 32 + 1;
// A chunk ends its last byte with bits of the next: at most 7, and no code is shorter than 1.
static const u32 BORROWED = 8;
// DHT of a frame: BITS [0..15], how many values there are [16], HUFFVAL [17..33] (T.81 B.2.4.2).
static const u32 TABLE_BYTES = 40, VALUES_AT = 17;

struct Scan {
    u32 rows, columns, components;
    u32 samples;  // of a frame
    u32 row;      // of a row
    u32 chunks;   // of a frame
    // Ends where the kernels can do nothing: what a header cannot say (T.81 B.2.2), or more than 2^31 samples.
    bool can_be;
};

__device__ __forceinline__ Scan scan_of(u32 rows, u32 columns, u32 components) {
    const u64 samples = u64(rows) * columns * components;
    const bool can_be = samples && samples < 1ull << 31 && rows <= 65535 && columns <= 65535 && components <= 4;
    return {rows, columns, components, u32(samples), columns * components, u32((samples + CHUNK - 1) / CHUNK), can_be};
}

// Where in its row a sample is, for samples THREADS apart.
struct Column {
    u32 at, step, row;
    __device__ __forceinline__ Column(u32 sample, u32 row) : at(sample % row), step(THREADS % row), row(row) {}
    __device__ __forceinline__ void next() {
        at += step;
        if (at >= row) at -= row;
    }
};

// The difference from the prediction, modulo 2^16 (T.81 H.1.2.1): from the sample to the left; at the beginning of a
// row, from the one above; at the very first, from half the range.
template <class Sample>
__device__ __forceinline__ u32 difference_of(GLOBAL(const Sample) frame, u32 i, u32 column, const Scan& scan) {
    u32 prediction = 1u << (8 * sizeof(Sample) - 1);
    if (column >= scan.components) prediction = load(frame + (i - scan.components));
    else if (i >= scan.row) prediction = load(frame + (i - scan.row));
    return (load(frame + i) - prediction) & 0xFFFF;
}

// SSSS of a difference (T.81 table H.2): 16 for 32768 alone.
__device__ __forceinline__ u32 category_of(u32 difference) {
    const i32 value = short(difference);
    return 32 - __clz(value < 0 ? -value : value);
}

// A code, right-aligned, and its length.
struct Code {
    u32 bits, length;
};

// The code of a category, then the bits that tell its values apart; category 16 has one value and no such bits
// (T.81 H.1.2.2). `table` has (code << 8 | length) of each category.
__device__ __forceinline__ Code code_of(u32 difference, SHARED_PTR(u32) table) {
    const u32 category = category_of(difference), entry = table[category], more = category % 16;
    const i32 value = short(difference);
    const u32 low = u32(value < 0 ? value - 1 : value) & ((1u << more) - 1);
    return {entry >> 8 << more | low, (entry & 0xFF) + more};
}

// How many bits that are.
__device__ __forceinline__ u32 length_of(u32 difference, SHARED_PTR(u32) table) {
    const u32 category = category_of(difference);
    return (table[category] & 0xFF) + category % 16;
}

// Room for making a Huffman table; all of it in shared memory, since it is indexed.
struct Making {
    SHARED_PTR(u32) frequency;  // [LEAVES]
    SHARED_PTR(i32) next;       // [LEAVES] in the same tree, -1 at its end
    SHARED_PTR(u32) length;     // [LEAVES] of the leaf's code, 0 without one
    SHARED_PTR(u32) count;      // [LEAVES + 1] codes of each length
};

// Code lengths by merging the two rarest trees (T.81 figure K.1). Of equal ones the later, as libjpeg does. One thread.
__device__ __forceinline__ void merge_trees(const Making& making) {
    for (u32 leaf = 0; leaf < LEAVES; leaf++) {
        making.next[leaf] = -1;
        making.length[leaf] = 0;
    }
    making.frequency[CATEGORIES] = 1;  // the code of all ones: rarest, so that it becomes a longest one
    for (;;) {
        i32 rarest = -1, second = -1;
        u32 least = 0, next_least = 0;
        for (i32 leaf = 0; leaf < i32(LEAVES); leaf++) {
            const u32 frequency = making.frequency[leaf];
            if (!frequency) continue;
            if (rarest < 0 || frequency <= least) {
                second = rarest;
                next_least = least;
                rarest = leaf;
                least = frequency;
            } else if (second < 0 || frequency <= next_least) {
                second = leaf;
                next_least = frequency;
            }
        }
        if (second < 0) return;
        making.frequency[rarest] = least + next_least;
        making.frequency[second] = 0;
        i32 leaf = rarest;
        making.length[leaf] += 1;
        for (i32 on = making.next[leaf]; on >= 0; on = making.next[leaf]) {
            leaf = on;
            making.length[leaf] += 1;
        }
        making.next[leaf] = second;
        for (leaf = second; leaf >= 0; leaf = making.next[leaf]) making.length[leaf] += 1;
    }
}

// No code longer than 16 bits (T.81 figure K.3), and one of the longest, that of all ones, taken away. One thread.
__device__ __forceinline__ void limit_lengths(const Making& making) {
    SHARED_PTR(u32) count = making.count;
    for (u32 length = 0; length <= LEAVES; length++) count[length] = 0;
    for (u32 leaf = 0; leaf < LEAVES; leaf++) count[u32(making.length[leaf])] += 1;
    for (u32 length = CATEGORIES; length > 16; length--)
        while (count[length]) {  // a pair of siblings: one takes its parent's place, the other a shorter code's child's
            u32 shorter = length - 2;
            while (!count[shorter]) shorter--;
            count[length] = count[length] - 2;
            count[length - 1] += 1;
            count[shorter + 1] += 2;
            count[shorter] = count[shorter] - 1;
        }
    u32 longest = 16;
    while (!count[longest]) longest--;
    count[longest] = count[longest] - 1;
}

// DHT of the code (T.81 figure K.4) and its table for code_of (T.81 C.2). One thread.
__device__ __forceinline__ void assign_codes(const Making& making, SHARED_PTR(u8) dht, SHARED_PTR(u32) table) {
    u32 values = 0;
    for (u32 length = 1; length <= CATEGORIES; length++)
        for (u32 category = 0; category < CATEGORIES; category++)
            if (making.length[category] == length) dht[VALUES_AT + values++] = u8(category);
    dht[16] = u8(values);
    for (u32 place = VALUES_AT + values; place < TABLE_BYTES; place++) dht[place] = 0;
    for (u32 category = 0; category < CATEGORIES; category++) table[category] = 0;
    u32 code = 0, value = 0;
    for (u32 length = 1; length <= 16; length++, code <<= 1) {
        const u32 codes = making.count[length];
        dht[length - 1] = u8(codes);
        for (u32 i = 0; i < codes; i++) table[u32(dht[VALUES_AT + value++])] = code++ << 8 | length;
    }
}

// Bytes before the entropy-coded data, all markers included (T.81 B.2): SOI, SOF3, DHT, SOS.
__device__ __forceinline__ u32 header_bytes(u32 components, u32 values) {
    return 2 + (10 + 3 * components) + (21 + values) + (8 + 2 * components);
}

// Those bytes, by one thread.
__device__ __forceinline__ void write_header(GLOBAL(u8) out, const Scan& scan, u32 precision, GLOBAL(const u8) dht) {
    u32 at = 0;
    const auto byte = [&](u32 value) { out[at++] = u8(value); };
    const auto word = [&](u32 value) {
        byte(value >> 8);
        byte(value);
    };
    word(0xFFD8);  // SOI
    word(0xFFC3);  // SOF3 (T.81 B.2.2)
    word(8 + 3 * scan.components);
    byte(precision);
    word(scan.rows);
    word(scan.columns);
    byte(scan.components);
    for (u32 component = 1; component <= scan.components; component++) {
        byte(component);
        byte(0x11);  // sampling factors
        byte(0);
    }
    const u32 values = load(dht + 16);
    word(0xFFC4);  // DHT (T.81 B.2.4.2)
    word(19 + values);
    byte(0);
    for (u32 length = 0; length < 16; length++) byte(load(dht + length));
    for (u32 value = 0; value < values; value++) byte(load(dht + VALUES_AT + value));
    word(0xFFDA);  // SOS (T.81 B.2.3)
    word(6 + 2 * scan.components);
    byte(scan.components);
    for (u32 component = 1; component <= scan.components; component++) {
        byte(component);
        byte(0);  // table
    }
    byte(1);  // Ss: selection value 1
    byte(0);
    byte(0);  // point transform 0
}
