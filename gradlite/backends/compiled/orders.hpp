// The order of random words outside of captured steps; comes after prelude.hpp.
//
// An item is the upper bits of a word and, in the place of the lower ones, where it stands.

static constexpr int MOST = 12;   // bits to spread by at once: the places to write at stay near
static constexpr int ALIKE = 2;  // items of which all bits that are spread by are the same

// Items of which the first bits are the same are spread by the `bits` that follow upon the first
// `known`; first[b] is where those of b begin.
template <class Item>
static void spread(const Item item, i64 n, int known, int bits, u64* out, int* first) {
  const auto bucket = [=](u64 word) { return bits ? word << known >> (64 - bits) : 0; };
  int next[1 << MOST];
  memset(next, 0, sizeof(int) << bits);
  for (i64 i = 0; i < n; i++) next[bucket(item(i))]++;
  int sum = 0;
  for (int b = 0; b < 1 << bits; b++) {
    const int count = next[b];
    first[b] = next[b] = sum;
    sum += count;
  }
  first[1 << bits] = sum;
  for (i64 i = 0; i < n; i++) {
    const u64 one = item(i);
    out[next[bucket(one)]++] = one;
  }
}

// A few items in order.
template <class Less>
static inline void insert(u64* items, i64 n, Less less) {
  for (i64 i = 1; i < n; i++) {
    const u64 item = items[i];
    i64 k = i;
    for (; k > 0 && less(item, items[k - 1]); k--) items[k] = items[k - 1];
    items[k] = item;
  }
}

// out[i] is the place of the i-th smallest of n < 2^31 words, of the same ones first that which
// stands first. There is room for n items. The time it takes grows with n as long as the words are
// spread evenly.
extern "C" void order(const u64* words, i64 n, u64* some, u64* out) {
  int bits = 0, low = 0;
  while (n >> bits > ALIKE && bits < 2 * MOST) bits++;
  while (n >> low) low++;
  const int coarse = bits > MOST ? bits / 2 : 0, fine = bits - coarse;
  int first[(1 << MOST) + 1], second[(1 << MOST) + 1];
  const u64 places = (u64(1) << low) - 1;
  const auto item = [=](i64 i) { return (words[i] & ~places) | u64(i); };
  if (coarse) spread(item, n, 0, coarse, some, first);
  for (int b = 0; b < 1 << coarse; b++) {
    const i64 start = coarse ? first[b] : 0, count = coarse ? first[b + 1] - start : n;
    u64* to = out + start;
    if (coarse) {
      spread([=](i64 i) { return some[start + i]; }, count, coarse, fine, to, second);
    } else {
      spread(item, n, 0, fine, to, second);
    }
    insert(to, count, [](u64 x, u64 y) { return x < y; });
  }
  // Those of which the upper bits are the same stand in the order of their places.
  int alike = 0;
  for (i64 i = 1; i < n; i++) alike |= !((out[i] ^ out[i - 1]) & ~places);
  for (i64 i = 0, same = 1; alike && i < n; i += same, same = 1) {
    while (i + same < n && !((out[i] ^ out[i + same]) & ~places)) same++;
    insert(out + i, same, [=](u64 x, u64 y) { return words[x & places] < words[y & places]; });
  }
  for (i64 i = 0; i < n; i++) out[i] &= places;
}
