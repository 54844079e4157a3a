// One source, three compilers: nvcc or NVRTC for a GPU, g++ under the SIMT shim of tests/simt (which is included first
// and defines GPUENC_SIMT), and plain g++ for the per-element functions. Kernels use only what stands here, the CUDA
// builtins the shim knows, and no header of any toolkit.
//
// Memory is reached through four names, so that the shim can check every access (bounds, alignment, read-only,
// uninitialised, conflicts between threads) while on a GPU they are plain pointers:
//   GLOBAL(T) p          a kernel's parameter, or global_at<T>(address); p[i], load(p)
//   SHARED(T, name, n)   n elements of static shared memory; SHARED_PTR(T) to hand it to a function
//   DYN_SHARED(T, name)  the launch's dynamic shared memory
//   TABLE(T, name, n)    n constants, brace-initialised
// viewed_as<U>(p) is the same global memory as elements of another type.
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef int i32;
typedef long long i64;

#if defined(__CUDACC__)

#define GLOBAL(T) T*
#define SHARED_PTR(T) T*
#define SHARED(T, name, count) __shared__ T name[count]
#define DYN_SHARED(T, name)                                            \
    extern __shared__ __align__(16) unsigned char dynamic_shared_memory[]; \
    T* name = reinterpret_cast<T*>(dynamic_shared_memory)
#define TABLE(T, name, count) __device__ const T name[count]

template <class U, class T>
__device__ __forceinline__ U* viewed_as(T* place) {
    return reinterpret_cast<U*>(place);
}

template <class T>
__device__ __forceinline__ T* global_at(u64 address) {
    return reinterpret_cast<T*>(address);
}

// A read of memory that no thread of the launch writes: through the read-only path.
template <class T>
__device__ __forceinline__ T load(const T* place) {
    return __ldg(place);
}

#elif !defined(GPUENC_SIMT)

#define __device__
#define __forceinline__ inline
#define TABLE(T, name, count) static const T name[count]

#endif

static const u32 ALL_LANES = 0xFFFFFFFFu;

#if defined(__CUDACC__) || defined(GPUENC_SIMT)

// Reductions over a whole warp; every lane gets the result. All 32 lanes must take part.
__device__ __forceinline__ u32 warp_sum(u32 value) {
    for (int distance = 16; distance; distance >>= 1) value += __shfl_xor_sync(ALL_LANES, value, distance);
    return value;
}

__device__ __forceinline__ u32 warp_or(u32 value) {
    for (int distance = 16; distance; distance >>= 1) value |= __shfl_xor_sync(ALL_LANES, value, distance);
    return value;
}

__device__ __forceinline__ u32 warp_xor(u32 value) {
    for (int distance = 16; distance; distance >>= 1) value ^= __shfl_xor_sync(ALL_LANES, value, distance);
    return value;
}

// The sum of the values of this lane and all lower ones. All 32 lanes must take part.
__device__ __forceinline__ u32 warp_inclusive_sum(u32 value) {
    const u32 lane = threadIdx.x % 32;
#pragma unroll
    for (u32 distance = 1; distance < 32; distance <<= 1) {
        const u32 lower = __shfl_up_sync(ALL_LANES, value, distance);
        if (lane >= distance) value += lower;
    }
    return value;
}

#endif
