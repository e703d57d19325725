// Where the inputs of a replay lie: their addresses into the table of a captured step, in one call.
typedef long long i64;
#include "from_python.h"
extern "C" void* PyLong_AsVoidPtr(void* number);

struct Inputs {
  const i64* rows;  // for each: its number among the values, its place in the table, its bytes
  i64 count;
  void** table;
  const i64* taken;  // first addresses and ends of memory that the step writes
  i64 ranges;
};

// 1, or 0 when an array has to be copied: it is not row-major, or lies where the step writes.
extern "C" int gradlite_point(void* values, void* address) {
  const Inputs& in = *static_cast<const Inputs*>(PyLong_AsVoidPtr(address));
  for (const i64* row = in.rows; row < in.rows + 3 * in.count; row += 3) {
    char* object = static_cast<char*>(PyList_GetItem(values, row[0]));
    if (!object) return 0;
    char* header = object + GRADLITE_OBJECT_HEADER;
    const ArrayFields* fields = reinterpret_cast<ArrayFields*>(header);
    if (reinterpret_cast<void**>(header)[-1] != gradlite_array || !(fields->flags & ROW_MAJOR)) {
      return 0;
    }
    const i64 start = reinterpret_cast<i64>(fields->data), end = start + row[2];
    for (i64 i = 0; i < in.ranges; i++) {
      if (start < in.taken[2 * i + 1] && in.taken[2 * i] < end) return 0;
    }
    in.table[row[1]] = fields->data;
  }
  return 1;
}
