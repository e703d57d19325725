// A layer of a small network, x @ weight.T + bias and perhaps its relu, in one call from Python each
// way: with matrices so small a call of NumPy takes longer than what it computes. Comes after
// prelude.hpp and arrays.hpp, compiled for one type of numbers, REAL.
typedef Vector<REAL>::type V;
constexpr int L = Vector<REAL>::lanes;

struct Matrix {
  REAL* at;
  i64 rows, columns, down, right;  // steps in elements
  Matrix turned() const { return {at, columns, rows, right, down}; }
};

// The array at a place of the arguments; `fits` becomes false where it is no matrix of REAL.
static Matrix matrix(void* arguments, long place, bool& fits) {
  const ArrayFields* fields = fields_of(PyTuple_GetItem(arguments, place));
  if (!fields || fields->dimensions != 2) {
    fits = false;
    return {};
  }
  const long *shape = (long*)fields->shape, *strides = (long*)fields->strides;
  constexpr long item = sizeof(REAL);
  if (strides[0] % item || strides[1] % item) fits = false;
  return {(REAL*)fields->data, shape[0], shape[1], strides[0] / item, strides[1] / item};
}

// The numbers of a contiguous vector of `count`.
static REAL* vector(void* object, i64 count, bool& fits) {
  const ArrayFields* fields = fields_of(object, 1);
  const bool right = fields && fields->dimensions == 1 && ((long*)fields->shape)[0] == count &&
                     (count < 2 || ((long*)fields->strides)[0] == sizeof(REAL));
  if (!right) fits = false;
  return right ? (REAL*)fields->data : nullptr;
}

template <int ROWS>
static inline void some_rows(const Matrix& a, i64 m, const REAL* panel, V bias, bool relu,
                             const Matrix& c, i64 n, i64 count) {
  V sum[ROWS];
  UNROLLED for (int r = 0; r < ROWS; r++) sum[r] = V{};
  for (i64 k = 0; k < a.columns; k++) {
    const V row = *(const V*)(panel + k * L);
    UNROLLED for (int r = 0; r < ROWS; r++) sum[r] += a.at[(m + r) * a.down + k * a.right] * row;
  }
  UNROLLED for (int r = 0; r < ROWS; r++) {
    V made = sum[r] + bias;
    if (relu) made = made < V{} ? V{} : made;  // NaN stays
    REAL* to = c.at + (m + r) * c.down + n;
    if (count == L) {
      *(V*)to = made;
    } else {
      memcpy(to, &made, count * sizeof(REAL));
    }
  }
}

// c = a @ b + bias, the rows of c contiguous; a vector of columns at a time.
static void product(const Matrix& a, const Matrix& b, const Matrix& c, const REAL* bias, bool relu) {
  REAL* panel = (REAL*)scratch<2>(a.columns * L * sizeof(REAL));
  for (i64 n = 0; n < b.columns; n += L) {
    const i64 count = b.columns - n < L ? b.columns - n : L;
    REAL added[L] = {};
    for (i64 l = 0; l < count && bias; l++) added[l] = bias[n + l];
    for (i64 k = 0; k < a.columns; k++) {
      const REAL* from = b.at + k * b.down + n * b.right;
      for (i64 l = 0; l < L; l++) panel[k * L + l] = l < count ? from[l * b.right] : REAL(0);
    }
    const V of_bias = *(const V*)added;
    i64 m = 0;
    for (; m + 8 <= a.rows; m += 8) some_rows<8>(a, m, panel, of_bias, relu, c, n, count);
    for (; m < a.rows; m++) some_rows<1>(a, m, panel, of_bias, relu, c, n, count);
  }
}

static bool row_major(const Matrix& c) { return c.right == 1 || c.columns < 2; }

// (x, weight, bias, out, relu): out = x @ weight.T + bias, its relu where that is no None. Returns
// 0, having done nothing, where the arrays do not fit each other.
extern "C" int layer(void* arguments) {
  bool fits = true;
  const Matrix x = matrix(arguments, 0, fits), w = matrix(arguments, 1, fits);
  const Matrix out = matrix(arguments, 3, fits);
  const REAL* bias = vector(PyTuple_GetItem(arguments, 2), w.rows, fits);
  const bool relu = PyTuple_GetItem(arguments, 4) != gradlite_none;
  if (!fits || w.columns != x.columns || out.rows != x.rows || out.columns != w.rows) return 0;
  if (!row_major(out)) return 0;
  product(x, w.turned(), out, bias, relu);
  return 1;
}

// (grad, result, x, weight, grad_x, grad_weight, grad_bias): the gradients of x, weight and bias
// from that of the layer's result, which is given where it was a relu's and else None, as are
// weight and grad_x where x has no gradient. Returns 0 as `layer` does.
extern "C" int layer_gradients(void* arguments) {
  bool fits = true;
  Matrix g = matrix(arguments, 0, fits);
  const Matrix x = matrix(arguments, 2, fits), grad_w = matrix(arguments, 5, fits);
  REAL* grad_bias = vector(PyTuple_GetItem(arguments, 6), g.columns, fits);
  if (!fits || x.rows != g.rows || grad_w.rows != g.columns || grad_w.columns != x.columns ||
      !row_major(grad_w)) {
    return 0;
  }
  Matrix w = {}, grad_x = {}, result = {};
  if (PyTuple_GetItem(arguments, 4) != gradlite_none) {
    w = matrix(arguments, 3, fits);
    grad_x = matrix(arguments, 4, fits);
    if (!fits || w.rows != g.columns || w.columns != x.columns || grad_x.rows != g.rows ||
        grad_x.columns != w.columns || !row_major(grad_x)) {
      return 0;
    }
  }
  if (PyTuple_GetItem(arguments, 1) != gradlite_none) {
    result = matrix(arguments, 1, fits);
    if (!fits || result.rows != g.rows || result.columns != g.columns) return 0;
    REAL* own = (REAL*)scratch<3>(g.rows * g.columns * sizeof(REAL) + WIDE);
    for (i64 m = 0; m < g.rows; m++) {
      const REAL* from = g.at + m * g.down;
      const REAL* made = result.at + m * result.down;
      for (i64 n = 0; n < g.columns; n++) {
        // A NaN is no number below 0, so that its gradient goes on.
        own[m * g.columns + n] = made[n * result.right] <= 0 ? REAL(0) : from[n * g.right];
      }
    }
    g = {own, g.rows, g.columns, g.columns, 1};
  }
  for (i64 n = 0; n < g.columns; n++) grad_bias[n] = 0;
  for (i64 m = 0; m < g.rows; m++) {
    for (i64 n = 0; n < g.columns; n++) grad_bias[n] += g.at[m * g.down + n * g.right];
  }
  product(g.turned(), x, grad_w, nullptr, false);
  if (grad_x.at) product(g, w, grad_x, nullptr, false);
  return 1;
}
