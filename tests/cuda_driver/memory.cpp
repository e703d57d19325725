// Memory of devices, page-locked memory of the host, and copies: see driver.h.
#include <sys/mman.h>

#include <cstring>
#include <map>

#include "driver.h"

namespace cuda_driver {
namespace {

constexpr size_t page = 4096;
constexpr size_t capacity = size_t(8) << 30;
std::map<uintptr_t, Block> blocks;
std::map<int, size_t> in_use;
uint64_t blocks_made = 0;

size_t with_guard(size_t bytes) { return (bytes + page - 1) / page * page + page; }

// What nobody has written reads as NaN, and what lies behind a block cannot be touched.
void* new_block(size_t bytes, Kind kind, int device) {
  size_t whole = with_guard(bytes);
  void* memory = mmap(nullptr, whole, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return nullptr;
  mprotect(static_cast<char*>(memory) + whole - page, page, PROT_NONE);
  memset(memory, 0xff, bytes);
  blocks[uintptr_t(memory)] = {uintptr_t(memory), bytes, kind, device, ++blocks_made};
  if (kind == Kind::device) in_use[device] += bytes;
  return memory;
}

void drop_block(const Block& block) {
  if (block.kind == Kind::device) in_use[block.device] -= block.bytes;
  munmap(reinterpret_cast<void*>(block.begin), with_guard(block.bytes));
  blocks.erase(block.begin);
}

// One side of a copy: the block it lies in has to be there still when the copy is made.
struct Side {
  char* address;
  uint64_t number;
  Kind kind;

  explicit Side(const void* pointer) : address(static_cast<char*>(const_cast<void*>(pointer))) {
    const Block* block = block_of(pointer);
    number = block ? block->number : 0;
    kind = block ? block->kind : Kind::pageable;
  }
  bool fits(size_t bytes) const {
    const Block* block = block_of(address);
    return !block || uintptr_t(address) + bytes <= block->begin + block->bytes;
  }
  bool is_there(const char* what) const {
    const Block* block = number ? block_of(address) : nullptr;
    bool found = !number || (block && block->number == number);
    if (!found) fault(std::string("a copy ") + what + " memory that has been freed since");
    return found;
  }
};

Error copy(void* to, const void* from, size_t bytes, Stream& stream, bool wait, Lock& lock) {
  Side target(to), source(from);
  if (!bytes) return sticky();
  if (!target.fits(bytes) || !source.fits(bytes)) return invalid_value;
  bool pageable = target.kind == Kind::pageable || source.kind == Kind::pageable;
  if (stream.capture && pageable) {
    stream.capture->invalid = true;
    return capture_unsupported;
  }
  std::shared_ptr<std::string> staged;  // pageable memory is read before the call returns
  if (source.kind == Kind::pageable)
    staged = std::make_shared<std::string>(static_cast<const char*>(from), bytes);
  Work work = [=] {
    if (target.is_there("writes to") && source.is_there("reads"))
      memmove(target.address, staged ? staged->data() : source.address, bytes);
  };
  NodePtr node;
  if (Error error = enqueue(stream, work, lock, false, &node)) return error;
  bool on_devices = target.kind == Kind::device && source.kind == Kind::device;
  if (target.kind == Kind::pageable || (wait && !on_devices)) finish(node, lock);
  return sticky();
}

}  // namespace

const Block* block_of(const void* address) {
  auto after = blocks.upper_bound(uintptr_t(address));
  if (after == blocks.begin()) return nullptr;
  const Block& block = (--after)->second;
  return uintptr_t(address) < block.begin + block.bytes ? &block : nullptr;
}

API int cudaMalloc(void** made, size_t bytes) {
  Lock lock = locked();
  if (Error error = sticky()) return error;
  if (Error error = unsafe()) return error;
  *made = nullptr;
  if (!bytes) return success;
  int device = current_device();
  if (bytes > capacity || in_use[device] + bytes > capacity) return out_of_memory;
  *made = new_block(bytes, Kind::device, device);
  return *made ? success : out_of_memory;
}

API int cudaMallocManaged(void** made, size_t bytes, unsigned) { return cudaMalloc(made, bytes); }

API int cudaFree(void* memory) {
  if (!memory) return success;
  Lock lock = locked();
  if (Error error = sticky()) return error;
  if (Error error = unsafe()) return error;
  auto found = blocks.find(uintptr_t(memory));
  if (found == blocks.end() || found->second.kind != Kind::device) return invalid_value;
  for (int d = 0; d < device_count(); d++) finish_device(d, lock);  // as CUDA does
  drop_block(blocks[uintptr_t(memory)]);
  return sticky();
}

API int cudaHostAlloc(void** made, size_t bytes, unsigned) {
  Lock lock = locked();
  if (Error error = sticky()) return error;
  *made = new_block(bytes ? bytes : 1, Kind::pinned, current_device());
  return *made ? success : out_of_memory;
}

// It does not wait: no program may count on that.
API int cudaFreeHost(void* memory) {
  if (!memory) return success;
  Lock lock = locked();
  auto found = blocks.find(uintptr_t(memory));
  if (found == blocks.end() || found->second.kind != Kind::pinned) return invalid_value;
  drop_block(Block(found->second));
  return sticky();
}

API int cudaHostRegister(void* memory, size_t bytes, unsigned) {
  Lock lock = locked();
  if (block_of(memory)) return invalid_value;
  uintptr_t begin = uintptr_t(memory);
  blocks[begin] = {begin, bytes, Kind::pinned, current_device(), ++blocks_made};
  return success;
}

API int cudaHostUnregister(void* memory) {
  Lock lock = locked();
  return blocks.erase(uintptr_t(memory)) ? success : invalid_value;
}

API int cudaMemGetInfo(size_t* free, size_t* total) {
  Lock lock = locked();
  *total = capacity;
  *free = capacity - in_use[current_device()];
  return success;
}

API int cudaMemcpyAsync(void* to, const void* from, size_t bytes, int, void* stream) {
  Lock lock = locked();
  return copy(to, from, bytes, stream_of(stream), false, lock);
}

API int cudaMemcpy(void* to, const void* from, size_t bytes, int) {
  Lock lock = locked();
  if (Error error = unsafe()) return error;
  return copy(to, from, bytes, stream_of(nullptr), true, lock);
}

API int cudaMemcpyPeerAsync(void* to, int, const void* from, int, size_t bytes, void* stream) {
  return cudaMemcpyAsync(to, from, bytes, 3, stream);
}

API int cudaMemcpyPeer(void* to, int, const void* from, int, size_t bytes) {
  return cudaMemcpy(to, from, bytes, 3);
}

API int cudaMemsetAsync(void* memory, int value, size_t bytes, void* stream) {
  Lock lock = locked();
  Side target(memory);
  if (!bytes) return sticky();
  if (target.kind == Kind::pageable || !target.fits(bytes)) return invalid_value;
  Work work = [=] {
    if (target.is_there("of a value writes to")) memset(target.address, value, bytes);
  };
  return enqueue(stream_of(stream), work, lock);
}

API int cudaMemset(void* memory, int value, size_t bytes) {
  return cudaMemsetAsync(memory, value, bytes, nullptr);
}

struct PointerAttributes {
  int type, device;
  void *device_pointer, *host_pointer;
};

API int cudaPointerGetAttributes(PointerAttributes* out, const void* pointer) {
  Lock lock = locked();
  const Block* block = block_of(pointer);
  void* address = const_cast<void*>(pointer);
  if (!block) {
    *out = {0, -2, nullptr, address};
  } else if (block->kind == Kind::pinned) {
    *out = {1, block->device, address, address};
  } else {
    *out = {2, block->device, address, nullptr};
  }
  return success;
}

}  // namespace cuda_driver
