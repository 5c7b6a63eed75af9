// Threads carry their names, cut to what Linux keeps.

#include "core/thread.hpp"

#include <gtest/gtest.h>

#include <array>

namespace ganglion::core {
namespace {

std::string name_of_this_thread() {
  std::array<char, 16> name{};
  EXPECT_EQ(::pthread_getname_np(::pthread_self(), name.data(), name.size()), 0);
  return name.data();
}

TEST(Thread, HasItsNameBeforeItsBodyRunsAndTheStarterKeepsItsOwn) {
  const std::string mine = name_of_this_thread();
  std::string name;
  start_thread("worker 0", [&] { name = name_of_this_thread(); }).join();
  EXPECT_EQ(name, "worker 0");
  EXPECT_EQ(name_of_this_thread(), mine);
}

TEST(Thread, ALongNameIsCut) {
  std::string name;
  start_thread("sink of a long name", [&] { name = name_of_this_thread(); }).join();
  EXPECT_EQ(name, "sink of a long ");
}

}  // namespace
}  // namespace ganglion::core
