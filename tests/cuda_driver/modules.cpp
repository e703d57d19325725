// Compiled kernels and their launches, and the compiler's front: see driver.h.
//
// What NVRTC is asked to compile goes to Python (compile.py), which lets g++ make a shared library
// of it as tests/cuda_on_cpu does. The "cubin" that a program gets is the path of that library.
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>

#include "driver.h"
// Last, because its names for CUDA are macros.
#include "../cuda_on_cpu/launch.h"

namespace cuda_driver {
namespace {

constexpr unsigned static_limit = 48 << 10, dynamic_limit = 227 << 10;  // bytes of shared memory

struct Function {
  const cuda_on_cpu::Kernel* kernel;
  std::vector<size_t> sizes;  // of its parameters
  unsigned shared_limit = static_limit;
};

struct Module {
  std::map<std::string, Function> functions;
};

// Sizes of parameters as launch.h describes them: "*f4,i8,s40,".
std::vector<size_t> sizes_of(const char* signature) {
  std::vector<size_t> sizes;
  for (const char* c = signature; *c; c = strchr(c, ',') + 1)
    sizes.push_back(*c == '*' ? sizeof(void*) : size_t(atoi(c + 1)));
  return sizes;
}

bool fits(const unsigned* grid, const unsigned* block, unsigned shared, const Function& f) {
  if (!grid[0] || !grid[1] || !grid[2] || !block[0] || !block[1] || !block[2]) return false;
  if (grid[0] >= 1u << 31 || grid[1] > 65535 || grid[2] > 65535 || block[2] > 64) return false;
  size_t threads = size_t(block[0]) * block[1] * block[2];
  return threads <= size_t(f.kernel->max_threads) && shared <= f.shared_limit;
}

}  // namespace

API int cuModuleLoadData(void** made, const char* image) {
  *made = nullptr;
  void* library = dlopen(image, RTLD_NOW | RTLD_LOCAL);
  if (!library) return invalid_image;
  auto* kernel = static_cast<cuda_on_cpu::Kernel*>(dlsym(library, "cuda_on_cpu_kernels"));
  auto* module = new Module;
  for (; kernel->name; kernel++)
    module->functions[kernel->name] = {kernel, sizes_of(kernel->signature)};
  *made = module;
  return success;
}

API int cuModuleLoad(void** made, const char* path) { return cuModuleLoadData(made, path); }

// The code stays: work that waits may still be its.
API int cuModuleUnload(void*) { return success; }

API int cuModuleGetFunction(void** made, void* module, const char* name) {
  auto& functions = static_cast<Module*>(module)->functions;
  auto found = functions.find(name);
  if (found == functions.end()) return not_found;
  *made = &found->second;
  return success;
}

API int cuModuleGetGlobal(void**, size_t*, void*, const char*) { return not_found; }

API int cuLaunchKernel(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx,
                       unsigned by, unsigned bz, unsigned shared, void* stream, void** parameters,
                       void** extra) {
  auto& f = *static_cast<Function*>(function);
  cuda_on_cpu::Launch launch{};
  unsigned sizes[] = {gx, gy, gz, bx, by, bz};
  memcpy(launch.grid, sizes, sizeof sizes);
  launch.shared_bytes = shared;
  launch.exits_arrive = 1;
  if (extra || !fits(launch.grid, launch.block, shared, f)) return invalid_value;
  std::vector<std::string> values;  // as they are now: the caller's memory is its own again
  for (size_t i = 0; i < f.sizes.size(); i++)
    values.emplace_back(static_cast<const char*>(parameters[i]), f.sizes[i]);
  Work work = [launch, values, kernel = f.kernel] {
    cuda_on_cpu::Launch how = launch;
    std::vector<void*> pointers;
    for (const std::string& value : values) pointers.push_back(const_cast<char*>(value.data()));
    if (kernel->launch(&how, pointers.data()))
      fault(std::string("the kernel ") + kernel->name + ": " + how.fault);
  };
  Lock lock = locked();
  return enqueue(stream_of(stream), work, lock);
}

API int cuLaunchCooperativeKernel(void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                                  unsigned, void*, void**) {
  return not_supported;  // its blocks would have to run at once
}

API int cuFuncGetAttribute(int* value, int which, void* function) {
  auto& f = *static_cast<Function*>(function);
  const int values[] = {f.kernel->max_threads, 0, 0, 0, 32, 90, 90, 0, int(f.shared_limit), 0};
  *value = which >= 0 && which < 10 ? values[which] : 0;
  return success;
}

API int cuFuncSetAttribute(void* function, int which, int value) {
  constexpr int max_dynamic_shared = 8;
  if (which == max_dynamic_shared) {
    if (value < 0 || unsigned(value) > dynamic_limit) return invalid_value;
    static_cast<Function*>(function)->shared_limit = unsigned(value);
  }
  return success;
}

API int cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, void*, int threads, size_t) {
  *blocks = 2048 / (threads > 0 ? threads : 1);
  return success;
}

API int cuOccupancyMaxPotentialBlockSize(int* grid, int* block, void* function,
                                         size_t (*)(int), size_t, int limit) {
  int most = static_cast<Function*>(function)->kernel->max_threads;
  *block = limit && limit < most ? limit : most;
  *grid = 2 * (2048 / *block);
  return success;
}

// ---- NVRTC ------------------------------------------------------------------------------------

// Python's compiler: true, and the path of the library; or what g++ says.
using Compiler = int (*)(const char* source, const char* options, const char* names, char* out,
                         size_t room);
static Compiler compiler;
constexpr size_t answer_room = 1 << 20;

API void cuda_driver_set_compiler(Compiler given) { compiler = given; }

struct Program {
  std::string source, names, path, log;
};
constexpr int compilation_error = 6, invalid_input = 3;

API int nvrtcVersion(int* major, int* minor) {
  *major = 12;
  *minor = 9;
  return success;
}

API const char* nvrtcGetErrorString(int result) {
  return result == compilation_error ? "NVRTC_ERROR_COMPILATION" : "NVRTC_ERROR";
}

API int nvrtcCreateProgram(void** made, const char* source, const char*, int headers,
                           const char* const*, const char* const*) {
  *made = new Program{source, "", "", ""};
  return headers ? invalid_input : success;
}

API int nvrtcDestroyProgram(void** program) {
  delete static_cast<Program*>(*program);
  *program = nullptr;
  return success;
}

API int nvrtcAddNameExpression(void* program, const char* name) {
  static_cast<Program*>(program)->names += std::string(name) + "\n";
  return success;
}

API int nvrtcGetLoweredName(void*, const char* name, const char** lowered) {
  static std::set<std::string> kept;
  *lowered = kept.insert(name).first->c_str();
  return success;
}

API int nvrtcCompileProgram(void* handle, int count, const char* const* options) {
  auto& program = *static_cast<Program*>(handle);
  std::string lines;
  for (int i = 0; i < count; i++) lines += std::string(options[i]) + "\n";
  std::vector<char> answer(answer_room);
  bool made = compiler(program.source.c_str(), lines.c_str(), program.names.c_str(), answer.data(),
                       answer_room);
  (made ? program.path : program.log) = answer.data();
  return made ? success : compilation_error;
}

API int nvrtcGetCUBINSize(void* program, size_t* size) {
  *size = static_cast<Program*>(program)->path.size() + 1;
  return success;
}
API int nvrtcGetCUBIN(void* program, char* out) {
  strcpy(out, static_cast<Program*>(program)->path.c_str());
  return success;
}
API int nvrtcGetPTXSize(void* program, size_t* size) { return nvrtcGetCUBINSize(program, size); }
API int nvrtcGetPTX(void* program, char* out) { return nvrtcGetCUBIN(program, out); }

API int nvrtcGetProgramLogSize(void* program, size_t* size) {
  *size = static_cast<Program*>(program)->log.size() + 1;
  return success;
}
API int nvrtcGetProgramLog(void* program, char* out) {
  strcpy(out, static_cast<Program*>(program)->log.c_str());
  return success;
}

}  // namespace cuda_driver
