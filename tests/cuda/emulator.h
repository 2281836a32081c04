// Runs CUDA kernels on the CPU, for tests: g++ -std=c++17 -fopenmp -fPIC -shared -include emulator.h unit.cpp
//
// Each CUDA thread is a fiber, each block of threads belongs to one thread of the system. A warp runs until all of
// its lanes wait at a barrier of the block or have returned; lanes meet at every shuffle, and each hands over to the
// next. So shared memory, barriers, votes and shuffles work, and where a barrier is missing the result depends on the
// order in which lanes run: run every kernel in both orders and demand the same bits. A barrier that only some lanes of
// a warp reach, and a stack overflow, abort.
//
// With -fsanitize=thread every lane is a thread to the sanitizer, ordered with others by what CUDA promises alone:
// the barriers of its block, and a fence before an atomic operation with a fence after one that saw it. Shuffles order
// nothing. So it finds the reads and writes of shared and global memory, in a block and between blocks, that nothing
// separates, whatever the order in which they ran.
//
// It shows no coalescing, no speed, and nothing that only NVRTC rejects. It knows what the kernels of this package
// use, and no more: no inline PTX (use `#ifdef __CUDA_ARCH__`), no `extern __shared__`.
#pragma once
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>
#include <omp.h>
#include <sched.h>
#if !defined(__x86_64__)
#define PORTABLE_FIBERS 1
#include <ucontext.h>
#endif
#ifdef __SANITIZE_THREAD__
extern "C" {
void* __tsan_get_current_fiber();
void* __tsan_create_fiber(unsigned);
void __tsan_switch_to_fiber(void*, unsigned);
void __tsan_acquire(void*);
void __tsan_release(void*);
void __tsan_volatile_read4(void*);
}
#define EMULATOR_UNSEEN __attribute__((no_sanitize("thread")))  // the emulator itself has its own order
#else
#define EMULATOR_UNSEEN
#endif

// Otherwise the loader merges the variables of all libraries in a process.
#pragma GCC visibility push(hidden)
#define EMULATOR_PUBLIC extern "C" __attribute__((visibility("default"), used))

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static thread_local

struct uint3 { unsigned x, y, z; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(16) double2 { double x, y; };

namespace emulator {

constexpr uint64_t CANARY = 0x0123456789abcdefull;

#ifdef PORTABLE_FIBERS
using Context = ucontext_t;
#else
using Context = void*;  // the stack pointer; the registers that a call keeps lie on the stack
extern "C" void emulator_switch(void** save, void* load);
asm(R"(
.text
.weak emulator_switch
.hidden emulator_switch
.type emulator_switch,@function
emulator_switch:
  pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp
  ret
)");
#endif

// What orders the lanes for the sanitizer: each acquires what others released. To go on with another lane orders nothing:
// that is the 1.
#ifdef __SANITIZE_THREAD__
inline void* sanitized_self() { return __tsan_get_current_fiber(); }
inline void* sanitized_lane() { return __tsan_create_fiber(0); }
inline void sanitized_switch(void* lane) { __tsan_switch_to_fiber(lane, 1); }
inline void acquire(char& order) { __tsan_acquire(&order); }
inline void release(char& order) { __tsan_release(&order); }
#else
inline void* sanitized_self() { return nullptr; }
inline void* sanitized_lane() { return nullptr; }
inline void sanitized_switch(void*) {}
inline void acquire(char&) {}
inline void release(char&) {}
#endif
inline char launched, finished;
inline int widest = 1;  // threads of the system, of all launches
inline thread_local char met[2], block_begun, block_done;

struct Fiber;
struct Warp {
    Fiber* lanes;
    uint32_t ready, at_warp, at_block;  // lanes, as bits: those in none have returned
    uint64_t slot[2][32];               // of two shuffles in turn: who is at one has read what the last but one left
    char met[2];
};
struct Fiber {
    Context context;
    Warp* warp;
    unsigned index, votes, shuffles, barriers, warp_barriers;
    std::unique_ptr<char[]> stack;  // never filled: of each, memory has the pages that are used
    uint64_t* bottom;               // of it, for lanes: the sanitizers see what belongs to the standard library
    void* sanitized = nullptr;
    bool fenced;     // before what it does next
    char* observed;  // what it looked at last, of that which blocks tell each other
};

inline int order = 0;  // 0: lanes and warps in ascending order; 1: in descending order
inline thread_local uint3 thread_index, block_index, block_size, grid_size;
inline thread_local std::vector<Fiber> fibers;
inline thread_local std::vector<Warp> warps;
inline thread_local bool ballot[3];
inline thread_local Fiber* current;
inline thread_local Context scheduler;
inline thread_local void* sanitized_scheduler;
inline thread_local void (*entry)(void*);
inline thread_local void* entry_argument;
EMULATOR_PUBLIC inline void emulator_set_order(int value) { order = value; }

[[noreturn]] inline void fail(const char* what)
{
    fprintf(stderr, "emulator: %s\n", what);
    std::abort();
}

EMULATOR_UNSEEN inline void switch_to(Context& from, Context& to)
{
#ifdef PORTABLE_FIBERS
    swapcontext(&from, &to);
#else
    emulator_switch(&from, to);
#endif
}

EMULATOR_UNSEEN inline Fiber& next_of(Warp& warp)
{
    return warp.lanes[order ? 31 - __builtin_clz(warp.ready) : __builtin_ctz(warp.ready)];
}

EMULATOR_UNSEEN inline void become(Fiber& fiber)
{
    current = &fiber;
    thread_index = {fiber.index, 0, 0};
    sanitized_switch(fiber.sanitized);
}

EMULATOR_UNSEEN inline void check_stack(const Fiber& fiber)
{
    if (*fiber.bottom != CANARY) fail("stack overflow in a kernel");
}

// Hand over to the next lane of the warp that can go on, or to the scheduler if there is none.
EMULATOR_UNSEEN inline void leave(uint32_t Warp::* place)
{
    Fiber& fiber = *current;
    Warp& warp = *fiber.warp;
    const uint32_t bit = 1u << (fiber.index & 31);
    check_stack(fiber);
    warp.ready &= ~bit;
    if (place) warp.*place |= bit;
    if (!warp.ready && warp.at_warp) {
        if (warp.at_block) fail("some lanes of a warp are at a barrier of the block, others at a shuffle");
        warp.ready = warp.at_warp;
        warp.at_warp = 0;
    }
    if (!warp.ready) {
        sanitized_switch(sanitized_scheduler);
        switch_to(fiber.context, scheduler);
    } else if (Fiber& next = next_of(warp); &next != &fiber) {
        become(next);
        switch_to(fiber.context, next.context);
    }
}

// Two orders take turns, so that who leaves a barrier is not ordered with who has come to the next one.
EMULATOR_UNSEEN inline void meet_block()
{
    char& order = met[current->barriers++ % 2];
    release(order);
    leave(&Warp::at_block);
    acquire(order);
}

EMULATOR_UNSEEN inline void meet_warp()
{
    char& order = current->warp->met[current->warp_barriers++ % 2];
    release(order);
    leave(&Warp::at_warp);
    acquire(order);
}

EMULATOR_UNSEEN inline void run_fiber()
{
    acquire(block_begun);
    entry(entry_argument);
    release(block_done);
    release(finished);
    leave(nullptr);
}

EMULATOR_UNSEEN inline void start(Fiber& fiber, size_t stack_size)
{
    if (!fiber.stack) fiber.stack.reset(new char[stack_size]);
    fiber.bottom = (uint64_t*)fiber.stack.get();
    *fiber.bottom = CANARY;
#ifdef PORTABLE_FIBERS
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = stack_size;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, run_fiber, 0);
#else
    void** top = (void**)(((uintptr_t)fiber.stack.get() + stack_size) & ~uintptr_t(15));
    *--top = nullptr;  // the alignment that the ABI wants at entry
    *--top = (void*)run_fiber;
    for (int k = 0; k < 6; ++k) *--top = nullptr;
    fiber.context = top;
#endif
    fiber.votes = fiber.shuffles = fiber.barriers = fiber.warp_barriers = 0;
    fiber.fenced = false;
    fiber.observed = nullptr;
    if (!fiber.sanitized) fiber.sanitized = sanitized_lane();
}

// Until every lane waits at a barrier of the block, or has returned.
EMULATOR_UNSEEN inline void run_warp(Warp& warp)
{
    if (!warp.ready) return;
    Fiber& first = next_of(warp);
    become(first);
    switch_to(scheduler, first.context);
}

EMULATOR_UNSEEN inline void run_block(unsigned threads, size_t stack_size)
{
    const unsigned count = (threads + 31) / 32;
    std::vector<Fiber>& lanes = fibers;  // a thread's own are looked up at every use
    std::vector<Warp>& all = warps;
    sanitized_scheduler = sanitized_self();
    acquire(launched);
    acquire(block_done);  // the last block of this thread, which had the same shared memory
    release(block_begun);
    if (lanes.size() < threads) lanes.resize(threads);
    all.resize(count);
    ballot[0] = ballot[1] = ballot[2] = false;
    for (unsigned k = 0; k < threads; ++k) {
        lanes[k].index = k;
        lanes[k].warp = &all[k / 32];
        start(lanes[k], stack_size);
    }
    for (unsigned w = 0; w < count; ++w) {
        all[w].lanes = &lanes[w * 32];
        all[w].ready = ~0u >> (32 - std::min(32u, threads - w * 32));
        all[w].at_warp = all[w].at_block = 0;
    }
    for (bool waiting = true; waiting;) {
        for (unsigned w = 0; w < count; ++w) run_warp(all[order ? count - 1 - w : w]);
        unsigned at_barrier = 0;
        for (Warp& warp : all) {
            warp.ready = std::exchange(warp.at_block, 0);
            at_barrier += __builtin_popcount(warp.ready);
        }
        waiting = at_barrier > 0;
        if (waiting && at_barrier < threads) fail("some threads returned, others wait at a barrier of the block");
    }
}

template <class... A, size_t... I> inline void call(void (*kernel)(A...), void** args, std::index_sequence<I...>)
{
    kernel(*(std::remove_reference_t<std::remove_const_t<A>>*)args[I]...);
}

// together: every block has a thread of the system, so that blocks may wait for each other.
template <class... A>
EMULATOR_UNSEEN inline void launch(void (*kernel)(A...), const unsigned* grid, const unsigned* block, void** args,
                                   size_t stack_size, bool together)
{
    struct Call { void (*kernel)(A...); void** args; } the_call{kernel, args};
    const long long blocks = (long long)grid[0] * grid[1] * grid[2];
    release(launched);
    const int team = together ? int(blocks) : omp_get_max_threads();
    widest = std::max(widest, team);
#pragma omp parallel for schedule(dynamic, 1) num_threads(team)
    for (long long number = 0; number < blocks; ++number) {
        if (together && omp_get_num_threads() < blocks) fail("too few threads of the system for blocks that meet");
        const long long k = order ? blocks - 1 - number : number;
        grid_size = {grid[0], grid[1], grid[2]};
        block_size = {block[0], block[1], block[2]};
        block_index = {unsigned(k % grid[0]), unsigned(k / grid[0] % grid[1]),
                       unsigned(k / ((long long)grid[0] * grid[1]))};
        entry_argument = &the_call;
        entry = [](void* p) {
            auto* c = (Call*)p;
            call(c->kernel, c->args, std::make_index_sequence<sizeof...(A)>{});
        };
        run_block(block[0] * block[1] * block[2], stack_size);
    }
    acquire(finished);
}

// The stacks of lanes are given back, which are megabytes in every program.
EMULATOR_PUBLIC inline void emulator_forget()
{
#pragma omp parallel num_threads(widest)
    {
        acquire(finished);  // by the lanes whose stacks these were
        for (Fiber& fiber : fibers) fiber.stack.reset();
    }
}

// Every lane shows a number to the others of its warp.
EMULATOR_UNSEEN inline const uint64_t* show(uint64_t bits)
{
    Fiber& fiber = *current;
    uint64_t* slot = fiber.warp->slot[fiber.shuffles++ % 2];
    slot[fiber.index & 31] = bits;
    leave(&Warp::at_warp);
    return slot;
}

// The value of another lane, which every lane names for itself.
template <class T> EMULATOR_UNSEEN inline T shuffle(T value, unsigned from)
{
    static_assert(sizeof(T) <= 8, "at most 8 bytes a lane");
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof(T));
    bits = show(bits)[from & 31];
    memcpy(&value, &bits, sizeof(T));
    return value;
}
EMULATOR_UNSEEN inline unsigned lane() { return current->index & 31; }

// What a test may count in kernels that it has changed for that; reading empties them.
inline std::atomic<long long> counters[3];
EMULATOR_PUBLIC inline long long emulator_count(int counter) { return counters[counter].exchange(0); }

EMULATOR_UNSEEN inline unsigned warp_ballot(bool vote)
{
    const uint64_t* slot = show(vote);
    unsigned votes = 0;
    for (int lane = 0; lane < 32; ++lane) votes |= unsigned(slot[lane]) << lane;
    return votes;
}

EMULATOR_UNSEEN inline void fence()
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    current->fenced = true;
    if (current->observed) acquire(*current->observed);
}

template <class T> EMULATOR_UNSEEN inline T add(T* address, T value)
{
    if (current->fenced) release(*(char*)address);
    current->observed = (char*)address;
    return __atomic_fetch_add(address, value, __ATOMIC_SEQ_CST);
}

EMULATOR_UNSEEN inline int any(bool vote)
{
    // Of three boxes one is open, one is read, and one is emptied for the vote after the next: one barrier is enough.
    const unsigned number = current->votes++;
    if (vote) ballot[number % 3] = true;
    meet_block();
    ballot[(number + 2) % 3] = false;
    return ballot[number % 3];
}

}  // namespace emulator

#define threadIdx emulator::thread_index
#define blockIdx emulator::block_index
#define blockDim emulator::block_size
#define gridDim emulator::grid_size
#define __syncthreads() emulator::meet_block()
#define __syncwarp() emulator::meet_warp()
#define __syncthreads_or(vote) emulator::any(vote)
#define __nanosleep(time) sched_yield()
#define __threadfence() emulator::fence()
template <class T> inline T __shfl_xor_sync(unsigned, T v, int mask)
{
    return emulator::shuffle(v, emulator::lane() ^ mask);
}
template <class T> inline T __shfl_up_sync(unsigned, T v, unsigned by)
{
    return emulator::shuffle(v, emulator::lane() < by ? emulator::lane() : emulator::lane() - by);
}
template <class T> inline T __shfl_sync(unsigned, T v, int from) { return emulator::shuffle(v, from); }
#define __ballot_sync(mask, vote) emulator::warp_ballot(vote)
inline int __ffsll(unsigned long long bits) { return __builtin_ffsll(bits); }
#ifdef __SANITIZE_THREAD__
// Whoever waits for a number to change: --param tsan-distinguish-volatile=1
__attribute__((visibility("hidden"), weak)) void __tsan_volatile_read4(void* address)
{
    emulator::current->observed = (char*)address;
}
#endif
inline int atomicAdd(int* address, int value) { return emulator::add(address, value); }
inline unsigned atomicAdd(unsigned* address, unsigned value) { return emulator::add(address, value); }
inline double __ldcg(const double* address) { return *address; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __longlong_as_double(long long v) { double r; memcpy(&r, &v, sizeof r); return r; }
inline long long __double_as_longlong(double v) { long long r; memcpy(&r, &v, sizeof r); return r; }
inline float __int_as_float(int v) { float r; memcpy(&r, &v, sizeof r); return r; }
using std::exp2; using std::floor; using std::log2; using std::rint; using std::sqrt;

// One line for each instantiation:  EMULATOR_EXPORT(symbol, &kernel<float, 3>)
#define EMULATOR_EXPORT(symbol, ...)                                                                            \
    EMULATOR_PUBLIC void symbol(const unsigned* grid, const unsigned* block, void** args, size_t stack_size,    \
                                int together)                                                                   \
    {                                                                                                           \
        emulator::launch(__VA_ARGS__, grid, block, args, stack_size, together);                                 \
    }
