#pragma once
// GW_ASSERT: a programmer's error ends the process, in release builds too. Never for input.

#include <cstdio>
#include <cstdlib>

#define GW_ASSERT(condition)                                                                 \
  do {                                                                                       \
    if (!(condition)) [[unlikely]] {                                                         \
      std::fprintf(stderr, "%s:%d: assertion failed: %s\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                                          \
    }                                                                                        \
  } while (false)
