// What CuPy asks Thrust for: its own functions are compiled for a GPU, so these take their place.
#include <algorithm>
#include <complex>
#include <cstring>
#include <numeric>

#include "driver.h"

namespace cuda_driver {
namespace {

// NaN comes last, as in NumPy.
template <class T>
bool less(const T& x, const T& y) {
  return x < y || (y != y && x == x);
}
template <class T>
bool less(const std::complex<T>& x, const std::complex<T>& y) {
  if (less(x.real(), y.real()) || less(y.real(), x.real())) return less(x.real(), y.real());
  return less(x.imag(), y.imag());
}

template <class T>
void sort(void* data, size_t rows, size_t n) {
  for (T* row = static_cast<T*>(data); rows--; row += n)
    std::stable_sort(row, row + n, [](const T& x, const T& y) { return less(x, y); });
}

// The places of each row in order. The keys of a lexsort are rows of one array, the last counting
// most.
template <class T>
void argsort(size_t* places, const void* data, size_t keys, size_t rows, size_t n) {
  const T* values = static_cast<const T*>(data);
  for (size_t r = 0; r < rows; r++, places += n, values += keys * n) {
    std::iota(places, places + n, size_t(0));
    for (size_t k = 0; k < keys; k++)
      std::stable_sort(places, places + n, [=](size_t x, size_t y) {
        return less(values[k * n + x], values[k * n + y]);
      });
  }
}

template <class F>
void with_type(int type, F f) {
  switch (type) {  // CuPy's numbers
    case 0: return f(int8_t());
    case 1: return f(uint8_t());
    case 2: return f(int16_t());
    case 3: return f(uint16_t());
    case 4: return f(int32_t());
    case 5: return f(uint32_t());
    case 6: return f(int64_t());
    case 7: return f(uint64_t());
    case 8: return f(_Float16());
    case 9: return f(float());
    case 10: return f(double());
    case 11: return f(std::complex<float>());
    case 12: return f(std::complex<double>());
    default: return f(bool());
  }
}

size_t rows_of(const std::vector<ptrdiff_t>& shape) {
  size_t rows = 1;
  for (size_t i = 0; i + 1 < shape.size(); i++) rows *= size_t(shape[i]);
  return rows;
}

void add(intptr_t stream, Work work) {
  Lock lock = locked();
  enqueue(stream_of(reinterpret_cast<void*>(stream)), std::move(work), lock);
}

}  // namespace
}  // namespace cuda_driver

using namespace cuda_driver;
#define OF_CUPY __attribute__((visibility("default"))) void

OF_CUPY thrust_sort(int type, void* data, size_t*, const std::vector<ptrdiff_t>& shape,
                     intptr_t stream, void*) {
  size_t rows = rows_of(shape), n = size_t(shape.back());
  add(stream, [=] { with_type(type, [&](auto t) { sort<decltype(t)>(data, rows, n); }); });
}

OF_CUPY thrust_argsort(int type, size_t* places, void* data, void*,
                        const std::vector<ptrdiff_t>& shape, intptr_t stream, void*) {
  size_t rows = rows_of(shape), n = size_t(shape.back());
  add(stream, [=] {
    with_type(type, [&](auto t) { argsort<decltype(t)>(places, data, 1, rows, n); });
  });
}

OF_CUPY thrust_lexsort(int type, size_t* places, void* data, size_t keys, size_t n,
                        intptr_t stream, void*) {
  add(stream, [=] {
    with_type(type, [&](auto t) { argsort<decltype(t)>(places, data, keys, 1, n); });
  });
}
