// libFuzzer entry; the properties are in tests/fuzz/properties.hpp.

#include <cstddef>
#include <cstdint>

#include "tests/fuzz/properties.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  ganglion::fuzz::check_openai_request({reinterpret_cast<const char*>(data), size});
  return 0;
}
