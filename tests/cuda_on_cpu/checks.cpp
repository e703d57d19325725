// Memory and race checks under CUDA's rules.
//
// With -fsanitize=thread the compiler calls __tsan_read4 and its like at every memory access, with
// -fsanitize=undefined's members it calls __ubsan_handle_* where something undefined happens. The
// sanitizers' own libraries are not linked: these functions are defined here instead.
//
// Two accesses of one cell race when they come from different threads, one of them writes, they
// are not both atomic, and nothing orders them: within a block a block barrier does, within a warp
// also __syncwarp; nothing orders two blocks of a launch.
#include <algorithm>
#include <cstdlib>
#include <vector>

#include "internal.h"

namespace cuda_on_cpu {
namespace {

struct Access {
  unsigned epoch;  // 0: no access yet
  unsigned clock;  // of the thread, within its warp
  unsigned block;
  unsigned short thread;
  bool atomic;
  unsigned code;
};

// A reader of another block stays: nothing that this block does can order it. Of the readers of
// this block two suffice, of different warps where there are any: whoever writes next is at least
// one of them not.
struct Cell {
  Access write, read[2], foreign_read;
};

struct Region {
  const unsigned char *begin, *end;
  unsigned cell_bytes;
  bool read_only, shared;
  Cell* cells;
};

std::vector<Region> regions;  // sorted, without overlaps
Region* last_region;
bool active = false;
uint64_t accesses, access_limit;

void add_region(const unsigned char* begin, size_t bytes, unsigned cell_bytes, bool read_only,
                bool shared) {
  if (!bytes) return;
  auto* cells = static_cast<Cell*>(calloc(bytes / cell_bytes + 1, sizeof(Cell)));
  regions.push_back({begin, begin + bytes, cell_bytes, read_only, shared, cells});
}

Region* find_region(const unsigned char* address) {
  if (last_region && address >= last_region->begin && address < last_region->end)
    return last_region;
  auto after = std::upper_bound(
      regions.begin(), regions.end(), address,
      [](const unsigned char* a, const Region& region) { return a < region.begin; });
  if (after == regions.begin() || address >= (after - 1)->end) return nullptr;
  return last_region = &*(after - 1);
}

// Whether everything that happened at `access` is over for the thread that runs.
bool is_ordered(const Access& access) {
  if (access.block != now.block) return false;
  if (access.thread == now.thread || access.epoch != now.epoch) return true;
  return access.thread / 32 == now.thread / 32 && now.clock[access.thread % 32] >= access.clock;
}

// Shared memory begins anew with every block, so what an earlier block did there does not count.
bool happened(const Access& access, const Region& region) {
  return access.epoch && (!region.shared || access.epoch >= now.block_start);
}

bool races(const Access& before, bool atomic, const Region& region) {
  return happened(before, region) && !(atomic && before.atomic) && !is_ordered(before);
}

[[noreturn]] void report_race(const char* what, const Access& before, const void* code) {
  char text[200];
  const char* where = before.block == now.block ? "the same block" : "another block";
  snprintf(text, sizeof text, "race: %s thread %u of %s, with no barrier between", what,
           before.thread, where);
  fail_at(text, code, before.code);
}

void note_read(Cell& cell, const Access& access, const Region& region) {
  Access& first = cell.read[0];
  Access& second = cell.read[1];
  if (happened(first, region) && first.block != now.block) {
    cell.foreign_read = first;
    first.epoch = second.epoch = 0;
  }
  if (!happened(first, region) || is_ordered(first)) {
    first = access;
    if (happened(second, region) && is_ordered(second)) second.epoch = 0;
  } else if (!happened(second, region) || is_ordered(second) ||
             first.thread / 32 == second.thread / 32) {
    second = access;
  }
}

void check_cell(Cell& cell, const Access& access, bool write, const Region& region,
                const void* code) {
  if (races(cell.write, access.atomic, region))
    report_race(write ? "write after a write by" : "read after a write by", cell.write, code);
  if (!write) {
    if (region.shared && !happened(cell.write, region))
      fail_at("read of shared memory that nobody has written", code);
    note_read(cell, access, region);
    return;
  }
  for (const Access& read : {cell.read[0], cell.read[1], cell.foreign_read})
    if (races(read, access.atomic, region)) report_race("write after a read by", read, code);
  cell.write = access;
}

void check(const void* pointer, unsigned bytes, bool write, bool atomic, const void* code) {
  if (!active) return;
  auto* address = static_cast<const unsigned char*>(pointer);
  if (address >= stacks && address < stacks + max_block * stack_bytes) return;
  Region* region = find_region(address);
  if (!region) {
    if (!write && address >= library.code.begin && address < library.code.end)
      return;  // threadIdx and its like, and tables of constants
    fail_at(write ? "write outside every array" : "read outside every array", code);
  }
  if (++accesses > access_limit) fail_at("more memory accesses than the limit", code);
  if (address + bytes > region->end)
    fail_at(write ? "write past the end of an array" : "read past the end of an array", code);
  if (write && region->read_only) fail_at("write to a read-only array", code);
  Access access{now.epoch, now.clock[now.thread % 32], now.block, (unsigned short)now.thread,
                atomic,    unsigned(code_offset(code))};
  size_t first = size_t(address - region->begin) / region->cell_bytes;
  size_t last = size_t(address + bytes - 1 - region->begin) / region->cell_bytes;
  for (size_t i = first; i <= last; i++) check_cell(region->cells[i], access, write, *region, code);
}

void check_aligned(const void* pointer, unsigned bytes, bool write, const void* code) {
  if (active && uintptr_t(pointer) % bytes) fail_at("misaligned access", code);
  check(pointer, bytes, write, false, code);
}

// What every __ubsan_handle_* gets first begins with the place in the source.
struct Place {
  const char* file;
  unsigned line, column;
};

[[noreturn]] void undefined(const char* what, const void* data) {
  auto* place = static_cast<const Place*>(data);
  char text[400];
  snprintf(text, sizeof text, "%s at %s:%u", what, place->file, place->line);
  fail(text);
}

}  // namespace

uint64_t code_offset(const void* code) {
  return uint64_t(static_cast<const unsigned char*>(code) - library.code.begin);
}

bool checking() { return active; }

void note_atomic(const void* address, unsigned bytes) {
  if (active && uintptr_t(address) % bytes) fail("misaligned atomic");
  check(address, bytes, true, true, __builtin_return_address(0));
}

void begin_checks(const Launch& launch, Memory dynamic_shared) {
  active = launch.regions != nullptr;
  accesses = 0;
  access_limit = launch.access_limit;
  if (!active) return;
  for (unsigned i = 0; i < launch.region_count; i++) {
    const uint64_t* r = launch.regions + 4 * i;
    auto* begin = reinterpret_cast<unsigned char*>(r[0]);
    add_region(begin, r[1], unsigned(r[2]), r[3] != 0, false);
  }
  for (Memory shared : {library.shared, dynamic_shared})
    add_region(shared.begin, size_t(shared.end - shared.begin), 1, false, true);
  std::sort(regions.begin(), regions.end(),
            [](const Region& a, const Region& b) { return a.begin < b.begin; });
}

void end_checks(Launch* launch) {
  launch->accesses = accesses;
  for (Region& region : regions) free(region.cells);
  regions.clear();
  last_region = nullptr;
  active = false;
}

}  // namespace cuda_on_cpu

// ---- what the compiler calls ----------------------------------------------------------------

using namespace cuda_on_cpu;
#define HERE __builtin_return_address(0)
#define ACCESS(n)                                                    \
  void __tsan_read##n(void* p) { check_aligned(p, n, false, HERE); } \
  void __tsan_write##n(void* p) { check_aligned(p, n, true, HERE); }
#define UNALIGNED_ACCESS(n)                                                   \
  void __tsan_unaligned_read##n(void* p) { check(p, n, false, false, HERE); } \
  void __tsan_unaligned_write##n(void* p) { check(p, n, true, false, HERE); }
#define OVERFLOW(operation)                                              \
  void __ubsan_handle_##operation##_overflow(void* data, void*, void*) { \
    undefined("integer overflow", data);                                 \
  }

extern "C" {
ACCESS(1)
ACCESS(2)
ACCESS(4) ACCESS(8) ACCESS(16) UNALIGNED_ACCESS(2) UNALIGNED_ACCESS(4) UNALIGNED_ACCESS(8)
    UNALIGNED_ACCESS(16) void __tsan_read_range(void* p, size_t n) {
  check(p, unsigned(n), false, false, HERE);
}
void __tsan_write_range(void* p, size_t n) { check(p, unsigned(n), true, false, HERE); }
void __tsan_vptr_update(void**, void*) {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_init() {}

OVERFLOW(add) OVERFLOW(sub) OVERFLOW(mul) void __ubsan_handle_negate_overflow(void* data, void*) {
  undefined("integer overflow", data);
}
void __ubsan_handle_divrem_overflow(void* data, void*, void*) {
  undefined("integer division by zero or overflow", data);
}
void __ubsan_handle_shift_out_of_bounds(void* data, void*, void*) {
  undefined("shift by a negative number or by the whole width", data);
}
void __ubsan_handle_out_of_bounds(void* data, void*) {
  undefined("index outside a fixed-size array", data);
}
void __ubsan_handle_type_mismatch_v1(void* data, void*) {
  undefined("misaligned or null access", data);
}
void __ubsan_handle_missing_return(void* data) {
  undefined("end of a function without return", data);
}
void __ubsan_handle_builtin_unreachable(void* data) { undefined("unreachable code reached", data); }
}
