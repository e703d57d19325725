// Stacks of heads for attention.hpp; comes after prelude.hpp.
static constexpr i64 STRIP = 16;  // queries whose scores are made at a time

// (counts..., rows, size), strides in bytes; gradients that nobody wants have no data.
struct Stack {
  char* data;
  const i64* strides;
};

// (counts..., queries, keys) of bools, an item of one byte, or of floats; without data there is none.
struct Mask {
  Stack stack;
  int item;
};

struct Heads {
  i64 dimensions;
  const i64* counts;
  i64 queries, keys, size, value_size;
  bool causal;
  double scale;

  i64 number() const {
    i64 heads = 1;
    for (i64 d = 0; d < dimensions; d++) heads *= counts[d];
    return heads;
  }
  // How many floats of a head are kept for the gradients.
  i64 room() const {
    i64 rows = 0;
    for (i64 q = 0; q < queries; q += STRIP) {
      rows += (causal && q + STRIP < keys ? q + STRIP : keys) + 1;
    }
    return rows * STRIP;
  }
  // Whether so many products are worth a second thread.
  bool worth(i64 products) const {
    const i64 each = queries * keys * (size + value_size) / 2;
    return (causal ? each / 2 : each) * products * number() >= SHARED;
  }
};
