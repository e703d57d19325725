// Devices, contexts and errors: see driver.h.
#include <cstdio>
#include <cstring>

#include "driver.h"

namespace cuda_driver {
namespace {

constexpr int version = 12090;
constexpr int processors = 4;

struct Named {
  int error;
  const char *name, *text;
};
const Named errors[] = {
    {success, "cudaSuccess", "no error"},
    {invalid_value, "cudaErrorInvalidValue", "invalid argument"},
    {out_of_memory, "cudaErrorMemoryAllocation", "out of memory"},
    {invalid_device, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {invalid_image, "cudaErrorInvalidKernelImage", "device kernel image is invalid"},
    {invalid_handle, "cudaErrorInvalidResourceHandle", "invalid resource handle"},
    {not_found, "cudaErrorSymbolNotFound", "named symbol not found"},
    {not_ready, "cudaErrorNotReady", "device not ready"},
    {illegal_address, "cudaErrorIllegalAddress", "an illegal memory access was encountered"},
    {peer_access_already_enabled, "cudaErrorPeerAccessAlreadyEnabled",
     "peer access is already enabled"},
    {not_supported, "cudaErrorNotSupported", "operation not supported"},
    {capture_unsupported, "cudaErrorStreamCaptureUnsupported",
     "operation not permitted when stream is capturing"},
    {capture_invalidated, "cudaErrorStreamCaptureInvalidated",
     "operation failed due to a previous error during capture"},
    {capture_unjoined, "cudaErrorStreamCaptureUnjoined",
     "capturing stream has unjoined work"},
    {capture_isolation, "cudaErrorStreamCaptureIsolation",
     "dependency created on uncaptured work in another stream"},
    {capture_implicit, "cudaErrorStreamCaptureImplicit",
     "operation would make the legacy stream depend on a capturing blocking stream"},
};

const Named& named(int error) {
  for (const Named& candidate : errors)
    if (candidate.error == error) return candidate;
  static const Named unknown{0, "cudaErrorUnknown", "unknown error"};
  return unknown;
}

// The beginning of cudaDeviceProp; the rest stays 0.
struct Properties {
  char name[256], uuid[16], luid[8];
  unsigned luid_mask;
  size_t total_memory, shared_per_block;
  int registers_per_block, warp_size;
  size_t pitch;
  int threads_per_block, block[3], grid[3], clock_rate;
  size_t constant_memory;
  int major, minor;
  size_t texture_alignment, texture_pitch;
  int overlap, processors;
};
constexpr size_t properties_bytes = 1032;

}  // namespace

const char* error_name(int error) { return named(error).name; }
const char* error_text(int error) { return named(error).text; }

API const char* cudaGetErrorName(int error) { return error_name(error); }
API const char* cudaGetErrorString(int error) { return error_text(error); }
API int cudaGetLastError() { return sticky(); }

API int cudaDriverGetVersion(int* number) {
  *number = version;
  return success;
}
API int cudaRuntimeGetVersion(int* number) { return cudaDriverGetVersion(number); }

API int cudaGetDeviceCount(int* count) {
  *count = device_count();
  return success;
}

API int cudaGetDevice(int* device) {
  *device = current_device();
  return success;
}

API int cudaSetDevice(int device) {
  if (device < 0 || device >= device_count()) return invalid_device;
  current_device() = device;
  return success;
}

API int cudaDeviceGetAttribute(int* value, int which, int device) {
  if (device < 0 || device >= device_count()) return invalid_device;
  switch (which) {
    case 1: *value = 1024; break;          // threads of a block
    case 8: *value = 48 << 10; break;      // bytes of shared memory
    case 10: *value = 32; break;           // threads of a warp
    case 16: *value = processors; break;
    case 39: *value = 2048; break;         // threads of a multiprocessor
    case 75: *value = 9; break;            // compute capability
    case 76: *value = 0; break;
    case 97: *value = 227 << 10; break;    // bytes of shared memory that a kernel may ask for
    default: *value = 0;
  }
  return success;
}

API int cudaGetDeviceProperties_v2(void* out, int device) {
  if (device < 0 || device >= device_count()) return invalid_device;
  memset(out, 0, properties_bytes);
  auto& properties = *static_cast<Properties*>(out);
  snprintf(properties.name, sizeof properties.name, "No GPU but its driver (%d)", device);
  properties.total_memory = size_t(8) << 30;
  properties.shared_per_block = 48 << 10;
  properties.registers_per_block = 65536;
  properties.warp_size = 32;
  properties.threads_per_block = 1024;
  const int block[] = {1024, 1024, 64}, grid[] = {0x7fffffff, 65535, 65535};
  memcpy(properties.block, block, sizeof block);
  memcpy(properties.grid, grid, sizeof grid);
  properties.major = 9;
  properties.processors = processors;
  return success;
}
API int cudaGetDeviceProperties(void* out, int device) {
  return cudaGetDeviceProperties_v2(out, device);
}

API int cudaDeviceCanAccessPeer(int* can, int device, int peer) {
  *can = device != peer;
  return success;
}
API int cudaDeviceEnablePeerAccess(int, unsigned) { return success; }
API int cudaDeviceDisablePeerAccess(int) { return success; }
API int cudaDeviceGetLimit(size_t* value, int) {
  *value = 0;
  return success;
}
API int cudaDeviceSetLimit(int, size_t) { return success; }
API int cudaDeviceGetPCIBusId(char* out, int length, int device) {
  snprintf(out, size_t(length), "0000:%02X:00.0", device + 1);
  return success;
}
API int cudaDeviceGetByPCIBusId(int* device, const char*) {
  *device = 0;
  return success;
}
API int cudaProfilerStart() { return success; }
API int cudaProfilerStop() { return success; }

// Every other function of the runtime.
API int cuda_driver_missing() { return not_supported; }

// ---- the driver's own -------------------------------------------------------------------------

API int cuInit(unsigned) { return success; }
API int cuDriverGetVersion(int* number) { return cudaDriverGetVersion(number); }
API int cuGetErrorName(int error, const char** name) {
  *name = error_name(error);
  return success;
}
API int cuGetErrorString(int error, const char** text) {
  *text = error_text(error);
  return success;
}
API int cuDeviceGetCount(int* count) { return cudaGetDeviceCount(count); }
API int cuDeviceGet(int* device, int number) {
  *device = number;
  return number < device_count() ? success : invalid_device;
}
API int cuDeviceGetAttribute(int* value, int which, int device) {
  return cudaDeviceGetAttribute(value, which, device);
}
// A context is its device's number, and one.
API int cuCtxGetCurrent(void** context) {
  *context = reinterpret_cast<void*>(intptr_t(current_device()) + 1);
  return success;
}
API int cuCtxSetCurrent(void* context) { return cudaSetDevice(int(intptr_t(context)) - 1); }
API int cuCtxGetDevice(int* device) { return cudaGetDevice(device); }
API int cuDevicePrimaryCtxRelease(int) { return success; }
API int cuStreamGetCtx(void* stream, void** context) {
  *context = reinterpret_cast<void*>(intptr_t(stream_of(stream).device) + 1);
  return success;
}

}  // namespace cuda_driver
