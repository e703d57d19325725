// What convolutions read and write; comes after prelude.hpp and shuffles.hpp.

struct Slide {
  i64 N, C, H, W, O, KH, KW, OH, OW;  // sizes of input, kernels and result
  i64 top, left, SH, SW, DH, DW;      // padding, stride, dilation
  i64 rows() const { return ((OH - 1) * SH + DH * (KH - 1)) / SH + 1; }
  i64 width() const { return ((OW - 1) * SW + DW * (KW - 1)) / SW + 1; }
  i64 plane() const { return SH * SW * rows() * width(); }
  i64 taps() const { return C * KH * KW; }
  i64 pixels() const { return (OH - 1) * width() + OW; }
};

// Has a loop load a vector once, and not anew for each of its uses.
#if defined(__AVX512F__)
#define IN_REGISTER(vector) asm("" : "+v"(vector))
#elif defined(__AVX__)
#define IN_REGISTER(vector) asm("" : "+x"(vector))
#else
#define IN_REGISTER(vector)
#endif

static inline i64 up(i64 n) { return (n + 63) / 64 * 64; }

template <int L>
struct Integers {
  typedef u8 Bytes __attribute__((vector_size(L), aligned(1)));
  typedef short Shorts __attribute__((vector_size(2 * L)));
  typedef int Ints __attribute__((vector_size(4 * L)));
};

// Whole numbers of L lanes from bytes and back, by steps that are made in registers.
template <int L, class Places>
static inline Places from_bytes(const u8* from) {
  typedef Integers<L> I;
  const typename I::Bytes bytes = *(const typename I::Bytes*)from;
  const typename I::Shorts shorts = __builtin_convertvector(bytes, typename I::Shorts);
  const typename I::Ints ints = __builtin_convertvector(shorts, typename I::Ints);
  return __builtin_convertvector(ints, Places);
}
template <int L, class Places>
static inline void to_bytes(const Places& places, u8* to) {
  typedef Integers<L> I;
  const typename I::Ints ints = __builtin_convertvector(places, typename I::Ints);
  const typename I::Shorts shorts = __builtin_convertvector(ints, typename I::Shorts);
  *(typename I::Bytes*)to = __builtin_convertvector(shorts, typename I::Bytes);
}

template <class T>
struct Batch {
  static constexpr int L = WIDE / sizeof(T);
  typedef T V __attribute__((vector_size(WIDE)));                       // in memory of our own
  typedef T Loose __attribute__((vector_size(WIDE), aligned(sizeof(T))));  // in an array
  typedef decltype(V{} == V{}) Places;                                  // of pixels in windows
  static Places places(const u8* from) { return from_bytes<L, Places>(from); }
  static void store(const Places& places, u8* to) { to_bytes<L>(places, to); }
};

// ------------------------------------------------------------------------------- sources
// Images (N, C, H, W) as they are.
template <class T>
struct Images {
  static constexpr int KIND = 0;
  const T* at;
  i64 n, c, h, w;  // strides
  // Columns [from, to) of a row of L images.
  void line(i64 first, i64 channel, i64 y, i64 from, i64 to, T* out) const {
    constexpr int L = Batch<T>::L;
    const T* row = at + first * n + channel * c + y * h;
    if (n == 1) {
      for (i64 x = from; x < to; x++, out += L) {
        __builtin_prefetch(row + 2 * h + x * w);  // rows lie far apart
        *(typename Batch<T>::V*)out = *(const typename Batch<T>::Loose*)(row + x * w);
      }
      return;
    }
    turned(row + from * w, w, n, out, to - from);
  }
};

// The gradient of max-pooling by windows of 2 x 2: a window's gradient where its winner is.
template <class T>
struct Spread {
  static constexpr int KIND = 1;
  Images<T> g;
  const u8* winners;
  i64 n, c, h, w;  // strides of the winners
  i64 H, W;        // how many windows there are
  void line(i64 first, i64 channel, i64 y, i64 from, i64 to, T* out) const {
    typedef typename Batch<T>::V V;
    constexpr int L = Batch<T>::L;
    typedef typename Batch<T>::Places Places;
    V* const pixels = (V*)out - from;
    const i64 stop = y / 2 >= H ? 0 : to < 2 * W ? to : 2 * W;
    const int before = int(y % 2 * 2);
    const u8* which = winners + first * n + channel * c + y / 2 * h;
    const T* row = g.at + first * g.n + channel * g.c + y / 2 * g.h;
    const bool side_by_side = n == 1 && g.n == 1;
    for (i64 x = from & ~i64(1); x < stop; x += 2) {
      V value;
      Places place;
      if (side_by_side) {
        __builtin_prefetch(which + 4 * h + x / 2 * w);
        __builtin_prefetch(row + 4 * g.h + x / 2 * g.w);
        value = *(const typename Batch<T>::Loose*)(row + x / 2 * g.w);
        place = Batch<T>::places(which + x / 2 * w);
      } else {
        for (int l = 0; l < L; l++) {
          value[l] = row[x / 2 * g.w + l * g.n];
          place[l] = which[x / 2 * w + l * n];
        }
      }
      if (x >= from) pixels[x] = place == before ? value : V{};
      if (x + 1 < stop) pixels[x + 1] = place == before + 1 ? value : V{};
    }
    for (i64 x = stop > from ? stop : from; x < to; x++) pixels[x] = V{};
  }
};

// --------------------------------------------------------------------------------- sinks
template <class T>
static inline void scattered(const typename Batch<T>::V& value, T* at, i64 n) {
  if (n == 1) {
    *(typename Batch<T>::Loose*)at = value;
  } else {
    for (int l = 0; l < Batch<T>::L; l++) at[l * n] = value[l];
  }
}

// Images (N, C, H, W), after a bias was added. So many pixels are made at once.
template <class T, int R = 2, int C = 2>
struct Plain {
  static constexpr int ROWS = R, COLUMNS = C, KIND = R == 1;
  typedef typename Batch<T>::V V;
  T* at;
  i64 n, c, h, w;
  const T* bias;
  // Where images do not lie side by side: results of some rows, which are transposed together.
  V* own = nullptr;
  i64 O = 0, OW = 0, rows = 0, y0 = 0;
  template <int OUTS, int POSITIONS>
  void put(i64 first, i64 o, i64 y, i64 x, typename Batch<T>::V (&sum)[OUTS][POSITIONS]) const {
    UNROLLED for (int k = 0; k < OUTS; k++) {
      const T add = bias ? bias[o + k] : T(0);
      if (own) {
        V* const to = own + ((o + k) * rows + y - y0) * OW + x;
        UNROLLED for (int p = 0; p < POSITIONS; p++) to[p / C * OW + p % C] = sum[k][p] + add;
        continue;
      }
      UNROLLED for (int p = 0; p < POSITIONS; p++) {
        T* to = at + first * n + (o + k) * c + (y + p / C) * h + (x + p % C) * w;
        scattered<T>(sum[k][p] + add, to, n);
      }
    }
  }
  // What `many` rows of some images from one on are handed to, and told when those to `stop` are
  // made (batches.hpp).
  Plain from(const Slide& s, i64 many, i64 row) const {
    Plain block = *this;
    if (n == 1) return block;
    block.own = (V*)scratch<2>(s.O * many * s.OW * sizeof(V));
    block.O = s.O;
    block.OW = s.OW;
    block.rows = many;
    block.y0 = row;
    return block;
  }
  void finish(i64 first, i64 stop) const;
};

// The maxima of windows of 2 x 2, perhaps after relu, and which pixel of a window it is: the first
// of equal ones, and the last NaN.
template <class T, bool RELU>
struct Pooled {
  static constexpr int ROWS = 2, COLUMNS = 2, KIND = 2 + RELU;
  Plain<T> y;
  u8* winners;
  i64 n, c, h, w;
  template <int OUTS, int POSITIONS>
  void put(i64 first, i64 o, i64 row, i64 x, typename Batch<T>::V (&sum)[OUTS][POSITIONS]) const {
    constexpr int L = Batch<T>::L;
    UNROLLED for (int k = 0; k < OUTS; k++) {
      auto best = sum[k][0];
      auto which = best != best;
      which = which ^ which;
      UNROLLED for (int p = 1; p < POSITIONS; p++) {
        const auto value = sum[k][p];
        const auto wins = (value > best) | (value != value);
        best = wins ? value : best;
        which = wins ? (which ^ which) + p : which;
      }
      best += y.bias ? y.bias[o + k] : T(0);
      if (RELU) best = best < T(0) ? best - best : best;
      scattered<T>(best, y.at + first * y.n + (o + k) * y.c + row / 2 * y.h + x / 2 * y.w, y.n);
      u8* at = winners + first * n + (o + k) * c + row / 2 * h + x / 2 * w;
      if (n == 1) {
        Batch<T>::store(which, at);
      } else {
        for (int l = 0; l < L; l++) at[l * n] = u8(which[l]);
      }
    }
  }
  const Pooled& from(const Slide&, i64, i64) const { return *this; }
  void finish(i64, i64) const {}
};
