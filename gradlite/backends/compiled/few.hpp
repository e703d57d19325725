// Convolutions of few images (N, C, H, W) outside of captured steps, image by image with the
// functions of convolution.hpp; comes after prelude.hpp, shuffles.hpp, images.hpp and that file,
// compiled for one type of numbers, REAL.

struct Few {
  Slide s;
  i64 x[4], w[4], y[4];  // strides of images, kernels and results
};

extern "C" {
// y = x * w + bias
void few_convolved(const Few* job, const REAL* x, const REAL* w, const REAL* bias, REAL* y) {
  constexpr i64 SLACK = SLIDE_VECTORS * Vector<REAL>::lanes;
  Slide s = job->s;
  const i64 N = s.N, K = s.taps();
  s.N = 1;
  REAL* const kernels = (REAL*)scratch<3>(s.O * K * sizeof(REAL));
  arranged<REAL>(w, job->w[0], job->w[1], job->w[2], job->w[3], kernels, s.O, s.C, s.KH, s.KW);
  const i64 image = up(s.C * s.plane() + SLACK), result = s.O * up(s.pixels() + SLACK);
  parallel(N * s.OH * s.OW * s.O * K >= SHARED, N, [=](i64 n) {
    char* const room = scratch<4>(up(K * 8) + (image + result) * sizeof(REAL));
    convolve<REAL>(s, x + n * job->x[0], 0, job->x[1], job->x[2], job->x[3], kernels, bias,
                   y + n * job->y[0], 0, job->y[1], job->y[2], job->y[3], room);
  });
}

// dw = the gradient of kernels (O, C, KH, KW); the job's y are the strides of g
void few_kernels(const Few* job, const REAL* x, const REAL* g, REAL* dw) {
  typedef Vector<REAL> V;
  const Slide& s = job->s;
  const i64 K = s.taps(), pixels = group_of<REAL>(s) * s.rows() * s.width();
  const i64 images = up(s.C * s.SH * s.SW * pixels + s.rows() * s.width() + 2 * V::lanes);
  const i64 grads = s.O * up(pixels + V::lanes);
  char* const room = scratch<4>(up(K * 8) + (images + grads) * sizeof(REAL) +
                                s.O * K * sizeof(typename V::type));
  weight_gradient<REAL>(s, x, job->x[0], job->x[1], job->x[2], job->x[3], g, job->y[0], job->y[1],
                        job->y[2], job->y[3], dw, room);
}
}
