// Transposing and summing within registers; comes after prelude.hpp.

// As many columns of K elements as a vector has lanes, side by side.
template <class T>
static inline void turned(const T* b, i64 bk, i64 bn, T* out, i64 K) {
  constexpr int L = Vector<T>::lanes;
  if (bk == 1) {  // which makes the compiler transpose in registers
    for (i64 k = 0; k < K; k++) {
      for (int l = 0; l < L; l++) out[k * L + l] = b[k + l * bn];
    }
  } else {
    for (i64 k = 0; k < K; k++) {
      for (int l = 0; l < L; l++) out[k * L + l] = b[k * bk + l * bn];
    }
  }
}

// The sum of each vector's lanes.
template <class T, int COUNT>
static inline void totals(const typename Vector<T>::type (&vectors)[COUNT], T* out) {
  for (int i = 0; i < COUNT; i++) {
    T total = 0;
    for (int l = 0; l < Vector<T>::lanes; l++) total += vectors[i][l];
    out[i] = total;
  }
}

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
typedef Vector<float>::type Floats;
typedef float Four __attribute__((vector_size(16), aligned(4)));

// Rows of four floats that far apart, one behind the other (`gathered`); the sum of a vector's
// fours; and in each four of two vectors the first (or last) elements in turn (`PAIRS`), or the
// first (or last) halves (`HALVES`).
#if defined(__AVX512F__)
static inline Floats gathered(const float* b, i64 step) {
  const Four x = *(const Four*)b, y = *(const Four*)(b + 4 * step);
  const Four z = *(const Four*)(b + 8 * step), w = *(const Four*)(b + 12 * step);
  const auto low = __builtin_shufflevector(x, y, 0, 1, 2, 3, 4, 5, 6, 7);
  const auto high = __builtin_shufflevector(z, w, 0, 1, 2, 3, 4, 5, 6, 7);
  return __builtin_shufflevector(low, high, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
}
static inline Four fours(const Floats& v) {
  return (__builtin_shufflevector(v, v, 0, 1, 2, 3) + __builtin_shufflevector(v, v, 4, 5, 6, 7)) +
         (__builtin_shufflevector(v, v, 8, 9, 10, 11) +
          __builtin_shufflevector(v, v, 12, 13, 14, 15));
}
#define PAIRS(x, y, f)                                                                           \
  __builtin_shufflevector(x, y, f, f + 16, f + 1, f + 17, f + 4, f + 20, f + 5, f + 21, f + 8,   \
                          f + 24, f + 9, f + 25, f + 12, f + 28, f + 13, f + 29)
#define HALVES(x, y, f)                                                                          \
  __builtin_shufflevector(x, y, f, f + 1, f + 16, f + 17, f + 4, f + 5, f + 20, f + 21, f + 8,   \
                          f + 9, f + 24, f + 25, f + 12, f + 13, f + 28, f + 29)
#elif defined(__AVX__)
static inline Floats gathered(const float* b, i64 step) {
  const Four x = *(const Four*)b, y = *(const Four*)(b + 4 * step);
  return __builtin_shufflevector(x, y, 0, 1, 2, 3, 4, 5, 6, 7);
}
static inline Four fours(const Floats& v) {
  return __builtin_shufflevector(v, v, 0, 1, 2, 3) + __builtin_shufflevector(v, v, 4, 5, 6, 7);
}
#define PAIRS(x, y, f) \
  __builtin_shufflevector(x, y, f, f + 8, f + 1, f + 9, f + 4, f + 12, f + 5, f + 13)
#define HALVES(x, y, f) \
  __builtin_shufflevector(x, y, f, f + 1, f + 8, f + 9, f + 4, f + 5, f + 12, f + 13)
#else
static inline Floats gathered(const float* b, i64) { return *(const Four*)b; }
static inline Four fours(const Floats& v) { return v; }
#define PAIRS(x, y, f) __builtin_shufflevector(x, y, f, f + 4, f + 1, f + 5)
#define HALVES(x, y, f) __builtin_shufflevector(x, y, f, f + 1, f + 4, f + 5)
#endif

static inline void turned(const float* b, i64 bk, i64 bn, float* out, i64 K) {
  constexpr int L = Vector<float>::lanes;
  i64 k = 0;
  if (bk == 1) {
    for (; k + 4 <= K; k += 4) {
      const Floats x = gathered(b + k, bn), y = gathered(b + k + bn, bn);
      const Floats z = gathered(b + k + 2 * bn, bn), w = gathered(b + k + 3 * bn, bn);
      const Floats xy = PAIRS(x, y, 0), zw = PAIRS(z, w, 0);
      const Floats xy2 = PAIRS(x, y, 2), zw2 = PAIRS(z, w, 2);
      *(Floats*)(out + k * L) = HALVES(xy, zw, 0);
      *(Floats*)(out + k * L + L) = HALVES(xy, zw, 2);
      *(Floats*)(out + k * L + 2 * L) = HALVES(xy2, zw2, 0);
      *(Floats*)(out + k * L + 3 * L) = HALVES(xy2, zw2, 2);
    }
  }
  for (; k < K; k++) {
    for (int l = 0; l < L; l++) out[k * L + l] = b[k * bk + l * bn];
  }
}

static inline void totals(const Floats (&s)[4], float* out) {
  const Floats low = PAIRS(s[0], s[1], 0) + PAIRS(s[0], s[1], 2);
  const Floats high = PAIRS(s[2], s[3], 0) + PAIRS(s[2], s[3], 2);
  *(Four*)out = fours(HALVES(low, high, 0) + HALVES(low, high, 2));
}
#endif
#endif
