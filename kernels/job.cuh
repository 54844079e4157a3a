// What a launch is told of each frame of its batch, and what it answers. The Python twin of these layouts is
// gpuenc/cuda/jobs.py; a test holds the two together.
#pragma once
#include "device.cuh"

// Bits of FrameJob.flags.
static const u32 BIG_ENDIAN_CELLS = 1;  // cells of source: most significant byte first
static const u32 SIGNED_SAMPLES = 2;    // samples of source are two's complement
static const u32 SIGNED_TARGET = 4;     // count_differing: so are those of target
static const u32 TO_RGB = 8;            // YBR_FULL -> RGB as the last step, 8-bit targets only

// Bits of a frame's fault. A frame with one was not done: what its target holds is undefined.
static const u32 FAULT_TRUNCATED = 1;  // source_bytes or target_bytes are fewer than the frame needs
static const u32 FAULT_JOB = 2;        // a parameter is out of range
static const u32 FAULT_OVERFLOW = 4;   // a result needs more than 32 bits

struct FrameJob {      // 80 bytes
    u64 source;        // address of the frame's first byte, any alignment
    u64 source_bytes;  // bytes there
    u64 target;        // address of the result, any alignment; for count_differing of the other samples
    u64 target_bytes;  // bytes there
    u64 items;         // what the kernel counts: samples, pixels or pairs of pixels
    u32 skip;          // items by which the first group is cut short, so that later groups lie aligned; any value
                       // below the group's size is right, a good one is fast
    u32 bit_offset;    // 1-bit cells: bit of the first byte where the frame begins, 0 to 7
    u32 flags;
    u32 left;          // 31 - High Bit
    u32 right;         // 32 - Bits Stored
    u32 outside;       // bits of a cell that are neither the sample's nor an overlay's
    u32 above;         // those of them above High Bit
    u32 entries;       // palette: entries
    i32 first;         // palette: the sample of entry 0
    u32 unused;
    u64 palette;       // palette: address of its u32 entries, red | green << 8 | blue << 16
};

// What a thread found in its part of a frame.
struct Found {
    u32 cells;
    u32 bits;
    u32 fault;
};

// A launch's answer: two u64 for each frame, zeroed by the host.
//   status[2 * frame]      cells with stray bits, or samples that differ
//   status[2 * frame + 1]  low half: those stray bits, OR-ed; high half: fault
static const u32 STATUS_WORDS = 2;
