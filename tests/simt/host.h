// What Python calls of a library of kernels. Include it after them; then say SIMT_KERNELS(name, name, ...).
#pragma once
#include "simt.h"

namespace simt {

// A kernel's arguments come as 64-bit words: addresses, integers, or, for a struct by value, where it lies.
template <class T>
struct Argument {
    static T of(uint64_t word) {
        if constexpr (std::is_integral_v<T>) return T(word);
        else return *reinterpret_cast<const T*>(word);
    }
};
template <class T>
struct Argument<GlobalPtr<T>> {
    static GlobalPtr<T> of(uint64_t word) { return GlobalPtr<T>(reinterpret_cast<T*>(word)); }
};

struct Kernel {
    const char* name;
    size_t arguments;
    std::function<void(const uint64_t*)> call;
};

template <class... Arguments, size_t... places>
Kernel kernel(const char* name, void (*function)(Arguments...), std::index_sequence<places...>) {
    return {name, sizeof...(Arguments), [function](const uint64_t* words) {
                function(Argument<std::remove_cv_t<Arguments>>::of(words[places])...);
            }};
}
template <class... Arguments>
Kernel kernel(const char* name, void (*function)(Arguments...)) {
    return kernel(name, function, std::index_sequence_for<Arguments...>());
}

const std::vector<Kernel>& kernels();

}  // namespace simt

extern "C" {

void* simt_make_buffer(const char* label, uint64_t size, uint64_t misalign, int writable) {
    constexpr size_t ALIGN = 256;
    const size_t total = size + 2 * simt::GUARD_BYTES + 2 * ALIGN;
    auto* memory = static_cast<unsigned char*>(malloc(total));
    memset(memory, simt::POISON, total);
    const uintptr_t first = reinterpret_cast<uintptr_t>(memory) + simt::GUARD_BYTES;
    auto* data = reinterpret_cast<unsigned char*>((first + ALIGN - 1) / ALIGN * ALIGN + misalign);
    simt::buffers.push_back({label, memory, data, size, writable != 0, std::vector<unsigned char>(size), {}});
    return data;
}

void simt_free_buffers() {
    for (simt::Buffer& buffer : simt::buffers) free(buffer.memory);
    simt::buffers.clear();
}

// 0, or -1 if there is no such memory.
int simt_put(uint64_t address, const void* from, uint64_t size) {
    simt::Buffer* buffer = simt::buffer_at(address, size);
    if (!buffer) return -1;
    memcpy(reinterpret_cast<void*>(address), from, size);
    memset(buffer->known.data() + (address - reinterpret_cast<uintptr_t>(buffer->data)), 1, size);
    return 0;
}

// How many of the bytes nobody has written, or -1 if there is no such memory.
int64_t simt_get(uint64_t address, void* into, uint64_t size) {
    simt::Buffer* buffer = simt::buffer_at(address, size);
    if (!buffer) return -1;
    memcpy(into, reinterpret_cast<const void*>(address), size);
    const auto begin = buffer->known.begin() + (address - reinterpret_cast<uintptr_t>(buffer->data));
    return std::count(begin, begin + size, 0);
}

// 0; -1 for an unknown kernel, -2 for another number of arguments. `shape` is grid x y z, block x y z.
int simt_launch(const char* name, const uint32_t* shape, uint64_t shared_bytes, int schedule, uint64_t seed,
                const uint64_t* words, uint64_t count) {
    for (const simt::Kernel& kernel : simt::kernels()) {
        if (strcmp(kernel.name, name)) continue;
        if (kernel.arguments != count) return -2;
        for (simt::Buffer& buffer : simt::buffers)
            if (buffer.writable) buffer.bytes.assign(buffer.size, simt::Byte());
        simt::schedule = simt::Schedule(schedule);
        simt::random_state = seed;
        simt::grid_size = dim3(shape[0], shape[1], shape[2]);
        simt::block_size = dim3(shape[3], shape[4], shape[5]);
        simt::dynamic_bytes = shared_bytes;
        simt::body = [&] { kernel.call(words); };
        for (unsigned block : simt::order_of(shape[0] * shape[1] * shape[2])) {
            simt::block_index = dim3(block % shape[0], block / shape[0] % shape[1], block / (shape[0] * shape[1]));
            simt::begin_block();
            simt::run_block();
        }
        return 0;
    }
    return -1;
}

// Counts by kind, then block barriers, operations of warps, and of global memory the bytes read and written and the
// number of reads and writes, without atomics; text of the first violations. Begins anew.
void simt_report(uint64_t* counts, char* text, uint64_t size) {
    memcpy(counts, simt::violations, sizeof simt::violations);
    const uint64_t more[] = {simt::barriers,    simt::warp_operations, simt::traffic_bytes[0], simt::traffic_bytes[1],
                             simt::accesses[0], simt::accesses[1]};
    memcpy(counts + simt::KINDS, more, sizeof more);
    snprintf(text, size, "%s", simt::report.c_str());
    memset(simt::violations, 0, sizeof simt::violations);
    memset(simt::traffic_bytes, 0, sizeof simt::traffic_bytes);
    memset(simt::accesses, 0, sizeof simt::accesses);
    simt::barriers = simt::warp_operations = 0;
    simt::report.clear();
}
}
