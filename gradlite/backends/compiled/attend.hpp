// Attention on NumPy's arrays outside of captured steps; comes after prelude.hpp, shuffles.hpp,
// heads.hpp, attention.hpp and arrays.hpp, compiled for float.
enum Role { READ, WRITTEN, WANTED };  // the last may be None

// What says where the heads (..., rows, size) of an array are.
struct Array {
  const ArrayFields* fields = nullptr;
  bool fits = true;

  // Of as many heads as `like`, where that is given; rows that are written are contiguous.
  Array(void* object, const ArrayFields* like, Role role = READ, void* dtype = dtype_of_real) {
    if (object == gradlite_none && role == WANTED) return;
    fields = fields_of(object, 2, dtype);
    fits = fields && (!like || fields->dimensions == like->dimensions);
    if (fits && role != READ) fits = size(1) == 1 || last(fields->strides, 1) == sizeof(float);
    for (int d = 0; fits && like && d < like->dimensions - 2; d++) {
      fits = ((i64*)fields->shape)[d] == ((i64*)like->shape)[d];
    }
  }
  i64 last(void* numbers, int axis) const {
    return ((i64*)numbers)[fields->dimensions - 2 + axis];
  }
  i64 size(int axis) const { return last(fields->shape, axis); }
  bool is(i64 rows, i64 columns) const {
    return fits && (!fields || (size(0) == rows && size(1) == columns));
  }
  Stack stack() const {
    if (!fields) return {nullptr, nullptr};
    return {(char*)fields->data, (const i64*)fields->strides};
  }
};

static bool has_room(void* strips, const Heads& h) {
  const ArrayFields* const kept = fields_of(strips, 1);
  return kept && (kept->flags & ROW_MAJOR) && ((i64*)kept->shape)[0] == h.number() * h.room();
}

static float* floats_of(void* array) { return (float*)fields_of(array, 1)->data; }

static Heads heads_of(const Array& q, const Array& k, const Array& v, int causal, double scale) {
  return {q.fields->dimensions - 2, (const i64*)q.fields->shape, q.size(0), k.size(0), q.size(1),
          v.size(1), causal != 0, scale};
}

// out = softmax(scale q kᵀ + mask) v for stacks of heads; `strips` is for what the gradients need.
// The mask, of a value for each score, may be None. Returns 0, having done nothing, where the arrays
// are others.
extern "C" int attend_arrays(void* q, void* k, void* v, void* strips, void* out, int causal,
                             double scale, void* mask) {
  const Array queries(q, nullptr);
  if (!queries.fits) return 0;
  const ArrayFields* const like = queries.fields;
  const Array keys(k, like), values(v, like), made(out, like, WRITTEN);
  if (!keys.fits || !values.fits) return 0;
  const Heads h = heads_of(queries, keys, values, causal, scale);
  if (!keys.is(h.keys, h.size) || !values.is(h.keys, h.value_size)) return 0;
  if (!made.is(h.queries, h.value_size) || !has_room(strips, h)) return 0;
  Mask hidden{};
  if (mask != gradlite_none) {
    const Array bools(mask, like, READ, dtype_of_bools), numbers(mask, like);
    const Array& own = bools.fits ? bools : numbers;
    if (!own.is(h.queries, h.keys)) return 0;
    hidden = {own.stack(), bools.fits ? 1 : int(sizeof(float))};
  }
  const OthersRun others(h.worth(2));
  attend(h, queries.stack(), keys.stack(), values.stack(), floats_of(strips), made.stack(), hidden);
  return 1;
}

// The gradients of q, k and v from that of the result; None for those that nobody wants.
extern "C" int gradients_of_arrays(void* grad, void* q, void* k, void* v, void* strips, void* dq,
                                   void* dk, void* dv, int causal, double scale) {
  const Array queries(q, nullptr);
  if (!queries.fits) return 0;
  const ArrayFields* const like = queries.fields;
  const Array keys(k, like), values(v, like), grads(grad, like);
  const Array of_q(dq, like, WANTED), of_k(dk, like, WANTED), of_v(dv, like, WANTED);
  if (!keys.fits || !values.fits) return 0;
  const Heads h = heads_of(queries, keys, values, causal, scale);
  if (!keys.is(h.keys, h.size) || !values.is(h.keys, h.value_size)) return 0;
  if (!grads.is(h.queries, h.value_size) || !of_q.is(h.queries, h.size)) return 0;
  if (!of_k.is(h.keys, h.size) || !of_v.is(h.keys, h.value_size)) return 0;
  if (!has_room(strips, h)) return 0;
  const OthersRun others(h.worth(5));
  attention_gradients(h, grads.stack(), queries.stack(), keys.stack(), values.stack(),
                      floats_of(strips), of_q.stack(), of_k.stack(), of_v.stack());
  return 1;
}
