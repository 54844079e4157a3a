// Kernels that are right, and kernels with one planted error each, for the tests of the shim.
#include "device.cuh"

struct Scale {
    u32 by, plus;
};

// out[i] = in[n - 1 - i] by way of shared memory; the block has n threads.
template <bool BARRIER>
__device__ void reverse(GLOBAL(const u32) in, GLOBAL(u32) out) {
    SHARED(u32, held, 128);
    held[threadIdx.x] = in[threadIdx.x];
    if (BARRIER) __syncthreads();
    out[threadIdx.x] = held[blockDim.x - 1 - threadIdx.x];
}
extern "C" __global__ void reverse_right(GLOBAL(const u32) in, GLOBAL(u32) out) { reverse<true>(in, out); }
extern "C" __global__ void reverse_without_barrier(GLOBAL(const u32) in, GLOBAL(u32) out) { reverse<false>(in, out); }

// Each warp turns its own 32 values round.
template <bool BARRIER>
__device__ void reverse_warps(GLOBAL(const u32) in, GLOBAL(u32) out) {
    DYN_SHARED(u32, held);
    held[threadIdx.x] = in[threadIdx.x];
    if (BARRIER) __syncwarp();
    out[threadIdx.x] = held[threadIdx.x ^ 31];
}
extern "C" __global__ void warps_right(GLOBAL(const u32) in, GLOBAL(u32) out) { reverse_warps<true>(in, out); }
extern "C" __global__ void warps_without_barrier(GLOBAL(const u32) in, GLOBAL(u32) out) {
    reverse_warps<false>(in, out);
}
// A shuffle is no barrier, although here it makes the threads wait.
extern "C" __global__ void warps_with_shuffle_for_barrier(GLOBAL(const u32) in, GLOBAL(u32) out) {
    DYN_SHARED(u32, held);
    held[threadIdx.x] = in[threadIdx.x];
    __shfl_sync(ALL_LANES, threadIdx.x, 0);
    out[threadIdx.x] = held[threadIdx.x ^ 31];
}

// Two rounds over one array: the second barrier keeps the next round's writes from this round's reads.
template <bool BARRIER>
__device__ void rounds(GLOBAL(const u32) in, GLOBAL(u32) out) {
    SHARED(u32, held, 128);
    u32 sum = 0;
    for (u32 round = 0; round < 2; round++) {
        held[threadIdx.x] = in[threadIdx.x] + round;
        __syncthreads();
        sum += held[(threadIdx.x + 64) % 128];
        if (BARRIER) __syncthreads();
    }
    out[threadIdx.x] = sum;
}
extern "C" __global__ void rounds_right(GLOBAL(const u32) in, GLOBAL(u32) out) { rounds<true>(in, out); }
extern "C" __global__ void rounds_without_barrier(GLOBAL(const u32) in, GLOBAL(u32) out) { rounds<false>(in, out); }

extern "C" __global__ void reads_one_too_many(GLOBAL(const u32) in, GLOBAL(u32) out) {
    out[threadIdx.x] = in[threadIdx.x] + in[threadIdx.x + 1];
}
extern "C" __global__ void writes_one_too_many(GLOBAL(const u32) in, GLOBAL(u32) out) {
    out[i32(threadIdx.x) - 1] = in[threadIdx.x];
}
extern "C" __global__ void writes_shared_one_too_many(GLOBAL(const u32) in, GLOBAL(u32) out) {
    SHARED(u32, held, 127);
    held[threadIdx.x] = in[threadIdx.x];
    out[threadIdx.x] = held[threadIdx.x];
}
extern "C" __global__ void reads_misaligned(GLOBAL(const u32) in, GLOBAL(u32) out) {
    if (threadIdx.x < 8) out[threadIdx.x] = global_at<const uint4>(u64(in.raw) + 8)[threadIdx.x].get().x;
}
extern "C" __global__ void writes_its_input(GLOBAL(u32) in, GLOBAL(u32) out) {
    out[threadIdx.x] = in[threadIdx.x];
    in[threadIdx.x] = 0;
}
extern "C" __global__ void reads_what_nobody_wrote(GLOBAL(const u32) in, GLOBAL(u32) out) {
    out[threadIdx.x] += in[threadIdx.x];
}
extern "C" __global__ void reads_shared_nobody_wrote(GLOBAL(const u32) in, GLOBAL(u32) out) {
    SHARED(u32, held, 128);
    if (threadIdx.x) held[threadIdx.x] = in[threadIdx.x];
    out[threadIdx.x] = held[threadIdx.x];
}
// Every block writes the same places.
extern "C" __global__ void blocks_collide(GLOBAL(const u32) in, GLOBAL(u32) out) { out[threadIdx.x] = in[threadIdx.x]; }
// A plain sum where an atomic one is needed.
extern "C" __global__ void counts_plainly(GLOBAL(const u32) in, GLOBAL(u32) out) {
    if (!threadIdx.x) out[0] = 0;
    __syncthreads();
    out[0] += in[threadIdx.x];
}
extern "C" __global__ void counts_atomically(GLOBAL(const u32) in, GLOBAL(u32) out) {
    SHARED(u32, sum, 1);
    if (!threadIdx.x) sum[0] = 0;
    __syncthreads();
    atomicAdd(sum + 0, in[threadIdx.x]);
    __syncthreads();
    out[threadIdx.x] = sum[0];
}
extern "C" __global__ void meets_at_two_barriers(GLOBAL(const u32) in, GLOBAL(u32) out) {
    if (threadIdx.x % 2) {
        __syncthreads();
    } else {
        __syncthreads();
    }
    out[threadIdx.x] = in[threadIdx.x];
}
extern "C" __global__ void leaves_before_the_barrier(GLOBAL(const u32) in, GLOBAL(u32) out) {
    out[threadIdx.x] = in[threadIdx.x];
    if (threadIdx.x > 100) return;
    __syncthreads();
}
extern "C" __global__ void waits_for_ever(GLOBAL(const u32) in, GLOBAL(u32) out) {
    out[threadIdx.x] = in[threadIdx.x];
    if (threadIdx.x == 3) __syncthreads();
    else __syncwarp();
}
extern "C" __global__ void shuffles_with_the_dead(GLOBAL(const u32) in, GLOBAL(u32) out) {
    out[threadIdx.x] = in[threadIdx.x];
    if (threadIdx.x % 32 == 5) return;
    out[threadIdx.x] = __shfl_down_sync(ALL_LANES, in[threadIdx.x].get(), 1);
}
extern "C" __global__ void names_others_only(GLOBAL(const u32) in, GLOBAL(u32) out) {
    out[threadIdx.x] = in[threadIdx.x];
    if (threadIdx.x % 32 == 0) __syncwarp(1);
    else __syncwarp(~1u << 1);
}

// Operations of a warp, ten words a thread. The upper half of each warp takes part alone in one of them.
extern "C" __global__ void warp_operations(GLOBAL(const u32) in, GLOBAL(u32) out) {
    const u32 value = in[threadIdx.x], lane = threadIdx.x % 32;
    const auto mine = out + 10 * threadIdx.x;
    mine[0] = __shfl_sync(ALL_LANES, value, i32(lane * 7));
    mine[1] = __shfl_up_sync(ALL_LANES, value, 3);
    mine[2] = __shfl_down_sync(ALL_LANES, value, 5);
    mine[3] = __shfl_xor_sync(ALL_LANES, value, 9);
    mine[4] = __ballot_sync(ALL_LANES, value & 1);
    mine[5] = u32(__any_sync(ALL_LANES, value == 7));
    mine[6] = u32(__all_sync(ALL_LANES, value < 1000));
    mine[7] = warp_sum(value);
    mine[8] = warp_xor(value) ^ warp_or(value);
    mine[9] = lane < 16 ? 0 : __ballot_sync(0xFFFF0000u, value & 2);
}

extern "C" __global__ void takes_a_struct(GLOBAL(const u32) in, GLOBAL(u32) out, Scale scale, u32 more) {
    const u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    out[i] = in[i] * scale.by + scale.plus + more;
}
