// Threads of one block as fibers, and who runs when.
//
// A thread runs until it meets a barrier or an operation of its warp; then the schedule chooses the next. Five
// schedules show different missing barriers: forward, reverse, random (a new order in every round), and warp-greedy,
// forward and in reverse, where one warp runs on to the block's next barrier before another starts.
#pragma once
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#if !defined(__x86_64__) || defined(SIMT_UCONTEXT)
#define SIMT_USES_UCONTEXT
#include <ucontext.h>
#endif

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

namespace simt {

// What went wrong; the order is that of KINDS in shim.py.
enum Kind { BOUNDS, ALIGNMENT, READ_ONLY, UNINITIALISED, CONFLICT, RACE, DIVERGENT, DEADLOCK, WARP_OPERATION, STACK, KINDS };
inline uint64_t violations[KINDS];
inline std::string report;

enum Schedule { FORWARD, REVERSE, RANDOM, WARP_GREEDY, WARP_GREEDY_REVERSE };
inline Schedule schedule;
inline uint64_t random_state;
inline uint64_t barriers, warp_operations;

enum State { READY, AT_BLOCK_BARRIER, IN_WARP_OPERATION, DONE };
struct Fiber {
    dim3 index;
    int number;  // in the block
    State state;
    int line;      // of the barrier
    int kind;      // of the warp operation
    unsigned mask; // of the warp operation
    uint64_t value, result;
    int source;  // lane whose value is the result
#ifdef SIMT_USES_UCONTEXT
    ucontext_t context;
#else
    void* stack_pointer;
#endif
};
inline std::vector<Fiber> fibers;
inline Fiber* current;
inline dim3 block_index, block_size, grid_size;
inline std::function<void()> body;
inline uint32_t block_epoch;
inline std::vector<uint32_t> warp_epoch;

// Counted; the first twenty are described.
inline void violation(Kind kind, const char* format, ...) {
    uint64_t total = 0;
    for (uint64_t count : violations) total += count;
    violations[kind]++;
    if (total >= 20) return;
    char text[400];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    char where[100], thread[30] = "";
    if (current) snprintf(thread, sizeof thread, " thread %d", current->number);
    snprintf(where, sizeof where, "block (%u, %u, %u)%s: ", block_index.x, block_index.y, block_index.z, thread);
    report += where;
    report += text;
    report += '\n';
}

inline unsigned random_below(unsigned limit) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return unsigned((random_state >> 33) % limit);
}

// 0 to count - 1 as the schedule takes them.
inline std::vector<unsigned> order_of(unsigned count) {
    std::vector<unsigned> order(count);
    const bool reversed = schedule == REVERSE || schedule == WARP_GREEDY_REVERSE;
    for (unsigned i = 0; i < count; i++) order[i] = reversed ? count - 1 - i : i;
    if (schedule == RANDOM)
        for (unsigned i = count; i > 1; i--) std::swap(order[i - 1], order[random_below(i)]);
    return order;
}

// Switching. A fiber's stack ends in a word that must not change.
constexpr size_t STACK_BYTES = 64 * 1024;
constexpr uint64_t CANARY = 0x5AFE57ACC5AFE57Au;
inline std::vector<unsigned char> stacks;
inline unsigned char* stack_of(unsigned number) {
    return reinterpret_cast<unsigned char*>((reinterpret_cast<uintptr_t>(stacks.data()) + 63) & ~uintptr_t(63)) +
           number * STACK_BYTES;
}

void leave();
inline void thread_main() {
    body();
    current->state = DONE;
    leave();
    abort();
}

#ifdef SIMT_USES_UCONTEXT
inline ucontext_t scheduler_context;
inline void prepare(Fiber& fiber) {
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = stack_of(fiber.number);
    fiber.context.uc_stack.ss_size = STACK_BYTES;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, thread_main, 0);
}
inline void enter(Fiber& fiber) {
    current = &fiber;
    swapcontext(&scheduler_context, &fiber.context);
    current = nullptr;
}
inline void leave() { swapcontext(&current->context, &scheduler_context); }
#else
// ucontext asks the kernel for the signal mask at every switch, which is thirty times as slow.
extern "C" void simt_switch(void** save, void* load);
asm(R"(
.text
.globl simt_switch
.hidden simt_switch
simt_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
)");
inline void* scheduler_stack_pointer;
inline void prepare(Fiber& fiber) {
    void** top = reinterpret_cast<void**>(stack_of(fiber.number) + STACK_BYTES - 64);
    *--top = nullptr;
    *--top = reinterpret_cast<void*>(thread_main);
    for (int saved = 0; saved < 6; saved++) *--top = nullptr;
    fiber.stack_pointer = top;
}
inline void enter(Fiber& fiber) {
    current = &fiber;
    simt_switch(&scheduler_stack_pointer, fiber.stack_pointer);
    current = nullptr;
}
inline void leave() { simt_switch(&current->stack_pointer, scheduler_stack_pointer); }
#endif

inline bool run_ready(const std::vector<unsigned>& order) {
    bool ran = false;
    for (unsigned number : order)
        if (fibers[number].state == READY) {
            ran = true;
            enter(fibers[number]);
        }
    return ran;
}

// Ends the operations of a warp for which all lanes of the mask are there.
constexpr int SYNCWARP = 1;
inline bool end_warp_operations(unsigned warp) {
    const unsigned first = warp * 32, lanes = std::min<unsigned>(32, unsigned(fibers.size()) - first);
    bool ended = false;
    for (unsigned lane = 0; lane < lanes; lane++) {
        const Fiber leader = fibers[first + lane];
        if (leader.state != IN_WARP_OPERATION) continue;
        bool complete = true;
        unsigned present = 0, alive = 0;
        for (unsigned other = 0; other < lanes; other++) {
            const Fiber& fiber = fibers[first + other];
            alive |= unsigned(fiber.state != DONE) << other;
            if (!(leader.mask >> other & 1) || fiber.state == DONE) continue;
            if (fiber.state != IN_WARP_OPERATION || fiber.kind != leader.kind || fiber.mask != leader.mask) complete = false;
            present |= 1u << other;
        }
        if (!complete) continue;
        if (leader.mask & ~alive & (lanes == 32 ? ~0u : (1u << lanes) - 1))
            violation(WARP_OPERATION, "warp %u: the mask %08x names lanes that have ended", warp, leader.mask);
        unsigned votes = 0;
        for (unsigned other = 0; other < lanes; other++)
            if (present >> other & 1) votes |= unsigned(fibers[first + other].value != 0) << other;
        std::vector<uint64_t> values(32, 0);
        for (unsigned other = 0; other < lanes; other++) values[other] = fibers[first + other].value;
        for (unsigned other = 0; other < lanes; other++) {
            Fiber& fiber = fibers[first + other];
            if (!(present >> other & 1)) continue;
            if (fiber.source >= 0 && !(present >> fiber.source & 1))
                violation(WARP_OPERATION, "warp %u: lane %u reads lane %d, which takes no part", warp, other, fiber.source);
            fiber.result = fiber.source >= 0 ? values[fiber.source] : votes;
            fiber.state = READY;
        }
        if (leader.kind == SYNCWARP && present == alive) warp_epoch[warp]++;
        warp_operations++;
        ended = true;
    }
    return ended;
}

inline bool progress(const std::vector<unsigned>& order, unsigned warps) {
    bool any = false;
    if (schedule == WARP_GREEDY || schedule == WARP_GREEDY_REVERSE) {
        for (unsigned warp : order_of(warps)) {
            std::vector<unsigned> lanes;
            for (unsigned number : order)
                if (number / 32 == warp) lanes.push_back(number);
            while (run_ready(lanes) || end_warp_operations(warp)) any = true;
        }
        return any;
    }
    any = run_ready(order);
    for (unsigned warp = 0; warp < warps; warp++) any = end_warp_operations(warp) || any;
    return any;
}

// Whether all threads that have not ended wait at the block's barrier; then they go on.
inline bool end_block_barrier() {
    size_t waiting = 0, done = 0;
    int line = -1;
    bool one_line = true;
    for (const Fiber& fiber : fibers) {
        done += fiber.state == DONE;
        if (fiber.state != AT_BLOCK_BARRIER) continue;
        waiting++;
        one_line = one_line && (line < 0 || line == fiber.line);
        line = fiber.line;
    }
    if (!waiting || waiting + done != fibers.size()) return false;
    if (!one_line) violation(DIVERGENT, "threads meet at different barriers, one of them in line %d", line);
    if (done) violation(DIVERGENT, "%zu threads have ended before the barrier in line %d", done, line);
    block_epoch++;
    barriers++;
    for (Fiber& fiber : fibers)
        if (fiber.state == AT_BLOCK_BARRIER) fiber.state = READY;
    return true;
}

inline void run_block() {
    const unsigned threads = block_size.x * block_size.y * block_size.z, warps = (threads + 31) / 32;
    if (stacks.size() < threads * STACK_BYTES + 64) stacks.resize(threads * STACK_BYTES + 64);
    fibers.assign(threads, Fiber());
    warp_epoch.assign(warps, 0);
    block_epoch = 0;
    for (unsigned number = 0; number < threads; number++) {
        Fiber& fiber = fibers[number];
        fiber.number = int(number);
        fiber.index = dim3(number % block_size.x, number / block_size.x % block_size.y,
                           number / (block_size.x * block_size.y));
        memcpy(stack_of(number), &CANARY, sizeof CANARY);
        prepare(fiber);
    }
    do {
        while (progress(order_of(threads), warps)) {}
    } while (end_block_barrier());
    for (const Fiber& fiber : fibers) {
        if (memcmp(stack_of(unsigned(fiber.number)), &CANARY, sizeof CANARY))
            violation(STACK, "thread %d has used all of its stack", fiber.number);
        if (fiber.state == DONE) continue;
        violation(DEADLOCK, "thread %d waits for ever at %s in line %d", fiber.number,
                  fiber.state == AT_BLOCK_BARRIER ? "the block's barrier" : "an operation of its warp", fiber.line);
        return;
    }
}

inline void wait(State state, int line) {
    current->state = state;
    current->line = line;
    leave();
}

// Takes part in an operation of the warp; the result is the value of lane `source`, or of all lanes a bit each.
inline uint64_t warp_operation(int kind, unsigned mask, uint64_t value, int source, int line) {
    if (!(mask >> (current->number % 32) & 1))
        violation(WARP_OPERATION, "line %d: the mask %08x does not name the lane itself", line, mask);
    current->kind = kind;
    current->mask = mask | 1u << (current->number % 32);
    current->value = value;
    current->source = source;
    wait(IN_WARP_OPERATION, line);
    return current->result;
}

}  // namespace simt
