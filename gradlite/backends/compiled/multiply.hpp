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

static inline const ArrayFields* fields_of(void* object, int least = 2) {
  char* header = static_cast<char*>(object) + GRADLITE_OBJECT_HEADER;
  const ArrayFields* fields = reinterpret_cast<ArrayFields*>(header);
  const bool fits = reinterpret_cast<void**>(header)[-1] == gradlite_array &&
                    fields->dtype == dtype_of_real && (fields->flags & ALIGNED) &&
                    fields->dimensions >= least;
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

// What of a product is wanted, or not zero: all, what lies on the diagonal of the result or below
// it, or what of `a` lies on its diagonal and below, or above.
enum Part { ALL, LOWER_RESULT, LOWER_FACTOR, UPPER_FACTOR };

struct Matrices {
  const REAL *a, *b;
  REAL* c;
  i64 am, ak, bk, bn, cm, M, N, K;
  // Rows from m on, sums from k on and columns from n on, so many of each.
  void multiply(i64 m, i64 rows, i64 k, i64 sums, i64 n, i64 columns, REAL* room) const {
    part_of_product(a + m * am + k * ak, am, ak, b + k * bk + n * bn, bk, bn, c + m * cm + n, cm,
                    rows, columns, sums, room, (const REAL*)nullptr);
  }
};

// In blocks that are as small as the tiles of products allow.
static void multiply_part(const Matrices& x, int part, REAL* room) {
  constexpr i64 L = Vector<REAL>::lanes;
  if (part == LOWER_RESULT) {
    for (i64 n = 0; n < x.N; n += 2 * L) {
      const i64 columns = x.N - n < 2 * L ? x.N - n : 2 * L, above = n < x.M ? n : x.M;
      for (i64 m = 0; m < above; m++) memset(x.c + m * x.cm + n, 0, columns * sizeof(REAL));
      if (n < x.M) x.multiply(n, x.M - n, 0, x.K, n, columns, room);
    }
    return;
  }
  const i64 size = x.N <= L ? 8 : 12;
  for (i64 m = 0; m < x.M; m += size) {
    const i64 rows = x.M - m < size ? x.M - m : size;
    const i64 first = part == LOWER_FACTOR ? 0 : m < x.K ? m : x.K;
    const i64 stop = part == LOWER_FACTOR && m + rows < x.K ? m + rows : x.K;
    x.multiply(m, rows, first, stop - first, 0, x.N, room);
  }
}

// out = a @ b for stacks of matrices of one shape, the rows of `out` contiguous; of single matrices
// all is made, and a bias (N,) is added unless it is None. Returns 0, having done nothing, where the
// arrays are others.
extern "C" int multiply(void* first, void* second, void* result, int part, void* added) {
  const ArrayFields *a = fields_of(first), *b = fields_of(second), *out = fields_of(result);
  if (!a || !b || !out) return 0;
  const int n = a->dimensions;
  if (b->dimensions != n || out->dimensions != n) return 0;
  const long *sa = (long*)a->shape, *sb = (long*)b->shape, *so = (long*)out->shape;
  const long *ta = (long*)a->strides, *tb = (long*)b->strides, *to = (long*)out->strides;
  const i64 M = sa[n - 2], K = sa[n - 1], N = sb[n - 1];
  constexpr i64 item = sizeof(REAL);
  if (sb[n - 2] != K || so[n - 2] != M || so[n - 1] != N || to[n - 1] != item) return 0;
  const REAL* bias = nullptr;
  if (added != gradlite_none) {
    const ArrayFields* own = fields_of(added, 1);
    if (!own || own->dimensions != 1 || n != 2 || ((long*)own->shape)[0] != N) return 0;
    if (((long*)own->strides)[0] != item && N > 1) return 0;
    bias = (const REAL*)own->data;
  }
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
    const Matrices all{(const REAL*)x, (const REAL*)y, (REAL*)z, am, ak, bk, bn, om, M, N, K};
    if (alone) {
      product_and_bias(all.a, am, ak, all.b, bk, bn, all.c, om, M, N, K, room, bias);
    } else if (part == ALL || (part != LOWER_RESULT && bn != 1)) {
      all.multiply(0, M, 0, K, 0, N, room);
    } else {
      multiply_part(all, part, room);
    }
  };
  if (matrices == 1) {
    one(0, true);
  } else {
    parallel(M * N * K * matrices >= SHARED, matrices, [=](i64 i) { one(i, false); });
  }
  return 1;
}
