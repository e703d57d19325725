// Threads that wait for work. One piece of work is a number of chunks, which whoever is free takes
// one by one: a thread that the system does not run at the moment keeps nobody waiting.
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

typedef void (*Chunk)(void* context, long long number);
extern "C" {
std::atomic<int> gradlite_count{1};  // compiled code reads it
}

namespace {
const int SPINS = 20000;  // some 50 us: the next piece of the same step comes sooner, as a rule

// How often there was work, and in the lower half the chunks that nobody has taken yet. A thread
// that comes late finds another number there, so it never touches work of which it knows nothing.
std::atomic<unsigned long long> ticket{0};
std::atomic<long long> finished{0};
std::atomic<int> asleep{0};
std::atomic<bool> busy{false};
Chunk body;
void* context;
// Never destroyed, because threads may still wait when the process ends.
std::mutex& mutex = *new std::mutex;
std::condition_variable& awake = *new std::condition_variable;
const int MOST = 64;
bool alive[MOST];  // by number; the caller is number 0

// How this thread rounds, and whether it takes denormal numbers for zero.
#if defined(__SSE2__)
typedef unsigned Arithmetic;
const Arithmetic FLUSHING = 0x8040;  // results to zero, and operands
inline Arithmetic arithmetic() { return __builtin_ia32_stmxcsr(); }
inline void use(Arithmetic how) { __builtin_ia32_ldmxcsr(how); }
#elif defined(__aarch64__)
typedef unsigned long long Arithmetic;
const Arithmetic FLUSHING = 1 << 24;
inline Arithmetic arithmetic() {
  Arithmetic how;
  __asm__ volatile("mrs %0, fpcr" : "=r"(how));
  return how;
}
inline void use(Arithmetic how) { __asm__ volatile("msr fpcr, %0" : : "r"(how)); }
#else
typedef int Arithmetic;
const Arithmetic FLUSHING = 0;
inline Arithmetic arithmetic() { return 0; }
inline void use(Arithmetic) {}
#endif
Arithmetic callers;

inline void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

void help() {
  for (;;) {
    unsigned long long now = ticket.load();
    if ((unsigned)now == 0) return;
    if (!ticket.compare_exchange_weak(now, now - 1)) continue;
    if (arithmetic() != callers) use(callers);
    body(context, (long long)(unsigned)now - 1);
    finished.fetch_add(1);
  }
}

void work(int number) {
  for (;;) {
    if (number < gradlite_count.load()) help();
    int spins = 0;
    while (spins < SPINS && (unsigned)ticket.load(std::memory_order_relaxed) == 0) {
      pause();
      spins++;
    }
    if (spins < SPINS && number < gradlite_count.load()) continue;
    std::unique_lock<std::mutex> lock(mutex);
    asleep.fetch_add(1);
    awake.wait(lock, [&] {
      return (unsigned)ticket.load() != 0 || number >= gradlite_count.load();
    });
    asleep.fetch_sub(1);
    if (number >= gradlite_count.load()) {
      alive[number] = false;
      return;
    }
  }
}
}  // namespace

extern "C" void gradlite_run(Chunk what, void* with, long long chunks) {
  bool nobody = false;
  if (gradlite_count.load() < 2 || !busy.compare_exchange_strong(nobody, true)) {
    for (long long i = 0; i < chunks; i++) what(with, i);
    return;
  }
  body = what;
  context = with;
  callers = arithmetic();
  finished.store(0);
  ticket.store(((ticket.load() >> 32) + 1) << 32 | (unsigned long long)chunks);
  if (asleep.load() > 0) {
    std::lock_guard<std::mutex> lock(mutex);
    awake.notify_all();
  }
  help();
  for (int spins = 0; finished.load() != chunks; spins++) {
    if (spins < SPINS) {
      pause();
    } else {
      std::this_thread::yield();
    }
  }
  busy.store(false);
}

// How many threads there are from now on, the caller included.
extern "C" void gradlite_threads(int count) {
  count = count < 1 ? 1 : count > MOST ? MOST : count;
  std::lock_guard<std::mutex> lock(mutex);
  gradlite_count.store(count);
  for (int number = 1; number < count; number++) {
    if (!alive[number]) std::thread(work, number).detach();
    alive[number] = true;
  }
  awake.notify_all();
}

// Whether the caller's thread takes denormal numbers for zero from now on; 0: it cannot.
extern "C" int gradlite_flush(int flush) {
  use(flush ? arithmetic() | FLUSHING : arithmetic() & ~FLUSHING);
  return FLUSHING != 0;
}

// A process made by fork() has none of the threads.
extern "C" void gradlite_forked() {
  new (&mutex) std::mutex;
  new (&awake) std::condition_variable;
  for (bool& one : alive) one = false;
  gradlite_count.store(1);
  asleep.store(0);
  ticket.store(0);
  busy.store(false);
}
