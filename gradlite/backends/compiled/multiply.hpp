// Products of NumPy's arrays outside of captured steps, called from Python with the arrays
// themselves; comes after prelude.hpp, shuffles.hpp and products.hpp, compiled for one type of
// numbers, REAL.
#include "from_python.h"

extern "C" {
void* PyEval_SaveThread();
void PyEval_RestoreThread(void* state);
}

extern "C" {
int vector_bytes = WIDE;
}
static void* dtype_of_real;
extern "C" void multiply_bind(void* none, void* array, void* dtype) {
  gradlite_bind(none, array);
  dtype_of_real = dtype;
}

constexpr int ALIGNED = 0x100;

static inline const ArrayFields* fields_of(void* object) {
  char* header = static_cast<char*>(object) + GRADLITE_OBJECT_HEADER;
  const ArrayFields* fields = reinterpret_cast<ArrayFields*>(header);
  const bool fits = reinterpret_cast<void**>(header)[-1] == gradlite_array &&
                    fields->dtype == dtype_of_real && (fields->flags & ALIGNED) &&
                    fields->dimensions >= 2;
  return fits ? fields : nullptr;
}

// Other Python threads run meanwhile where the product takes long enough for them.
struct OthersRun {
  void* state;
  OthersRun(bool worth) : state(worth ? PyEval_SaveThread() : nullptr) {}
  ~OthersRun() {
    if (state) PyEval_RestoreThread(state);
  }
};

// out = a @ b for stacks of matrices of one shape, the rows of `out` contiguous. Returns 0, having
// done nothing, where the arrays are others.
extern "C" int multiply(void* first, void* second, void* result) {
  const ArrayFields *a = fields_of(first), *b = fields_of(second), *out = fields_of(result);
  if (!a || !b || !out) return 0;
  const int n = a->dimensions;
  if (b->dimensions != n || out->dimensions != n) return 0;
  const long *sa = (long*)a->shape, *sb = (long*)b->shape, *so = (long*)out->shape;
  const long *ta = (long*)a->strides, *tb = (long*)b->strides, *to = (long*)out->strides;
  const i64 M = sa[n - 2], K = sa[n - 1], N = sb[n - 1];
  constexpr i64 item = sizeof(REAL);
  if (sb[n - 2] != K || so[n - 2] != M || so[n - 1] != N || to[n - 1] != item) return 0;
  i64 matrices = 1;
  for (int d = 0; d < n - 2; d++) {
    if (sa[d] != so[d] || sb[d] != so[d]) return 0;
    matrices *= so[d];
  }
  if (!M || !N || !matrices) return 1;
  const OthersRun others(M * N * K * matrices >= SHARED);
  const i64 am = ta[n - 2] / item, ak = ta[n - 1] / item;
  const i64 bk = tb[n - 2] / item, bn = tb[n - 1] / item, om = to[n - 2] / item;
  constexpr i64 L = Vector<REAL>::lanes;
  const i64 wanted = (PANEL * K + M) * L * sizeof(REAL);
  const auto one = [=](i64 i, bool alone) {
    const char *x = (char*)a->data, *y = (char*)b->data;
    char* z = (char*)out->data;
    for (int d = n - 3; d >= 0; i /= so[d--]) {
      const i64 at = i % so[d];
      x += at * ta[d];
      y += at * tb[d];
      z += at * to[d];
    }
    REAL* const room = (REAL*)scratch<1>(wanted);
    const auto run = alone ? product<REAL> : part_of_product<REAL>;
    run((const REAL*)x, am, ak, (const REAL*)y, bk, bn, (REAL*)z, om, M, N, K, room);
  };
  if (matrices == 1) {
    one(0, true);
  } else {
    parallel(M * N * K * matrices >= SHARED, matrices, [=](i64 i) { one(i, false); });
  }
  return 1;
}
