// The numbers that an optimizer's step needs, worked out where its counters are: on the device.
// A step that was captured can then be replayed, and one whose gradients overflowed can be left
// out, without the host knowing. In double precision, as `ElementwiseOptimizer._advance` in Python.
//
// A row of `tensors` is (row of options, address of the learning rate or 0, address of the first
// counter, floats from one counter to the next). A row of options is
//
//     1 or -1 (maximize), weight decay of the gradient, of the parameter, learning rate, the rule's
//
// and a row of constants what optimizer.cu reads. `grad_scale` may point to the scale of the loss.
// If `found_inf` points to anything but 0, nothing changes.
#include "common.cuh"

constexpr i64 WIDTH = 4, OPTIONS = 10, CONSTANTS = 10;

// The counters of one parameter.
struct Counters {
  float* first;
  i64 distance;
  __device__ float& operator[](int i) const { return first[i * distance]; }
};

DEVICE double count_step(const Counters& counters) {
  const float step = counters[0] + 1.0f;
  counters[0] = step;
  return step;
}

template <class Rule>
DEVICE void advance(const i64* tensors, const double* options, const float* found_inf,
                    const float* grad_scale, double* constants, i64 count) {
  if (found_inf && *found_inf != 0.0f) return;
  const double factor = grad_scale ? 1.0 / double(*grad_scale) : 1.0;
  for (i64 i = thread_index(); i < count; i += thread_count()) {
    const i64* row = tensors + i * WIDTH;
    const double* o = options + row[0] * OPTIONS;
    const double lr = row[1] ? double(*reinterpret_cast<const float*>(row[1])) : o[3];
    double* c = constants + i * CONSTANTS;
    c[0] = factor * o[0];
    c[1] = o[1];
    c[2] = 1.0;
    c[3] = 1.0 - lr * o[2];
    Rule::advance(Counters{reinterpret_cast<float*>(row[2]), row[3]}, lr, o + 4, c, c + 4);
  }
}

// ------------------------------------------------------------------------------------- rules
// o: the rule's options. c: the row of constants; r: the part of it that is the rule's.
struct Sgd {
  static __device__ void advance(const Counters&, double lr, const double*, double* c, double*) {
    c[2] = lr;
  }
};

struct SgdMomentum {  // o: momentum, dampening; the counter says whether there has been a step
  static __device__ void advance(const Counters& counters, double lr, const double* o, double* c,
                                 double* r) {
    c[2] = counters[0] != 0.0f ? 1.0 - o[1] : 1.0;
    r[0] = lr;
    r[1] = o[0];
    counters[0] = 1.0f;
  }
};

struct Adam {  // o: beta1, beta2, eps
  static __device__ void advance(const Counters& counters, double lr, const double* o, double* c,
                                 double* r) {
    const double step = count_step(counters);
    const double correction = math::sqrt(1.0 - math::pow(o[1], step));
    c[2] = 1.0 - o[0];
    r[0] = o[0];
    r[1] = math::sqrt(1.0 - o[1]) / (1.0 - o[0]);
    r[2] = o[1];
    r[3] = o[2] * correction;
    r[4] = lr / (1.0 - math::pow(o[0], step)) * correction;
  }
};

struct Nadam {  // o: beta1, beta2, eps, momentum_decay; counters: step, mu_product
  static __device__ void advance(const Counters& counters, double lr, const double* o, double*,
                                 double* r) {
    const double step = count_step(counters);
    const double mu = o[0] * (1.0 - 0.5 * math::pow(0.96, step * o[3]));
    const double mu_next = o[0] * (1.0 - 0.5 * math::pow(0.96, (step + 1.0) * o[3]));
    const float product = counters[1] * float(mu);
    counters[1] = product;
    const double correction = math::sqrt(1.0 - math::pow(o[1], step));
    r[0] = 1.0 - o[0];
    r[1] = o[1];
    r[2] = 1.0 - o[1];
    r[3] = o[2] * correction;
    r[4] = lr * (1.0 - mu) / (1.0 - product) * correction;
    r[5] = lr * mu_next / (1.0 - product * mu_next) * correction;
  }
};

struct Radam {  // o: beta1, beta2, eps
  static __device__ void advance(const Counters& counters, double lr, const double* o, double*,
                                 double* r) {
    const double step = count_step(counters);
    const double power = math::pow(o[1], step), correction = 1.0 - power;
    const double longest = 2.0 / (1.0 - o[1]) - 1.0;
    const double length = longest - 2.0 * step * power / correction;
    double step_size = lr / (1.0 - math::pow(o[0], step));
    if (length > 5.0) {
      step_size *= math::sqrt((length - 4.0) * (length - 2.0) * longest /
                              ((longest - 4.0) * (longest - 2.0) * length) * correction);
    }
    r[0] = 1.0 - o[0];
    r[1] = o[1];
    r[2] = 1.0 - o[1];
    r[3] = o[2];
    r[4] = step_size;
    r[5] = length > 5.0 ? 1.0 : 0.0;
  }
};

struct Adamax {  // o: beta1, beta2, eps
  static __device__ void advance(const Counters& counters, double lr, const double* o, double*,
                                 double* r) {
    const double step = count_step(counters);
    r[0] = 1.0 - o[0];
    r[1] = o[1];
    r[2] = o[2];
    r[3] = lr / (1.0 - math::pow(o[0], step));
  }
};

struct Lion {  // o: beta1, beta2
  static __device__ void advance(const Counters& counters, double lr, const double* o, double*,
                                 double* r) {
    count_step(counters);
    for (int i = 0; i < 2; i++) {
      r[2 * i] = o[i];
      r[2 * i + 1] = 1.0 - o[i];
    }
    r[4] = lr;
  }
};

struct Rmsprop {  // o: alpha, eps, momentum
  static __device__ void advance(const Counters& counters, double lr, const double* o, double*,
                                 double* r) {
    count_step(counters);
    r[0] = o[0];
    r[1] = 1.0 - o[0];
    r[2] = o[1];
    r[3] = lr;
    r[4] = o[2];
  }
};

struct Adagrad {  // o: lr_decay, eps
  static __device__ void advance(const Counters& counters, double lr, const double* o, double*,
                                 double* r) {
    r[0] = o[1];
    r[1] = lr / (1.0 + (count_step(counters) - 1.0) * o[0]);
  }
};

struct Adadelta {  // o: rho, eps
  static __device__ void advance(const Counters& counters, double lr, const double* o, double*,
                                 double* r) {
    count_step(counters);
    r[0] = o[0];
    r[1] = 1.0 - o[0];
    r[2] = o[1];
    r[3] = lr;
  }
};

struct Rprop {  // o: the two etas, the smallest and the largest step
  static __device__ void advance(const Counters& counters, double, const double* o, double*,
                                 double* r) {
    count_step(counters);
    for (int i = 0; i < 4; i++) r[i] = o[i];
  }
};

struct Asgd {  // o: lambd, alpha, t0; counters: step, eta, mu
  static __device__ void advance(const Counters& counters, double lr, const double* o, double* c,
                                 double* r) {
    const double step = count_step(counters), eta = counters[1];
    c[2] = eta;
    c[3] = 1.0 - o[0] * eta;
    r[0] = counters[2];
    counters[1] = float(lr / math::pow(1.0 + o[0] * lr * step, o[1]));
    counters[2] = float(1.0 / math::larger(step - o[2], 1.0));
  }
};

// ----------------------------------------------------------------------------------- kernels
KERNEL(sgd_advance)
(const i64* tensors, const double* options, const float* found_inf, const float* grad_scale,
 double* constants, i64 count) {
  advance<Sgd>(tensors, options, found_inf, grad_scale, constants, count);
}

KERNEL(sgd_momentum_advance)
(const i64* tensors, const double* options, const float* found_inf, const float* grad_scale,
 double* constants, i64 count) {
  advance<SgdMomentum>(tensors, options, found_inf, grad_scale, constants, count);
}

KERNEL(adam_advance)
(const i64* tensors, const double* options, const float* found_inf, const float* grad_scale,
 double* constants, i64 count) {
  advance<Adam>(tensors, options, found_inf, grad_scale, constants, count);
}

KERNEL_BLOCKS(nadam_advance, 4)
(const i64* tensors, const double* options, const float* found_inf, const float* grad_scale,
 double* constants, i64 count) {
  advance<Nadam>(tensors, options, found_inf, grad_scale, constants, count);
}

KERNEL_BLOCKS(radam_advance, 4)
(const i64* tensors, const double* options, const float* found_inf, const float* grad_scale,
 double* constants, i64 count) {
  advance<Radam>(tensors, options, found_inf, grad_scale, constants, count);
}

KERNEL_BLOCKS(adamax_advance, 4)
(const i64* tensors, const double* options, const float* found_inf, const float* grad_scale,
 double* constants, i64 count) {
  advance<Adamax>(tensors, options, found_inf, grad_scale, constants, count);
}

KERNEL(lion_advance)
(const i64* tensors, const double* options, const float* found_inf, const float* grad_scale,
 double* constants, i64 count) {
  advance<Lion>(tensors, options, found_inf, grad_scale, constants, count);
}

KERNEL(rmsprop_advance)
(const i64* tensors, const double* options, const float* found_inf, const float* grad_scale,
 double* constants, i64 count) {
  advance<Rmsprop>(tensors, options, found_inf, grad_scale, constants, count);
}

KERNEL(adagrad_advance)
(const i64* tensors, const double* options, const float* found_inf, const float* grad_scale,
 double* constants, i64 count) {
  advance<Adagrad>(tensors, options, found_inf, grad_scale, constants, count);
}

KERNEL(adadelta_advance)
(const i64* tensors, const double* options, const float* found_inf, const float* grad_scale,
 double* constants, i64 count) {
  advance<Adadelta>(tensors, options, found_inf, grad_scale, constants, count);
}

KERNEL(rprop_advance)
(const i64* tensors, const double* options, const float* found_inf, const float* grad_scale,
 double* constants, i64 count) {
  advance<Rprop>(tensors, options, found_inf, grad_scale, constants, count);
}

KERNEL(asgd_advance)
(const i64* tensors, const double* options, const float* found_inf, const float* grad_scale,
 double* constants, i64 count) {
  advance<Asgd>(tensors, options, found_inf, grad_scale, constants, count);
}
