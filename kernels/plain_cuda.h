// What a user's CUDA kernel needs to run on the CPU: one thread of the launch after another, so no
// thread can wait for another. Barriers, shared memory and warps are not here.
#include <cmath>
#include <cstring>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline
#define __noinline__
#define __launch_bounds__(...)
#define __restrict__ __restrict

struct dim3 {
  unsigned x, y, z;
};
static dim3 threadIdx, blockIdx, blockDim, gridDim;  // the caller lets one thread in at a time

using std::isfinite;
using std::isinf;
using std::isnan;
template <class T>
static inline T min(T a, T b) {
  return b < a ? b : a;
}
template <class T>
static inline T max(T a, T b) {
  return a < b ? b : a;
}
static inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
static inline double rsqrt(double x) { return 1.0 / sqrt(x); }
static inline float __fdividef(float x, float y) { return x / y; }
#define __expf expf  // functions of these names are in the C library, for itself
#define __logf logf
#define __powf powf
#define __sinf sinf
#define __cosf cosf
template <class T>
static inline T __ldg(const T* p) {
  return *p;
}
template <class T>
static inline T atomicAdd(T* p, T value) {
  const T before = *p;
  *p = before + value;
  return before;
}

template <class... Types, std::size_t... places>
static inline void call(void (*kernel)(Types...), void** arguments,
                        std::index_sequence<places...>) {
  kernel(*static_cast<std::remove_const_t<Types>*>(arguments[places])...);
}

template <class... Types>
static inline void for_each_thread(void (*kernel)(Types...), const unsigned* grid,
                                   const unsigned* block, void** arguments) {
  gridDim = {grid[0], grid[1], grid[2]};
  blockDim = {block[0], block[1], block[2]};
  for (blockIdx.z = 0; blockIdx.z < grid[2]; blockIdx.z++)
    for (blockIdx.y = 0; blockIdx.y < grid[1]; blockIdx.y++)
      for (blockIdx.x = 0; blockIdx.x < grid[0]; blockIdx.x++)
        for (threadIdx.z = 0; threadIdx.z < block[2]; threadIdx.z++)
          for (threadIdx.y = 0; threadIdx.y < block[1]; threadIdx.y++)
            for (threadIdx.x = 0; threadIdx.x < block[0]; threadIdx.x++)
              call(kernel, arguments, std::index_sequence_for<Types...>());
}
