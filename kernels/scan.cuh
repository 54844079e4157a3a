// Running sums and maxima over the threads of a warp or a block, in the order of their numbers.
#pragma once
#include "device.cuh"

#if defined(__CUDACC__) || defined(GPUENC_SIMT)

// The sum of the values of this lane and of those before it. All 32 lanes must take part.
template <class T>
__device__ __forceinline__ T warp_running_sum(T value) {
    const u32 lane = threadIdx.x % 32;
    for (u32 distance = 1; distance < 32; distance <<= 1) {
        const T before = __shfl_up_sync(ALL_LANES, value, distance);
        if (lane >= distance) value += before;
    }
    return value;
}

// The largest of the values of this lane and of those before it. All 32 lanes must take part.
__device__ __forceinline__ u32 warp_running_max(u32 value) {
    const u32 lane = threadIdx.x % 32;
    for (u32 distance = 1; distance < 32; distance <<= 1) {
        const u32 before = __shfl_up_sync(ALL_LANES, value, distance);
        if (lane >= distance && before > value) value = before;
    }
    return value;
}

// The sum of the values of this thread and of those before it in the block; `total` gets that of all of them. Every
// thread must take part, the block must be a multiple of 32; `sums` has room for one value of each warp.
template <class T>
__device__ __forceinline__ T block_running_sum(T value, SHARED_PTR(T) sums, T& total) {
    const u32 warp = threadIdx.x / 32;
    const T inclusive = warp_running_sum(value);
    __syncthreads();  // of the call before, nobody still reads
    if (threadIdx.x % 32 == 31) sums[warp] = inclusive;
    __syncthreads();
    T before = 0;
    total = 0;
    for (u32 other = 0; other < blockDim.x / 32; other++) {
        const T sum = sums[other];
        if (other < warp) before += sum;
        total += sum;
    }
    return before + inclusive;
}

#endif
