// The activation functions: value(x), and gradient(grad, saved) with what the rule in
// gradlite/ops saves, x itself, or the result where the comment says so. Comparisons are written
// so that a NaN takes the side that the rule gives it.
#pragma once
#include "common.cuh"

struct Relu {  // saves the result
  __device__ acc_t value(acc_t x) const { return x <= 0 ? acc_t(0) : x; }
  __device__ acc_t gradient(acc_t grad, acc_t y) const { return y <= 0 ? acc_t(0) : grad; }
};

struct LeakyRelu {
  acc_t slope;
  __device__ acc_t value(acc_t x) const { return x > 0 ? x : x * slope; }
  __device__ acc_t gradient(acc_t grad, acc_t x) const { return x > 0 ? grad : grad * slope; }
};

// elu, celu and selu
struct Elu {
  acc_t alpha, scale, input_scale;
  __device__ acc_t value(acc_t x) const {
    return x <= 0 ? math::expm1(x * input_scale) * (alpha * scale) : x * scale;
  }
  __device__ acc_t gradient(acc_t grad, acc_t x) const {
    const acc_t below = math::exp(x * input_scale) * (alpha * scale * input_scale);
    return grad * (x <= 0 ? below : scale);
  }
};

// x Phi(x), Phi the normal distribution's cdf; erfc keeps its relative accuracy on the left.
struct Gelu {
  static __device__ acc_t cdf(acc_t x) {
    return acc_t(0.5) * math::erfc(x * acc_t(-0.70710678118654752));
  }
  __device__ acc_t value(acc_t x) const { return x * cdf(x); }
  __device__ acc_t gradient(acc_t grad, acc_t x) const { return grad * slope(x); }
  static __device__ double slope(double x) {
    // With erf, for fewer registers: off by no more than the last place of 1.
    const double cdf = 0.5 + 0.5 * math::erf(x * 0.70710678118654752);
    return cdf + x * (0.39894228040143268 * math::exp(-0.5 * x * x));
  }
  static __device__ float slope(float x) {
    float value;
    return slope(x, value);
  }
  // And the value.
  static __device__ double slope(double x, double& value) {
    value = x * cdf(x);
    return slope(x);
  }
  static __device__ float slope(float x, float& value) {
    float bell;
    const float cdf = Gelu::cdf(x, bell);
    value = x * cdf;
    return cdf + x * (0.39894228f * bell);
  }

 private:
  // The normal distribution's share below x, and exp(-x^2 / 2), from one exponential.
  static __device__ float cdf(float x, float& bell) {
#if defined(GRADLITE_NATIVE)
#if FLOAT_MATH_FUSES
    const float outside = 0.5f * float_math::erfc_of_magnitude(x * 0.70710678f, bell);
#else
    bell = math::exp(-0.5f * x * x);
    const float outside = 0.5f * math::erfc(math::abs(x) * 0.70710678f);
#endif
#else
    // As there: erf and exp of the C library would take more registers.
    const float magnitude = math::smaller(math::abs(x), 15.5f), a = magnitude * 0.70710678f;
    const float w = math::reciprocal(1.0f + 0.5f * a), s = 0.5f * a * w;
    const float half = 0.5f * magnitude, square = half * magnitude;
    bell = math::exp(-square);
    bell -= bell * math::lost(half, magnitude, square);
    constexpr float P[] = {3.49452645e-2f,  -1.62949264e-1f, 2.64527887e-1f, -1.68922588e-1f,
                           8.98153633e-2f,  -1.22659937e-1f, -9.35262591e-2f, 2.11101174e-1f,
                           4.86515403e-1f,  -1.25675893f,    1.0f};
    float p = P[0];
#pragma unroll
    for (int i = 1; i < 11; i++) p = p * s + P[i];
    const float outside = 0.5f * p * w * bell;
#endif
    return x > 0 ? 1 - outside : outside;
  }
};

// x (1 + tanh(u)) / 2 = x sigmoid(2 u), u = sqrt(2 / pi) (x + 0.044715 x^3)
struct GeluTanh {
  __device__ acc_t value(acc_t x) const { return x * math::sigmoid(twice(x)); }
  __device__ acc_t gradient(acc_t grad, acc_t x) const {
    const acc_t s = math::sigmoid(twice(x));
    const acc_t slope = acc_t(1.5957691216057308) * (1 + acc_t(0.134145) * x * x);
    return grad * (s + x * (s * (1 - s)) * slope);
  }

 private:
  static __device__ acc_t twice(acc_t x) {
    return acc_t(1.5957691216057308) * x * (1 + acc_t(0.044715) * x * x);
  }
};

struct Silu {
  __device__ acc_t value(acc_t x) const { return x * math::sigmoid(x); }
  __device__ acc_t gradient(acc_t grad, acc_t x) const {
    const acc_t s = math::sigmoid(x);
    return grad * (s * (1 + x * (1 - s)));
  }
};

// x tanh(log(1 + e)) = x m / (m + 1), e = exp(x), m = e (e / 2 + 1); both are 1 from x = 20 on.
struct Mish {
  __device__ acc_t value(acc_t x) const {
    const acc_t m = half(raised(x));
    return x * math::product(m, math::reciprocal(m + 1));
  }
  __device__ acc_t gradient(acc_t grad, acc_t x) const {
    const acc_t e = raised(x), m = half(e), r = math::reciprocal(m + 1), t = m * r;
    // r (1 + t) is 1 - t t without what rounding leaves of it, which a large x would multiply.
    const acc_t y = x < 20 ? x : x - x;
    return grad * (t + y * (e * math::reciprocal(1 + e)) * (r * (1 + t)));
  }

 private:
  static __device__ acc_t raised(acc_t x) { return math::exp(math::smaller(x, acc_t(20))); }
  static __device__ acc_t half(acc_t e) { return e * (acc_t(0.5) * e + 1); }
};

struct Softplus {
  acc_t beta, threshold;
  __device__ acc_t value(acc_t x) const {
    const acc_t scaled = x * beta;
    const acc_t soft = math::log1p(math::exp(-math::abs(scaled))) + math::larger(scaled, acc_t(0));
    return scaled > threshold ? x : soft * (1 / beta);
  }
  __device__ acc_t gradient(acc_t grad, acc_t x) const {
    const acc_t scaled = x * beta;
    return scaled > threshold ? grad : grad * math::sigmoid(scaled);
  }
};

struct LogSigmoid {
  __device__ acc_t value(acc_t x) const {
    return math::smaller(x, acc_t(0)) - math::log1p(math::exp(-math::abs(x)));
  }
  __device__ acc_t gradient(acc_t grad, acc_t x) const { return grad * math::sigmoid(-x); }
};

struct Sigmoid {  // saves the result
  __device__ acc_t value(acc_t x) const { return math::sigmoid(x); }
  __device__ acc_t gradient(acc_t grad, acc_t y) const { return grad * (y * (1 - y)); }
};

struct Tanh {  // saves the result
  __device__ acc_t value(acc_t x) const { return math::tanh(x); }
  __device__ acc_t gradient(acc_t grad, acc_t y) const { return grad * (1 - y * y); }
};

struct Tanhshrink {
  __device__ acc_t value(acc_t x) const { return x - math::tanh(x); }
  __device__ acc_t gradient(acc_t grad, acc_t x) const {
    const acc_t t = math::tanh(x);
    return grad * (t * t);
  }
};

struct Softsign {
  __device__ acc_t value(acc_t x) const {
    // By a quarter, which keeps what is inverted below 2^126.
    return acc_t(0.25) * x * math::reciprocal(acc_t(0.25) * (math::abs(x) + 1));
  }
  __device__ acc_t gradient(acc_t grad, acc_t x) const {
    const acc_t r = math::reciprocal(math::abs(x) + 1);
    return grad * (r * r);
  }
};

struct Hardtanh {
  acc_t low, high;
  __device__ acc_t value(acc_t x) const { return x < low ? low : x > high ? high : x; }
  __device__ acc_t gradient(acc_t grad, acc_t x) const {
    return x <= low || x >= high ? acc_t(0) : grad;
  }
};

struct Hardsigmoid {
  __device__ acc_t value(acc_t x) const {
    return Hardtanh{acc_t(0), acc_t(6)}.value(x + 3) * acc_t(1.0 / 6);
  }
  __device__ acc_t gradient(acc_t grad, acc_t x) const {
    return x > -3 && x < 3 ? grad * acc_t(1.0 / 6) : acc_t(0);
  }
};

struct Hardswish {
  __device__ acc_t value(acc_t x) const { return x * Hardsigmoid().value(x); }
  __device__ acc_t gradient(acc_t grad, acc_t x) const {
    const acc_t middle = grad * (x * acc_t(1.0 / 3) + acc_t(0.5));
    return x <= -3 ? acc_t(0) : x < 3 ? middle : grad;
  }
};

struct Hardshrink {
  acc_t lambd;
  __device__ acc_t value(acc_t x) const { return x >= -lambd && x <= lambd ? acc_t(0) : x; }
  __device__ acc_t gradient(acc_t grad, acc_t x) const {
    return x >= -lambd && x <= lambd ? acc_t(0) : grad;
  }
};

struct Softshrink {
  acc_t lambd;
  __device__ acc_t value(acc_t x) const { return x - Hardtanh{-lambd, lambd}.value(x); }
  __device__ acc_t gradient(acc_t grad, acc_t x) const {
    return Hardshrink{lambd}.gradient(grad, x);
  }
};

struct Threshold {
  acc_t threshold, otherwise;
  __device__ acc_t value(acc_t x) const { return x <= threshold ? otherwise : x; }
  __device__ acc_t gradient(acc_t grad, acc_t x) const {
    return x <= threshold ? acc_t(0) : grad;
  }
};
