// Matrix products; comes after prelude.hpp, shuffles.hpp, tiles.hpp and zeros.hpp. Compiled once:
// steps call it through pointers.

extern "C" i64 product_room(i64 item, i64 M, i64 N, i64 K, i64 sk, i64 bk, i64 bn) {
  return item == 4 ? room_for<float>(M, N, K, sk, bk, bn) : room_for<double>(M, N, K, sk, bk, bn);
}

// On several threads, where it is worth it.
template <class T>
static void product_and_bias(const T* a, i64 sm, i64 sk, const T* b, i64 bk, i64 bn, T* c, i64 sc,
                             i64 M, i64 N, i64 K, T* room, const T* bias) {
  if (product_without_zeros(a, sm, sk, b, bk, bn, c, sc, M, N, K, bias)) return;
  if (M * N * K < SHARED || threads() < 2) {
    return part_of_product(a, sm, sk, b, bk, bn, c, sc, M, N, K, room, bias);
  }
  constexpr i64 L = Vector<T>::lanes;
  const i64 columns = 4 * L;
  if (N >= 2 * columns) {
    parallel(true, (N + columns - 1) / columns, [=](i64 i) {
      const i64 n = i * columns, count = N - n < columns ? N - n : columns;
      T* own = (T*)scratch((PANEL * K + M) * L * sizeof(T));
      part_of_product(a, sm, sk, b + n * bn, bk, bn, c + n, sc, M, count, K, own,
                      bias ? bias + n : nullptr);
    });
    return;
  }
  const i64 rows = M >= 192 ? 48 : 24;
  parallel(true, (M + rows - 1) / rows, [=](i64 i) {
    const i64 m = i * rows, count = M - m < rows ? M - m : rows;
    T* own = (T*)scratch((PANEL * K + count) * L * sizeof(T));
    part_of_product(a + m * sm, sm, sk, b, bk, bn, c + m * sc, sc, count, N, K, own, bias);
  });
}

template <class T>
static void product(const T* a, i64 sm, i64 sk, const T* b, i64 bk, i64 bn, T* c, i64 sc, i64 M,
                    i64 N, i64 K, T* room) {
  product_and_bias<T>(a, sm, sk, b, bk, bn, c, sc, M, N, K, room, nullptr);
}

extern "C" void* const products[] = {
    (void*)product<float>, (void*)product<double>, (void*)inner_products<float>,
    (void*)inner_products<double>,
};
