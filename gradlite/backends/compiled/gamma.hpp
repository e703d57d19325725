// The logarithm of the gamma function and its derivatives, of vectors of double precision; comes
// after prelude.hpp. Those of floats are computed so too: near their zeros they are what large
// terms have left of each other. Compilers find no vectors in loops with so many choices.
//
// Negative arguments are reflected; from 10 on Stirling's series has double precision (Abramowitz
// and Stegun, Handbook of Mathematical Functions, chapter 6). The polynomials are Chebyshev fits of
// our own, made with 60 digits.

typedef Vector<double>::type Doubles;
typedef u64 Words __attribute__((vector_size(WIDE)));

// The sum of c[k] x^k.
template <int N>
static inline Doubles power_series(const double (&c)[N], Doubles x) {
  Doubles sum = c[N - 1] + Doubles{};
  for (int k = N - 2; k >= 0; k--) sum = sum * x + c[k];
  return sum;
}

static constexpr double PI = 3.14159265358979323846, ASYMPTOTIC = 10;
// B(2k) / (2k (2k - 1)), of Stirling's series, B(2k) / 2k and B(2k), of its derivatives.
static constexpr double STIRLING[] = {
    1. / 12,   -1. / 360,      1. / 1260, -1. / 1680,
    1. / 1188, -691. / 360360, 1. / 156,  -3617. / 122400};
static constexpr double OF_DIGAMMA[] = {
    1. / 12, -1. / 120, 1. / 252, -1. / 240, 1. / 132, -691. / 32760, 1. / 12, -3617. / 8160};
static constexpr double OF_TRIGAMMA[] = {
    1. / 6, -1. / 30, 1. / 42, -1. / 30, 5. / 66, -691. / 2730, 7. / 6, -3617. / 510};
// (log(1 + s) - log(1 - s) - 2 s) / s^3 of s^2 for |s| <= 0.1716.
static constexpr double OF_LOGARITHM[] = {
    0.666666666666667,   0.39999999999899505, 0.28571428625975487, 0.2222221113479508,
    0.18182889125261723, 0.15331721600556042, 0.14616449685043406};
// log gamma(2 + z) / z for |z| <= 1/2.
static constexpr double NEAR_TWO[] = {
    0.42278433509846713, 0.3224670334241132, -0.06735230105319563, 0.02058080842778338,
    -0.007385551028935545, 0.002890510330865901, -0.0011927539009983087, 0.0005096695196526673,
    -0.00022315497746292723, 9.945761692157133e-05, -4.4923727564247656e-05,
    2.050601970174762e-05, -9.45628851510172e-06, 4.3828545383846665e-06,
    -1.9743106888421067e-06, 9.242852225162277e-07, -5.811277768921246e-07,
    2.7475390051909663e-07};
// sin(pi r) / r and cos(pi r) of r^2 for |r| <= 1/2.
static constexpr double OF_SINE[] = {
    3.141592653589793, -5.167712780049969, 2.5501640398773007, -0.5992645293189447,
    0.0821458865731029, -0.007370430505916944, 0.0004662998161898394, -2.1903497074626018e-05,
    7.697826768224191e-07};
static constexpr double OF_COSINE[] = {
    1.0, -4.934802200544676, 4.058712126416497, -1.335262768843447, 0.23533063012953284,
    -0.025806888737002202, 0.0019295562724817132, -0.00010456655338748738,
    4.149564353942586e-06};

// The nearest whole numbers: those of large numbers are the numbers themselves.
static inline Doubles whole(Doubles x) {
  constexpr double LARGE = 6755399441055744.0;  // 1.5 * 2^52
  const Doubles near = (x + LARGE) - LARGE;
  return x < 1e15 ? (x > -1e15 ? near : x) : x;
}

// log x, for x that is not infinite.
static inline Doubles log_of(Doubles x) {
  const auto denormal = x < 2.2250738585072014e-308;
  const Doubles y = denormal ? x * 18014398509481984.0 : x;  // 2^54
  // y = 2^n m with m from sqrt(1/2) to sqrt(2), and log m = 2 artanh(s).
  const Words word = (Words)y;
  const Words raised = (word + (0x3ff0000000000000ull - 0x3fe6a09e667f3bcdull)) >> 52;
  const Doubles m = (Doubles)(word - ((raised - 1023) << 52));
  Doubles n = (Doubles)(raised | 0x4330000000000000ull) - (4503599627370496.0 + 1023.0);
  n = denormal ? n - 54.0 : n;
  const Doubles s = (m - 1) / (m + 1), square = s * s;
  const Doubles rest = s * square * power_series(OF_LOGARITHM, square);
  const Doubles result = n * 0.693147180559945309417232121458 + (rest + 2 * s);
  const Doubles other = x == 0 ? -__builtin_inf() + Doubles{} : __builtin_nan("") + Doubles{};
  return x > 0 ? result : other;
}

static inline Doubles magnitude(Doubles x) { return x < 0 ? -x : x; }

// log |gamma(x)|; infinite at 0, -1, -2, ...
static inline Doubles log_gamma(Doubles value) {
  const Doubles one = 1 + Doubles{};
  Doubles x = value > 1e306 ? 1e306 + Doubles{} : value;  // infinities as well
  x = x < -1e300 ? -1e300 + Doubles{} : x;
  const Doubles y = x < 0 ? 1 - x : x, n = whole(y), z = y - n;
  // gamma(y) is gamma(2 + z) times the numbers from 2 + z to y - 1, or over those from y to 1 + z.
  Doubles product = (n < 2 ? y : one) * (n < 1 ? 1 + y : one);
  for (int k = 2; k < int(ASYMPTOTIC); k++) product *= k < n ? k + z : one;
  const auto far = y >= ASYMPTOTIC;
  const Doubles w = 1 / (far ? y : one), log = log_of(far ? y : product);
  const Doubles near = z * power_series(NEAR_TWO, z) + (n < 2 ? -log : log);
  const Doubles series = (y - 0.5) * log - y + 0.918938533204672741780329736406 +
                         w * power_series(STIRLING, w * w);
  const Doubles right = far ? series : near;
  const Doubles r = x - whole(x), sine = r * power_series(OF_SINE, r * r) * (1 / PI);
  return x < 0 ? -log_of(magnitude(sine)) - right : right;
}

// Its derivative; NaN at -1, -2, ..., and -inf or inf at 0 or -0.
static inline Doubles digamma_of(Doubles value) {
  const Doubles one = 1 + Doubles{}, none = {}, infinite = one / none;
  const Doubles x = value > 1e308 ? 1e308 + Doubles{} : value;
  const Doubles y = x < 0 ? 1 - x : x;
  const auto near = y < ASYMPTOTIC;
  // The sum of 1 / (y + k) is the logarithmic derivative of the product of all y + k.
  Doubles product = near ? y : one, slope = near ? one : none;
  for (int k = 1; k < int(ASYMPTOTIC); k++) {
    const Doubles next = near ? y + k : one;
    slope = slope * next + (near ? product : none);
    product *= next;
  }
  const Doubles z = near ? y + ASYMPTOTIC : y, w = 1 / z;
  const Doubles right = log_of(z) - 0.5 * w - w * w * power_series(OF_DIGAMMA, w * w) -
                        slope / product;
  const Doubles r = x - whole(x), sine = r * power_series(OF_SINE, r * r);
  const Doubles left = right - PI * power_series(OF_COSINE, r * r) / sine;
  const Doubles reflected = r == 0 ? __builtin_nan("") + Doubles{} : left;
  const Doubles result = x < 0 ? reflected : right, pole = -one / x;
  const Doubles finite = x == 0 ? pole : result;
  return value == infinite ? infinite : finite;
}

// The derivative of that.
static inline Doubles trigamma_of(Doubles x) {
  const Doubles one = 1 + Doubles{}, y = x < 0 ? 1 - x : x;
  const auto near = y < ASYMPTOTIC;
  Doubles sum = {};
  for (int k = 0; k < int(ASYMPTOTIC); k += 2) {  // 1 / a^2 + 1 / b^2
    const Doubles a = near ? y + k : one, b = near ? y + (k + 1) : one, product = a * b;
    sum += (a * a + b * b) / (product * product);
  }
  const Doubles z = near ? y + ASYMPTOTIC : y, w = 1 / z, square = w * w;
  const Doubles rest = w + 0.5 * square + w * square * power_series(OF_TRIGAMMA, square);
  const Doubles right = near ? sum + rest : rest;
  const Doubles r = x - whole(x), sine = r * power_series(OF_SINE, r * r) * (1 / PI);
  return x < 0 ? 1 / (sine * sine) - right : right;
}
