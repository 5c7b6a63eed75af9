// Choosing a device, with and without a GPU; and the arena's bookkeeping, where there is one.

#include "tests/unit/backends/local/cuda/device_fixture.hpp"

namespace ganglion::local {
namespace {

TEST(ParseDevices, CpuNeedsNoGpu) {
  const auto devices = parse_devices("cpu");
  ASSERT_TRUE(devices);
  EXPECT_TRUE(devices->empty());
}

TEST(ParseDevices, RefusesWhatIsNotThere) {
  for (const char* bad : {"", "gpu", "cuda", "cuda:", "cuda:x", "cuda:-1", "cuda:0x", " cpu", "auto", "cuda:0,",
                          "cuda:0,0", "cuda:0 1", "cuda:0;1"}) {
    const auto devices = parse_devices(bad);
    ASSERT_FALSE(devices) << bad;
    EXPECT_EQ(devices.error().kind, core::ErrorKind::invalid_value) << bad;
    EXPECT_EQ(devices.error().param, "device");
  }
  const auto devices = parse_devices("cuda:98,99");
  ASSERT_FALSE(devices);
  EXPECT_EQ(devices.error().kind, core::ErrorKind::unsupported);
}

class ArenaTest : public DeviceTest {};

TEST_F(ArenaTest, PartsAreZeroedAlignedAndComeBack) {
  const auto take = [&](std::size_t bytes) {
    auto buffer = arena->take(bytes, "a test");
    EXPECT_TRUE(buffer);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(buffer->data()) % 256, 0u);
    for (std::uint8_t byte : down<std::uint8_t>(buffer->data(), bytes)) EXPECT_EQ(byte, 0);
    cudaMemset(buffer->data(), 0xff, bytes);
    cudaDeviceSynchronize();
    return std::move(*buffer);
  };
  auto a = take(1000);
  const void* first = a.data();
  auto b = take(5000), c = take(300);
  const std::size_t held = arena->held();
  b = {};
  a = {};
  // The two neighbours are one part again.
  const auto d = take(6000);
  EXPECT_EQ(d.data(), first);
  EXPECT_EQ(arena->held(), held);
}

TEST_F(ArenaTest, TooMuchIsAnErrorThatNamesTheUse) {
  const auto huge = arena->take(std::size_t{1} << 50, "something large");
  ASSERT_FALSE(huge);
  EXPECT_EQ(huge.error().kind, core::ErrorKind::overloaded);
  EXPECT_NE(huge.error().message.find("something large"), std::string::npos);
  EXPECT_TRUE(arena->take(100, "something small")) << "the failure is not remembered";
}

}  // namespace
}  // namespace ganglion::local
