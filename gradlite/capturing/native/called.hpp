// What steps call in libraries that are compiled once; comes after prelude.hpp, images.hpp and
// heads.hpp. The pointers are set when a step is loaded, to the table at the end of the library's file.
extern "C" {
void* const *products, *const *convolution, *const *batches, *const *attention;
}

template <class T>
static inline void product(const T* a, i64 sm, i64 sk, const T* b, i64 bk, i64 bn, T* c, i64 sc,
                           i64 M, i64 N, i64 K, T* room) {
  typedef void (*Function)(const T*, i64, i64, const T*, i64, i64, T*, i64, i64, i64, i64, T*);
  ((Function)products[sizeof(T) / 8])(a, sm, sk, b, bk, bn, c, sc, M, N, K, room);
}

template <class T>
static inline void inner_products(const T* a, i64 sm, const T* b, i64 bn, T* c, i64 sc, i64 cn,
                                  i64 M, i64 N, i64 K) {
  typedef void (*Function)(const T*, i64, const T*, i64, T*, i64, i64, i64, i64, i64);
  ((Function)products[2 + sizeof(T) / 8])(a, sm, b, bn, c, sc, cn, M, N, K);
}

template <class T>
static inline void convolve(const Slide& s, const T* x, i64 sn, i64 sc, i64 sh, i64 sw, const T* w,
                            const T* bias, T* y, i64 yn, i64 yc, i64 yh, i64 yw, char* room) {
  typedef void (*Function)(const Slide&, const T*, i64, i64, i64, i64, const T*, const T*, T*, i64,
                           i64, i64, i64, char*);
  ((Function)convolution[sizeof(T) / 8])(s, x, sn, sc, sh, sw, w, bias, y, yn, yc, yh, yw, room);
}

template <class T>
static inline void weight_gradient(const Slide& s, const T* x, i64 sn, i64 sc, i64 sh, i64 sw,
                                   const T* g, i64 gn, i64 gc, i64 gh, i64 gw, T* dw, char* room) {
  typedef void (*Function)(const Slide&, const T*, i64, i64, i64, i64, const T*, i64, i64, i64,
                           i64, T*, char*);
  ((Function)convolution[2 + sizeof(T) / 8])(s, x, sn, sc, sh, sw, g, gn, gc, gh, gw, dw, room);
}

template <class T>
static inline void arranged(const T* w, i64 sa, i64 sb, i64 sh, i64 sw, T* out, i64 A, i64 B, i64 KH,
                            i64 KW) {
  typedef void (*Function)(const T*, i64, i64, i64, i64, T*, i64, i64, i64, i64);
  ((Function)convolution[4 + sizeof(T) / 8])(w, sa, sb, sh, sw, out, A, B, KH, KW);
}

template <class T, class Source, class Sink>
static inline void convolve_batch(const Slide& s, const Source& x, const T* w, i64 so, i64 sc,
                                  i64 sh, i64 sw, const Sink& sink, i64 rows, char* room) {
  typedef void (*Function)(const Slide&, const Source&, const T*, i64, i64, i64, i64, const Sink&,
                           i64, char*);
  constexpr int place = sizeof(T) / 8 * 10 + Source::KIND * 5 + Sink::KIND;
  ((Function)batches[place])(s, x, w, so, sc, sh, sw, sink, rows, room);
}

template <class T, class Grads>
static inline void weight_gradient_batch(const Slide& s, const Images<T>& x, const Grads& g, T* dw,
                                         i64 rows, char* room) {
  typedef void (*Function)(const Slide&, const Images<T>&, const Grads&, T*, i64, char*);
  ((Function)batches[sizeof(T) / 8 * 10 + Grads::KIND * 5 + 4])(s, x, g, dw, rows, room);
}

static inline void attend(const Heads& h, const Stack& q, const Stack& k, const Stack& v,
                          float* strips, const Stack& out, const Mask& mask) {
  typedef void (*Function)(const Heads&, const Stack&, const Stack&, const Stack&, float*,
                           const Stack&, const Mask&);
  ((Function)attention[0])(h, q, k, v, strips, out, mask);
}

static inline void attention_gradients(const Heads& h, const Stack& grad, const Stack& q,
                                       const Stack& k, const Stack& v, float* strips,
                                       const Stack& dq, const Stack& dk, const Stack& dv) {
  typedef void (*Function)(const Heads&, const Stack&, const Stack&, const Stack&, const Stack&,
                           float*, const Stack&, const Stack&, const Stack&);
  ((Function)attention[1])(h, grad, q, k, v, strips, dq, dk, dv);
}

// A segment is a table of calls: 2,800 of them, a recurrence of 50 steps, compile in no time as data
// and in five seconds as code.
typedef i64 (*Part)(char* const*, char*);
struct Call {
  Part part;
  i64 room;   // where its scratch memory is in the plan's own
  int count;  // of the addresses that it is given
  i64 code;   // what went wrong where it does not return 0
};

// An address: which of the plan's pointers, of 16 million, and how many bytes behind it.
constexpr i64 at(i64 base, i64 offset) { return offset << 24 | base; }

template <int MOST>
static inline i64 run(const Call* call, i64 count, const i64* word, char* const* P) {
  char* A[MOST + 1];
  for (const Call* end = call + count; call < end; call++) {
    for (int i = 0; i < call->count; i++, word++) A[i] = P[*word & 0xFFFFFF] + (*word >> 24);
    if (call->part(A, P[0] + call->room)) return call->code;
  }
  return 0;
}
