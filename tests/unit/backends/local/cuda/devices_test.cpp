// Choosing a device, with and without a GPU; and the arena's bookkeeping, where there is one.

#include "tests/unit/backends/local/cuda/device_fixture.hpp"

namespace ganglion::local {
namespace {

TEST(ChooseDevice, CpuNeedsNoGpu) {
  std::string reason;
  const auto device = choose_device("cpu", reason);
  ASSERT_TRUE(device);
  EXPECT_EQ(*device, -1);
  EXPECT_EQ(reason, "");
}

TEST(ChooseDevice, AutoFallsBackAndSaysWhy) {
  std::string reason;
  const auto device = choose_device("auto", reason);
  ASSERT_TRUE(device);
  if (find_devices()) {
    EXPECT_GE(*device, 0);
    EXPECT_EQ(reason, "");
  } else {
    EXPECT_EQ(*device, -1);
    EXPECT_NE(reason.find("no usable GPU"), std::string::npos) << reason;
  }
}

TEST(ChooseDevice, RefusesWhatIsNotThere) {
  std::string reason;
  for (const char* bad : {"", "gpu", "cuda", "cuda:", "cuda:x", "cuda:-1", "cuda:0x", " cpu"}) {
    const auto device = choose_device(bad, reason);
    ASSERT_FALSE(device) << bad;
    EXPECT_EQ(device.error().kind, core::ErrorKind::invalid_value) << bad;
    EXPECT_EQ(device.error().param, "device");
  }
  const auto device = choose_device("cuda:99", reason);
  ASSERT_FALSE(device);
  EXPECT_EQ(device.error().kind, core::ErrorKind::unsupported);
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
