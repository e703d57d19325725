// Fibers, barriers and launches: see runtime.h.
//
// A worker fiber runs fresh threads one after another until one of them has to wait; only then is a
// further fiber taken. An elementwise kernel therefore never switches. ucontext starts a fiber,
// setjmp and longjmp switch between fibers: no system call.
#include <link.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <csetjmp>
#include <vector>

#include "internal.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace cuda_on_cpu {

Now now;
unsigned char* stacks = nullptr;
Library library;

namespace {

struct Fiber {
  jmp_buf state;
  ucontext_t start;
  bool started = false;
};

// One bit per lane says what its thread does; no bit: it waits in __syncthreads or runs.
struct Warp {
  unsigned fresh, ready, meeting, done, exists;
  // What a lane that waits in a *_sync call brought there, and what it takes home.
  unsigned mask[32];
  Meeting kind[32];
  int line[32], source[32];
  uint64_t value[32], result[32];
  unsigned clock[32][32];
};

enum class Policy { in_order, random_threads, random_warps };

struct State {
  std::vector<Warp> warps;
  std::vector<Fiber*> fibers, idle;
  std::vector<Fiber*> owner;  // the fiber on whose stack a thread waits
  std::vector<unsigned> priority;
  std::vector<unsigned char> dynamic;
  Fiber* fiber;
  jmp_buf scheduler;
  ucontext_t scheduler_start;
  void (*body)(void*);
  void* argument;
  Policy policy;
  uint64_t random, switches;
  unsigned threads, live;
  unsigned at_barrier;
  int barrier_line, barrier_count;
  Votes votes;
  Launch* launch;
  bool failed;
} S;

unsigned random_below(unsigned n) {
  S.random = S.random * 6364136223846793005ull + 1442695040888963407ull;
  return unsigned((S.random >> 33) % n);
}

void shuffle_priorities() {
  for (unsigned i = unsigned(S.priority.size()); i > 1; i--)
    std::swap(S.priority[i - 1], S.priority[random_below(i)]);
}

void become(unsigned thread) {
  now.thread = thread;
  now.clock = S.warps[thread / 32].clock[thread % 32];
  threadIdx.x = thread % blockDim.x;
  threadIdx.y = thread / blockDim.x % blockDim.y;
  threadIdx.z = thread / (blockDim.x * blockDim.y);
}

[[noreturn]] void to_scheduler() { _longjmp(S.scheduler, 1); }

__attribute__((noinline)) void wait() {
  unsigned thread = now.thread;
  Fiber* fiber = S.fiber;
  S.owner[thread] = fiber;
  S.switches++;
  if (!_setjmp(fiber->state)) to_scheduler();
  become(thread);
}

// ---- which thread runs next -----------------------------------------------------------------

constexpr unsigned nobody = ~0u;

unsigned lane_of(unsigned lanes, bool random) {
  unsigned from = random ? random_below(32) : 0;
  unsigned later = lanes >> from << from;
  return unsigned(__builtin_ctz(later ? later : lanes));
}

// Fresh threads before waiting ones, in order; or any thread; or the most urgent warp's as long
// as that warp can move: three ways in which a missing barrier shows itself.
unsigned next_thread() {
  unsigned count = unsigned(S.warps.size());
  if (S.policy == Policy::in_order) {
    for (unsigned w = 0; w < count; w++)
      if (S.warps[w].fresh) return w * 32 + lane_of(S.warps[w].fresh, false);
    for (unsigned w = 0; w < count; w++)
      if (S.warps[w].ready) return w * 32 + lane_of(S.warps[w].ready, false);
    return nobody;
  }
  unsigned first = S.policy == Policy::random_threads ? random_below(count) : 0;
  for (unsigned i = 0; i < count; i++) {
    unsigned w = S.policy == Policy::random_threads ? (first + i) % count : S.priority[i];
    unsigned lanes = S.warps[w].fresh | S.warps[w].ready;
    if (lanes) return w * 32 + lane_of(lanes, true);
  }
  return nobody;
}

// All that live are there, and go on.
void end_barrier() {
  int count = S.barrier_count;
  S.votes = {count == int(S.at_barrier), count > 0, count};
  S.at_barrier = 0;
  now.epoch++;
  shuffle_priorities();
  for (Warp& warp : S.warps) warp.ready = warp.exists & ~warp.done;
}

bool is_fresh(unsigned thread) { return S.warps[thread / 32].fresh >> thread % 32 & 1; }

void end_thread() {
  Warp& warp = S.warps[now.thread / 32];
  unsigned bit = 1u << now.thread % 32;
  warp.done |= bit;
  S.live--;
  if (S.at_barrier) {
    if (!S.launch->exits_arrive)
      fail("divergent barrier: a thread returns while others wait in __syncthreads");
    if (S.at_barrier == S.live) end_barrier();
  }
  for (unsigned l = 0; l < 32; l++)
    if ((warp.meeting >> l & 1) && (warp.mask[l] & bit))
      fail("a lane returns while its warp waits for it in a *_sync call");
}

void work() {
  for (;;) {
    unsigned thread;
    while ((thread = next_thread()) != nobody && is_fresh(thread)) {
      S.warps[thread / 32].fresh &= ~(1u << thread % 32);
      become(thread);
      S.body(S.argument);
      end_thread();
    }
    // Not a local variable: the thread above may have waited and come back on this stack.
    S.idle.push_back(S.fiber);
    if (!_setjmp(S.fiber->state)) to_scheduler();
  }
}

// Returns when the fiber waits, or is idle, or has failed.
__attribute__((noinline)) void resume(Fiber* fiber) {
  S.fiber = fiber;
  if (_setjmp(S.scheduler)) return;
  if (fiber->started) _longjmp(fiber->state, 1);
  fiber->started = true;
  size_t number = 0;
  while (S.fibers[number] != fiber) number++;
  getcontext(&fiber->start);
  fiber->start.uc_stack.ss_sp = stacks + number * stack_bytes;
  fiber->start.uc_stack.ss_size = stack_bytes;
  fiber->start.uc_link = nullptr;
  makecontext(&fiber->start, work, 0);
  swapcontext(&S.scheduler_start, &fiber->start);
}

Fiber* idle_fiber() {
  if (S.idle.empty()) {
    S.fibers.push_back(new Fiber);
    return S.fibers.back();
  }
  Fiber* fiber = S.idle.back();
  S.idle.pop_back();
  return fiber;
}

void report_deadlock() {
  unsigned in_warps = 0;
  int line = 0;
  for (Warp& warp : S.warps)
    for (unsigned l = 0; l < 32; l++)
      if (warp.meeting >> l & 1) in_warps++, line = warp.line[l];
  char text[256];
  snprintf(text, sizeof text,
           "divergent barrier: %u threads wait in __syncthreads (line %d), %u in a *_sync call "
           "(line %d), %u have returned",
           S.at_barrier, S.barrier_line, in_warps, line, S.threads - S.live);
  fail(text);
}

void run_block() {
  now.block_start = ++now.epoch;
  S.live = S.threads;
  S.at_barrier = 0;
  // All bits set: a float is NaN, an integer -1. No block sees what the last one left.
  std::fill(library.shared.begin, library.shared.end, 0xff);
  std::fill(S.dynamic.begin(), S.dynamic.end(), 0xff);
  for (unsigned w = 0; w < S.warps.size(); w++) {
    Warp& warp = S.warps[w];
    unsigned lanes = S.threads - w * 32;
    warp.exists = warp.fresh = lanes < 32 ? (1u << lanes) - 1 : ~0u;
    warp.ready = warp.meeting = warp.done = 0;
    memset(warp.clock, 0, sizeof warp.clock);
    for (unsigned l = 0; l < 32; l++) warp.clock[l][l] = 1;
  }
  shuffle_priorities();
  while (S.live && !S.failed) {
    unsigned thread = next_thread();
    if (thread == nobody) {
      if (!_setjmp(S.scheduler)) report_deadlock();
    } else if (is_fresh(thread)) {
      resume(idle_fiber());
    } else {
      S.warps[thread / 32].ready &= ~(1u << thread % 32);
      resume(S.owner[thread]);
    }
  }
}

}  // namespace

// ---- barriers -------------------------------------------------------------------------------

Votes block_barrier(int predicate, int line) {
  if (S.live < S.threads && !S.launch->exits_arrive)
    fail("divergent barrier: __syncthreads after another thread of the block has returned");
  if (S.at_barrier == 0) {
    S.barrier_line = line;
    S.barrier_count = 0;
  } else if (S.barrier_line != line) {
    char text[128];
    snprintf(text, sizeof text,
             "divergent barrier: threads of one block meet in __syncthreads of lines %d and %d",
             S.barrier_line, line);
    fail(text);
  }
  S.barrier_count += predicate != 0;
  if (++S.at_barrier < S.live) {
    wait();
    return S.votes;
  }
  end_barrier();
  S.warps[now.thread / 32].ready &= ~(1u << now.thread % 32);  // this one goes straight on
  return S.votes;
}

static void hand_on_clocks(Warp& warp, unsigned mask) {
  unsigned joined[32] = {0};
  for (unsigned l = 0; l < 32; l++)
    if (mask >> l & 1)
      for (unsigned i = 0; i < 32; i++)
        if (warp.clock[l][i] > joined[i]) joined[i] = warp.clock[l][i];
  for (unsigned l = 0; l < 32; l++)
    if (mask >> l & 1) {
      memcpy(warp.clock[l], joined, sizeof joined);
      warp.clock[l][l]++;
    }
}

static void end_meeting(Warp& warp, unsigned mask, Meeting kind) {
  unsigned ballot = 0;
  for (unsigned l = 0; l < 32; l++)
    if ((mask >> l & 1) && warp.value[l]) ballot |= 1u << l;
  for (unsigned l = 0; l < 32; l++)
    if (mask >> l & 1) {
      if (kind == Meeting::shuffle) {
        if (!(mask >> warp.source[l] & 1)) fail("a shuffle reads a lane outside the mask");
        warp.result[l] = warp.value[warp.source[l]];
      } else {
        warp.result[l] = ballot;
      }
    }
  if (kind == Meeting::syncwarp && checking()) hand_on_clocks(warp, mask);
  warp.meeting &= ~mask;
  warp.ready |= mask;
}

uint64_t warp_meeting(unsigned mask, Meeting kind, uint64_t value, int source, int line) {
  Warp& warp = S.warps[now.thread / 32];
  unsigned own = now.thread % 32, bit = 1u << own;
  if (!(mask & bit)) fail("the calling lane is not in its own *_sync mask");
  mask &= warp.exists;
  if (mask & warp.done) fail("a *_sync mask names a lane that has returned");
  unsigned here = bit;
  for (unsigned l = 0; l < 32; l++) {
    if (!(mask & warp.meeting & 1u << l)) continue;
    if (warp.mask[l] == mask && warp.kind[l] == kind && warp.line[l] == line) {
      here |= 1u << l;
    } else if (warp.mask[l] & bit) {  // that lane waits for this one elsewhere
      char text[160];
      snprintf(text, sizeof text,
               "lanes of one warp meet in different *_sync calls (lines %d and %d) or masks "
               "(%08x and %08x)",
               warp.line[l], line, warp.mask[l], mask);
      fail(text);
    }
  }
  warp.mask[own] = mask;
  warp.kind[own] = kind;
  warp.line[own] = line;
  warp.value[own] = value;
  warp.source[own] = source;
  warp.meeting |= bit;
  if (here == mask) {
    end_meeting(warp, mask, kind);
    warp.ready &= ~bit;  // this one goes straight on
  } else {
    wait();
  }
  return warp.result[own];
}

int lane() { return int(now.thread % 32); }

void* dynamic_shared() { return S.dynamic.data(); }

// ---- launches -------------------------------------------------------------------------------

void fail_at(const char* message, const void* code, uint64_t other_code) {
  Launch& launch = *S.launch;
  if (!S.failed) {
    snprintf(launch.fault, sizeof launch.fault, "%s (block %u,%u,%u thread %u,%u,%u)", message,
             blockIdx.x, blockIdx.y, blockIdx.z, threadIdx.x, threadIdx.y, threadIdx.z);
    launch.code[0] = code ? code_offset(code) : 0;
    launch.code[1] = other_code;
  }
  S.failed = true;
  to_scheduler();
}

void fail(const char* message) { fail_at(message, nullptr); }

// cupy compiles with -ftz=true: a GPU takes subnormal float32 for 0, and so does this thread now.
#if defined(__SSE2__)
static unsigned flush_subnormals() {
  unsigned before = __builtin_ia32_stmxcsr();
  __builtin_ia32_ldmxcsr(before | 0x8040);
  return before;
}
static void restore_subnormals(unsigned before) { __builtin_ia32_ldmxcsr(before); }
#else
static unsigned flush_subnormals() { return 0; }
static void restore_subnormals(unsigned) {}
#endif

static int find_library(dl_phdr_info* info, size_t, void*) {
  uintptr_t here = uintptr_t(&find_library), low = UINTPTR_MAX, high = 0, shared_bytes = 0;
  for (int i = 0; i < info->dlpi_phnum; i++) {
    const auto& part = info->dlpi_phdr[i];
    uintptr_t begin = info->dlpi_addr + part.p_vaddr;
    if (part.p_type == PT_TLS) shared_bytes = part.p_memsz;
    if (part.p_type != PT_LOAD) continue;
    low = std::min(low, begin);
    high = std::max(high, uintptr_t(begin + part.p_memsz));
  }
  if (here < low || here >= high) return 0;
  library.code = {reinterpret_cast<unsigned char*>(low), reinterpret_cast<unsigned char*>(high)};
  auto* shared = static_cast<unsigned char*>(info->dlpi_tls_data);
  library.shared = {shared, shared + shared_bytes};
  return 1;
}

static thread_local unsigned char first_touch;

int run(void (*body)(void*), void* argument, Launch* launch) {
  *const_cast<volatile unsigned char*>(&first_touch) =
      0;  // now the block of thread_locals is there
  dl_iterate_phdr(find_library, nullptr);
  if (!stacks) {
    void* memory = mmap(nullptr, max_block * stack_bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) return snprintf(launch->fault, 512, "no memory for stacks");
    stacks = static_cast<unsigned char*>(memory);
  }
  gridDim = dim3(launch->grid[0], launch->grid[1], launch->grid[2]);
  blockDim = dim3(launch->block[0], launch->block[1], launch->block[2]);
  S.launch = launch;
  S.body = body;
  S.argument = argument;
  S.random = launch->seed;
  S.policy = !launch->seed      ? Policy::in_order
             : launch->seed % 2 ? Policy::random_threads
                                : Policy::random_warps;
  S.failed = false;
  S.switches = 0;
  S.threads = blockDim.x * blockDim.y * blockDim.z;
  S.warps.resize((S.threads + 31) / 32);
  S.owner.resize(S.threads);
  S.priority.resize(S.warps.size());
  for (unsigned w = 0; w < S.warps.size(); w++) S.priority[w] = w;
  S.dynamic.resize(launch->shared_bytes);
  now.epoch = 0;

  unsigned blocks = gridDim.x * gridDim.y * gridDim.z;
  std::vector<unsigned> order(blocks);
  for (unsigned b = 0; b < blocks; b++) order[b] = b;
  if (launch->seed)
    for (unsigned b = blocks; b > 1; b--) std::swap(order[b - 1], order[random_below(b)]);

  begin_checks(*launch, {S.dynamic.data(), S.dynamic.data() + S.dynamic.size()});
  unsigned floating_point = flush_subnormals();
  for (unsigned b : order) {
    now.block = b;
    blockIdx = {b % gridDim.x, b / gridDim.x % gridDim.y, b / (gridDim.x * gridDim.y)};
    run_block();
    if (S.failed) break;
  }
  restore_subnormals(floating_point);
  end_checks(launch);
  launch->switches = S.switches;
  if (S.failed) {  // the fibers that were stopped half-way are of no further use
    for (Fiber* fiber : S.fibers) delete fiber;
    S.fibers.clear();
    S.idle.clear();
  }
  return S.failed;
}

}  // namespace cuda_on_cpu
