// Products in a library of their own, so that no step compiles them; comes after prelude.hpp.
// `products` is filled when a step is loaded: product and inner products of floats and of doubles.
extern "C" {
void* products[4];
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
