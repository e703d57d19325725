// Elementwise functions of one and of two arrays that take an array library several steps: what
// they are, and their gradients. Which function it is says a number, the same for all elements.
//
// Operands are broadcast (operands.cuh). One that is not read has a null pointer, and so has a
// gradient that is not wanted.
#include "operands.cuh"

// ------------------------------------------------------------------------------ mathematics
namespace math {
#if GRADLITE_ON_CPU
DEVICE float sinh(float x) { return __builtin_sinhf(x); }
DEVICE float cosh(float x) { return __builtin_coshf(x); }
DEVICE float fmod(float x, float y) { return __builtin_fmodf(x, y); }
DEVICE double sinh(double x) { return __builtin_sinh(x); }
DEVICE double cosh(double x) { return __builtin_cosh(x); }
DEVICE double fmod(double x, double y) { return __builtin_fmod(x, y); }
#else
DEVICE float sinh(float x) { return ::sinhf(x); }
DEVICE float cosh(float x) { return ::coshf(x); }
DEVICE float fmod(float x, float y) { return ::fmodf(x, y); }
DEVICE double sinh(double x) { return ::sinh(x); }
DEVICE double cosh(double x) { return ::cosh(x); }
DEVICE double fmod(double x, double y) { return ::fmod(x, y); }
#endif
}  // namespace math

// The sign of y, the remainder of a division that is rounded down, as Python's %.
DEVICE acc_t remainder_of(acc_t x, acc_t y) {
  const acc_t rest = math::fmod(x, y);
  return rest != 0 && (rest < 0) != (y < 0) ? rest + y : rest;
}

// What is left of x without the remainder, as Python's //: x / y itself may round up to it.
DEVICE acc_t quotient_of(acc_t x, acc_t y) {
  if (y == 0) return x / y;
  const acc_t rest = math::fmod(x, y);
  acc_t quotient = (x - rest) / y;
  if (rest != 0 && (rest < 0) != (y < 0)) quotient -= 1;
  if (quotient == 0) {
    const acc_t exact = x / y;
    return exact < 0 ? acc_t(-0.0) : exact > 0 ? acc_t(0) : exact;
  }
  const acc_t down = math::floor(quotient);
  return quotient - down > acc_t(0.5) ? down + 1 : down;
}

DEVICE acc_t truncated(acc_t x) { return x < 0 ? -math::floor(-x) : math::floor(x); }

// d/dx sin(a) / a with a = pi x. Near 0 its terms would be as large as their difference is small.
DEVICE acc_t slope_of_sinc(acc_t x) {
  constexpr acc_t PI = acc_t(3.14159265358979324);
  const acc_t a = x * PI, square = a * a;
  if (square > acc_t(0.25) || x != x) return (math::cos(a) * a - math::sin(a)) / (a * x);
  acc_t sum = acc_t(1.0 / 518918400);
  sum = acc_t(-1.0 / 3991680) + square * sum;
  sum = acc_t(1.0 / 45360) + square * sum;
  sum = acc_t(-1.0 / 840) + square * sum;
  sum = acc_t(1.0 / 30) + square * sum;
  return PI * a * (acc_t(-1.0 / 3) + square * sum);
}

// -------------------------------------------------------------------------------- of one array
// Functions are called for each element, and not copied for each lane of a pack: there are many.
// Their numbers are those that gradlite/ops/pointwise.py knows them by, here and below.
CALLED acc_t value_of(int function, acc_t a, acc_t b, acc_t x) {
  switch (function) {
    case 0: return 1 / math::sqrt(x);
    case 1:  // logit of what lies between a and b
      x = x < a ? a : x;
      x = x > b ? b : x;
      return math::log(x / (1 - x));
    case 2:  // entropy
      return x < 0 ? -infinity() : x == 0 ? acc_t(0) : -x * math::log(x);
    case 3: return math::sign(x);
    case 4:  // the angle in the complex plane
      return x < 0 ? acc_t(3.14159265358979324) : x == x ? acc_t(0) : x;
    case 5: return -math::log(a - math::log1p(-x));  // a draw of Gumbel's from a uniform one
    case 6: return x > a ? a / (x + b) : acc_t(1);   // what brings a size down to a
    case 7: return math::pow(x * a, b);
    default:
      x *= acc_t(3.14159265358979324);
      return x == 0 ? acc_t(1) : math::sin(x) / x;
  }
}

KERNEL_BLOCKS(unary_forward, 4)
(const scalar_t* __restrict__ x, scalar_t* __restrict__ y, i64 n, i64 function, double first,
 double second) {
  scalar_t* const out[1] = {y};
  map(
      n, out,
      [=](acc_t* to, acc_t v) {
        to[0] = value_of(int(function), acc_t(first), acc_t(second), v);
      },
      Operand{x, 1, n});
}

// x is the input, or the result where the comment says so.
CALLED acc_t slope_of(int function, acc_t a, acc_t b, acc_t g, acc_t x) {
  switch (function) {
    case 0: return g * (x * a);  // squares; exp2's result
    case 1: return g / (x * a);  // sqrt's result; log2, log10
    case 2: return g * (x + 1);  // expm1's result
    case 3: return g / (x + 1);  // log1p
    case 4: return g * acc_t(-0.5) * (x * x * x);  // rsqrt's result
    case 5: return -g * (x * x);                    // reciprocal's result
    case 6: return g * math::sign(x);
    case 7: return g * math::cos(x);
    case 8: return -g * math::sin(x);
    case 9: return g * (x * x + 1);       // tan's result
    case 10: return g / (1 + a * x * x);  // atan, atanh
    case 11: return a * g / math::sqrt(1 - x * x);
    case 12: return g / math::sqrt(x * x + a);
    case 13: return g * math::cosh(x);
    case 14: return g * math::sinh(x);
    case 15: return g * (math::exp(b * (x * x)) * a);  // erf and erfc; erfinv's result
    case 16:  // logit, which has no slope beyond its bounds, and without them is none itself there
      return (x < a) | (x > b) ? acc_t(0) : g / (x * (1 - x));
    case 17: return (x < 0) | (x > 1) ? infinity() - infinity() : g / (x * (1 - x));
    case 18: return x == 0 ? x : g * slope_of_sinc(x);
    case 19: return g * (-math::log(x) - 1);  // entropy
    case 20: return g * (a * math::pow(x, a - 1));
    case 21: return math::abs(x) < infinity() ? g : acc_t(0);  // what was no finite number is one
    case 22: return x > a ? -g * a / ((x + b) * (x + b)) : acc_t(0);  // a / (x + b)
    default: return x == 0 ? acc_t(0) : g * (a * b * math::pow(x * a, b - 1));  // (a x)^b, flat at 0
  }
}

KERNEL_BLOCKS(unary_backward, 4)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ saved, scalar_t* __restrict__ dx,
 i64 n, i64 function, double first, double second, i64 grad_inner, i64 grad_size) {
  scalar_t* const out[1] = {dx};
  map(
      n, out,
      [=](acc_t* to, acc_t g, acc_t x) {
        to[0] = slope_of(int(function), acc_t(first), acc_t(second), g, x);
      },
      Operand{grad, grad_inner, grad_size}, Operand{saved, 1, n});
}

// ------------------------------------------------------------------------------- of two arrays
DEVICE acc_t value_of_two(int function, acc_t x, acc_t y) {
  switch (function) {
    case 0: return remainder_of(x, y);
    case 1: return x == 0 && y == y ? acc_t(0) : x * math::log(y);
    case 2: return x == 0 && y == y ? acc_t(0) : x * math::log1p(y);
    default: return quotient_of(x, y);
  }
}

// Without y, the number is its only element.
KERNEL(binary_forward)
(const scalar_t* __restrict__ x, const scalar_t* __restrict__ y, scalar_t* __restrict__ result,
 i64 n, i64 function, double number, i64 x_inner, i64 x_size, i64 y_inner, i64 y_size) {
  const Operand left{x, x_inner, x_size}, right{y, y_inner, y_size};
  ROLLED
  for (i64 i = thread_index(); i < n; i += thread_count()) {
    const acc_t w = y ? right.at(i) : acc_t(number);
    result[i] = narrow(value_of_two(int(function), left.at(i), w));
  }
}

struct Slopes {
  acc_t by_x, by_y;
};
struct Given {
  acc_t g, x, y, z;
};

// z is the result, or what stands in the rule beside x and y.
DEVICE Slopes slopes_of(int function, acc_t a, acc_t g, acc_t x, acc_t y, acc_t z) {
  switch (function) {
    case 0: return {g / y, -(g / y) * (x / y)};  // a quotient
    case 1: {  // the angle of (y, x), which has no slope at the origin
      const acc_t square = x * x + y * y, scale = square == 0 ? acc_t(0) : g / square;
      return {scale * y, -scale * x};
    }
    case 2: return {g * (x / z), g * (y / z)};  // the length of (x, y)
    case 3:  // the remainder of a division that is rounded down, and with a towards 0
      return {g, -g * (a == 0 ? math::floor(x / y) : truncated(x / y))};
    case 4:  // log(exp(a x) + exp(a y)) / a
      return {g * math::sigmoid((x - y) * a), g * math::sigmoid((y - x) * a)};
    case 5: return {g * (math::sign(x) * math::sign(z)), acc_t(0)};  // |x| with the sign of z
    case 6: {  // the larger one (a 1) or the smaller one (-1), the first of equal ones, no NaN
      const bool is_first = (a > 0 ? x >= y : x <= y) || y != y;
      return {is_first ? g : acc_t(0), is_first ? acc_t(0) : g};
    }
    case 7:  // x log(y), flat where x = 0 and y <= 0
      return {x == 0 && y <= 0 ? acc_t(0) : g * math::log(y), g * x / y};
    case 8:  // x log(1 + y)
      return {x == 0 && y <= -1 ? acc_t(0) : g * math::log1p(y), g * x / (y + 1)};
    case 9: return {g * (1 - a), g * a};  // x + a (y - x)
    case 10: {  // the larger one (a 1) or the smaller one (-1): half to equal ones, all to a NaN
      const acc_t share = x == y ? g * acc_t(0.5) : g;
      const bool not_x = a > 0 ? x < y : x > y, not_y = a > 0 ? x > y : x < y;
      return {not_x ? acc_t(0) : share, not_y ? acc_t(0) : share};
    }
    default: {  // a power, which z is: flat by x where y is 0, and by y where x = 0 and y >= 0
      const bool flat = x == 0 && y >= 0;
      return {g * (y == 0 ? acc_t(0) : y * math::pow(x, y - 1)),
              g * (flat ? acc_t(0) : z * math::log(x))};
    }
  }
}

// The last operand is not broadcast.
KERNEL(binary_backward)
(const scalar_t* __restrict__ grad, const scalar_t* x, const scalar_t* y, const scalar_t* z,
 scalar_t* __restrict__ dx, scalar_t* __restrict__ dy, i64 n, i64 function, double number,
 i64 grad_inner, i64 grad_size, i64 x_inner, i64 x_size, i64 y_inner, i64 y_size) {
  const Operand slope{grad, grad_inner, grad_size};
  const Operand left{x, x_inner, x_size}, right{y, y_inner, y_size};
  const auto read = [=](i64 i) {
    return Given{slope.at(i), x ? left.at(i) : acc_t(0), y ? right.at(i) : acc_t(0),
                 z ? widen(z[i]) : acc_t(0)};
  };
  i64 i = thread_index();
  if (i >= n) return;
  Given next = read(i);
  ROLLED
  while (i < n) {
    // The next ones are on their way while these are computed.
    const Given now = next;
    const i64 at = i;
    i += thread_count();
    if (i < n) next = read(i);
    const Slopes slopes = slopes_of(int(function), acc_t(number), now.g, now.x, now.y, now.z);
    if (dx) dx[at] = narrow(slopes.by_x);
    if (dy) dy[at] = narrow(slopes.by_y);
  }
}

// Of a product, which is there too often to be called for.
KERNEL(product_backward)
(const scalar_t* __restrict__ grad, const scalar_t* x, const scalar_t* y,
 scalar_t* __restrict__ dx, scalar_t* __restrict__ dy, i64 n, i64 grad_inner, i64 grad_size,
 i64 x_inner, i64 x_size, i64 y_inner, i64 y_size) {
  scalar_t* const out[2] = {dx, dy};
  map(
      n, out,
      [](acc_t* to, acc_t g, acc_t v, acc_t w) {
        to[0] = g * w;
        to[1] = g * v;
      },
      Operand{grad, grad_inner, grad_size}, Operand{x, x_inner, x_size},
      Operand{y, y_inner, y_size});
}
