// Run-time choice of the kernel table. __builtin_cpu_supports also checks that the system saves the wide registers.

#include "backends/local/kernels/cpu/dispatch.hpp"

namespace ganglion::local {

#if defined(__x86_64__)
bool isa_supported(Isa isa) {
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  switch (isa) {
    case Isa::scalar:
      return true;
    case Isa::avx2:
      return avx2;
    case Isa::avx512:
      return avx512;
    case Isa::avx512_vnni:
      return avx512 && __builtin_cpu_supports("avx512vnni");
  }
  return false;
}

const Kernels& kernels_for(Isa isa) {
  switch (isa) {
    case Isa::scalar:
      return scalar_kernels();
    case Isa::avx2:
      return avx2_kernels();
    case Isa::avx512:
      return avx512_kernels();
    case Isa::avx512_vnni:
      return avx512_vnni_kernels();
  }
  return scalar_kernels();
}
#else
bool isa_supported(Isa isa) {
  return isa == Isa::scalar;
}
const Kernels& kernels_for(Isa) {
  return scalar_kernels();
}
#endif

Isa best_isa() {
  for (Isa isa : {Isa::avx512_vnni, Isa::avx512, Isa::avx2}) {
    if (isa_supported(isa)) return isa;
  }
  return Isa::scalar;
}

std::string_view isa_name(Isa isa) {
  switch (isa) {
    case Isa::scalar:
      return "scalar";
    case Isa::avx2:
      return "avx2";
    case Isa::avx512:
      return "avx512";
    case Isa::avx512_vnni:
      return "avx512-vnni";
  }
  return "?";
}

}  // namespace ganglion::local
