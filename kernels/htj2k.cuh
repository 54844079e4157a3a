// How a batch of HTJ2K frames of one geometry lies in memory. The tables below are made by gpuenc/cuda/htj2k_plan.py,
// once for a geometry; a test holds the two together.
//
// A frame's coefficients: its components one after another, in each the sub-bands of all levels, every row beginning at
// an even place. A code block's slot: MagSgn from its start, MEL from `magsgn_bytes` on, VLC up to its end.
#pragma once
#include "device.cuh"

// Bits of a frame's fault: it has no codestream then.
static const u32 FAULT_VALUES = 1;     // a sample is outside its precision
static const u32 FAULT_MAGNITUDE = 2;  // a coefficient has more bits than its sub-band has bit-planes
static const u32 FAULT_ROOM = 4;       // the codestream needs more bytes than a frame has

static const u32 MEL_BYTES = 256;   // room for MEL in a slot: 1040 events of at most 3/2 bits need 209
static const u32 VLC_BYTES = 2176;  // room for VLC: 512 pairs of at most 30 bits need 2050

struct Layout {                  // what all frames of a batch have in common
    u64 frame_samples;           // of all components
    u64 frame_coefficients;      // padding included
    u32 component_coefficients;  // of them in one component
    u32 components;              // 1 or 3
    u32 transformed;             // whether by the reversible component transform
    u32 precision;               // bits of a sample, 1 to 16
    u32 is_signed;
    u32 blocks;                  // code blocks of a frame
    u32 packets;                 // of a frame
    u32 nodes;                   // tag-tree nodes of a frame's packets
    u32 header_bytes;            // room for a frame's packet headers
    u32 slot_bytes;              // room for a code block
    u32 magsgn_bytes;            // of them for MagSgn
    u32 main_header_bytes;       // SOC to SOD
    u32 tlm_at;                  // where in them Ptlm is
    u32 sot_at;                  // and where SOT
    u32 frame_output_bytes;      // room for a frame's codestream, a multiple of 16
    u32 unused;
};

struct Level {          // one decomposition of one component
    u32 columns, rows;  // of what is decomposed: the image, or the low-pass band of the level before
    u32 source;         // where that band is in the component's coefficients; unused at the first level
    u32 source_stride;
    u32 ll, hl, lh, hh;  // where the sub-bands go
    u32 low_stride;      // between rows of LL and LH
    u32 high_stride;     // between rows of HL and HH
};

struct CodeBlock {
    u32 offset;         // of its first coefficient in the frame, even
    u32 stride;         // even
    u16 columns, rows;  // 1 to 64
    u16 kmax;           // bit-planes of its sub-band (T.800 equation E-2)
    u16 packet;
};

struct Packet {        // one resolution of one component: there is one precinct and one layer
    u32 first_block;   // in the frame
    u32 blocks;
    u32 first_node;    // of its room for tag trees
    u32 header;        // where its header's room begins
    u32 first_band;    // in the table of bands
    u32 bands;
};

struct Band {
    u32 across, down;  // code blocks
    u32 kmax;
};

// What the launches tell each other.
struct BlockBytes {
    u32 magsgn, mel, vlc;
    u32 total;  // 0: no coefficient is significant
};

struct PacketBytes {
    u32 header, body;
    u32 offset;  // of the packet behind the main header
};

struct FramePlace {
    u64 offset;  // of the codestream in the packed output, a multiple of 16
    u32 bytes;
    u32 fault;
};
