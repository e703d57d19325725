// Products of NumPy's arrays outside of captured steps, called from Python with the arrays
// themselves; comes after products.hpp and what that needs, and arrays.hpp. Compiled for one type
// of numbers, REAL.

// out = a @ b for stacks of matrices of one shape, the rows of `out` contiguous; to single matrices
// a bias (N,) is added unless it is None. Returns 0, having done nothing, where the arrays are others.
extern "C" int multiply(void* first, void* second, void* result, void* added) {
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
    REAL *const room = (REAL*)scratch<1>(wanted), *const c = (REAL*)z;
    const REAL *const a = (const REAL*)x, *const b = (const REAL*)y;
    if (alone) {
      product_and_bias(a, am, ak, b, bk, bn, c, om, M, N, K, room, bias);
    } else {
      part_of_product(a, am, ak, b, bk, bn, c, om, M, N, K, room, (const REAL*)nullptr);
    }
  };
  if (matrices == 1) {
    one(0, true);
  } else {
    parallel(M * N * K * matrices >= SHARED, matrices, [=](i64 i) { one(i, false); });
  }
  return 1;
}
