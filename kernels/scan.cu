// Running sums, products, extremes and logarithms of sums, and the gradients of products.
//
// All arrays are (outer, n, inner), and what runs does so along n; see scans.cuh for the rest.
#include "places.cuh"

#include "scans.cuh"

// What runs on is kept in double precision on the CPU, where a column is walked through one element
// after another; on a GPU the parts of a column join in pairs.
#if defined(GRADLITE_NATIVE)
typedef double running_t;
#else
typedef acc_t running_t;
#endif

// ------------------------------------------------------------------------ sums and products
struct Total {
  running_t value;
  static __device__ Total none() { return {0}; }
  __device__ Total then(Total next) const { return {value + next.value}; }
};

struct Product {
  running_t value;
  static __device__ Product none() { return {1}; }
  __device__ Product then(Product next) const { return {value * next.value}; }
};

// y: what each State of one element and those before it come to.
template <class State>
DEVICE void running(const scalar_t* __restrict__ x, scalar_t* __restrict__ y,
                    const Columns& columns, void* scratch, bool leaves) {
  scan<State>(
      columns, scratch, leaves, [=](i64 at, i64) { return State{running_t(widen(x[at]))}; },
      [=](i64 at, i64, State so_far) { y[at] = narrow(acc_t(so_far.value)); });
}

KERNEL_BLOCKS(running_sum, 2)
(const scalar_t* __restrict__ x, scalar_t* __restrict__ y, void* scratch, i64 outer, i64 n,
 i64 inner, i64 parts, i64 width, i64 backwards, i64 leaves) {
  running<Total>(x, y, Columns{outer, n, inner, parts, width, backwards != 0}, scratch, leaves);
}

KERNEL_BLOCKS(running_product, 2)
(const scalar_t* __restrict__ x, scalar_t* __restrict__ y, void* scratch, i64 outer, i64 n,
 i64 inner, i64 parts, i64 width, i64 backwards, i64 leaves) {
  running<Product>(x, y, Columns{outer, n, inner, parts, width, backwards != 0}, scratch, leaves);
}

struct Count {
  i64 places;
  static __device__ Count none() { return {0}; }
  __device__ Count then(Count next) const { return {places + next.places}; }
};

// y: in how many places up to each the mask holds.
KERNEL_BLOCKS(running_count, 2)
(const bool* __restrict__ mask, i64* __restrict__ y, void* scratch, i64 outer, i64 n, i64 inner,
 i64 parts, i64 width, i64 backwards, i64 leaves) {
  scan<Count>(
      Columns{outer, n, inner, parts, width, backwards != 0}, scratch, leaves != 0,
      [=](i64 at, i64) { return Count{mask[at] ? 1 : 0}; },
      [=](i64 at, i64, Count so_far) { y[at] = so_far.places; });
}

// The line s -> factor s + value: of several, one after another.
struct Line {
  acc_t factor, value;
  static __device__ Line none() { return {1, 0}; }
  __device__ Line then(Line next) const {
    // Nothing stays nothing, also where the factors have overflowed.
    return {factor * next.factor,
            value == 0 ? next.value : next.factor * value + next.value};
  }
};

// s_j = value_j + factor_j s_(j-1), or from the end s_j = value_j + factor_(j+1) s_(j+1).
KERNEL_BLOCKS(recurrence, 2)
(const scalar_t* __restrict__ values, const scalar_t* __restrict__ factors,
 scalar_t* __restrict__ s, void* scratch, i64 outer, i64 n, i64 inner, i64 parts, i64 width,
 i64 backwards, i64 leaves) {
  scan<Line>(
      Columns{outer, n, inner, parts, width, backwards != 0}, scratch, leaves != 0,
      [=](i64 at, i64 j) {
        const bool first = j == (backwards ? n - 1 : 0);
        const i64 beside = backwards ? at + inner : at;
        return Line{first ? acc_t(0) : widen(factors[beside]), widen(values[at])};
      },
      [=](i64 at, i64, Line so_far) { s[at] = narrow(so_far.value); });
}

// ------------------------------------------------------------ the gradient of running products
// Which places they are: before the first zero of a column, that one, and those behind it.
constexpr u8 BEFORE = 0, FIRST_ZERO = 1, BEHIND = 2;

// Factors, how many of them are 0 (3: or more), the product of all and that of those behind the
// first zero.
struct Factors {
  acc_t all, behind;
  int zeros;
  static __device__ Factors none() { return {1, 1, 0}; }
  __device__ Factors then(Factors next) const {
    const int together = zeros + next.zeros;
    return {all * next.all, zeros == 0 ? next.behind : behind * next.all,
            together > 3 ? 3 : together};
  }
};

// What each result has to do with the factors: before the first zero its gradient times itself,
// to be divided by a factor; from there to the second zero, with which PyTorch's sum ends, its
// gradient times the product behind the first zero, which that one's gradient is made of.
KERNEL_BLOCKS(running_product_slopes, 2)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ x,
 const scalar_t* __restrict__ y, acc_t* __restrict__ slopes, u8* __restrict__ places,
 void* scratch, i64 outer, i64 n, i64 inner, i64 parts, i64 width, i64 backwards, i64 leaves) {
  scan<Factors>(
      Columns{outer, n, inner, parts, width, backwards != 0}, scratch, leaves != 0,
      [=](i64 at, i64) {
        const acc_t value = widen(x[at]);
        return Factors{value, 1, value == 0 ? 1 : 0};
      },
      [=](i64 at, i64, Factors so_far) {
        const bool is_zero = widen(x[at]) == 0, before = so_far.zeros == 0;
        const bool counts = so_far.zeros - is_zero <= 1;
        const acc_t product = before ? widen(y[at]) : so_far.behind;
        slopes[at] = counts ? widen(grad[at]) * product : acc_t(0);
        places[at] = before ? BEFORE : is_zero && so_far.zeros == 1 ? FIRST_ZERO : BEHIND;
      });
}

// A sum from the end, in which nothing counts of what lies behind a cut.
struct Segment {
  acc_t total;
  int cut;
  static __device__ Segment none() { return {0, 0}; }
  __device__ Segment then(Segment next) const {
    return next.cut ? next : Segment{total + next.total, cut};
  }
};

// The gradient, `backwards`, from what running_product_slopes has left.
KERNEL_BLOCKS(running_product_backward, 2)
(const acc_t* __restrict__ slopes, const u8* __restrict__ places, const scalar_t* __restrict__ x,
 const scalar_t* __restrict__ y, scalar_t* __restrict__ dx, void* scratch, i64 outer, i64 n,
 i64 inner, i64 parts, i64 width, i64 backwards, i64 leaves) {
  scan<Segment>(
      Columns{outer, n, inner, parts, width, backwards != 0}, scratch, leaves != 0,
      [=](i64 at, i64 j) {
        return Segment{slopes[at], j + 1 < n && places[at + inner] == FIRST_ZERO ? 1 : 0};
      },
      [=](i64 at, i64 j, Segment so_far) {
        acc_t slope = 0;
        if (places[at] == BEFORE) slope = so_far.total / widen(x[at]);
        if (places[at] == FIRST_ZERO) {
          slope = j > 0 ? so_far.total * widen(y[at - inner]) : so_far.total;
        }
        dx[at] = narrow(slope);
      });
}

// ------------------------------------------------------------------- the gradient of a product
DEVICE bool is_finite(acc_t value) { return value - value == 0; }

// Whether there may be a zero among the factors.
DEVICE bool may_have_zeros(acc_t product) { return product == 0 || product != product; }

// Of each part of every column whose product is 0 or NaN: the product of all that are not 0, how
// many are, and how many are infinite or NaN: partials (3, parts, outer * inner).
KERNEL(prod_parts)
(const scalar_t* __restrict__ x, const scalar_t* __restrict__ out, acc_t* __restrict__ partials,
 i64 outer, i64 n, i64 inner, i64 parts) {
  const i64 count = outer * inner, size = (n + parts - 1) / parts;
  for (i64 i = thread_index(); i < count * parts; i += thread_count()) {
    const i64 part = i / count, column = i - part * count, o = column / inner;
    if (!may_have_zeros(widen(out[column]))) continue;
    const i64 first = part * size, last = math::smaller(first + size, n);
    const scalar_t* in = x + o * n * inner + (column - o * inner);
    acc_t product = 1, zeros = 0, odd = 0;
    for (i64 j = first; j < last; j++) {
      const acc_t value = widen(in[j * inner]);
      zeros += value == 0 ? acc_t(1) : acc_t(0);
      odd += is_finite(value) ? acc_t(0) : acc_t(1);
      product *= value == 0 ? acc_t(1) : value;
    }
    partials[i] = product;
    partials[count * parts + i] = zeros;
    partials[2 * count * parts + i] = odd;
  }
}

// The gradient of the products out (outer, inner), with what prod_parts has left. That of `whole`
// arrays is 0 where several factors are, as in PyTorch.
KERNEL(prod_backward)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ x,
 const scalar_t* __restrict__ out, const acc_t* __restrict__ partials, scalar_t* __restrict__ dx,
 i64 outer, i64 n, i64 inner, i64 parts, i64 whole) {
  const i64 count = outer * inner;
  for_each_reduced(outer, n, inner, [&](i64 column, i64 i) {
    const acc_t slope = widen(grad[column]), all = widen(out[column]), own = widen(x[i]);
    acc_t product = 1, zeros = 0, odd = 0;
    if (may_have_zeros(all)) {
      for (i64 p = 0; p < parts; p++) {
        const acc_t* left = partials + p * count + column;
        product *= left[0];
        zeros += left[count * parts];
        odd += left[2 * count * parts];
      }
    }
    acc_t others;
    if (zeros == 0) {
      dx[i] = narrow(slope * all / own);
      return;
    }
    if (own == 0 && zeros == 1) {
      others = product;
    } else if (is_finite(own)) {
      others = acc_t(0) * product;  // NaN where one of them is infinite
    } else {
      others = odd > 1 ? infinity() - infinity() : acc_t(0);
    }
    if (whole && zeros > 1) others = 0;
    dx[i] = narrow(slope * others);
  });
}

// ------------------------------------------------------------------------------- logarithms
// total exp(top), of terms that may have either sign.
struct Exponentials {
  running_t top, total;
  static __device__ Exponentials none() { return {-running_t(infinity()), 0}; }
  __device__ Exponentials then(Exponentials next) const {
    const bool above = top >= next.top;
    const running_t most = above ? top : next.top, least = above ? next.top : top;
    const running_t share = least == most ? running_t(1) : math::exp(least - most);
    return {most, above ? total + next.total * share : total * share + next.total};
  }
};

// y = log(exp(x_0) + ... + exp(x_j))
KERNEL_BLOCKS(running_log_sum, 2)
(const scalar_t* __restrict__ x, scalar_t* __restrict__ y, void* scratch, i64 outer, i64 n,
 i64 inner, i64 parts, i64 width, i64 backwards, i64 leaves) {
  scan<Exponentials>(
      Columns{outer, n, inner, parts, width, backwards != 0}, scratch, leaves != 0,
      [=](i64 at, i64) {
        return Exponentials{running_t(widen(x[at])), 1};
      },
      [=](i64 at, i64, Exponentials so_far) {
        y[at] = narrow(acc_t(so_far.top + math::log(so_far.total)));
      });
}

// dx_j = exp(x_j) (g_j exp(-y_j) + g_(j+1) exp(-y_(j+1)) + ...), `backwards` being that of these.
KERNEL_BLOCKS(running_log_sum_backward, 2)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ x,
 const scalar_t* __restrict__ y, scalar_t* __restrict__ dx, void* scratch, i64 outer, i64 n,
 i64 inner, i64 parts, i64 width, i64 backwards, i64 leaves) {
  scan<Exponentials>(
      Columns{outer, n, inner, parts, width, backwards != 0}, scratch, leaves != 0,
      [=](i64 at, i64) {
        return Exponentials{-running_t(widen(y[at])), running_t(widen(grad[at]))};
      },
      [=](i64 at, i64, Exponentials so_far) {
        dx[at] = narrow(acc_t(so_far.total * math::exp(widen(x[at]) + so_far.top)));
      });
}

// --------------------------------------------------------------------------------- extremes
// The largest so far, and where it is. One that ties takes over, and so does a NaN, behind which
// nothing but a NaN counts.
template <class Value>
struct Largest {
  Value value;
  i64 at;  // -1: nowhere
  static __device__ Largest none() { return {0, -1}; }
  __device__ Largest then(Largest next) const {
    if (next.at < 0) return *this;
    const bool over = at < 0 || next.value != next.value || next.value >= value;
    return over ? next : *this;
  }
};

template <class Value, class Input, class Element>
DEVICE void running_extreme_of(const Input* __restrict__ x, i64* __restrict__ index,
                               const Columns& columns, void* scratch, bool leaves,
                               Element element) {
  scan<Largest<Value>>(
      columns, scratch, leaves,
      [=](i64 at, i64 j) {
        return Largest<Value>{element(x[at]), j};
      },
      [=](i64 at, i64, Largest<Value> so_far) { index[at] = so_far.at; });
}

// index: where the largest (`sign` 1) or smallest (-1) element so far is.
KERNEL_BLOCKS(running_extreme, 2)
(const scalar_t* __restrict__ x, i64* __restrict__ index, void* scratch, i64 outer, i64 n,
 i64 inner, i64 parts, i64 width, i64 sign, i64 leaves) {
  running_extreme_of<acc_t>(x, index, Columns{outer, n, inner, parts, width, false}, scratch,
                            leaves, [=](scalar_t value) { return widen(value) * acc_t(sign); });
}

// The same of whole numbers: ~x orders them the other way round, and cannot overflow.
KERNEL_BLOCKS(running_extreme_integers, 2)
(const i64* __restrict__ x, i64* __restrict__ index, void* scratch, i64 outer, i64 n, i64 inner,
 i64 parts, i64 width, i64 sign, i64 leaves) {
  running_extreme_of<i64>(x, index, Columns{outer, n, inner, parts, width, false}, scratch,
                          leaves, [=](i64 value) { return sign < 0 ? ~value : value; });
}
