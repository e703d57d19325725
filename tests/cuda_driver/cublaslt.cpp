// cuBLASLt's products, as far as nvmath-python's bindings reach them: see driver.h.
//
// What the library documents as an error, or is known to refuse, is refused here too: the rules are
// those of tests/cublaslt_stand_in.
#include <cstdlib>
#include <cstring>
#include <map>

#include "driver.h"

namespace cuda_driver {
namespace {

enum Status : int { ok = 0, bad_value = 7, unsupported = 15 };
enum Type : int { f32 = 0, f64 = 1, f16 = 2, bf16 = 14 };
enum Epilogue : uint32_t { plain = 1, bias = 4, sums_of_a = 256, sums_of_b = 512 };
enum DescAttribute { compute_type, scale_type, pointer_mode, op_a, op_b, epilogue = 7, vector = 8 };
enum LayoutAttribute { type, order, rows, columns, leading, count, stride };
constexpr int compute_tf32 = 77, compute_64 = 70;
constexpr size_t workspace_needed = 1 << 10;

// Attributes by their numbers, whatever their width.
struct Attributes {
  std::map<int, int64_t> values;
  int64_t get(int which, int64_t otherwise = 0) const {
    auto found = values.find(which);
    return found == values.end() ? otherwise : found->second;
  }
};

struct Heuristic {
  uint64_t algorithm[8];
  size_t workspace;
  int state;
  float waves;
  int reserved[4];
};

Status put(Attributes& attributes, int which, const void* value, size_t bytes) {
  int64_t number = 0;
  if (!value || (bytes != 4 && bytes != 8)) return bad_value;
  memcpy(&number, value, bytes);
  attributes.values[which] = bytes == 4 ? int64_t(int32_t(number)) : number;
  return ok;
}

struct Matrix {
  int64_t kind, rows, columns, leading, count, stride;
  explicit Matrix(const void* layout) {
    auto& given = *static_cast<const Attributes*>(layout);
    kind = given.get(type);
    rows = given.get(::cuda_driver::rows), columns = given.get(::cuda_driver::columns);
    leading = given.get(::cuda_driver::leading);
    count = given.get(::cuda_driver::count, 1), stride = given.get(::cuda_driver::stride);
  }
};

double read(const void* memory, int64_t place, int64_t kind) {
  auto* bits = static_cast<const uint16_t*>(memory);
  if (kind == f64) return static_cast<const double*>(memory)[place];
  if (kind == f32) return static_cast<const float*>(memory)[place];
  if (kind == f16) return double(static_cast<const _Float16*>(memory)[place]);
  uint32_t wide = uint32_t(bits[place]) << 16;
  float value;
  memcpy(&value, &wide, sizeof value);
  return value;
}

void write(void* memory, int64_t place, int64_t kind, double value) {
  if (kind == f64) {
    static_cast<double*>(memory)[place] = value;
  } else if (kind == f32) {
    static_cast<float*>(memory)[place] = float(value);
  } else if (kind == f16) {
    static_cast<_Float16*>(memory)[place] = _Float16(float(value));
  } else {
    float narrow = float(value);
    uint32_t bits;
    memcpy(&bits, &narrow, sizeof bits);
    uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    static_cast<uint16_t*>(memory)[place] =
        uint16_t(narrow == narrow ? rounded : (bits >> 16) | 0x40u);
  }
}

double to_tf32(double value) {
  float narrow = float(value);
  uint32_t bits;
  memcpy(&bits, &narrow, sizeof bits);
  bits = (bits + 0x1000u) & 0xffffe000u;
  memcpy(&narrow, &bits, sizeof narrow);
  return narrow;
}

struct Product {
  Attributes desc;
  Matrix a, b, c, d;
  double alpha, beta;
  const void *pa, *pb, *pc;
  void* pd;
};

// op(A) or op(B) of one member of a batch, column after column.
std::vector<double> operand(const Matrix& x, const void* memory, int64_t member, bool turned,
                            bool tf32) {
  int64_t m = turned ? x.columns : x.rows, n = turned ? x.rows : x.columns;
  std::vector<double> out(size_t(m * n));
  for (int64_t j = 0; j < n; j++)
    for (int64_t i = 0; i < m; i++) {
      int64_t place = turned ? i * x.leading + j : j * x.leading + i;
      double value = read(memory, member * x.stride + place, x.kind);
      out[size_t(j * m + i)] = tf32 ? to_tf32(value) : value;
    }
  return out;
}

void multiply(const Product& p) {
  bool tf32 = p.desc.get(compute_type) == compute_tf32;
  auto end = uint32_t(p.desc.get(epilogue, plain));
  auto* sums = reinterpret_cast<void*>(p.desc.get(vector));
  int64_t m = p.d.rows, n = p.d.columns;
  for (int64_t member = 0; member < p.d.count; member++) {
    auto a = operand(p.a, p.pa, member, p.desc.get(op_a), tf32);
    auto b = operand(p.b, p.pb, member, p.desc.get(op_b), tf32);
    int64_t k = int64_t(a.size()) / m;
    std::vector<double> column(static_cast<size_t>(m));
    for (int64_t j = 0; j < n; j++) {
      std::fill(column.begin(), column.end(), 0.0);
      for (int64_t l = 0; l < k; l++)
        for (int64_t i = 0; i < m; i++)
          column[size_t(i)] += a[size_t(l * m + i)] * b[size_t(j * k + l)];
      for (int64_t i = 0; i < m; i++) {
        double value = p.alpha * column[size_t(i)];
        if (p.beta != 0)
          value += p.beta * read(p.pc, member * p.c.stride + j * p.c.leading + i, p.c.kind);
        if (end == bias) value += read(sums, i, p.d.kind);
        write(p.pd, member * p.d.stride + j * p.d.leading + i, p.d.kind, value);
      }
    }
    if (end == sums_of_a || end == sums_of_b) {
      int64_t length = end == sums_of_a ? m : n;
      for (int64_t i = 0; i < length; i++) {
        double total = 0;
        for (int64_t l = 0; l < k; l++)
          total += end == sums_of_a ? a[size_t(l * m + i)] : b[size_t(i * k + l)];
        write(sums, i, p.d.kind, total);
      }
    }
  }
}

Status check(const Attributes& desc, const Matrix& a, const Matrix& b, const Matrix& c,
             const Matrix& d) {
  for (const Matrix* x : {&a, &b, &c, &d}) {
    if (x->kind != d.kind) return unsupported;
    if (x->rows < 1 || x->columns < 1 || x->leading < x->rows || x->count != d.count)
      return bad_value;
  }
  bool wide = d.kind == f64;
  if (wide != (desc.get(compute_type) == compute_64)) return unsupported;
  if (desc.get(compute_type) == compute_tf32 && d.kind != f32) return unsupported;
  bool ta = desc.get(op_a), tb = desc.get(op_b);
  int64_t k = ta ? a.rows : a.columns;
  if ((ta ? a.columns : a.rows) != d.rows || (tb ? b.rows : b.columns) != d.columns ||
      (tb ? b.columns : b.rows) != k || c.rows != d.rows || c.columns != d.columns)
    return bad_value;
  auto end = uint32_t(desc.get(epilogue, plain));
  if (end != plain && end != bias && end != sums_of_a && end != sums_of_b) return unsupported;
  if (end != plain && d.count > 1) return unsupported;
  if ((end == sums_of_a && (ta || k == 1)) || (end == sums_of_b && (!tb || k == 1)))
    return unsupported;
  return ok;
}

}  // namespace

API size_t cublasLtGetVersion() { return 120900; }
API size_t cublasLtGetCudartVersion() { return 12090; }
API const char* cublasLtGetStatusName(int status) {
  return status == unsupported ? "CUBLAS_STATUS_NOT_SUPPORTED" : "CUBLAS_STATUS_INVALID_VALUE";
}
API const char* cublasLtGetStatusString(int status) { return cublasLtGetStatusName(status); }

API int cublasLtCreate(void** made) {
  *made = new int(0);
  return ok;
}
API int cublasLtDestroy(void*) { return ok; }

API int cublasLtMatmulDescCreate(void** made, int compute, int scale) {
  *made = new Attributes{{{compute_type, compute}, {scale_type, scale}}};
  return ok;
}
API int cublasLtMatmulDescDestroy(void* desc) {
  delete static_cast<Attributes*>(desc);
  return ok;
}
API int cublasLtMatmulDescSetAttribute(void* desc, int which, const void* value, size_t bytes) {
  return put(*static_cast<Attributes*>(desc), which, value, bytes);
}

API int cublasLtMatrixLayoutCreate(void** made, int kind, uint64_t m, uint64_t n, int64_t ld) {
  *made = new Attributes{
      {{type, kind}, {rows, int64_t(m)}, {columns, int64_t(n)}, {leading, ld}}};
  return ok;
}
API int cublasLtMatrixLayoutDestroy(void* layout) { return cublasLtMatmulDescDestroy(layout); }
API int cublasLtMatrixLayoutSetAttribute(void* layout, int which, const void* value,
                                         size_t bytes) {
  return put(*static_cast<Attributes*>(layout), which, value, bytes);
}

API int cublasLtMatmulPreferenceCreate(void** made) {
  *made = new Attributes;
  return ok;
}
API int cublasLtMatmulPreferenceDestroy(void* p) { return cublasLtMatmulDescDestroy(p); }
API int cublasLtMatmulPreferenceSetAttribute(void* preference, int which, const void* value,
                                             size_t bytes) {
  return put(*static_cast<Attributes*>(preference), which, value, bytes);
}

API int cublasLtMatmulAlgoGetHeuristic(void*, void* desc, void* a, void* b, void* c, void* d,
                                       void*, int, Heuristic* found, int* how_many) {
  *how_many = 0;
  Status status =
      check(*static_cast<Attributes*>(desc), Matrix(a), Matrix(b), Matrix(c), Matrix(d));
  if (status) return status;
  *found = Heuristic{{1}, workspace_needed, 0, 1, {}};
  *how_many = 1;
  return ok;
}

API int cublasLtMatmul(void*, void* desc, const void* alpha, const void* a, void* la, const void* b,
                       void* lb, const void* beta, const void* c, void* lc, void* d, void* ld,
                       const uint64_t* algorithm, void* workspace, size_t bytes, void* stream) {
  Product p{*static_cast<Attributes*>(desc), Matrix(la), Matrix(lb), Matrix(lc), Matrix(ld), 0, 0,
            a, b, c, d};
  if (Status status = check(p.desc, p.a, p.b, p.c, p.d)) return status;
  if (!algorithm || algorithm[0] != 1 || !workspace || bytes < workspace_needed) return bad_value;
  int64_t scalar = p.desc.get(scale_type);
  p.alpha = read(alpha, 0, scalar);
  p.beta = read(beta, 0, scalar);
  Lock lock = locked();
  return enqueue(stream_of(stream), [p] { multiply(p); }, lock) ? 13 : ok;  // execution failed
}

}  // namespace cuda_driver
