// Functions of elements of NumPy's arrays outside of captured steps, and gradients of some; comes
// after prelude.hpp, gamma.hpp and arrays.hpp, compiled for one type of numbers, REAL. What is
// defined here are the kinds of functions; each of backends/elements.py is a library of its own.

static constexpr i64 CHUNK = 1 << 14, WORTH_THREADS = 1 << 17;

// How many elements an array has.
static inline i64 size_of(const ArrayFields* array) {
  i64 size = 1;
  for (int d = 0; d < array->dimensions; d++) size *= ((long*)array->shape)[d];
  return size;
}

// How many elements row-major arrays have; -1 where they are anything else.
static inline i64 common_size(const ArrayFields* first, const ArrayFields* second) {
  if (!first || !second || !(first->flags & second->flags & ROW_MAJOR)) return -1;
  const i64 size = size_of(first);
  return size == size_of(second) ? size : -1;
}

template <class Body>
static inline void in_chunks(i64 n, const Body& body) {
  const OthersRun others(n >= WORTH_THREADS);
  parallel(n >= WORTH_THREADS, (n + CHUNK - 1) / CHUNK, [=](i64 chunk) {
    const i64 left = n - chunk * CHUNK;
    body(chunk * CHUNK, left < CHUNK ? left : CHUNK);
  });
}

// What stands around all functions: 0, and nothing done, where the arrays do not fit, else 1.
// The body gets the elements of a chunk of each, and how many they are.
template <class From, class To, class Body>
static inline int of_one(const ArrayFields* from, const ArrayFields* to, const Body& body) {
  const i64 n = common_size(from, to);
  if (n < 0) return 0;
  const From* const x = (const From*)from->data;
  To* const y = (To*)to->data;
  in_chunks(n, [=](i64 first, i64 count) { body(x + first, y + first, count); });
  return 1;
}
template <class Body>
static inline int of_one(void* array, void* result, const Body& body) {
  return of_one<REAL, REAL>(fields_of(array, 0), fields_of(result, 0), body);
}

// The second array may be a single element, of which the body is told.
template <class Body>
static inline int of_two(void* first, void* second, void* result, const Body& body) {
  const ArrayFields *a = fields_of(first, 0), *b = fields_of(second, 0), *to = fields_of(result, 0);
  const i64 n = common_size(a, to);
  if (n < 0 || !b || !(b->flags & ROW_MAJOR)) return 0;
  const bool single = size_of(b) == 1;
  if (!single && size_of(b) != n) return 0;
  const REAL *const x = (const REAL*)a->data, *const y = (const REAL*)b->data;
  REAL* const z = (REAL*)to->data;
  in_chunks(n, [=](i64 start, i64 count) {
    body(x + start, single ? y : y + start, single, z + start, count);
  });
  return 1;
}

// The arrays are a gradient, what is saved, and the result, all of one size.
template <class Body>
static inline int of_gradient(void* grad, void* saved, void* result, const Body& body) {
  const ArrayFields *by = fields_of(grad, 0), *from = fields_of(saved, 0);
  const ArrayFields* to = fields_of(result, 0);
  const i64 n = common_size(from, to);
  if (n < 0 || common_size(by, to) != n) return 0;
  const REAL *const g = (const REAL*)by->data, *const x = (const REAL*)from->data;
  REAL* const dx = (REAL*)to->data;
  in_chunks(n, [=](i64 first, i64 count) { body(g + first, x + first, dx + first, count); });
  return 1;
}

// of_name(x, y): y = the function of x.
#define VALUES(name, value)                                                                    \
  extern "C" int of_##name(void* array, void* result) {                                        \
    return of_one(array, result, [](const REAL* in, REAL* y, i64 count) {                      \
      LOOP for (i64 i = 0; i < count; i++) {                                                   \
        const REAL x = in[i];                                                                  \
        y[i] = value;                                                                          \
      }                                                                                        \
    });                                                                                        \
  }

// of_name(grad, saved, dx): dx = the gradient g times the slope at a saved value, which is x.
#define SLOPES(name, slope)                                                                    \
  extern "C" int of_##name(void* grad, void* saved, void* result) {                            \
    return of_gradient(grad, saved, result, [](const REAL* by, const REAL* in, REAL* dx, i64 n) { \
      LOOP for (i64 i = 0; i < n; i++) {                                                       \
        const REAL g = by[i], x = in[i];                                                       \
        dx[i] = slope;                                                                         \
      }                                                                                        \
    });                                                                                        \
  }

// of_name(x, y, z): z = the function of x and y, of which y may be a single element.
#define VALUES_OF_TWO(name, function)                                                          \
  extern "C" int of_##name(void* first, void* second, void* result) {                          \
    const auto body = [](const REAL* x, const REAL* y, bool single, REAL* z, i64 count) {      \
      if (single) {                                                                            \
        const REAL number = *y;                                                                \
        LOOP for (i64 i = 0; i < count; i++) z[i] = function(x[i], number);                    \
      } else {                                                                                 \
        LOOP for (i64 i = 0; i < count; i++) z[i] = function(x[i], y[i]);                      \
      }                                                                                        \
    };                                                                                         \
    return of_two(first, second, result, body);                                                \
  }

// The remainder of a division of magnitudes whose quotient is below `MOST`: exact, because the
// product is subtracted before anything is rounded.
static constexpr REAL MOST = sizeof(REAL) == 4 ? 8388608 : 4503599627370496.0;
static inline REAL small_remainder(REAL x, REAL y, REAL quotient) {
  const REAL whole = f_trunc(quotient);
  REAL rest = float_math::fused(-whole, y, x);
  rest = rest < 0 ? rest + y : rest;
  rest = rest >= y ? rest - y : rest;
  return whole == 0 ? x : rest;
}

// C's fmod. Elements whose quotient is large, or no number, go by one by one.
template <class Finish>
static inline void remainders(const REAL* x, const REAL* y, bool single, REAL* z, i64 count,
                              Finish finish) {
  int odd = 0;
  const auto each = [&](i64 i, REAL b) {
    const REAL a = f_abs(x[i]), m = f_abs(b), quotient = a / m;
    odd |= !(quotient < MOST && FLOAT_MATH_FUSES);
    z[i] = finish(x[i], b, f_copysign(small_remainder(a, m, quotient), x[i]));
  };
  if (single) {
    const REAL number = *y;
    LOOP for (i64 i = 0; i < count; i++) each(i, number);
  } else {
    LOOP for (i64 i = 0; i < count; i++) each(i, y[i]);
  }
  for (i64 i = 0; odd && i < count; i++) {
    const REAL b = single ? *y : y[i], quotient = f_abs(x[i]) / f_abs(b);
    if (!(quotient < MOST && FLOAT_MATH_FUSES)) z[i] = finish(x[i], b, f_fmod(x[i], b));
  }
}

// of_name(x, y, z) by C's fmod of x and y.
#define BY_REMAINDER(name, finish)                                                             \
  extern "C" int of_##name(void* first, void* second, void* result) {                          \
    const auto body = [](const REAL* x, const REAL* y, bool single, REAL* z, i64 count) {      \
      remainders(x, y, single, z, count, [](REAL x, REAL y, REAL r) { return finish(x, y, r); }); \
    };                                                                                         \
    return of_two(first, second, result, body);                                                \
  }

static inline REAL rest_itself(REAL, REAL, REAL rest) { return rest; }
static inline REAL of_divisor(REAL, REAL y, REAL rest) {
  return (rest != 0) & ((rest < 0) != (y < 0)) ? rest + y : rest;
}

// The quotient rounded down, as PyTorch has it.
static inline REAL floored(REAL x, REAL y, REAL rest) {
  REAL quotient = (x - rest) / y;
  quotient = (rest != 0) & ((rest < 0) != (y < 0)) ? quotient - 1 : quotient;
  const REAL down = f_floor(quotient), whole = quotient - down > REAL(0.5) ? down + 1 : down;
  const REAL divided = x / y, result = quotient == 0 ? f_copysign(REAL(0), divided) : whole;
  return y == 0 ? divided : result;
}

// The length of (x, y), of floats.
static inline float length_of(float x, float y) {
  const double square = double(x) * x + double(y) * y;
  const float infinite = __builtin_inff(), length = float(__builtin_sqrt(square));
  return (f_abs(x) == infinite) | (f_abs(y) == infinite) ? infinite : length;
}

// log(exp(x) + exp(y)), and the same of powers of 2.
static inline REAL log_sum(REAL x, REAL y) {
  const REAL high = x > y ? x : y, apart = -f_abs(x - y);
  const REAL sum = high + f_log1p(f_exp(apart));
  const REAL same = x == y ? x + REAL(0.693147180559945309417232121458) : sum;
  return x != x ? x : y != y ? y : same;
}
static inline REAL log2_sum(REAL x, REAL y) {
  const REAL high = x > y ? x : y;
  const REAL apart = -f_abs(x - y) * REAL(0.693147180559945309417232121458);
  const REAL sum = high + f_log1p(f_exp(apart)) * REAL(1.44269504088896340735992468100);
  const REAL same = x == y ? x + 1 : sum;
  return x != x ? x : y != y ? y : same;
}

// Some elements as a vector of double precision, and back.
static inline Doubles widened(const REAL* x) {
  typedef REAL Narrow __attribute__((vector_size(Vector<double>::lanes * sizeof(REAL))));
  Narrow some;
  memcpy(&some, x, sizeof some);
  return __builtin_convertvector(some, Doubles);
}
static inline void narrow_to(REAL* y, Doubles x) {
  typedef REAL Narrow __attribute__((vector_size(Vector<double>::lanes * sizeof(REAL))));
  const Narrow some = __builtin_convertvector(x, Narrow);
  memcpy(y, &some, sizeof some);
}

// VALUES and SLOPES by a function of vectors.
template <class Function>
static inline void by_vectors(const REAL* x, const REAL* g, REAL* y, i64 n, Function function) {
  constexpr i64 L = Vector<double>::lanes;
  for (i64 i = 0; i < n; i += L) {
    if (i + L <= n) {
      narrow_to(y + i, function(widened(x + i)) * (g ? widened(g + i) : 1 + Doubles{}));
      continue;
    }
    REAL in[L] = {}, by[L] = {}, out[L];
    memcpy(in, x + i, (n - i) * sizeof(REAL));
    if (g) memcpy(by, g + i, (n - i) * sizeof(REAL));
    narrow_to(out, function(widened(in)) * (g ? widened(by) : 1 + Doubles{}));
    memcpy(y + i, out, (n - i) * sizeof(REAL));
  }
}

#define VECTOR_VALUES(name, function)                                                          \
  extern "C" int of_##name(void* array, void* result) {                                        \
    return of_one(array, result, [](const REAL* x, REAL* y, i64 count) {                       \
      by_vectors(x, nullptr, y, count, [](Doubles v) { return function(v); });                 \
    });                                                                                        \
  }
#define VECTOR_SLOPES(name, function)                                                          \
  extern "C" int of_##name(void* grad, void* saved, void* result) {                            \
    return of_gradient(grad, saved, result, [](const REAL* g, const REAL* x, REAL* y, i64 n) { \
      by_vectors(x, g, y, n, [](Doubles v) { return function(v); });                           \
    });                                                                                        \
  }

// The inverse of erf to single precision: of w = -log(1 - x^2), and of its root where w is large.
static constexpr double INVERSE_OF_ERF[] = {
    1.6235420065379758,     0.724891212429142,      -0.05164322414497104, -0.022576901174316103,
    0.015800080752242502,   -0.003090200161011726,  -0.0012749617913218436,
    0.0009847823061570776,  -0.00015357983924381842, -0.00010954506603998741,
    6.308810151163501e-05,  -2.6335767890971784e-06, -7.739518575848051e-06,
    2.0300305425385424e-06};
static constexpr double INVERSE_OF_ERF_FAR[] = {
    0.9493043746673969,     0.014219856841663395,   -0.002652993551684011,
    0.0002630993150787447,  5.101044943673446e-05,  -3.8380554733192394e-05,
    1.2475627350855941e-05, -1.9432449905088134e-06, -5.990381084868569e-07,
    3.6418046252862697e-07};
static inline Doubles inverse_of_erf(Doubles x) {
  const Doubles a = magnitude(x), left = (1 - a) * (1 + a), w = -log_of(left);
  const Doubles bounded = w < 6 ? w : 6 + Doubles{}, wide = w > 6 ? w : 6 + Doubles{};
  Doubles root;
  for (i64 l = 0; l < Vector<double>::lanes; l++) root[l] = __builtin_sqrt(wide[l]);
  const Doubles near = x * power_series(INVERSE_OF_ERF, (bounded - 3) * (1. / 3));
  const Doubles far =
      root * power_series(INVERSE_OF_ERF_FAR, (root - 3.274744871391589) * 1.211746483401143);
  const Doubles signed_far = x < 0 ? -far : far, result = w < 6 ? near : signed_far;
  const Doubles infinite = x * __builtin_inf(), none = __builtin_nan("") + Doubles{};
  const Doubles inside = a == 1 ? infinite : result;
  return a <= 1 ? inside : none;
}

// To and from half precision, whose dtypes the caller knows, in operations that there are for
// vectors everywhere. Rounding is to the nearest, ties to even.
static inline void* dtype_in(void* array) {
  char* const header = static_cast<char*>(array) + GRADLITE_OBJECT_HEADER;
  return reinterpret_cast<ArrayFields*>(header)->dtype;
}
static inline u16 float16_of(float x) {
  const u32 word = bits<u32>(x), size = word & 0x7fffffffu, sign = word >> 16 & 0x8000u;
  const u32 rounded = (size - 0x38000000u + 0xfffu + (size >> 13 & 1u)) >> 13;
  const u32 bounded = rounded < 0x7c00u ? rounded : 0x7c00u;
  // A number below the normal ones is rounded where it is added to a half.
  const u32 denormal = bits<u32>(bits<float>(size) + 0.5f) - 0x3f000000u;
  const u32 finite = size < 0x38800000u ? denormal : bounded;
  return u16(sign | (size > 0x7f800000u ? 0x7e00u | (size >> 13 & 0x3ffu) : finite));
}
static inline float of_float16(u16 half) {
  const u32 size = half & 0x7fffu, sign = u32(half & 0x8000u) << 16;
  const u32 normal = (size << 13) + 0x38000000u, special = (size << 13) | 0x7f800000u;
  const u32 denormal = bits<u32>(float(int(size)) * 5.9604644775390625e-8f);
  const u32 finite = size < 0x400u ? denormal : normal;
  return bits<float>(sign | (size >= 0x7c00u ? special : finite));
}
static inline u16 bfloat16_of(float x) {
  const u32 whole = bits<u32>(x), rounded = (whole + 0x7fffu + ((whole >> 16) & 1u)) >> 16;
  return u16((whole & 0x7fffffffu) > 0x7f800000u ? whole >> 16 | 0x40u : rounded);
}
static inline float of_bfloat16(u16 half) { return bits<float>(u32(half) << 16); }
#define CASTS(name, From, To, function)                                                        \
  extern "C" int of_##name(void* array, void* result) {                                        \
    const ArrayFields* from = fields_of(array, 0, dtype_in(array));                            \
    const ArrayFields* to = fields_of(result, 0, dtype_in(result));                            \
    return of_one<From, To>(from, to, [](const From* x, To* y, i64 count) {                    \
      LOOP for (i64 i = 0; i < count; i++) y[i] = function(x[i]);                              \
    });                                                                                        \
  }
