// jpeg_lossless.cu: samples -> JPEG Lossless, selection value 1 (.57 and .70).
//
// Standard   T.81 Annex H (process 14), one scan, an optimal Huffman table for each frame (T.81 K.2), no restart
//            intervals, no APPn; PS3.5 8.2.1, A.4.1
// Twin       gpuenc/cpu/encoders.py, by libjpeg-turbo: the same entropy-coded data; tests/simt/references.py: the same
//            bytes
//
// Kernels    N frames of n samples in m chunks of 2048; <s> bits of a sample, which are the precision of the codestream
//   jpeg_lossless_count_<s>  samples [N][n] -> histograms [N][17][m]: how many differences of each category
//   jpeg_lossless_plan       histograms -> dhts [N][40], tables [N][17], bit_at [N][m + 1] (where each chunk's code
//                            begins, and its end), faults [N]
//   jpeg_lossless_pack_<s>   samples, tables, bit_at -> scratch [N][words] (the code, without stuffed bytes), stuffed
//                            [N][m]: how many of a chunk's bytes are FF
//   jpeg_lossless_place      stuffed: how many -> how many before, outcomes [N]
//   jpeg_lossless_stuff      scratch, stuffed, dhts, places -> codestreams, at their places
//
// Launch     count, pack, stuff: grid (m, min(N, 65535)); plan, place: grid (min(N, 65535), 1). Block 256, no dynamic
//            shared memory; any grid is right.
// Bytes      per sample: itself read twice, its code written twice and read once; per chunk 34 written and read,
//            12 written and read
// Limits     65535 rows and columns, 4 components, 2^31 samples a frame; codes that do not fit `words` or 4 GiB: FAULT_JOB.
//            A code has no more than 12 bits a sample of 8 bits and 20 of 16: a flat table would have 4 or 5 bits for
//            each category, and 8 or 15 tell its values apart.
#include "device.cuh"
#include "jpeg_lossless.cuh"
#include "packed.cuh"
#include "scan.cuh"

// Calls body(frame, chunk) for the chunks of this block. The body must be as done with shared memory as it likes.
template <class Body>
__device__ __forceinline__ void for_chunks(const Scan& scan, u32 frames, const Body& body) {
    for (u32 frame = blockIdx.y; frame < frames; frame += gridDim.y)
        for (u32 chunk = blockIdx.x; chunk < scan.chunks; chunk += gridDim.x) {
            body(frame, chunk);
            __syncthreads();
        }
}

// Without atomics: lane l of a warp counts category l, 32 samples at a time, by the votes on each bit of their category.
template <class Sample>
__device__ void count_categories(GLOBAL(const Sample) samples, GLOBAL(u16) histograms, const Scan& scan, u32 frames) {
    SHARED(u32, counts, THREADS);  // of each warp
    const u32 lane = threadIdx.x % 32;
    for_chunks(scan, frames, [&](u32 frame, u32 chunk) {
        GLOBAL(const Sample) here = samples + u64(frame) * scan.samples;
        Column column(chunk * CHUNK + threadIdx.x, scan.row);
        u32 count = 0;
        for (u32 step = 0; step < PER_THREAD; step++, column.next()) {
            const u32 i = chunk * CHUNK + step * THREADS + threadIdx.x;
            const u32 category = i < scan.samples ? category_of(difference_of(here, i, column.at, scan)) : 31;
            u32 mine = ALL_LANES;
            for (u32 bit = 0; bit < 5; bit++) {
                const u32 set = __ballot_sync(ALL_LANES, category >> bit & 1);
                mine &= lane >> bit & 1 ? set : ~set;
            }
            count += __popc(mine);
        }
        counts[threadIdx.x] = count;
        __syncthreads();
        if (threadIdx.x < CATEGORIES) {
            u32 sum = 0;
            for (u32 warp = 0; warp < THREADS / 32; warp++) sum += counts[32 * warp + threadIdx.x];
            histograms[(u64(frame) * CATEGORIES + threadIdx.x) * scan.chunks + chunk] = u16(sum);
        }
    });
}

// How many differences of each category a frame has, to frequency[].
__device__ __forceinline__ void sum_histogram(GLOBAL(const u16) histogram, u32 chunks, SHARED_PTR(u32) of_warps, SHARED_PTR(u32) frequency) {
    const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    for (u32 category = 0; category < CATEGORIES; category++) {
        u32 sum = 0;
        for (u32 chunk = threadIdx.x; chunk < chunks; chunk += THREADS) sum += load(histogram + (u64(category) * chunks + chunk));
        sum = warp_sum(sum);
        if (lane == 0) of_warps[category * (THREADS / 32) + warp] = sum;
    }
    __syncthreads();
    if (threadIdx.x < CATEGORIES) {
        u32 sum = 0;
        for (u32 other = 0; other < THREADS / 32; other++) sum += of_warps[threadIdx.x * (THREADS / 32) + other];
        frequency[threadIdx.x] = sum;
    }
    __syncthreads();
}

extern "C" __global__ void __launch_bounds__(256) jpeg_lossless_plan(GLOBAL(const u16) histograms, GLOBAL(u32) tables, GLOBAL(u8) dhts, GLOBAL(u64) bit_at, GLOBAL(u32) faults, u32 rows, u32 columns, u32 components, u32 words, u32 frames) {
    SHARED(u32, of_warps, CATEGORIES * THREADS / 32);
    SHARED(u32, frequency, LEAVES);
    SHARED(i32, next, LEAVES);
    SHARED(u32, length, LEAVES);
    SHARED(u32, count, LEAVES + 1);
    SHARED(u32, table, CATEGORIES);
    SHARED(u8, dht, TABLE_BYTES);
    SHARED(u32, sums, 32);
    const Scan scan = scan_of(rows, columns, components);
    for (u32 frame = blockIdx.x; frame < frames; frame += gridDim.x) {
        if (!scan.can_be) {
            if (threadIdx.x == 0) faults[frame] = FAULT_JOB;
            continue;
        }
        GLOBAL(const u16) histogram = histograms + u64(frame) * CATEGORIES * scan.chunks;
        sum_histogram(histogram, scan.chunks, of_warps, frequency);
        if (threadIdx.x == 0) {
            const Making making = {frequency, next, length, count};
            merge_trees(making);
            limit_lengths(making);
            assign_codes(making, dht, table);
        }
        __syncthreads();
        if (threadIdx.x < CATEGORIES) tables[frame * CATEGORIES + threadIdx.x] = table[threadIdx.x];
        if (threadIdx.x < TABLE_BYTES) dhts[frame * TABLE_BYTES + threadIdx.x] = dht[threadIdx.x];
        GLOBAL(u64) bits = bit_at + u64(frame) * (scan.chunks + 1);
        u64 begin = 0;
        for (u32 first = 0; first < scan.chunks; first += THREADS) {
            const u32 chunk = first + threadIdx.x;
            u32 mine = 0, total;
            if (chunk < scan.chunks)
                for (u32 category = 0; category < CATEGORIES; category++)
                    mine += load(histogram + (u64(category) * scan.chunks + chunk)) * ((table[category] & 0xFF) + category % 16);
            const u32 until = block_running_sum(mine, sums, total);
            if (chunk < scan.chunks) bits[chunk] = begin + until - mine;
            begin += total;
        }
        if (threadIdx.x == 0) {
            bits[scan.chunks] = begin;
            faults[frame] = begin > u64(words) * 32 ? FAULT_JOB : 0;
        }
    }
}

// The codes of this thread's samples, to words[] from bit `at` on, most significant bit first. A word that is whole
// with this thread's bits is its own; the first and the last may be others' too.
__device__ __forceinline__ void put_codes(
    u32 at, u32 available, SHARED_PTR(u16) differences, SHARED_PTR(u32) table, SHARED_PTR(u32) words) {
    u64 pending = 0;  // its low `filled` bits
    u32 filled = at % 32, word = at / 32;
    bool shared = true;
    const u32 first = threadIdx.x * PER_THREAD, end = min(first + PER_THREAD, available);
    for (u32 i = first; i < end; i++) {
        const Code code = code_of(differences[i], table);
        pending = pending << code.length | code.bits;
        filled += code.length;
        if (filled >= 32) {
            filled -= 32;
            const u32 whole = u32(pending >> filled);
            if (shared) atomicOr(words + word, whole);
            else words[word] = whole;
            shared = false;
            word++;
        }
    }
    if (filled && first < end) atomicOr(words + word, u32(pending << (32 - filled)));
}

// The bits that the last byte of a chunk still needs, from bit `at` on: the next samples' first ones, behind the last
// sample ones (T.81 F.1.2.3). They lie in one byte, so in one word. One thread.
__device__ __forceinline__ void fill_last_byte(
    u32 at, u32 available, SHARED_PTR(u16) differences, SHARED_PTR(u32) table, SHARED_PTR(u32) words) {
    u32 needed = (0 - at) % 8;
    for (u32 i = CHUNK; needed; i++) {
        Code code = {(1u << needed) - 1, needed};
        if (i < available) code = code_of(differences[i], table);
        if (code.length > needed) code = {code.bits >> (code.length - needed), needed};
        atomicOr(words + at / 32, code.bits << (32 - at % 32 - code.length));
        at += code.length;
        needed -= code.length;
    }
}

// The bytes of words[] that begin in this chunk, from bit `begin` to `end` of the frame's code, to memory; returns how
// many of those that this thread has written are FF. words[0] holds bit `begin`.
__device__ __forceinline__ u32 store_bytes(u64 begin, u64 end, SHARED_PTR(u32) words, u64 scratch) {
    const u64 first = (begin + 7) / 8, last = (end + 7) / 8, origin = begin / 32 * 4;
    const u32 count = u32((last - origin + 3) / 4);
    u32 stuffed = 0;
    for (u32 word = threadIdx.x; word < count; word += THREADS) {
        const u32 bits = words[word];
        const u64 at = origin + 4 * u64(word);
        if (at >= first && at + 4 <= last) {
            *global_at<u32>(scratch + at) = __byte_perm(bits, 0, 0x0123);  // most significant byte first
            for (u32 byte = 0; byte < 4; byte++) stuffed += (bits >> 8 * byte & 0xFF) == 0xFF;
            continue;
        }
        for (u32 byte = 0; byte < 4; byte++)
            if (at + byte >= first && at + byte < last) {
                const u32 value = bits >> (24 - 8 * byte) & 0xFF;
                *global_at<u8>(scratch + at + byte) = u8(value);
                stuffed += value == 0xFF;
            }
    }
    return stuffed;
}

// A chunk writes the bytes that begin in it, whole ones, and no two blocks share one.
template <class Sample>
__device__ void pack_chunks(GLOBAL(const Sample) samples, GLOBAL(const u32) tables, GLOBAL(const u64) bit_at, GLOBAL(const u32) faults, u64 scratch, GLOBAL(u32) stuffed, const Scan& scan, u32 words, u32 frames) {
    SHARED(u16, differences, CHUNK + BORROWED);
    SHARED(u32, code_words, CHUNK_WORDS);
    SHARED(u32, table, CATEGORIES);
    SHARED(u32, sums, 32);
    for_chunks(scan, frames, [&](u32 frame, u32 chunk) {
        if (load(faults + frame)) return;
        const u32 base = chunk * CHUNK, available = min(scan.samples - base, CHUNK + BORROWED);
        GLOBAL(const u64) bits = bit_at + (u64(frame) * (scan.chunks + 1) + chunk);
        const u64 begin = load(bits), end = load(bits + 1);
        const u32 skipped = u32(begin % 32), used = (skipped + u32(end - begin) + 7 + 31) / 32;
        if (threadIdx.x < CATEGORIES) table[threadIdx.x] = load(tables + (frame * CATEGORIES + threadIdx.x));
        GLOBAL(const Sample) here = samples + u64(frame) * scan.samples;
        Column column(base + threadIdx.x, scan.row);
        for (u32 i = threadIdx.x; i < available; i += THREADS, column.next())
            differences[i] = u16(difference_of(here, base + i, column.at, scan));
        for (u32 word = threadIdx.x; word < used; word += THREADS) code_words[word] = 0;
        __syncthreads();
        u32 mine = 0, total;
        const u32 first = threadIdx.x * PER_THREAD;
        for (u32 i = first; i < min(first + PER_THREAD, available); i++) mine += length_of(differences[i], table);
        const u32 until = block_running_sum(mine, sums, total);
        put_codes(skipped + until - mine, available, differences, table, code_words);
        if (threadIdx.x == 0) fill_last_byte(skipped + u32(end - begin), available, differences, table, code_words);
        __syncthreads();
        const u32 found = store_bytes(begin, end, code_words, scratch + u64(frame) * words * 4);
        block_running_sum(found, sums, total);
        if (threadIdx.x == 0) stuffed[u64(frame) * scan.chunks + chunk] = total;
    });
}

extern "C" __global__ void __launch_bounds__(256) jpeg_lossless_place(GLOBAL(u32) stuffed, GLOBAL(const u64) bit_at, GLOBAL(const u8) dhts, GLOBAL(const u32) faults, GLOBAL(u64) outcomes, u32 rows, u32 columns, u32 components, u32 frames) {
    SHARED(u32, sums, 32);
    const Scan scan = scan_of(rows, columns, components);
    for (u32 frame = blockIdx.x; frame < frames; frame += gridDim.x) {
        const u32 fault = load(faults + frame);
        if (fault) {
            if (threadIdx.x == 0) outcomes[frame] = outcome_of(0, fault);
            continue;
        }
        GLOBAL(u32) counts = stuffed + u64(frame) * scan.chunks;
        u64 before = 0;
        for (u32 first = 0; first < scan.chunks; first += THREADS) {
            const u32 chunk = first + threadIdx.x;
            const u32 count = chunk < scan.chunks ? u32(counts[chunk]) : 0;
            u32 total;
            const u32 until = block_running_sum(count, sums, total);
            if (chunk < scan.chunks) counts[chunk] = u32(before) + until - count;
            before += total;
        }
        if (threadIdx.x == 0) {
            const u64 code = (load(bit_at + (u64(frame) * (scan.chunks + 1) + scan.chunks)) + 7) / 8;
            const u32 values = load(dhts + (frame * TABLE_BYTES + 16));
            outcomes[frame] = outcome_of(header_bytes(components, values) + code + before + 2, 0);
        }
    }
}

// Shared memory to any address, four bytes at a time where they are aligned.
__device__ __forceinline__ void copy_out(SHARED_PTR(u8) bytes, u32 count, GLOBAL(u8) out, u64 address) {
    const u32 head = min(u32(0 - address) % 4, count), whole = (count - head) / 4;
    for (u32 i = threadIdx.x; i < head; i += THREADS) out[i] = bytes[i];
    for (u32 word = threadIdx.x; word < whole; word += THREADS) {
        const u32 i = head + 4 * word;
        *global_at<u32>(address + i) = u32(bytes[i]) | u32(bytes[i + 1]) << 8 | u32(bytes[i + 2]) << 16 | u32(bytes[i + 3]) << 24;
    }
    for (u32 i = head + 4 * whole + threadIdx.x; i < count; i += THREADS) out[i] = bytes[i];
}

// A zero byte behind each FF (T.81 B.1.1.5): each thread takes a stretch of the chunk's bytes, and knows by the FFs
// before it where it goes.
extern "C" __global__ void __launch_bounds__(256) jpeg_lossless_stuff(u64 scratch, GLOBAL(const u64) bit_at, GLOBAL(const u32) stuffed, GLOBAL(const u8) dhts, GLOBAL(const u64) places, u64 packed, u32 rows, u32 columns, u32 components, u32 precision, u32 words, u32 frames) {
    SHARED(u8, code, CHUNK_WORDS * 4);
    SHARED(u8, result, CHUNK_WORDS * 8);
    SHARED(u32, sums, 32);
    const Scan scan = scan_of(rows, columns, components);
    if (!scan.can_be) return;
    for_chunks(scan, frames, [&](u32 frame, u32 chunk) {
        GLOBAL(const u64) place = places + u64(PLACE_WORDS) * frame;
        if (fault_of(load(place + 1))) return;
        GLOBAL(const u64) bits = bit_at + (u64(frame) * (scan.chunks + 1) + chunk);
        const u64 first = (load(bits) + 7) / 8, last = (load(bits + 1) + 7) / 8;
        const u32 count = u32(last - first), share = (count + THREADS - 1) / THREADS;
        const u64 source = scratch + u64(frame) * words * 4 + first;
        for (u32 i = threadIdx.x; i < count; i += THREADS) code[i] = load(global_at<const u8>(source + i));
        __syncthreads();
        const u32 from = min(threadIdx.x * share, count), to = min(from + share, count);
        u32 mine = 0, total;
        for (u32 i = from; i < to; i++) mine += code[i] == 0xFF;
        u32 at = from + block_running_sum(mine, sums, total) - mine;
        for (u32 i = from; i < to; i++) {
            const u8 value = code[i];
            result[at++] = value;
            if (value == 0xFF) result[at++] = 0;
        }
        __syncthreads();
        GLOBAL(const u8) dht = dhts + frame * TABLE_BYTES;
        const u64 frame_at = packed + load(place);
        const u64 target = frame_at + header_bytes(components, load(dht + 16)) + first + load(stuffed + (u64(frame) * scan.chunks + chunk));
        GLOBAL(u8) out = global_at<u8>(target);
        copy_out(result, count + total, out, target);
        if (threadIdx.x) return;
        if (chunk == 0) write_header(global_at<u8>(frame_at), scan, precision, dht);
        if (chunk + 1 == scan.chunks) {
            out[count + total] = 0xFF;  // EOI
            out[count + total + 1] = 0xD9;
        }
    });
}

// clang-format off: one kernel a line
extern "C" __global__ void __launch_bounds__(256) jpeg_lossless_count_8(GLOBAL(const u8) samples, GLOBAL(u16) histograms, u32 rows, u32 columns, u32 components, u32 frames) { const Scan scan = scan_of(rows, columns, components); if (scan.can_be) count_categories(samples, histograms, scan, frames); }
extern "C" __global__ void __launch_bounds__(256) jpeg_lossless_count_16(GLOBAL(const u16) samples, GLOBAL(u16) histograms, u32 rows, u32 columns, u32 components, u32 frames) { const Scan scan = scan_of(rows, columns, components); if (scan.can_be) count_categories(samples, histograms, scan, frames); }
extern "C" __global__ void __launch_bounds__(256) jpeg_lossless_pack_8(GLOBAL(const u8) samples, GLOBAL(const u32) tables, GLOBAL(const u64) bit_at, GLOBAL(const u32) faults, u64 scratch, GLOBAL(u32) stuffed, u32 rows, u32 columns, u32 components, u32 words, u32 frames) { const Scan scan = scan_of(rows, columns, components); if (scan.can_be) pack_chunks(samples, tables, bit_at, faults, scratch, stuffed, scan, words, frames); }
extern "C" __global__ void __launch_bounds__(256) jpeg_lossless_pack_16(GLOBAL(const u16) samples, GLOBAL(const u32) tables, GLOBAL(const u64) bit_at, GLOBAL(const u32) faults, u64 scratch, GLOBAL(u32) stuffed, u32 rows, u32 columns, u32 components, u32 words, u32 frames) { const Scan scan = scan_of(rows, columns, components); if (scan.can_be) pack_chunks(samples, tables, bit_at, faults, scratch, stuffed, scan, words, frames); }
// clang-format on
