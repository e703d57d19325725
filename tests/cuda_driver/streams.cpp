// Streams, events, captures and graphs: see driver.h.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <random>

#include "driver.h"

namespace cuda_driver {
namespace {

enum class Mode { eager, lazy, random };

std::mutex mutex;
std::condition_variable changed;
std::set<Stream*> streams;         // that the program made
std::vector<NodePtr> orphans;      // last nodes of streams that are gone
std::map<Stream*, bool> captures;  // origins of the captures that are under way
std::mt19937 generator;
Mode mode = Mode::eager;
int devices = 1;
Error sticky_error = success;
constexpr int patience = 64;  // how often it answers "not yet" in the lazy mode

Stream& legacy_stream(int device) {
  static std::map<int, Stream> made;
  Stream& stream = made[device];
  stream.device = device;
  stream.legacy = true;
  return stream;
}

Stream& stream_of_thread(int device) {
  static thread_local std::map<int, Stream*> made;
  Stream*& stream = made[device];
  if (!stream) {
    stream = new Stream;  // threads end while their work waits
    stream->device = device;
    streams.insert(stream);
  }
  return *stream;
}

bool pending(const NodePtr& node) { return node && node->state != Node::done; }

void forget_done(Stream& stream) {
  while (!stream.pending.empty() && !pending(stream.pending.front())) stream.pending.pop_front();
}

// One stream that has work left does its next piece.
void advance_any(Lock& lock) {
  std::vector<Stream*> busy;
  auto consider = [&](Stream& stream) {
    forget_done(stream);
    if (!stream.pending.empty()) busy.push_back(&stream);
  };
  for (int d = 0; d < devices; d++) consider(legacy_stream(d));
  for (Stream* stream : streams) consider(*stream);
  if (!busy.empty()) finish(busy[random_below(unsigned(busy.size()))]->pending.front(), lock);
}

void add_step(Stream& stream, Work work, bool of_host) {
  Graph& graph = stream.capture->graph;
  graph.steps.push_back({std::move(work), stream.tails, of_host});
  stream.tails = {graph.steps.size() - 1};
}

// Every step that comes before these, and these.
std::set<size_t> reached(const Graph& graph, std::vector<size_t> from) {
  std::set<size_t> found;
  while (!from.empty()) {
    size_t step = from.back();
    from.pop_back();
    if (found.insert(step).second)
      for (size_t before : graph.steps[step].after) from.push_back(before);
  }
  return found;
}

void end_capture(Stream& origin) {
  auto capture = origin.capture;
  for (Stream* member : capture->members) {
    member->capture = nullptr;
    member->tails.clear();
  }
  captures.erase(&origin);
}

}  // namespace

Lock locked() { return Lock(mutex); }

int& current_device() {
  static thread_local int device = 0;
  return device;
}

int device_count() { return devices; }

unsigned random_below(unsigned n) { return unsigned(generator() % n); }

void fault(const std::string& text) {
  fprintf(stderr, "cuda_driver: %s\n", text.c_str());
  if (!sticky_error) sticky_error = illegal_address;
}

Error sticky() { return sticky_error; }

Stream& stream_of(void* handle) {
  uintptr_t number = uintptr_t(handle);
  if (number < 2) return legacy_stream(current_device());
  if (number == 2) return stream_of_thread(current_device());
  return *static_cast<Stream*>(handle);
}

void finish(const NodePtr& wanted, Lock& lock) {
  std::vector<NodePtr> stack{wanted};
  while (!stack.empty()) {
    NodePtr node = stack.back();
    if (!pending(node)) {
      stack.pop_back();
      continue;
    }
    if (node->state == Node::running) {  // by another thread
      changed.wait(lock);
      continue;
    }
    // What another stream has to do comes first: work of this one that is older may still read
    // memory that the other already writes to.
    auto next = std::find_if(node->after.begin(), node->after.end(), pending);
    if (next != node->after.end()) {
      stack.push_back(*next);
      continue;
    }
    node->after.clear();
    node->state = Node::running;
    if (node->work && !sticky_error) {
      if (node->of_host) lock.unlock();
      node->work();
      if (node->of_host) lock.lock();
    }
    node->work = nullptr;
    node->state = Node::done;
    changed.notify_all();
  }
}

void finish_stream(Stream& stream, Lock& lock) {
  if (stream.legacy)
    for (Stream* other : std::set<Stream*>(streams))
      if (!other->flags && other->device == stream.device) finish(other->last, lock);
  finish(NodePtr(stream.last), lock);
}

void finish_device(int device, Lock& lock) {
  for (const NodePtr& node : std::vector<NodePtr>(orphans)) finish(node, lock);
  orphans.clear();
  for (Stream* stream : std::set<Stream*>(streams))
    if (stream->device == device) finish(NodePtr(stream->last), lock);
  finish(NodePtr(legacy_stream(device).last), lock);
}

Error enqueue(Stream& stream, Work work, Lock& lock, bool of_host, NodePtr* added,
              const std::vector<NodePtr>& more) {
  if (sticky_error) return sticky_error;
  if (stream.capture) {
    if (!more.empty()) return capture_isolation;
    add_step(stream, std::move(work), of_host);
    return success;
  }
  auto node = std::make_shared<Node>();
  node->work = std::move(work);
  node->of_host = of_host;
  node->after = more;
  if (stream.legacy) {
    for (auto& [origin, whatever] : captures)
      if (!origin->flags) {
        origin->capture->invalid = true;
        return capture_implicit;
      }
    for (Stream* other : streams)
      if (!other->flags && other->device == stream.device && pending(other->last))
        node->after.push_back(other->last);
  } else if (!stream.flags && pending(legacy_stream(stream.device).last)) {
    node->after.push_back(legacy_stream(stream.device).last);
  }
  if (pending(stream.last)) node->after.push_back(stream.last);
  stream.last = node;
  forget_done(stream);
  stream.pending.push_back(node);
  if (added) *added = node;
  if (mode == Mode::eager) finish(node, lock);
  if (mode == Mode::random)
    while (random_below(2)) advance_any(lock);
  return success;
}

Error unsafe() {
  for (auto& [origin, whatever] : captures) {
    Capture& capture = *origin->capture;
    if (capture.mode == 0 || (capture.mode == 1 && capture.thread == std::this_thread::get_id())) {
      capture.invalid = true;
      return capture_unsupported;
    }
  }
  return success;
}

bool still_pending(const NodePtr& node, int& queries, Lock& lock) {
  if (!pending(node)) return false;
  if (++queries % patience && mode != Mode::random) return true;
  if (mode == Mode::random && random_below(2)) return true;
  finish(node, lock);
  return false;
}

// ---- streams ----------------------------------------------------------------------------------

static Error checked(void* handle) {
  if (sticky_error) return sticky_error;
  if (uintptr_t(handle) > 2 && !streams.count(static_cast<Stream*>(handle))) return invalid_handle;
  return success;
}

API int cuda_driver_set(const char* name, int how_many, unsigned seed) {
  mode = !strcmp(name, "lazy") ? Mode::lazy : !strcmp(name, "random") ? Mode::random : Mode::eager;
  devices = how_many;
  generator.seed(seed);
  return 0;
}

// For its own tests: how much work nobody has waited for yet.
API int cuda_driver_pending() {
  Lock lock = locked();
  size_t count = 0;
  auto add = [&](Stream& stream) {
    forget_done(stream);
    count += stream.pending.size();
  };
  for (int d = 0; d < devices; d++) add(legacy_stream(d));
  for (Stream* stream : streams) add(*stream);
  return int(count);
}

API int cudaStreamCreateWithPriority(void** made, unsigned flags, int priority) {
  Lock lock = locked();
  auto* stream = new Stream;
  stream->device = current_device();
  stream->flags = flags;
  stream->priority = priority;
  streams.insert(stream);
  *made = stream;
  return success;
}

API int cudaStreamCreateWithFlags(void** made, unsigned flags) {
  return cudaStreamCreateWithPriority(made, flags, 0);
}
API int cudaStreamCreate(void** made) { return cudaStreamCreateWithPriority(made, 0, 0); }

API int cudaStreamGetFlags(void* handle, unsigned* flags) {
  *flags = stream_of(handle).flags;
  return success;
}
API int cudaStreamGetPriority(void* handle, int* priority) {
  *priority = stream_of(handle).priority;
  return success;
}

API int cudaStreamDestroy(void* handle) {
  Lock lock = locked();
  if (Error error = checked(handle)) return error;
  auto* stream = static_cast<Stream*>(handle);
  if (stream->capture) return capture_unsupported;
  if (pending(stream->last)) orphans.push_back(stream->last);
  streams.erase(stream);
  delete stream;
  return success;
}

API int cudaStreamSynchronize(void* handle) {
  Lock lock = locked();
  if (Error error = checked(handle)) return error;
  Stream& stream = stream_of(handle);
  if (stream.capture) {
    stream.capture->invalid = true;
    return capture_unsupported;
  }
  if (Error error = unsafe()) return error;
  finish_stream(stream, lock);
  return sticky_error;
}

API int cudaDeviceSynchronize() {
  Lock lock = locked();
  if (Error error = unsafe()) return error;
  finish_device(current_device(), lock);
  return sticky_error;
}

API int cudaStreamQuery(void* handle) {
  Lock lock = locked();
  if (Error error = checked(handle)) return error;
  Stream& stream = stream_of(handle);
  if (stream.capture) return capture_unsupported;
  return still_pending(NodePtr(stream.last), stream.queries, lock) ? not_ready : sticky_error;
}

API int cudaLaunchHostFunc(void* handle, void (*function)(void*), void* data) {
  Lock lock = locked();
  if (Error error = checked(handle)) return error;
  return enqueue(stream_of(handle), [=] { function(data); }, lock, true);
}

API int cudaStreamAddCallback(void* handle, void (*function)(void*, int, void*), void* data,
                              unsigned) {
  Lock lock = locked();
  if (Error error = checked(handle)) return error;
  if (stream_of(handle).capture) return capture_unsupported;
  return enqueue(stream_of(handle), [=] { function(handle, 0, data); }, lock, true);
}

// ---- events -----------------------------------------------------------------------------------

static double milliseconds() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return double(now.tv_sec) * 1e3 + double(now.tv_nsec) * 1e-6;
}

API int cudaEventCreateWithFlags(void** made, unsigned) {
  *made = new Event;
  return success;
}
API int cudaEventCreate(void** made) { return cudaEventCreateWithFlags(made, 0); }

API int cudaEventDestroy(void* handle) {
  Lock lock = locked();
  delete static_cast<Event*>(handle);
  return success;
}

API int cudaEventRecord(void* handle, void* of) {
  Lock lock = locked();
  if (Error error = checked(of)) return error;
  auto& event = *static_cast<Event*>(handle);
  Stream& stream = stream_of(of);
  event.capture = stream.capture;
  event.queries = 0;
  if (stream.capture) {
    event.tails = stream.tails;
    return success;
  }
  auto time = event.time = std::make_shared<double>(0);
  return enqueue(stream, [time] { *time = milliseconds(); }, lock, false, &event.node);
}

API int cudaEventQuery(void* handle) {
  Lock lock = locked();
  auto& event = *static_cast<Event*>(handle);
  if (event.capture) return capture_unsupported;
  if (Error error = unsafe()) return error;
  return still_pending(NodePtr(event.node), event.queries, lock) ? not_ready : sticky_error;
}

API int cudaEventSynchronize(void* handle) {
  Lock lock = locked();
  auto& event = *static_cast<Event*>(handle);
  if (event.capture) return capture_unsupported;
  if (Error error = unsafe()) return error;
  finish(NodePtr(event.node), lock);
  return sticky_error;
}

API int cudaEventElapsedTime(float* passed, void* first, void* second) {
  Lock lock = locked();
  auto &a = *static_cast<Event*>(first), &b = *static_cast<Event*>(second);
  if (!a.node || !b.node) return invalid_handle;
  if (pending(a.node) || pending(b.node)) return not_ready;
  *passed = float(*b.time - *a.time);
  return success;
}

API int cudaStreamWaitEvent(void* handle, void* which, unsigned) {
  Lock lock = locked();
  if (Error error = checked(handle)) return error;
  Stream& stream = stream_of(handle);
  auto& event = *static_cast<Event*>(which);
  if (event.capture && event.capture->members.empty()) return capture_isolation;  // it has ended
  if (event.capture) {
    if (stream.legacy || (stream.capture && stream.capture != event.capture))
      return capture_isolation;
    stream.capture = event.capture;
    event.capture->members.insert(&stream);
    for (size_t step : event.tails) stream.tails.push_back(step);
    return success;
  }
  if (!event.node) return success;
  if (stream.capture) {
    stream.capture->invalid = true;
    return capture_isolation;
  }
  return enqueue(stream, {}, lock, false, nullptr, {event.node});
}

// ---- captures and graphs ----------------------------------------------------------------------

API int cudaStreamBeginCapture(void* handle, int how) {
  Lock lock = locked();
  if (Error error = checked(handle)) return error;
  Stream& stream = stream_of(handle);
  if (stream.legacy || stream.capture) return capture_unsupported;
  stream.capture = std::make_shared<Capture>();
  stream.capture->origin = &stream;
  stream.capture->mode = how;
  stream.capture->thread = std::this_thread::get_id();
  stream.capture->members.insert(&stream);
  stream.tails.clear();
  captures[&stream] = true;
  return success;
}

API int cudaStreamEndCapture(void* handle, void** made) {
  Lock lock = locked();
  if (Error error = checked(handle)) return error;
  Stream& stream = stream_of(handle);
  *made = nullptr;
  if (!stream.capture || stream.capture->origin != &stream) return invalid_value;
  auto capture = stream.capture;
  bool joined = reached(capture->graph, stream.tails).size() == capture->graph.steps.size();
  end_capture(stream);
  capture->members.clear();
  if (capture->invalid) return capture_invalidated;
  if (!joined) return capture_unjoined;
  *made = new Graph(capture->graph);
  return success;
}

API int cudaStreamIsCapturing(void* handle, int* status) {
  Lock lock = locked();
  if (Error error = checked(handle)) return error;
  Stream& stream = stream_of(handle);
  if (stream.legacy) {
    for (auto& [origin, whatever] : captures)
      if (!origin->flags) return capture_implicit;
  }
  *status = !stream.capture ? 0 : stream.capture->invalid ? 2 : 1;
  return success;
}

API int cudaGraphInstantiate(void** made, void* graph, unsigned long long) {
  Lock lock = locked();
  *made = new Exec{*static_cast<Graph*>(graph), nullptr};
  return success;
}

API int cudaGraphDestroy(void* graph) {
  Lock lock = locked();
  delete static_cast<Graph*>(graph);
  return success;
}

API int cudaGraphExecDestroy(void* exec) {
  Lock lock = locked();
  delete static_cast<Exec*>(exec);
  return success;
}

API int cudaGraphUpload(void*, void*) { return success; }
API int cudaGraphDebugDotPrint(void*, const char*, unsigned) { return not_supported; }

API int cudaGraphLaunch(void* which, void* handle) {
  Lock lock = locked();
  if (Error error = checked(handle)) return error;
  auto& exec = *static_cast<Exec*>(which);
  Stream& stream = stream_of(handle);
  if (stream.capture) return not_supported;
  // The steps become nodes of their own: which of two branches comes first is left to the mode.
  std::vector<NodePtr> nodes, before;
  if (pending(exec.last)) before.push_back(exec.last);
  NodePtr first, last;
  if (Error error = enqueue(stream, {}, lock, false, &first, before)) return error;
  for (const Step& step : exec.graph.steps) {
    auto node = std::make_shared<Node>();
    node->work = step.work;
    node->of_host = step.of_host;
    node->after.push_back(first);
    for (size_t place : step.after) node->after.push_back(nodes[place]);
    nodes.push_back(node);
  }
  for (size_t n = nodes.size(); n > 1 && mode == Mode::random; n--)
    std::swap(nodes[n - 1], nodes[random_below(unsigned(n))]);
  Error error = enqueue(stream, {}, lock, false, &last, nodes);
  exec.last = last;
  return error;
}

}  // namespace cuda_driver
