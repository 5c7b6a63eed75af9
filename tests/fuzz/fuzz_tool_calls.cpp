// libFuzzer entry; the property is in tests/fuzz/local_property.hpp.

#include <cstddef>
#include <cstdint>

#include "tests/fuzz/local_property.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  ganglion::fuzz::check_tool_calls({reinterpret_cast<const char*>(data), size});
  return 0;
}
