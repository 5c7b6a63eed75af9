// libFuzzer entry; the properties are in tests/fuzz/http1_property.hpp.

#include <cstddef>
#include <cstdint>

#include "tests/fuzz/http1_property.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  ganglion::fuzz::check_http1_chunk({reinterpret_cast<const char*>(data), size});
  return 0;
}
