// ht_block.cu: coefficients -> HT cleanup segments, a warp for each code block.
//
// Standard   T.814 7.1 (the three bit streams of a segment), 7.3 (quads, contexts, MEL, CxtVLC, U-VLC, MagSgn), Annex C
// Twin       tests/simt/htj2k_reference.cpp: equal byte for byte
//
// Kernels    N frames of B code blocks of at most 64 x 64 coefficients
//   ht_encode_blocks    int32 coefficients -> slots [N][B], BlockBytes [N][B]; faults [N]
//
// How        A lane has a quad, a warp a row of them. The row above stays in one register of each lane; contexts,
//            exponents and codewords follow from it by three shuffles. One scan gives the places of the lane's MagSgn
//            bits and of the pair's VLC bits, which go to two rings of shared memory (bit_stuffing.cuh). MEL is serial:
//            its coder runs on votes, a run of zeros in one step. Every block is coded to bit-plane 0 by one cleanup
//            pass, so that nothing must be known of the block beforehand.
// Launch     grid ceil(N * B / 4), block 128, 12.1 KB of static shared memory; any grid is right.
// Bytes      4 read per coefficient; the segments written
// Limits     blocks of exactly 128. A block with a coefficient of more than kmax bits sets FAULT_MAGNITUDE.
#include "device.cuh"
#include "ht_block.cuh"
#include "ht_tables.cuh"

static const u32 BLOCK_WARPS = 4;
// Of the rings: less than a chunk of 1024 bits stays there, and a row adds 128 samples of 21 bits, 16 pairs of 30.
static const u32 MAGSGN_WORDS = 128, VLC_WORDS = 64;
static const u32 UVLC_CODES = 64;

// Blocks on a multiprocessor that registers must suffice for: at most 64 each, which older ones do not reach unspilled.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
static const u32 RESIDENT_BLOCKS = 6;
#else
static const u32 RESIDENT_BLOCKS = 8;
#endif

struct WarpMemory {
    SHARED_PTR(u32) magsgn;
    SHARED_PTR(u32) vlc;
    SHARED_PTR(u32) mel;
};

struct BlockCoder {
    Stream magsgn, vlc;
    MelCoder mel;
    u32 above;  // this lane's quad of the row above, as bottom_of
};

// A coefficient and, if there is one, its right neighbour.
__device__ __forceinline__ void load_two(GLOBAL(const i32) place, bool right, i32& first, i32& second) {
    if (right) {
        const int2 two = *viewed_as<const int2>(place);
        first = two.x;
        second = two.y;
    } else {
        first = *place;
    }
}

// The four samples of this lane's quad; those beyond the block are 0.
__device__ __forceinline__ Quad load_quad(GLOBAL(const i32) coefficients, const CodeBlock& block, u32 row) {
    const u32 lane = threadIdx.x % 32;
    i32 samples[4] = {0, 0, 0, 0};
    if (2 * lane < block.columns) {
        const bool right = 2 * lane + 1 < block.columns;
        const auto place = coefficients + (row * block.stride + 2 * lane);
        load_two(place, right, samples[0], samples[2]);
        if (row + 1 < block.rows) load_two(place + block.stride, right, samples[1], samples[3]);
    }
    return quad_of(samples);
}

// MEL events of a block's first row come in the order quad, quad, pair (T.814 7.3.6): events of lane i are `quad` and,
// in even lanes, `pair`; each is 1 if it exists, + 2 if it is 1.
__device__ __forceinline__ void first_row_events(MelCoder& mel, SHARED_PTR(u32) words, u32 quad, u32 pair) {
    const u32 lane = threadIdx.x % 32, events = quad | pair << 2;
    u64 valid = 0, significant = 0;
#pragma unroll
    for (u32 half = 0; half < 2; half++) {
        const u32 place = lane + 32 * half, kind = place % 3;
        u32 event = __shfl_sync(ALL_LANES, events, i32((2 * (place / 3) + (kind == 1)) % 32));
        if (place >= 48) event = 0;
        if (kind == 2) event >>= 2;
        valid |= u64(__ballot_sync(ALL_LANES, event & 1)) << (32 * half);
        significant |= u64(__ballot_sync(ALL_LANES, event & 2)) << (32 * half);
    }
    mel_code(mel, words, valid, significant);
}

// Writes the quad's MagSgn bits at `at`; `lengths` are those of its samples, at most 22 bits each.
__device__ __forceinline__ void put_magsgn(SHARED_PTR(u32) ring, u32 at, const Quad& quad, const u32* lengths) {
    u32 value[4];
#pragma unroll
    for (u32 n = 0; n < 4; n++) value[n] = quad.value[n] & ((1u << lengths[n]) - 1);
    const u64 left = value[0] | u64(value[1]) << lengths[0], right = value[2] | u64(value[3]) << lengths[2];
    const u32 shift = lengths[0] + lengths[1];  // at most 44
    const u64 low = left | right << shift;
    put_words<MAGSGN_WORDS>(ring, at, u32(low), u32(low >> 32), u32(right >> 1 >> (63 - shift)));
}

// Codes a row of quads, and sends what is whole on its way.
__device__ __forceinline__ void code_row(BlockCoder& coder, const WarpMemory& memory, SHARED_PTR(u16) codewords,
                                         SHARED_PTR(u16) uvlc, const Quad& quad, u32 row, u32 columns,
                                         GLOBAL(u8) slot, u32 slot_bytes) {
    const u32 lane = threadIdx.x % 32;
    const bool inside = 2 * lane < columns, even = lane % 2 == 0;
    const u32 significance = quad.significance;
    if (!__ballot_sync(ALL_LANES, (significance | coder.above) != 0)) {  // nothing here, nothing above: zeros for MEL
        const u32 quads = (columns + 1) / 2;
        mel_code(coder.mel, memory.mel, quads == 32 ? ALL_LANES : (1u << quads) - 1, 0);
        return;
    }
    u32 left = __shfl_up_sync(ALL_LANES, significance, 1), left_above = __shfl_up_sync(ALL_LANES, coder.above, 1);
    u32 right_above = __shfl_down_sync(ALL_LANES, coder.above, 1);
    if (lane == 0) left = left_above = 0;
    if (lane == 31) right_above = 0;
    const Context context = row == 0 ? first_row_context(left)
                                     : context_of(significance, left, left_above, coder.above, right_above);
    coder.above = bottom_of(quad);

    const u32 exponent = max(quad.largest, context.kappa), u = inside ? exponent - context.kappa : 0;
    const u32 place = (row ? 2048 : 0) + (context.number << 8 | significance << 4 | (u ? largest_of(quad) : 0));
    const u32 code = inside ? codewords[place] : u16(0);
    u32 lengths[4];
#pragma unroll
    for (u32 n = 0; n < 4; n++) lengths[n] = significance >> n & 1 ? exponent - (code >> (10 + n) & 1) : 0;

    const u32 other = __shfl_xor_sync(ALL_LANES, (code & 1023) | u << 10, 1), other_u = other >> 10;
    const bool pair_event = row == 0 && even && u && other_u;
    const bool both_large = min(u, other_u) > 2;
    const u32 less = pair_event && both_large ? 2 : 0;
    // Where one u of the first row's pair is above 2 and the other not, that other is 1 or 2: a single bit.
    const u32 second_u = pair_event && !both_large && u > 2 ? (other_u - 1) | 1 << 3 : u32(uvlc[other_u - less]);
    PairBits pair = pair_bits(code, other, uvlc[u - less], second_u);
    if (!even) pair.count = 0;

    const u32 own = lengths[0] + lengths[1] + lengths[2] + lengths[3] + (pair.count << 16);
    const u32 sum = warp_inclusive_sum(own), all = __shfl_sync(ALL_LANES, sum, 31), before = sum - own;
    put_magsgn(memory.magsgn, coder.magsgn.tail + (before & 0xFFFF), quad, lengths);
    if (pair.count) put_word<VLC_WORDS>(memory.vlc, coder.vlc.tail + (before >> 16), pair.bits);
    coder.magsgn.tail += all & 0xFFFF;
    coder.vlc.tail += all >> 16;

    const bool event = inside && context.number == 0;
    if (row == 0) {
        first_row_events(coder.mel, memory.mel, u32(event) | u32(significance != 0) << 1,
                         u32(pair_event) | u32(both_large) << 1);
    } else {
        const u32 valid = __ballot_sync(ALL_LANES, event), significant = __ballot_sync(ALL_LANES, significance != 0);
        mel_code(coder.mel, memory.mel, valid, significant);
    }
    __syncwarp();
    drain<MAGSGN, MAGSGN_WORDS>(memory.magsgn, coder.magsgn, slot);
    drain<VLC, VLC_WORDS>(memory.vlc, coder.vlc, slot + slot_bytes);
}

// Ends the three streams (T.814 7.1), and writes Scup into the last two bytes.
__device__ __forceinline__ BlockBytes end_block(BlockCoder& coder, const WarpMemory& memory, GLOBAL(u8) magsgn_out,
                                                GLOBAL(u8) mel_out, GLOBAL(u8) vlc_end) {
    const u32 lane = threadIdx.x % 32;
    if (coder.mel.run) mel_put(coder.mel, memory.mel, 1, 1);
    if (lane == 0) memory.mel[coder.mel.bits / 32] = u32(coder.mel.pending);
    __syncwarp();
    BlockBytes bytes = {0, 0, 0, 0};
    const Rest magsgn = finish<MAGSGN, MAGSGN_WORDS>(memory.magsgn, coder.magsgn, magsgn_out);
    const u32 rest = (magsgn.bits + 7) / 8;
    const u32 in_rest = magsgn.byte(rest ? rest - 1 : 0), last = rest ? in_rest : coder.magsgn.last;
    bytes.magsgn = coder.magsgn.bytes + rest;
    if (bytes.magsgn && last == 0xFF) bytes.magsgn--;  // a decoder finds 0xFF behind the end

    Stream mel_stream = {0, coder.mel.bits, 0, 0};
    const Rest mel = finish<HIGH_FIRST, MEL_WORDS>(memory.mel, mel_stream, mel_out);
    const Rest vlc = finish<VLC, VLC_WORDS>(memory.vlc, coder.vlc, vlc_end);
    // The last bytes of MEL and VLC, of which only some bits are used: MEL's high ones, VLC's low ones.
    const u32 mel_bits = mel.bits % 8, vlc_bits = vlc.bits % 8;
    u32 mel_byte = __brev(mel.byte(mel.bits / 8)) >> 24, vlc_byte = vlc.byte(vlc.bits / 8);
    if (!mel_bits) mel_byte = 0;
    if (!vlc_bits) vlc_byte = 0;
    bytes.mel = mel_stream.bytes + mel.bits / 8;
    bytes.vlc = coder.vlc.bytes + vlc.bits / 8;
    __syncwarp();
    if (mel_bits || vlc_bits) {
        const u32 both = mel_byte | vlc_byte, mel_mask = 0xFF00u >> mel_bits & 0xFF, vlc_mask = (1u << vlc_bits) - 1;
        const bool agree = !((both ^ mel_byte) & mel_mask) && !((both ^ vlc_byte) & vlc_mask);
        const bool one_byte = agree && both != 0xFF && bytes.vlc > 1;
        if (lane == 0) mel_out[bytes.mel] = u8(one_byte ? both : mel_byte);
        bytes.mel++;
        if (!one_byte) {
            bytes.vlc++;
            if (lane == 0) vlc_end[-i64(bytes.vlc)] = u8(vlc_byte);
        }
    }
    const u32 scup = bytes.mel + bytes.vlc;
    if (lane == 0) {
        vlc_end[-1] = u8(scup >> 4);
        vlc_end[-2] = u8((vlc_end[-2] & 0xF0) | (scup & 15));
    }
    bytes.total = bytes.magsgn + scup;
    return bytes;
}

// One code block; false if a coefficient has more than kmax bits.
__device__ __forceinline__ bool code_block(GLOBAL(const i32) coefficients, const CodeBlock& block,
                                           const WarpMemory& memory, SHARED_PTR(u16) codewords, SHARED_PTR(u16) uvlc,
                                           GLOBAL(u8) slot, const Layout& layout, BlockBytes& bytes) {
    const u32 lane = threadIdx.x % 32;
    __syncwarp();  // the rings may still be read for the block before
    for (u32 word = lane; word < MAGSGN_WORDS; word += 32) memory.magsgn[word] = 0;
    for (u32 word = lane; word < VLC_WORDS; word += 32) memory.vlc[word] = 0;
    for (u32 word = lane; word < MEL_WORDS; word += 32) memory.mel[word] = 0;
    // VLC begins with a byte of ones, later the high bits of Scup, and four more, later its low bits.
    BlockCoder coder = {{0, 0, 0, 0}, {0, 12, 0, 0}, {0, 0, 0, 0}, 0};
    if (lane == 0) memory.vlc[0] = 0xFFF;  // which this lane has cleared
    __syncwarp();
    for (u32 row = 0; row < block.rows; row += 2) {
        const Quad quad = load_quad(coefficients, block, row);
        if (__any_sync(ALL_LANES, quad.magnitudes >> block.kmax != 0)) return false;
        code_row(coder, memory, codewords, uvlc, quad, row, block.columns, slot, layout.slot_bytes);
    }
    if (!coder.magsgn.tail) return true;  // every sample that is significant has a bit there
    bytes = end_block(coder, memory, slot, slot + layout.magsgn_bytes, slot + layout.slot_bytes);
    return true;
}

extern "C" __global__ void __launch_bounds__(128, RESIDENT_BLOCKS)
    ht_encode_blocks(GLOBAL(const Layout) layouts, GLOBAL(const CodeBlock) blocks, GLOBAL(const i32) coefficients,
                     u32 frames, GLOBAL(u8) slots, GLOBAL(BlockBytes) results, GLOBAL(u32) faults) {
    SHARED(u16, codewords, 4096);
    SHARED(u16, uvlc, UVLC_CODES);
    SHARED(u32, rings, BLOCK_WARPS * (MAGSGN_WORDS + VLC_WORDS + MEL_WORDS));
    for (u32 i = threadIdx.x; i < 2048; i += blockDim.x) {
        codewords[i] = CODEWORDS_FIRST_ROW[i];
        codewords[2048 + i] = CODEWORDS[i];
    }
    if (threadIdx.x < UVLC_CODES) uvlc[threadIdx.x] = u16(uvlc_code(threadIdx.x));
    __syncthreads();
    const u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    WarpMemory memory;
    memory.magsgn = rings + warp * (MAGSGN_WORDS + VLC_WORDS + MEL_WORDS);
    memory.vlc = memory.magsgn + MAGSGN_WORDS;
    memory.mel = memory.vlc + VLC_WORDS;
    const u32 count = frames * Layout(layouts[0]).blocks;
    for (u32 id = blockIdx.x * BLOCK_WARPS + warp; id < count; id += gridDim.x * BLOCK_WARPS) {
        const Layout layout = layouts[0];  // not kept in registers
        const u32 frame = id / layout.blocks;
        const CodeBlock block = blocks[id - frame * layout.blocks];
        BlockBytes bytes = {0, 0, 0, 0};
        const auto first = coefficients + (u64(frame) * layout.frame_coefficients + block.offset);
        const auto slot = slots + u64(id) * layout.slot_bytes;
        const bool coded = code_block(first, block, memory, codewords, uvlc, slot, layout, bytes);
        if (lane == 0) results[id] = bytes;
        if (lane == 0 && !coded) atomicOr(faults + frame, FAULT_MAGNITUDE);
    }
}
