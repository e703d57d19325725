// From untyped arguments to a typed kernel: included once, after the kernel file, by the text that
// module.py writes. What a kernel takes is read off its own type, so that no C++ is parsed.
#pragma once

#include "runtime.h"

namespace cuda_on_cpu {

template <class... A>
struct Call {
  void (*kernel)(A...);
  void** arguments;

  template <size_t... I>
  __attribute__((no_sanitize_thread)) void unpack(std::index_sequence<I...>) {
    kernel(*static_cast<std::remove_cv_t<A>*>(arguments[I])...);
  }
  __attribute__((no_sanitize_thread)) static void body(void* call) {
    static_cast<Call*>(call)->unpack(std::index_sequence_for<A...>{});
  }
};

template <class... A>
__attribute__((no_sanitize_thread)) int launch(void (*kernel)(A...), Launch* how,
                                               void** arguments) {
  Call<A...> call{kernel, arguments};
  return run(&Call<A...>::body, &call, how);
}

// "f4", "i8", "b1" as NumPy writes them, "v" for void, "s" and a size for a struct, "*f4" for
// float*.
template <class T>
void describe(char* text) {
  using U = std::remove_cv_t<T>;
  if constexpr (std::is_pointer<U>::value) {
    strcat(text, "*");
    describe<std::remove_pointer_t<U>>(text);
  } else if constexpr (std::is_void<U>::value) {
    strcat(text, "v");
  } else {
    const char* kind = std::is_same<U, bool>::value       ? "b"
                       : std::is_floating_point<U>::value ? "f"
                       : !std::is_integral<U>::value      ? "s"
                       : std::is_signed<U>::value         ? "i"
                                                          : "u";
    sprintf(text + strlen(text), "%s%d", kind, int(sizeof(U)));
  }
}

template <class... A>
const char* signature(void (*)(A...)) {
  static char text[512];
  text[0] = 0;
  ((describe<A>(text), strcat(text, ",")), ...);
  return text;
}

struct Kernel {
  const char* name;
  const char* signature;
  int max_threads;         // of __launch_bounds__
  const char* restricted;  // a letter for each parameter: see module.py
  int (*launch)(Launch*, void**);
};

}  // namespace cuda_on_cpu

#define CUDA_ON_CPU_KERNEL(name, max_threads, restricted)         \
  {#name, cuda_on_cpu::signature(&name), max_threads, restricted, \
   [](cuda_on_cpu::Launch* how, void** arguments) {               \
     return cuda_on_cpu::launch(&name, how, arguments);           \
   }}
#define CUDA_ON_CPU_TABLE                                                                      \
  extern "C" __attribute__((visibility("default"))) cuda_on_cpu::Kernel cuda_on_cpu_kernels[]; \
  cuda_on_cpu::Kernel cuda_on_cpu_kernels[]
