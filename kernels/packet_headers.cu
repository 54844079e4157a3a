// packet_headers.cu: lengths of code blocks -> packet headers and where everything goes.
//
// Standard   T.800 B.10 (packet headers, tag trees), B.10.1 (bit stuffing)
// Twin       tests/simt/htj2k_reference.cpp: equal byte for byte
//
// Kernels    N frames of B code blocks in P packets, each of one resolution of one component
//   packet_headers   BlockBytes [N][B] -> headers [N][header_bytes], places of the blocks in their packets [N][B],
//                    PacketBytes [N][P]
//   place_frames     PacketBytes [N][P] -> their offsets, FramePlace [N]; a frame with a fault gets no bytes
//
// How        packet_headers: a warp for each packet, 32 blocks at a time, a block for each lane. The tag trees are built
//            first; then each block's bits follow from its own path to the root, a scan gives their places, and they
//            leave through a ring (bit_stuffing.cuh). place_frames: one warp, a frame for each lane.
// Launch     packet_headers: grid ceil(N * P / 4), block 128, 2 KB of static shared memory; place_frames: grid 1,
//            block 32. Any grid is right for packet_headers.
// Bytes      16 read and 8 written per block, twice 4 per node of a tag tree
// Limits     blocks of exactly 128 and 32
#include "bit_stuffing.cuh"
#include "device.cuh"
#include "htj2k.cuh"
#include "packet_headers.cuh"

static const u32 HEADER_WARPS = 4;
// Of the ring: less than a chunk of 1024 bits stays there, and 32 blocks add at most 80 bits each.
static const u32 HEADER_WORDS = 128;

// Where the blocks lie in the packet's body; returns its bytes.
__device__ __forceinline__ u32 place_blocks(GLOBAL(const BlockBytes) blocks, u32 count, GLOBAL(u32) offsets) {
    const u32 lane = threadIdx.x % 32;
    u32 body = 0;
    for (u32 first = 0; first < count; first += 32) {
        const u32 at = first + lane;
        u32 bytes = 0;
        if (at < count) bytes = BlockBytes(blocks[at]).total;
        const u32 sum = warp_inclusive_sum(bytes);
        if (at < count) offsets[at] = body + sum - bytes;
        body += __shfl_sync(ALL_LANES, sum, 31);
    }
    return body;
}

// Fills the nodes of a band's tag tree, level after level from the leaves; returns where the root is.
__device__ __forceinline__ u32 build_tree(GLOBAL(const BlockBytes) blocks, const Band& band, GLOBAL(u32) nodes) {
    const u32 lane = threadIdx.x % 32;
    u32 across = band.across, down = band.down, level = 0;
    for (u32 at = lane; at < across * down; at += 32) nodes[at] = BlockBytes(blocks[at]).total ? at : NOT_INCLUDED;
    __syncwarp();
    while (across > 1 || down > 1) {
        const u32 next = level + across * down, half_across = halved(across), half_down = halved(down);
        for (u32 at = lane; at < half_across * half_down; at += 32) {
            const u32 x = 2 * (at % half_across), y = 2 * (at / half_across);
            const auto corner = nodes + (level + y * across + x);
            u32 first = corner[0];
            if (x + 1 < across) first = min(first, u32(corner[1]));
            if (y + 1 < down) first = min(first, u32(corner[across]));
            if (x + 1 < across && y + 1 < down) first = min(first, u32(corner[across + 1]));
            nodes[next + at] = first;
        }
        __syncwarp();
        level = next;
        across = half_across;
        down = half_down;
    }
    return level;
}

struct BlockHeader {
    HeaderBits inclusion, planes, length;
};

// The bits of block `at`: along its path from the root, what no block before has told yet (T.800 B.10.2, B.10.4,
// B.10.5). A block tells of a node's inclusion if it is the node's first; of its bit-planes, if it is the first of its
// included ones.
__device__ __forceinline__ BlockHeader block_header(const Band& band, GLOBAL(const u32) nodes, u32 root, u32 levels,
                                                    u32 at, u32 bytes) {
    BlockHeader header = {{0, 0}, {0, 0}, {0, 0}};
    const u32 x = at % band.across, y = at / band.across;
    bool open = true;
    u32 level_at = root;
    for (u32 level = levels; level-- > 0;) {
        const u32 size = (1u << level) - 1, across = (band.across + size) >> level, down = (band.down + size) >> level;
        if (level + 1 < levels) level_at -= across * down;
        const u32 first = nodes[level_at + (y >> level) * across + (x >> level)];
        if (open && !(x & size) && !(y & size)) header.inclusion.put(first != NOT_INCLUDED);
        if (first == NOT_INCLUDED) open = false;
        if (first == at) {
            if (level + 1 == levels) header.planes.count += band.kmax - 1;
            header.planes.put(1);
        }
    }
    if (bytes) header.length = length_bits(bytes);
    return header;
}

__device__ __forceinline__ void put_band(GLOBAL(const BlockBytes) blocks, const Band& band, GLOBAL(u32) nodes,
                                         SHARED_PTR(u32) ring, Stream& stream, GLOBAL(u8) out) {
    const u32 lane = threadIdx.x % 32, count = band.across * band.down, levels = tree_levels(band.across, band.down);
    const u32 root = build_tree(blocks, band, nodes);
    for (u32 first = 0; first < count; first += 32) {
        const u32 at = first + lane;
        BlockHeader header = {{0, 0}, {0, 0}, {0, 0}};
        if (at < count) header = block_header(band, nodes, root, levels, at, BlockBytes(blocks[at]).total);
        const u32 path = header.inclusion.count + header.planes.count, own = path + header.length.count;
        const u32 sum = warp_inclusive_sum(own), place = stream.tail + sum - own;
        put_bits<HEADER_WORDS>(ring, place, header.inclusion.bits | header.planes.bits << header.inclusion.count);
        put_bits<HEADER_WORDS>(ring, place + path, header.length.bits);
        stream.tail += __shfl_sync(ALL_LANES, sum, 31);
        __syncwarp();
        drain<HIGH_FIRST, HEADER_WORDS>(ring, stream, out);
    }
}

extern "C" __global__ void __launch_bounds__(128, 6)
    packet_headers(GLOBAL(const Layout) layouts, GLOBAL(const Packet) packets, GLOBAL(const Band) bands,
                   GLOBAL(const BlockBytes) blocks, u32 frames, GLOBAL(u32) nodes, GLOBAL(u8) headers,
                   GLOBAL(u32) block_offsets, GLOBAL(PacketBytes) results) {
    SHARED(u32, rings, HEADER_WARPS * HEADER_WORDS);
    const u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const auto ring = rings + warp * HEADER_WORDS;
    const Layout layout = layouts[0];
    for (u32 id = blockIdx.x * HEADER_WARPS + warp; id < frames * layout.packets; id += gridDim.x * HEADER_WARPS) {
        const u32 frame = id / layout.packets;
        const Packet packet = packets[id - frame * layout.packets];
        const u64 first_block = u64(frame) * layout.blocks + packet.first_block;
        const u32 body = place_blocks(blocks + first_block, packet.blocks, block_offsets + first_block);
        __syncwarp();  // the ring may still be read for the packet before
        for (u32 word = lane; word < HEADER_WORDS; word += 32) ring[word] = word == 0 && body;
        __syncwarp();
        Stream stream = {0, 1, 0, 0};  // the first bit: whether the packet has a body (T.800 B.10.3)
        const auto out = headers + (u64(frame) * layout.header_bytes + packet.header);
        auto band_blocks = blocks + first_block;
        for (u32 number = 0; body && number < packet.bands; number++) {
            const Band band = bands[packet.first_band + number];
            const auto own_nodes = nodes + (u64(frame) * layout.nodes + packet.first_node);
            if (band.across && band.down) put_band(band_blocks, band, own_nodes, ring, stream, out);
            band_blocks = band_blocks + band.across * band.down;
        }
        const Rest rest = finish<HIGH_FIRST, HEADER_WORDS>(ring, stream, out);
        if (lane == 0) results[id] = {stream.bytes + (rest.bits + 7) / 8, body, 0};
    }
}

extern "C" __global__ void __launch_bounds__(32)
    place_frames(GLOBAL(const Layout) layouts, u32 frames, GLOBAL(const u32) faults, GLOBAL(PacketBytes) packets,
                 GLOBAL(FramePlace) places) {
    const Layout layout = layouts[0];
    const u32 lane = threadIdx.x;
    u64 used = 0;
    for (u32 first = 0; first < frames; first += 32) {
        const u32 frame = first + lane;
        u64 bytes = 0;
        u32 fault = 0;
        if (frame < frames) {
            fault = faults[frame];
            for (u32 number = 0; number < layout.packets; number++) {
                PacketBytes packet = packets[frame * layout.packets + number];
                packet.offset = u32(bytes);
                packets[frame * layout.packets + number] = packet;
                bytes += packet.header + packet.body;
            }
            bytes += layout.main_header_bytes + 2;  // and EOC
            if (bytes > layout.frame_output_bytes) fault |= FAULT_ROOM;
            if (fault) bytes = 0;
        }
        const u32 room = (u32(bytes) + 15) / 16;
        const u32 sum = warp_inclusive_sum(room);
        if (frame < frames) places[frame] = {used + 16 * u64(sum - room), u32(bytes), fault};
        used += 16 * u64(__shfl_sync(ALL_LANES, sum, 31));
    }
}
