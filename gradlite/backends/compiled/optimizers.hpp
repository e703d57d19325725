// Steps of optimizers over all parameters of a group; comes after prelude.hpp.
//
// A row of the table describes one parameter: addresses of its elements, its gradient and its
// state, the number of elements, and the address of its step count.
enum { PARAM, GRAD, STATE_1, STATE_2, COUNT, STEP, ROW };

// The elements of a parameter, on several threads where there are many.
template <class Body>
static inline void in_chunks(i64 count, const Body& body) {
  constexpr i64 EACH = 1 << 14;
  if (count < 4 * EACH || threads() < 2) return body(0, count);
  parallel(true, (count + EACH - 1) / EACH, [=](i64 i) {
    body(i * EACH, i * EACH + EACH < count ? i * EACH + EACH : count);
  });
}

// h: learning rate, beta1, beta2, eps, L2 decay, decoupled decay, sign of the gradient.
template <class T, class Counter>
static void adam(const i64* table, i64 rows, const double* h) {
  double last = -1, size = 0, eps = 0;
  const T scale = T(1 - h[1]), ratio = T(__builtin_sqrt(1 - h[2]) / (1 - h[1]));
  const T beta1 = T(h[1]), beta2 = T(h[2]), decay = T(h[4]), shrink = T(1 - h[0] * h[5]);
  const T sign = T(h[6]);
  for (i64 r = 0; r < rows; r++) {
    const i64* row = table + r * ROW;
    Counter* counter = (Counter*)row[STEP];
    const double step = double(*counter) + 1;
    *counter = Counter(step);
    if (step != last) {
      const double correction = __builtin_sqrt(1 - __builtin_pow(h[2], step));
      size = h[0] / (1 - __builtin_pow(h[1], step)) * correction;
      eps = h[3] * correction;
      last = step;
    }
    const T step_size = T(size), epsilon = T(eps);
    T *p = (T*)row[PARAM], *m = (T*)row[STATE_1], *v = (T*)row[STATE_2];
    const T* g = (const T*)row[GRAD];
    const i64 count = row[COUNT];
    in_chunks(count, [=](i64 from, i64 to) {
      LOOP for (i64 i = from; i < to; i++) {
        const T grad = (sign * g[i] + decay * p[i]) * scale;
        const T first = m[i] * beta1 + grad, other = grad * ratio;
        const T second = v[i] * beta2 + other * other;
        m[i] = first;
        v[i] = second;
        const T root = f_sqrt(float_math::unless_hidden(second, epsilon));
        // No product of an average that has become denormal, which is slow too.
        p[i] = float_math::fused(-first, step_size / (root + epsilon), p[i] * shrink);
      }
    });
  }
}

// h: learning rate, momentum, 1 - dampening, L2 decay, sign of the gradient, Nesterov or not.
template <class T, class Counter>
static void sgd(const i64* table, i64 rows, const double* h) {
  const T rate = T(h[0]), momentum = T(h[1]), decay = T(h[3]), sign = T(h[4]);
  for (i64 r = 0; r < rows; r++) {
    const i64* row = table + r * ROW;
    T *p = (T*)row[PARAM], *m = (T*)row[STATE_1];
    const T* g = (const T*)row[GRAD];
    const i64 count = row[COUNT];
    if (!m) {
      in_chunks(count, [=](i64 from, i64 to) {
        LOOP for (i64 i = from; i < to; i++) p[i] -= (sign * g[i] + decay * p[i]) * rate;
      });
      continue;
    }
    Counter* begun = (Counter*)row[STEP];
    const T weight = *begun ? T(h[2]) : T(1);
    *begun = 1;
    const bool nesterov = h[5] != 0;
    in_chunks(count, [=](i64 from, i64 to) {
      if (nesterov) {
        LOOP for (i64 i = from; i < to; i++) {
          const T grad = (sign * g[i] + decay * p[i]) * weight;
          m[i] = m[i] * momentum + grad;
          p[i] -= (grad + m[i] * momentum) * rate;
        }
      } else {
        LOOP for (i64 i = from; i < to; i++) {
          m[i] = m[i] * momentum + (sign * g[i] + decay * p[i]) * weight;
          p[i] -= m[i] * rate;
        }
      }
    });
  }
}

#define OPTIMIZER(name, dtype, T, counter, Counter)                               \
  extern "C" void name##_##dtype##_##counter(const i64* t, i64 n, const double* h) { \
    name<T, Counter>(t, n, h);                                                    \
  }
#define OPTIMIZERS(name)                     \
  OPTIMIZER(name, float32, float, float32, float)  \
  OPTIMIZER(name, float32, float, float64, double) \
  OPTIMIZER(name, float64, double, float32, float) \
  OPTIMIZER(name, float64, double, float64, double)
OPTIMIZERS(adam)
OPTIMIZERS(sgd)

// Updates of parameters behind a segment of a captured step, unless that says something went wrong.
struct Update {
  void (*function)(const i64*, i64, const double*);
  const i64* table;
  i64 rows;
  const double* numbers;
};
struct Replay {
  i64 (*segment)(void*);
  void* pointers;
  const Update* updates;
  i64 count;
};
extern "C" i64 replay(const Replay* r) {
  const i64 code = r->segment ? r->segment(r->pointers) : 0;
  for (i64 i = 0; i < r->count && !code; i++) {
    const Update& u = r->updates[i];
    u.function(u.table, u.rows, u.numbers);
  }
  return code;
}
