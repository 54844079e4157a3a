// CUDA C++ on the CPU: the names that kernels use. Include it before kernels/device.cuh.
#pragma once
#define GPUENC_SIMT

#include "memory.h"

#define __global__
#define __device__
#define __host__
#define __constant__ static const
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))

#define GLOBAL(T) simt::GlobalPtr<T>
#define SHARED_PTR(T) simt::SharedPtr<T>
#define SHARED(T, name, count)                             \
    simt::SharedPtr<T> name = [] {                         \
        static const int site = simt::new_site();          \
        return simt::shared_array<T>(site, size_t(count)); \
    }()
#define DYN_SHARED(T, name) simt::SharedPtr<T> name(reinterpret_cast<T*>(simt::shared_memory))
#define TABLE(T, name, count) static const simt::Table<T, count> name

#define threadIdx (simt::current->index)
#define blockIdx simt::block_index
#define blockDim simt::block_size
#define gridDim simt::grid_size

struct __align__(8) uint2 { unsigned x, y; };
struct __align__(16) uint4 { unsigned x, y, z, w; };
struct __align__(8) int2 { int x, y; };
struct __align__(16) int4 { int x, y, z, w; };

template <class U, class T>
simt::GlobalPtr<U> viewed_as(simt::GlobalPtr<T> place) {
    return simt::GlobalPtr<U>(reinterpret_cast<U*>(place.raw));
}
template <class T>
simt::GlobalPtr<T> global_at(unsigned long long address) {
    return simt::GlobalPtr<T>(reinterpret_cast<T*>(address));
}
template <class T>
T load(simt::GlobalPtr<const T> place) {
    return *place;
}

// Barriers and operations of a warp.
inline void __syncthreads(int line = __builtin_LINE()) { simt::wait(simt::AT_BLOCK_BARRIER, line); }
inline void __syncwarp(unsigned mask = ~0u, int line = __builtin_LINE()) {
    simt::warp_operation(simt::SYNCWARP, mask, 0, -1, line);
}
inline void __threadfence() {}
namespace simt {
template <class T>
T shuffle(int kind, unsigned mask, T value, int source, int line) {
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof value);
    bits = warp_operation(kind, mask, bits, source, line);
    memcpy(&value, &bits, sizeof value);
    return value;
}
inline int lane() { return current->number % 32; }
}  // namespace simt
template <class T>
T __shfl_sync(unsigned mask, T value, int source, int line = __builtin_LINE()) {
    return simt::shuffle(2, mask, value, source & 31, line);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned by, int line = __builtin_LINE()) {
    return simt::shuffle(3, mask, value, simt::lane() >= int(by) ? simt::lane() - int(by) : simt::lane(), line);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned by, int line = __builtin_LINE()) {
    return simt::shuffle(4, mask, value, simt::lane() + int(by) < 32 ? simt::lane() + int(by) : simt::lane(), line);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int with, int line = __builtin_LINE()) {
    return simt::shuffle(5, mask, value, (simt::lane() ^ with) & 31, line);
}
inline unsigned __ballot_sync(unsigned mask, int vote, int line = __builtin_LINE()) {
    return unsigned(simt::warp_operation(6, mask, vote != 0, -1, line));
}
inline int __any_sync(unsigned mask, int vote, int line = __builtin_LINE()) {
    return simt::warp_operation(7, mask, vote != 0, -1, line) != 0;
}
inline int __all_sync(unsigned mask, int vote, int line = __builtin_LINE()) {
    return simt::warp_operation(8, mask, vote == 0, -1, line) == 0;
}

// Atomics on either kind of memory.
template <class T, simt::Check check>
T atomicAdd(simt::Pointer<T, check> place, std::common_type_t<T> value) {
    return simt::atomic(place, [=](T before) { return T(before + value); });
}
template <class T, simt::Check check>
T atomicOr(simt::Pointer<T, check> place, std::common_type_t<T> value) {
    return simt::atomic(place, [=](T before) { return T(before | value); });
}
template <class T, simt::Check check>
T atomicXor(simt::Pointer<T, check> place, std::common_type_t<T> value) {
    return simt::atomic(place, [=](T before) { return T(before ^ value); });
}
template <class T, simt::Check check>
T atomicMax(simt::Pointer<T, check> place, std::common_type_t<T> value) {
    return simt::atomic(place, [=](T before) { return before < value ? T(value) : before; });
}
template <class T, simt::Check check>
T atomicMin(simt::Pointer<T, check> place, std::common_type_t<T> value) {
    return simt::atomic(place, [=](T before) { return value < before ? T(value) : before; });
}

// Bits.
inline int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
inline int __clzll(long long x) { return x ? __builtin_clzll((unsigned long long)x) : 64; }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline unsigned __brev(unsigned x) {
    unsigned reversed = 0;
    for (int bit = 0; bit < 32; bit++) reversed |= (x >> bit & 1) << (31 - bit);
    return reversed;
}
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned((uint64_t(a) * b) >> 32); }
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned by) {
    return unsigned((uint64_t(high) << 32 | low) >> (by & 31));
}
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned by) {
    return unsigned((uint64_t(high) << 32 | low) << (by & 31) >> 32);
}
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned select) {
    const uint64_t bytes = uint64_t(b) << 32 | a;
    unsigned result = 0;
    for (int i = 0; i < 4; i++) result |= unsigned(bytes >> (8 * (select >> (4 * i) & 7)) & 255) << (8 * i);
    return result;
}
using std::max;
using std::min;
