// What encoders say of each frame of a batch, and where its codestream lies. The Python twin is gpuenc/cuda/packed.py.
#pragma once
#include "device.cuh"
#include "job.cuh"

// A fault beyond those of job.cuh: the codestreams before this one have used up the room, or it does not fit.
static const u32 FAULT_BUFFER = 8;

// One word for a frame: how many bytes its codestream has, and why it cannot be written (FAULT_...), 0 if it can. With
// a fault of the codec it has no bytes.
__device__ __forceinline__ u64 outcome_of(u64 bytes, u32 fault) {
    if (bytes >> 32) fault |= FAULT_JOB;  // more than 32 bits can say
    return fault ? u64(fault) << 32 : bytes;
}
__device__ __forceinline__ u32 bytes_of(u64 outcome) { return u32(outcome); }
__device__ __forceinline__ u32 fault_of(u64 outcome) { return u32(outcome >> 32); }

// places[2 * frame] is the byte at which the frame's codestream begins, places[2 * frame + 1] its outcome.
static const u32 PLACE_WORDS = 2;
