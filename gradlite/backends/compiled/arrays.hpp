// NumPy's arrays as functions outside of captured steps read them, called from Python with the
// arrays themselves; comes after prelude.hpp, compiled for one type of numbers, REAL.
#include "from_python.h"

extern "C" {
void* PyEval_SaveThread();
void PyEval_RestoreThread(void* state);
}

extern "C" {
int vector_bytes = WIDE;
}
static void *dtype_of_real, *dtype_of_bools;
extern "C" void arrays_bind(void* none, void* array, void* dtype, void* bools) {
  gradlite_bind(none, array);
  dtype_of_real = dtype;
  dtype_of_bools = bools;
}

constexpr int ALIGNED = 0x100;

static inline const ArrayFields* fields_of(void* object, int least = 2,
                                           void* dtype = dtype_of_real) {
  char* header = static_cast<char*>(object) + GRADLITE_OBJECT_HEADER;
  const ArrayFields* fields = reinterpret_cast<ArrayFields*>(header);
  const bool fits = reinterpret_cast<void**>(header)[-1] == gradlite_array &&
                    fields->dtype == dtype && (fields->flags & ALIGNED) &&
                    fields->dimensions >= least;
  return fits ? fields : nullptr;
}

// Other Python threads run meanwhile where the work takes long enough for them.
struct OthersRun {
  void* state;
  OthersRun(bool worth) : state(worth ? PyEval_SaveThread() : nullptr) {}
  ~OthersRun() {
    if (state) PyEval_RestoreThread(state);
  }
};
