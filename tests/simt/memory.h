// Checked memory. Global memory is buffers that the host has made: every access must lie in one, be aligned to its
// type as a GPU demands, read only what has been written, write only what may be written, and not meet another
// thread's access without a barrier between. Shared memory is checked for the same, byte by byte.
#pragma once
#include <algorithm>
#include <type_traits>

#include "fibers.h"

namespace simt {

// Who touched a byte last. Accesses of two threads of a block are ordered by a block barrier between them, or, in one
// warp, by __syncwarp. Shuffles and votes order nothing, as on the hardware; those of different blocks nothing does.
struct Access {
    int thread = -1;
    uint32_t block = 0, block_epoch = 0, warp_epoch = 0;
};

inline uint32_t block_number() {
    return block_index.x + grid_size.x * (block_index.y + grid_size.y * block_index.z);
}
inline Access here() { return {current->number, block_number(), block_epoch, warp_epoch[current->number / 32]}; }
inline bool unordered(const Access& before, const Access& now) {
    if (before.thread < 0) return false;
    if (before.block != now.block) return true;
    if (before.thread == now.thread || before.block_epoch != now.block_epoch) return false;
    return before.thread / 32 != now.thread / 32 || before.warp_epoch == now.warp_epoch;
}

struct Byte {
    Access write, read, other_read, atomic;
};

enum Use { READ, WRITE, ATOMIC };

// Checks one byte against those who touched it before, and notes this access.
inline const char* note(Byte& byte, Use use, const Access& now) {
    const char* clash = nullptr;
    if (unordered(byte.write, now)) clash = use == READ ? "reads what another wrote" : "writes what another wrote";
    if (use != ATOMIC && unordered(byte.atomic, now)) clash = "meets another's atomic operation";
    if (use != READ && (unordered(byte.read, now) || unordered(byte.other_read, now))) clash = "writes what another read";
    if (use == WRITE) byte.write = now;
    if (use == ATOMIC) byte.atomic = now;
    if (use == READ && byte.read.thread != now.thread) {
        byte.other_read = byte.read;
        byte.read = now;
    } else if (use == READ) {
        byte.read = now;
    }
    return clash;
}

struct Buffer {
    std::string label;
    unsigned char* memory;  // as allocated
    unsigned char* data;
    size_t size;
    bool writable;
    std::vector<unsigned char> known;  // bytes that somebody has written
    std::vector<Byte> bytes;           // of writable buffers
};
inline std::vector<Buffer> buffers;
inline size_t last_buffer;
inline uint64_t traffic_bytes[2], accesses[2];  // of global memory: read, written
constexpr size_t GUARD_BYTES = 4096;
constexpr unsigned char POISON = 0xA5;

inline Buffer* buffer_at(uintptr_t address, size_t size) {
    auto holds = [&](const Buffer& buffer) {
        const uintptr_t begin = reinterpret_cast<uintptr_t>(buffer.data);
        return address >= begin && address + size <= begin + buffer.size;
    };
    if (last_buffer < buffers.size() && holds(buffers[last_buffer])) return &buffers[last_buffer];
    for (last_buffer = 0; last_buffer < buffers.size(); last_buffer++)
        if (holds(buffers[last_buffer])) return &buffers[last_buffer];
    return nullptr;
}

inline void out_of_bounds(uintptr_t address, size_t size, const char* what) {
    for (const Buffer& buffer : buffers) {
        const intptr_t offset = intptr_t(address - reinterpret_cast<uintptr_t>(buffer.data));
        if (offset > -intptr_t(GUARD_BYTES) && offset < intptr_t(buffer.size + GUARD_BYTES)) {
            violation(BOUNDS, "%s %zu bytes at byte %td of '%s', which has %zu", what, size, offset,
                      buffer.label.c_str(), buffer.size);
            return;
        }
    }
    violation(BOUNDS, "%s %zu bytes at %#zx, where there is no buffer", what, size, size_t(address));
}

// Checks an access to global memory; false if it must not be made.
inline bool global_access(uintptr_t address, size_t size, size_t align, Use use) {
    const char* what = use == READ ? "reads" : "writes";
    Buffer* buffer = buffer_at(address, size);
    if (!buffer) {
        out_of_bounds(address, size, what);
        return false;
    }
    if (use != ATOMIC) {
        traffic_bytes[use] += size;
        accesses[use]++;
    }
    const size_t offset = address - reinterpret_cast<uintptr_t>(buffer->data);
    if (address % align) {
        violation(ALIGNMENT, "%s %zu bytes at byte %zu of '%s': not aligned to %zu", what, size, offset,
                  buffer->label.c_str(), align);
        return false;
    }
    if (use != READ && !buffer->writable) {
        violation(READ_ONLY, "writes %zu bytes at byte %zu of '%s', which is read-only", size, offset,
                  buffer->label.c_str());
        return false;
    }
    if (use != WRITE && memchr(buffer->known.data() + offset, 0, size))
        violation(UNINITIALISED, "reads %zu bytes at byte %zu of '%s' that nobody has written", size, offset,
                  buffer->label.c_str());
    if (!buffer->writable) return true;
    const Access now = here();
    const char* clash = nullptr;
    for (size_t i = 0; i < size; i++) {
        buffer->known[offset + i] |= use != READ;
        if (const char* found = note(buffer->bytes[offset + i], use, now)) clash = found;
    }
    if (clash) violation(CONFLICT, "%s: %zu bytes at byte %zu of '%s'", clash, size, offset, buffer->label.c_str());
    return true;
}

// Shared memory of the running block.
constexpr size_t SHARED_BYTES = 232448;
alignas(128) inline unsigned char shared_memory[SHARED_BYTES];
inline std::vector<Byte> shared_bytes;
inline std::vector<std::pair<int, size_t>> shared_sites;  // static arrays of this block, and where they begin
inline size_t shared_used, dynamic_bytes;

inline bool shared_access(uintptr_t address, size_t size, size_t align, Use use) {
    const uintptr_t begin = reinterpret_cast<uintptr_t>(shared_memory);
    const char* what = use == READ ? "reads" : "writes";
    if (address < begin || address + size > begin + shared_used) {
        violation(BOUNDS, "%s %zu bytes at byte %td of shared memory, which has %zu", what, size,
                  intptr_t(address - begin), shared_used);
        return false;
    }
    const size_t offset = address - begin;
    if (address % align) {
        violation(ALIGNMENT, "%s %zu bytes at byte %zu of shared memory: not aligned to %zu", what, size, offset, align);
        return false;
    }
    if (shared_bytes.size() < shared_used) shared_bytes.resize(shared_used);
    const Access now = here();
    const char* clash = nullptr;
    bool unknown = false;
    for (size_t i = 0; i < size; i++) {
        Byte& byte = shared_bytes[offset + i];
        unknown = unknown || (use != WRITE && byte.write.thread < 0 && byte.atomic.thread < 0);
        if (const char* found = note(byte, use, now)) clash = found;
    }
    if (unknown) violation(UNINITIALISED, "reads %zu bytes at byte %zu of shared memory that nobody has written", size, offset);
    if (clash) violation(RACE, "%s: %zu bytes at byte %zu of shared memory", clash, size, offset);
    return true;
}

inline void begin_block() {
    shared_sites.clear();
    shared_used = (dynamic_bytes + 127) / 128 * 128;
    memset(shared_memory, POISON, sizeof shared_memory);
    shared_bytes.clear();
}

// Pointers into either kind.
using Check = bool (*)(uintptr_t, size_t, size_t, Use);

template <class T, Check check>
struct Place {
    using Value = std::remove_const_t<T>;
    T* raw;
    bool may(Use use) const { return check(reinterpret_cast<uintptr_t>(raw), sizeof(T), alignof(T), use); }
    Value get() const {
        Value value;
        if (may(READ)) memcpy(static_cast<void*>(&value), raw, sizeof value);
        else memset(static_cast<void*>(&value), POISON, sizeof value);
        return value;
    }
    operator Value() const { return get(); }
    const Place& operator=(Value value) const {
        if (may(WRITE)) memcpy(static_cast<void*>(const_cast<Value*>(raw)), &value, sizeof value);
        return *this;
    }
    const Place& operator=(const Place& other) const { return *this = other.get(); }
    const Place& operator+=(Value value) const { return *this = Value(get() + value); }
    const Place& operator|=(Value value) const { return *this = Value(get() | value); }
    const Place& operator^=(Value value) const { return *this = Value(get() ^ value); }
};

template <class T, Check check>
struct Pointer {
    T* raw;
    Pointer(T* raw = nullptr) : raw(raw) {}
    template <class U, class = std::enable_if_t<std::is_same_v<const U, T>>>
    Pointer(const Pointer<U, check>& other) : raw(other.raw) {}
    template <class Integer>
    Pointer operator+(Integer offset) const {
        return Pointer(reinterpret_cast<T*>(reinterpret_cast<uintptr_t>(raw) + intptr_t(offset) * intptr_t(sizeof(T))));
    }
    template <class Integer>
    Place<T, check> operator[](Integer index) const { return Place<T, check>{(*this + index).raw}; }
    Place<T, check> operator*() const { return Place<T, check>{raw}; }
};
template <class T>
using GlobalPtr = Pointer<T, global_access>;
template <class T>
using SharedPtr = Pointer<T, shared_access>;

template <class T, Check check, class Change>
T atomic(Pointer<T, check> pointer, Change change) {
    if (!Place<T, check>{pointer.raw}.may(ATOMIC)) return T();
    const T before = *pointer.raw;
    *pointer.raw = change(before);
    return before;
}

// Constants, checked for bounds.
template <class T, size_t COUNT>
struct Table {
    T values[COUNT];
    T operator[](size_t index) const {
        if (index < COUNT) return values[index];
        violation(BOUNDS, "reads element %zu of a table of %zu", index, COUNT);
        return T();
    }
};

inline int new_site() {
    static int sites;
    return sites++;
}

// The static array of a place in the source: one for the block, wherever its threads are.
template <class T>
SharedPtr<T> shared_array(int site, size_t count) {
    for (const auto& known : shared_sites)
        if (known.first == site) return reinterpret_cast<T*>(shared_memory + known.second);
    const size_t begin = (shared_used + 15) / 16 * 16;
    if (begin + count * sizeof(T) > SHARED_BYTES) {
        violation(BOUNDS, "a block has no more than %zu bytes of shared memory", SHARED_BYTES);
        abort();
    }
    shared_sites.emplace_back(site, begin);
    shared_used = begin + count * sizeof(T);
    return reinterpret_cast<T*>(shared_memory + begin);
}

}  // namespace simt
