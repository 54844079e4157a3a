// gather.cu: main headers, packet headers and code blocks -> codestreams in one packed buffer.
//
// Standard   T.800 A.4.2 (SOT: Psot), A.7.1 (TLM: Ptlm), B.9 (packets), A.4.4 (EOC)
// Twin       tests/simt/htj2k_reference.cpp: equal byte for byte
//
// Kernels    N frames of B code blocks in P packets
//   gather     slots, packet headers, a main header that all frames share -> output, each frame at its FramePlace
//
// How        A warp for each of the B + P + 1 pieces of a frame. A code block's three segments are joined here.
// Launch     grid ceil(N * (B + P + 1) / 4), block 128, no shared memory; any grid is right.
// Bytes      the codestreams, read and written once
// Limits     the output begins at a multiple of 4
#include "device.cuh"
#include "gather.cuh"
#include "htj2k.cuh"

static const u32 GATHER_WARPS = 4;

__device__ __forceinline__ void gather_block(const Layout& layout, const BlockBytes& bytes, GLOBAL(u8) target,
                                             u32 target_over, GLOBAL(const u8) slot) {
    copy_bytes(target, slot, bytes.magsgn, target_over, 0);
    copy_bytes(target + bytes.magsgn, slot + layout.magsgn_bytes, bytes.mel, target_over + bytes.magsgn, 0);
    copy_bytes(target + (bytes.magsgn + bytes.mel), slot + (layout.slot_bytes - bytes.vlc), bytes.vlc,
               target_over + bytes.magsgn + bytes.mel, (4 - bytes.vlc % 4) % 4);
}

// The main header with the tile-part's length put in, EOC, and zeros up to the next frame.
__device__ __forceinline__ void gather_main_header(const Layout& layout, GLOBAL(const u8) header, GLOBAL(u8) frame,
                                                   u32 bytes) {
    const u32 lane = threadIdx.x % 32, psot = bytes - 2 - layout.sot_at;
    for (u32 at = lane; at < layout.main_header_bytes; at += 32) {
        u8 byte = header[at];
        if (at - layout.tlm_at < 4) byte = big_endian_byte(psot, at - layout.tlm_at);
        if (at - (layout.sot_at + 6) < 4) byte = big_endian_byte(psot, at - (layout.sot_at + 6));
        frame[at] = byte;
    }
    if (lane < 2) frame[bytes - 2 + lane] = lane ? 0xD9 : 0xFF;
    if (lane < (16 - bytes % 16) % 16) frame[bytes + lane] = 0;
}

extern "C" __global__ void __launch_bounds__(128)
    gather(GLOBAL(const Layout) layouts, GLOBAL(const CodeBlock) blocks, GLOBAL(const Packet) packets,
           GLOBAL(const u8) main_header, GLOBAL(const BlockBytes) block_bytes, GLOBAL(const u32) block_offsets,
           GLOBAL(const PacketBytes) packet_bytes, GLOBAL(const u8) slots, GLOBAL(const u8) headers,
           GLOBAL(const FramePlace) places, u32 frames, GLOBAL(u8) output) {
    const Layout layout = layouts[0];
    const u32 pieces = layout.blocks + layout.packets + 1;
    for (u32 id = blockIdx.x * GATHER_WARPS + threadIdx.x / 32; id < frames * pieces; id += gridDim.x * GATHER_WARPS) {
        const u32 frame = id / pieces, piece = id - frame * pieces;
        const FramePlace place = places[frame];
        if (!place.bytes) continue;
        const auto target = output + place.offset;
        if (piece < layout.blocks) {
            const CodeBlock block = blocks[piece];
            const PacketBytes packet = packet_bytes[frame * layout.packets + block.packet];
            const u64 number = u64(frame) * layout.blocks + piece;
            const u32 at = layout.main_header_bytes + packet.offset + packet.header + block_offsets[number];
            gather_block(layout, block_bytes[number], target + at, at, slots + number * layout.slot_bytes);
        } else if (piece < layout.blocks + layout.packets) {
            const u32 number = piece - layout.blocks;
            const PacketBytes packet = packet_bytes[frame * layout.packets + number];
            const Packet of = packets[number];
            const u32 at = layout.main_header_bytes + packet.offset;
            copy_bytes(target + at, headers + (u64(frame) * layout.header_bytes + of.header), packet.header, at, 0);
        } else {
            gather_main_header(layout, main_header, target, place.bytes);
        }
    }
}
