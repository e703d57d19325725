// The updates of the elementwise optimizers, each over all parameters of a dtype in one launch.
//
// A row of `tensors` is (elements, parameter, row of constants, state, state, state); of the
// addresses of state the rule uses as many as it needs. The gradients' addresses come apart,
// because they are new in every step. A row of constants is what optimizers work out in Python
// (`ElementwiseOptimizer._advance`), or optimizer_advance.cu on the device:
//
//     factor, decay, scale, shrink, and the rule's own numbers
//
// With them g = scale (factor grad + decay p) and p = shrink p, and from there on the rule tells.
// If `found_inf` points to anything but 0, nothing changes. With `unscale` the gradients are
// stored as the loss without its scale would have given them.
#include "tables.cuh"

constexpr i64 WIDTH = 6, CONSTANTS = 10;

struct Common {
  acc_t factor, decay, scale, shrink;
};

template <class Rule, class... Stored>
DEVICE void update_element(const Common& k, const Rule& rule, scalar_t& param, scalar_t grad,
                           Stored&... stored) {
  [&](acc_t p, auto... state) {
    acc_t g = k.factor * widen(grad);
    if (k.decay != acc_t(0)) g += k.decay * p;  // an infinite p times 0 would not be 0
    p *= k.shrink;
    rule(p, k.scale * g, state...);
    param = narrow(p);
    const int kept[] = {0, (stored = narrow(state), 0)...};
    (void)kept;
  }(widen(param), widen(stored)...);
}

template <class Rule>
DEVICE void update(const i64* tensors, const i64* grads, const i64* chunks, const double* constants,
                   const float* found_inf, i64 unscale, i64 chunk_count, i64 chunk_size) {
  if (found_inf && *found_inf != 0.0f) return;
  for_each_chunk(tensors, WIDTH, chunks, chunk_count, chunk_size,
                 [&](auto team, i64, i64 tensor, i64 start, i64 n) {
    const i64* row = tensors + tensor * WIDTH;
    const double* c = constants + row[2] * CONSTANTS;
    const Common k = {acc_t(c[0]), acc_t(c[1]), acc_t(c[2]), acc_t(c[3])};
    const Rule rule(c + 4);
    scalar_t* grad = array_at(grads[tensor], start);
    const auto run = [&](auto... state) {
      for_each_element(
          team, n,
          [&](scalar_t& p, const scalar_t& g, auto&... s) { update_element(k, rule, p, g, s...); },
          array_at(row[ADDRESS], start), static_cast<const scalar_t*>(grad), state...);
    };
    rule.with_state(run, row + 3, start);
    if (unscale) {
      team.sync();
      const acc_t factor = math::abs(k.factor);
      for_each_element(team, n, [=](scalar_t& g) { g = narrow(factor * widen(g)); }, grad);
    }
  });
}

// How many arrays of state a rule has.
template <int N>
struct States;
template <>
struct States<0> {
  template <class Run>
  static __device__ void with_state(Run run, const i64*, i64) {
    run();
  }
};
template <>
struct States<1> {
  template <class Run>
  static __device__ void with_state(Run run, const i64* address, i64 start) {
    run(array_at(address[0], start));
  }
};
template <>
struct States<2> {
  template <class Run>
  static __device__ void with_state(Run run, const i64* address, i64 start) {
    run(array_at(address[0], start), array_at(address[1], start));
  }
};
template <>
struct States<3> {
  template <class Run>
  static __device__ void with_state(Run run, const i64* address, i64 start) {
    run(array_at(address[0], start), array_at(address[1], start), array_at(address[2], start));
  }
};

// sqrt(square) + eps.
DEVICE acc_t root_plus(acc_t square, acc_t eps) {
#if defined(GRADLITE_NATIVE)
  square = float_math::unless_hidden(square, eps);
#endif
  return math::sqrt(square) + eps;
}

// p -= size average / divisor. Neither a quotient nor a product of an average that has become
// denormal is made, for which processors take several times as long.
DEVICE void descend(acc_t& p, acc_t size, acc_t average, acc_t divisor) {
  p = math::fused(-average, size / divisor, p);
}

// ------------------------------------------------------------------------------------- rules
struct Sgd : States<0> {
  __device__ Sgd(const double*) {}
  __device__ void operator()(acc_t& p, acc_t g) const { p -= g; }
};

struct SgdMomentum : States<1> {
  acc_t lr, momentum;
  __device__ SgdMomentum(const double* c) : lr(c[0]), momentum(c[1]) {}
  __device__ void operator()(acc_t& p, acc_t g, acc_t& buffer) const {
    buffer = momentum * buffer + g;
    p -= lr * buffer;
  }
};

struct SgdNesterov : States<1> {
  acc_t lr, momentum;
  __device__ SgdNesterov(const double* c) : lr(c[0]), momentum(c[1]) {}
  __device__ void operator()(acc_t& p, acc_t g, acc_t& buffer) const {
    buffer = momentum * buffer + g;
    p -= lr * (g + momentum * buffer);
  }
};

// The gradient comes times 1 - beta1, and `ratio` is sqrt(1 - beta2) / (1 - beta1).
struct Adam : States<2> {
  acc_t beta1, ratio, beta2, eps, step_size;
  __device__ Adam(const double* c)
      : beta1(c[0]), ratio(c[1]), beta2(c[2]), eps(c[3]), step_size(c[4]) {}
  __device__ void average(acc_t g, acc_t& exp_avg, acc_t& exp_avg_sq) const {
    const acc_t scaled = ratio * g;
    exp_avg_sq = beta2 * exp_avg_sq + scaled * scaled;
    exp_avg = beta1 * exp_avg + g;
  }
  __device__ void operator()(acc_t& p, acc_t g, acc_t& exp_avg, acc_t& exp_avg_sq) const {
    average(g, exp_avg, exp_avg_sq);
    descend(p, step_size, exp_avg, root_plus(exp_avg_sq, eps));
  }
};

struct AdamAmsgrad : States<3> {
  Adam adam;
  __device__ AdamAmsgrad(const double* c) : adam(c) {}
  __device__ void operator()(acc_t& p, acc_t g, acc_t& exp_avg, acc_t& exp_avg_sq,
                             acc_t& largest) const {
    adam.average(g, exp_avg, exp_avg_sq);
    largest = math::larger_or_nan(largest, exp_avg_sq);
    descend(p, adam.step_size, exp_avg, root_plus(largest, adam.eps));
  }
};

struct Nadam : States<2> {
  acc_t weight1, beta2, weight2, eps, grad_size, avg_size;
  __device__ Nadam(const double* c)
      : weight1(c[0]), beta2(c[1]), weight2(c[2]), eps(c[3]), grad_size(c[4]), avg_size(c[5]) {}
  __device__ void operator()(acc_t& p, acc_t g, acc_t& exp_avg, acc_t& exp_avg_sq) const {
    exp_avg += weight1 * (g - exp_avg);
    exp_avg_sq = beta2 * exp_avg_sq + weight2 * g * g;
    p -= (grad_size * g + avg_size * exp_avg) / root_plus(exp_avg_sq, eps);
  }
};

struct Radam : States<2> {
  acc_t weight1, beta2, weight2, eps, step_size, rectified;
  __device__ Radam(const double* c)
      : weight1(c[0]), beta2(c[1]), weight2(c[2]), eps(c[3]), step_size(c[4]), rectified(c[5]) {}
  __device__ void operator()(acc_t& p, acc_t g, acc_t& exp_avg, acc_t& exp_avg_sq) const {
    exp_avg += weight1 * (g - exp_avg);
    exp_avg_sq = beta2 * exp_avg_sq + weight2 * g * g;
    const acc_t divisor = rectified != acc_t(0) ? root_plus(exp_avg_sq, eps) : acc_t(1);
    descend(p, step_size, exp_avg, divisor);
  }
};

struct Adamax : States<2> {
  acc_t weight1, beta2, eps, step_size;
  __device__ Adamax(const double* c) : weight1(c[0]), beta2(c[1]), eps(c[2]), step_size(c[3]) {}
  __device__ void operator()(acc_t& p, acc_t g, acc_t& exp_avg, acc_t& exp_inf) const {
    exp_avg += weight1 * (g - exp_avg);
    exp_inf = math::larger_or_nan(beta2 * exp_inf, math::abs(g) + eps);
    descend(p, step_size, exp_avg, exp_inf);
  }
};

struct Lion : States<1> {
  acc_t beta1, weight1, beta2, weight2, lr;
  __device__ Lion(const double* c)
      : beta1(c[0]), weight1(c[1]), beta2(c[2]), weight2(c[3]), lr(c[4]) {}
  __device__ void operator()(acc_t& p, acc_t g, acc_t& exp_avg) const {
    const acc_t ahead = beta1 * exp_avg + weight1 * g;
    exp_avg = beta2 * exp_avg + weight2 * g;
    p -= lr * math::sign(ahead);
  }
};

struct Rmsprop : States<1> {
  acc_t alpha, weight, eps, lr, momentum;
  __device__ Rmsprop(const double* c)
      : alpha(c[0]), weight(c[1]), eps(c[2]), lr(c[3]), momentum(c[4]) {}
  __device__ void operator()(acc_t& p, acc_t g, acc_t& square_avg) const {
    square_avg = alpha * square_avg + weight * g * g;
    descend(p, lr, g, root_plus(square_avg, eps));
  }
};

struct RmspropMomentum : States<2> {
  Rmsprop base;
  __device__ RmspropMomentum(const double* c) : base(c) {}
  __device__ void operator()(acc_t& p, acc_t g, acc_t& square_avg, acc_t& buffer) const {
    square_avg = base.alpha * square_avg + base.weight * g * g;
    buffer = base.momentum * buffer + g / root_plus(square_avg, base.eps);
    p -= base.lr * buffer;
  }
};

struct RmspropCentered : States<2> {
  Rmsprop base;
  __device__ RmspropCentered(const double* c) : base(c) {}
  __device__ acc_t quotient(acc_t g, acc_t& square_avg, acc_t& grad_avg) const {
    square_avg = base.alpha * square_avg + base.weight * g * g;
    grad_avg += base.weight * (g - grad_avg);
    return g / (math::sqrt(square_avg - grad_avg * grad_avg) + base.eps);
  }
  __device__ void operator()(acc_t& p, acc_t g, acc_t& square_avg, acc_t& grad_avg) const {
    p -= base.lr * quotient(g, square_avg, grad_avg);
  }
};

struct RmspropCenteredMomentum : States<3> {
  RmspropCentered centered;
  __device__ RmspropCenteredMomentum(const double* c) : centered(c) {}
  __device__ void operator()(acc_t& p, acc_t g, acc_t& square_avg, acc_t& buffer,
                             acc_t& grad_avg) const {
    buffer = centered.base.momentum * buffer + centered.quotient(g, square_avg, grad_avg);
    p -= centered.base.lr * buffer;
  }
};

struct Adagrad : States<1> {
  acc_t eps, lr;
  __device__ Adagrad(const double* c) : eps(c[0]), lr(c[1]) {}
  __device__ void operator()(acc_t& p, acc_t g, acc_t& total) const {
    total += g * g;
    descend(p, lr, g, root_plus(total, eps));
  }
};

struct Adadelta : States<2> {
  acc_t rho, weight, eps, lr;
  __device__ Adadelta(const double* c) : rho(c[0]), weight(c[1]), eps(c[2]), lr(c[3]) {}
  __device__ void operator()(acc_t& p, acc_t g, acc_t& square_avg, acc_t& acc_delta) const {
    square_avg = rho * square_avg + weight * g * g;
    const acc_t delta = math::sqrt(acc_delta + eps) / math::sqrt(square_avg + eps) * g;
    acc_delta = rho * acc_delta + weight * delta * delta;
    p -= lr * delta;
  }
};

struct Rprop : States<2> {
  acc_t down, up, smallest, largest;
  __device__ Rprop(const double* c) : down(c[0]), up(c[1]), smallest(c[2]), largest(c[3]) {}
  __device__ void operator()(acc_t& p, acc_t g, acc_t& prev, acc_t& step_size) const {
    const acc_t sign = g * prev;
    const bool turned = sign < acc_t(0);
    step_size *= turned ? down : sign > acc_t(0) ? up : acc_t(1);
    step_size = math::smaller(largest, math::larger(smallest, step_size));
    prev = turned ? acc_t(0) : g;
    // A gradient that is not a number has no sign: the element rests.
    p -= prev > acc_t(0) ? step_size : prev < acc_t(0) ? -step_size : acc_t(0);
  }
};

struct Asgd : States<1> {
  acc_t mu;
  __device__ Asgd(const double* c) : mu(c[0]) {}
  __device__ void operator()(acc_t& p, acc_t g, acc_t& ax) const {
    p -= g;
    ax = mu == acc_t(1) ? p : ax + mu * (p - ax);
  }
};

// ----------------------------------------------------------------------------------- kernels
KERNEL(sgd)
(const i64* tensors, const i64* grads, const i64* chunks, const double* constants,
 const float* found_inf, i64 unscale, i64 chunk_count, i64 chunk_size) {
  update<Sgd>(tensors, grads, chunks, constants, found_inf, unscale, chunk_count, chunk_size);
}

KERNEL(sgd_momentum)
(const i64* tensors, const i64* grads, const i64* chunks, const double* constants,
 const float* found_inf, i64 unscale, i64 chunk_count, i64 chunk_size) {
  update<SgdMomentum>(tensors, grads, chunks, constants, found_inf, unscale, chunk_count, chunk_size);
}

KERNEL(sgd_nesterov)
(const i64* tensors, const i64* grads, const i64* chunks, const double* constants,
 const float* found_inf, i64 unscale, i64 chunk_count, i64 chunk_size) {
  update<SgdNesterov>(tensors, grads, chunks, constants, found_inf, unscale, chunk_count, chunk_size);
}

KERNEL(adam)
(const i64* tensors, const i64* grads, const i64* chunks, const double* constants,
 const float* found_inf, i64 unscale, i64 chunk_count, i64 chunk_size) {
  update<Adam>(tensors, grads, chunks, constants, found_inf, unscale, chunk_count, chunk_size);
}

KERNEL(adam_amsgrad)
(const i64* tensors, const i64* grads, const i64* chunks, const double* constants,
 const float* found_inf, i64 unscale, i64 chunk_count, i64 chunk_size) {
  update<AdamAmsgrad>(tensors, grads, chunks, constants, found_inf, unscale, chunk_count, chunk_size);
}

KERNEL(nadam)
(const i64* tensors, const i64* grads, const i64* chunks, const double* constants,
 const float* found_inf, i64 unscale, i64 chunk_count, i64 chunk_size) {
  update<Nadam>(tensors, grads, chunks, constants, found_inf, unscale, chunk_count, chunk_size);
}

KERNEL(radam)
(const i64* tensors, const i64* grads, const i64* chunks, const double* constants,
 const float* found_inf, i64 unscale, i64 chunk_count, i64 chunk_size) {
  update<Radam>(tensors, grads, chunks, constants, found_inf, unscale, chunk_count, chunk_size);
}

KERNEL(adamax)
(const i64* tensors, const i64* grads, const i64* chunks, const double* constants,
 const float* found_inf, i64 unscale, i64 chunk_count, i64 chunk_size) {
  update<Adamax>(tensors, grads, chunks, constants, found_inf, unscale, chunk_count, chunk_size);
}

KERNEL(lion)
(const i64* tensors, const i64* grads, const i64* chunks, const double* constants,
 const float* found_inf, i64 unscale, i64 chunk_count, i64 chunk_size) {
  update<Lion>(tensors, grads, chunks, constants, found_inf, unscale, chunk_count, chunk_size);
}

KERNEL(rmsprop)
(const i64* tensors, const i64* grads, const i64* chunks, const double* constants,
 const float* found_inf, i64 unscale, i64 chunk_count, i64 chunk_size) {
  update<Rmsprop>(tensors, grads, chunks, constants, found_inf, unscale, chunk_count, chunk_size);
}

KERNEL(rmsprop_momentum)
(const i64* tensors, const i64* grads, const i64* chunks, const double* constants,
 const float* found_inf, i64 unscale, i64 chunk_count, i64 chunk_size) {
  update<RmspropMomentum>(tensors, grads, chunks, constants, found_inf, unscale, chunk_count, chunk_size);
}

KERNEL(rmsprop_centered)
(const i64* tensors, const i64* grads, const i64* chunks, const double* constants,
 const float* found_inf, i64 unscale, i64 chunk_count, i64 chunk_size) {
  update<RmspropCentered>(tensors, grads, chunks, constants, found_inf, unscale, chunk_count, chunk_size);
}

KERNEL(rmsprop_centered_momentum)
(const i64* tensors, const i64* grads, const i64* chunks, const double* constants,
 const float* found_inf, i64 unscale, i64 chunk_count, i64 chunk_size) {
  update<RmspropCenteredMomentum>(tensors, grads, chunks, constants, found_inf, unscale, chunk_count, chunk_size);
}

KERNEL(adagrad)
(const i64* tensors, const i64* grads, const i64* chunks, const double* constants,
 const float* found_inf, i64 unscale, i64 chunk_count, i64 chunk_size) {
  update<Adagrad>(tensors, grads, chunks, constants, found_inf, unscale, chunk_count, chunk_size);
}

KERNEL(adadelta)
(const i64* tensors, const i64* grads, const i64* chunks, const double* constants,
 const float* found_inf, i64 unscale, i64 chunk_count, i64 chunk_size) {
  update<Adadelta>(tensors, grads, chunks, constants, found_inf, unscale, chunk_count, chunk_size);
}

KERNEL(rprop)
(const i64* tensors, const i64* grads, const i64* chunks, const double* constants,
 const float* found_inf, i64 unscale, i64 chunk_count, i64 chunk_size) {
  update<Rprop>(tensors, grads, chunks, constants, found_inf, unscale, chunk_count, chunk_size);
}

KERNEL(asgd)
(const i64* tensors, const i64* grads, const i64* chunks, const double* constants,
 const float* found_inf, i64 unscale, i64 chunk_count, i64 chunk_size) {
  update<Asgd>(tensors, grads, chunks, constants, found_inf, unscale, chunk_count, chunk_size);
}
