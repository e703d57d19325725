// A CUDA driver for a machine without a GPU: what its parts tell each other.
//
// Work is a graph: whatever is asked for on a stream is a `Node` that names the nodes before it.
// `finish` does a node and what it needs, and nothing else. When nodes are done is the mode:
//   eager   at once
//   lazy    when something waits for them: what nobody waits for is done as late as CUDA allows
//   random  some at once, in an order that the streams allow
// A program that forgets to wait is right on a GPU by luck alone; here it is wrong.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#define API extern "C" __attribute__((visibility("default")))

namespace cuda_driver {

// Of the runtime and of the driver: the numbers are the same.
enum Error : int {
  success = 0,
  invalid_value = 1,
  out_of_memory = 2,
  invalid_device = 101,
  invalid_image = 200,
  invalid_handle = 400,
  not_found = 500,
  not_ready = 600,
  illegal_address = 700,
  peer_access_already_enabled = 704,
  not_supported = 801,
  capture_unsupported = 900,
  capture_invalidated = 901,
  capture_unjoined = 904,
  capture_isolation = 905,
  capture_implicit = 906,
};

struct Node;
using NodePtr = std::shared_ptr<Node>;
using Work = std::function<void()>;

struct Node {
  enum State { waiting, running, done };
  Work work;
  std::vector<NodePtr> after;
  State state = waiting;
  bool of_host = false;  // calls Python, and so holds no lock
};

// What a capture collects and a graph is made of: each piece of work, with those it comes after.
struct Step {
  Work work;
  std::vector<size_t> after;
  bool of_host;
};
struct Graph {
  std::vector<Step> steps;
};

struct Stream;
struct Capture {
  Graph graph;
  Stream* origin;
  int mode;  // 0 global, 1 of the thread, 2 relaxed
  std::thread::id thread;
  std::set<Stream*> members;
  bool invalid = false;
};

struct Stream {
  int device;
  unsigned flags = 0;  // 1: not blocking
  int priority = 0;
  bool legacy = false;
  NodePtr last;
  std::deque<NodePtr> pending;
  std::shared_ptr<Capture> capture;
  std::vector<size_t> tails;  // the steps that the next one of the capture comes after
  int queries = 0;
};

struct Event {
  NodePtr node;
  std::shared_ptr<double> time;
  std::shared_ptr<Capture> capture;
  std::vector<size_t> tails;
  int queries = 0;
};

struct Exec {
  Graph graph;
  NodePtr last;
};

// ---- streams.cpp ------------------------------------------------------------------------------

using Lock = std::unique_lock<std::mutex>;
Lock locked();

int& current_device();
int device_count();
Stream& stream_of(void* handle);  // 0 and 1 are the legacy stream, 2 is the thread's own
// Adds work; what it does is done when the mode says, or becomes part of a capture.
Error enqueue(Stream&, Work, Lock&, bool of_host = false, NodePtr* added = nullptr,
              const std::vector<NodePtr>& more = {});
void finish(const NodePtr&, Lock&);
void finish_stream(Stream&, Lock&);
void finish_device(int device, Lock&);
// An error where this thread may not do what could wait, because something is being captured.
Error unsafe();
// Whether a question is answered "not yet": what is asked again and again gets done.
bool still_pending(const NodePtr&, int& queries, Lock&);
unsigned random_below(unsigned n);

// What went wrong in work that nobody waited for: every later call says so.
void fault(const std::string& text);
Error sticky();

// ---- memory.cpp -------------------------------------------------------------------------------

enum class Kind { pageable, pinned, device };
struct Block {
  uintptr_t begin;
  size_t bytes;
  Kind kind;
  int device;
  uint64_t number;  // memory that is freed and had again is another block
};
// The block that an address lies in; pageable memory of the host has none.
const Block* block_of(const void* address);

// ---- compile.cpp ------------------------------------------------------------------------------

const char* error_name(int);
const char* error_text(int);

}  // namespace cuda_driver
