// Calls of native kernels from Python: `CALLED_FROM_PYTHON(kernel)` defines kernel_called,
// which takes the tuple of arguments as it is. Python's own functions read the numbers, and an
// array's memory is found where NumPy keeps the pointer, just behind the header of the object
// (GRADLITE_OBJECT_HEADER bytes). It costs a fraction of what ctypes takes to convert arguments.
#include <utility>

extern "C" {
void* PyTuple_GetItem(void* tuple, long place);
long PyTuple_Size(void* tuple);
long long PyLong_AsLongLong(void* number);
double PyFloat_AsDouble(void* number);
void* PyErr_Occurred();
void PyErr_SetString(void* type, const char* message);
extern void* PyExc_TypeError;

void *gradlite_none, *gradlite_array;  // None and numpy.ndarray
void gradlite_bind(void* none, void* array) {
  gradlite_none = none;
  gradlite_array = array;
}
}

// The first fields of NumPy's array object, behind the header.
struct ArrayFields {
  void* data;
  int dimensions;
  void *shape, *strides, *base, *dtype;
  int flags;
};
constexpr int ROW_MAJOR = 1;

extern "C" void* PyList_GetItem(void* list, long place);
extern "C" long PyList_Size(void* list);

// The addresses of a list of arrays, into an array of 64-bit numbers of NumPy; 0 when one of them
// is no row-major array of a dtype.
extern "C" int gradlite_addresses(void* list, void* dtype, void* out) {
  i64* addresses = *reinterpret_cast<i64**>(static_cast<char*>(out) + GRADLITE_OBJECT_HEADER);
  const long n = PyList_Size(list);
  for (long i = 0; i < n; i++) {
    void** object = static_cast<void**>(PyList_GetItem(list, i));
    if (!object) return 0;
    char* header = reinterpret_cast<char*>(object) + GRADLITE_OBJECT_HEADER;
    const ArrayFields* fields = reinterpret_cast<ArrayFields*>(header);
    if (reinterpret_cast<void**>(header)[-1] != gradlite_array || fields->dtype != dtype ||
        !(fields->flags & ROW_MAJOR)) {
      return 0;
    }
    addresses[i] = reinterpret_cast<i64>(fields->data);
  }
  return 1;
}

template <class T>
struct FromPython;
template <>
struct FromPython<i64> {
  static i64 read(void* object) { return PyLong_AsLongLong(object); }
};
template <>
struct FromPython<double> {
  static double read(void* object) { return PyFloat_AsDouble(object); }
};
template <class T>
struct FromPython<T*> {
  static T* read(void* object) {
    if (object == gradlite_none) return nullptr;
    char* header = static_cast<char*>(object) + GRADLITE_OBJECT_HEADER;
    if (reinterpret_cast<void**>(header)[-1] != gradlite_array) {  // its type
      PyErr_SetString(PyExc_TypeError, "a kernel's pointer takes an array of NumPy or None");
      return nullptr;
    }
    return *reinterpret_cast<T**>(header);
  }
};

template <class... Types, std::size_t... places>
static void call_from_python(void (*kernel)(Types...), void* arguments,
                             std::index_sequence<places...>) {
  struct Call {  // made with braces, which read the arguments in their order
    Call(void (*kernel)(Types...), Types... values) {
      if (!PyErr_Occurred()) kernel(values...);
    }
  };
  Call{kernel, FromPython<Types>::read(PyTuple_GetItem(arguments, places))...};
}

template <class... Types>
static void call_from_python(void (*kernel)(Types...), void* arguments) {
  if (PyTuple_Size(arguments) != long(sizeof...(Types))) {
    PyErr_SetString(PyExc_TypeError, "a kernel was given a wrong number of arguments");
    return;
  }
  call_from_python(kernel, arguments, std::index_sequence_for<Types...>());
}

#define CALLED_FROM_PYTHON(kernel) \
  extern "C" void kernel##_called(void* arguments) { call_from_python(&kernel, arguments); }
