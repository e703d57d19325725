// Kernels that do one thing wrong each, and their right twins: see test_runner.py.
typedef long long i64;
#define KERNEL(name) extern "C" __global__ void __launch_bounds__(256) name
#define SLOT threadIdx.x

// Sums of blocks of 64 threads, through shared memory. FIRST, SECOND: the barriers; one exchange
// writes what another thread has just read.
#define BLOCK_SUM(name, FIRST, SECOND)                               \
  KERNEL(name)(const float* x, float* out, i64 rounds) {             \
    __shared__ float parts[64];                                      \
    for (i64 round = 0; round < rounds; round++) {                   \
      parts[SLOT] = x[(round * gridDim.x + blockIdx.x) * 64 + SLOT]; \
      FIRST;                                                         \
      float total = 0;                                               \
      for (int i = 0; i < 64; i++) total += parts[(SLOT + i) % 64];  \
      out[(round * gridDim.x + blockIdx.x) * 64 + SLOT] = total;     \
      SECOND;                                                        \
    }                                                                \
  }
BLOCK_SUM(block_sum, __syncthreads(), __syncthreads())
BLOCK_SUM(block_sum_no_first_barrier, (void)0, __syncthreads())
BLOCK_SUM(block_sum_no_second_barrier, __syncthreads(), (void)0)
BLOCK_SUM(block_sum_warps_only, __syncwarp(), __syncthreads())
BLOCK_SUM(block_sum_no_write_after_read_in_warp, __syncthreads(), __syncwarp())

// One warp turns its values round through shared memory.
#define REVERSE(name, SYNC)                  \
  KERNEL(name)(const float* x, float* out) { \
    __shared__ float parts[32];              \
    parts[SLOT] = x[SLOT];                   \
    SYNC;                                    \
    out[SLOT] = parts[31 - SLOT];            \
  }
REVERSE(reverse, __syncwarp())
REVERSE(reverse_no_syncwarp, (void)0)
REVERSE(reverse_half_a_warp, __syncwarp(SLOT < 16 ? 0xffffu : 0xffff0000u))
REVERSE(reverse_shuffle_is_no_fence, (void)__shfl_xor_sync(0xffffffffu, x[SLOT], 1))

KERNEL(halves)(const float* x, float* out) {  // each half of a warp goes its own way
  const unsigned mask = SLOT < 16 ? 0xffffu : 0xffff0000u;
  float value = x[SLOT];
  for (int d = 8; d > 0; d /= 2) value += __shfl_xor_sync(mask, value, d);
  if (SLOT < 16)
    for (int i = 0; i < 3; i++) value += __shfl_sync(mask, value, 0);
  __syncwarp();
  out[SLOT] = value;
}

#define COUNT(name, ADD) \
  KERNEL(name)(const int* x, int* counts) { ADD; }
COUNT(count, atomicAdd(&counts[x[blockIdx.x * blockDim.x + SLOT]], 1))
COUNT(count_without_atomics, counts[x[blockIdx.x * blockDim.x + SLOT]] += 1)
COUNT(count_over_blocks, if (SLOT == 0) atomicAdd(&counts[0], 1))
COUNT(count_over_blocks_without_atomics, if (SLOT == 0) counts[0] += 1)
COUNT(atomic_and_plain_read, (atomicAdd(&counts[0], 1), counts[1 + SLOT] = counts[0]))
COUNT(read_of_another_block, (counts[blockIdx.x] = 1, counts[2] = counts[1 - blockIdx.x]))

KERNEL(divergent_barrier)(float* out) {
  if (SLOT < 40) __syncthreads();
  out[SLOT] = 1;
}
KERNEL(two_barriers)(float* out) {
  if (SLOT < 32) {
    out[SLOT] = 1;
    __syncthreads();
  } else {
    __syncthreads();
    out[SLOT] = 2;
  }
}
KERNEL(early_return_before_barrier)(float* out) {
  if (SLOT >= 40) return;
  __syncthreads();
  out[SLOT] = 1;
}
KERNEL(early_return_before_shuffle)(float* out) {
  if (SLOT >= 40) return;
  out[SLOT] = __shfl_xor_sync(0xffffffffu, 1.0f, 1);
}
KERNEL(divergent_shuffle)(float* out) {
  if (SLOT % 2) out[SLOT] = __shfl_xor_sync(0xffffffffu, 1.0f, 2);
}
KERNEL(shuffle_outside_mask)(float* out) {
  if (SLOT < 16) out[SLOT] = __shfl_sync(0xffffu, 1.0f, 20);
}
KERNEL(not_in_own_mask)(float* out) { out[SLOT] = __shfl_xor_sync(0xffffu, 1.0f, 1); }
KERNEL(two_shuffles)(float* out) {
  if (SLOT % 2)
    out[SLOT] = __shfl_xor_sync(0xffffffffu, 1.0f, 2);
  else
    out[SLOT] = __shfl_xor_sync(0xffffffffu, 2.0f, 2);
}

KERNEL(shift)(const float* x, float* out, i64 from, i64 to) { out[SLOT + to] = x[SLOT + from]; }
KERNEL(scaled)(const float* __restrict__ x, float* __restrict__ out, const float* y) {
  out[SLOT] = 2 * x[SLOT] + y[SLOT];
}
KERNEL(write_input)(float* x, float* out) { x[SLOT] = out[SLOT]; }
KERNEL(copy4)(const float* x, float* out) {
  reinterpret_cast<float4*>(out)[SLOT] = reinterpret_cast<const float4*>(x)[SLOT];
}
KERNEL(fixed_array)(float* out, i64 i) {
  float values[4] = {1, 2, 3, 4};
  out[0] = values[i];
}
KERNEL(int_overflow)(float* out, i64 columns) {
  const int row = int(SLOT) * 1000000;
  if (row * int(columns) >= 0) out[SLOT] = 1;
}
KERNEL(divide)(i64* out, i64 by) { out[SLOT] = i64(SLOT) / by; }
KERNEL(shift_bits)(i64* out, i64 by) { out[SLOT] = 1LL << by; }
KERNEL(narrow_scalar)(float* out, int n, float value) {
  if (int(SLOT) < n) out[SLOT] = value;
}
KERNEL(unwritten_shared)(float* out) {
  __shared__ float parts[64];
  if (SLOT != 5) parts[SLOT] = 1;
  __syncthreads();
  out[SLOT] = parts[63 - SLOT];
}
KERNEL(dynamic_shared)(const float* x, float* out) {
  DYNAMIC_SHARED(float, parts);
  parts[SLOT] = x[SLOT];
  __syncthreads();
  out[SLOT] = parts[blockDim.x - 1 - SLOT];
}
KERNEL(votes)(const int* x, int* out) {
  out[SLOT] = __any_sync(0xffffffffu, x[SLOT]) + 2 * __all_sync(0xffffffffu, x[SLOT]) +
              4 * (__syncthreads_or(x[SLOT]) != 0) + 8 * (__syncthreads_and(x[SLOT]) != 0) +
              16 * __syncthreads_count(x[SLOT]);
  if (SLOT < 32) out[SLOT] += 4096 * (__ballot_sync(0xffffffffu, x[SLOT]) == 0x0000ff00u);
}
KERNEL(shuffles)(const double* x, double* out) {
  const double value = x[SLOT];
  out[SLOT] = __shfl_up_sync(0xffffffffu, value, 3);
  out[32 + SLOT] = __shfl_down_sync(0xffffffffu, value, 5, 16);
  out[64 + SLOT] = __shfl_sync(0xffffffffu, value, 9, 8);
  out[96 + SLOT] = __shfl_xor_sync(0xffffffffu, value, 24);
}
KERNEL(place)(int* out) {
  const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  out[block * blockDim.x * blockDim.y * blockDim.z + thread] = int(block * 1000 + thread);
}
struct Job {
  const float* x;
  float* out;
  i64 n;
};
KERNEL(many)(const Job* jobs) {
  const Job job = jobs[blockIdx.x];
  for (i64 i = SLOT; i < job.n; i += blockDim.x) job.out[i] = 2 * job.x[i];
}
KERNEL(for_ever)(const volatile float* x, float* out) {
  while (x[0] == 0) out[SLOT] = 1;
}
KERNEL(subnormal)(const float* x, float* out) { out[SLOT] = x[SLOT] * 1e20f; }
KERNEL(words)(u_int64_t* out, double* d, const u_int64_t* x, i64 n) {
  out[0] = __umul64hi(x[0], x[1]);
  out[1] = __umulhi(unsigned(x[0]), unsigned(x[1]));
  d[0] = __longlong_as_double(__double_as_longlong(1.5)) + max(2, 3) + min(2.0f, 1.0f);
  d[1] = n;
}
