// Running sums, products, extremes and logarithms of sums, and the gradients of products.
//
// All arrays are (outer, n, inner), and what runs does so along n; see scans.cuh for the rest.
#include "places.cuh"

#include "scans.cuh"

// ------------------------------------------------------------------------ sums and products
struct Total {
  acc_t value;
  static __device__ Total none() { return {0}; }
  __device__ Total then(Total next) const { return {value + next.value}; }
};

struct Product {
  acc_t value;
  static __device__ Product none() { return {1}; }
  __device__ Product then(Product next) const { return {value * next.value}; }
};

KERNEL_BLOCKS(running_sum, 2)
(const scalar_t* __restrict__ x, scalar_t* __restrict__ y, void* scratch, i64 outer, i64 n,
 i64 inner, i64 parts, i64 width, i64 backwards, i64 leaves) {
  scan<Total>(
      Columns{outer, n, inner, parts, width, backwards != 0}, scratch, leaves != 0,
      [=](i64 at, i64) { return Total{widen(x[at])}; },
      [=](i64 at, i64, Total so_far) { y[at] = narrow(so_far.value); });
}

KERNEL_BLOCKS(running_product, 2)
(const scalar_t* __restrict__ x, scalar_t* __restrict__ y, void* scratch, i64 outer, i64 n,
 i64 inner, i64 parts, i64 width, i64 backwards, i64 leaves) {
  scan<Product>(
      Columns{outer, n, inner, parts, width, backwards != 0}, scratch, leaves != 0,
      [=](i64 at, i64) { return Product{widen(x[at])}; },
      [=](i64 at, i64, Product so_far) { y[at] = narrow(so_far.value); });
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

// With s_j = g_j + x_(j+1) s_(j+1), from the end, dx_j = y_(j-1) s_j: nothing is divided by, so
// that zeros are as any other factor.
KERNEL_BLOCKS(running_product_backward, 2)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ x,
 const scalar_t* __restrict__ y, scalar_t* __restrict__ dx, void* scratch, i64 outer, i64 n,
 i64 inner, i64 parts, i64 width, i64 backwards, i64 leaves) {
  scan<Line>(
      Columns{outer, n, inner, parts, width, backwards != 0}, scratch, leaves != 0,
      [=](i64 at, i64 j) {
        return Line{j + 1 < n ? widen(x[at + inner]) : acc_t(0), widen(grad[at])};
      },
      [=](i64 at, i64 j, Line so_far) {
        dx[at] = narrow(j > 0 ? widen(y[at - inner]) * so_far.value : so_far.value);
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

// The gradient of the products out (outer, inner), with what prod_parts has left.
KERNEL(prod_backward)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ x,
 const scalar_t* __restrict__ out, const acc_t* __restrict__ partials, scalar_t* __restrict__ dx,
 i64 outer, i64 n, i64 inner, i64 parts) {
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
    dx[i] = narrow(slope * others);
  });
}

// ------------------------------------------------------------------------------- logarithms
// total exp(top), of terms that may have either sign.
struct Exponentials {
  acc_t top, total;
  static __device__ Exponentials none() { return {-infinity(), 0}; }
  __device__ Exponentials then(Exponentials next) const {
    const bool above = top >= next.top;
    const acc_t most = above ? top : next.top, least = above ? next.top : top;
    const acc_t share = least == most ? acc_t(1) : math::exp(least - most);
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
        return Exponentials{widen(x[at]), 1};
      },
      [=](i64 at, i64, Exponentials so_far) {
        y[at] = narrow(so_far.top + math::log(so_far.total));
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
        return Exponentials{-widen(y[at]), widen(grad[at])};
      },
      [=](i64 at, i64, Exponentials so_far) {
        dx[at] = narrow(so_far.total * math::exp(widen(x[at]) + so_far.top));
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

// index: where the largest (`sign` 1) or smallest (-1) element so far is.
KERNEL_BLOCKS(running_extreme, 2)
(const scalar_t* __restrict__ x, i64* __restrict__ index, void* scratch, i64 outer, i64 n,
 i64 inner, i64 parts, i64 width, i64 sign, i64 leaves) {
  scan<Largest<acc_t>>(
      Columns{outer, n, inner, parts, width, false}, scratch, leaves != 0,
      [=](i64 at, i64 j) {
        return Largest<acc_t>{widen(x[at]) * acc_t(sign), j};
      },
      [=](i64 at, i64, Largest<acc_t> so_far) { index[at] = so_far.at; });
}

// The same of whole numbers: ~x orders them the other way round, and cannot overflow.
KERNEL_BLOCKS(running_extreme_integers, 2)
(const i64* __restrict__ x, i64* __restrict__ index, void* scratch, i64 outer, i64 n, i64 inner,
 i64 parts, i64 width, i64 sign, i64 leaves) {
  scan<Largest<i64>>(
      Columns{outer, n, inner, parts, width, false}, scratch, leaves != 0,
      [=](i64 at, i64 j) {
        return Largest<i64>{sign < 0 ? ~x[at] : x[at], j};
      },
      [=](i64 at, i64, Largest<i64> so_far) { index[at] = so_far.at; });
}
