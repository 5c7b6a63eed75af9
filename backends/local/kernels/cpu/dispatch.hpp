#pragma once
// Picks the kernel table for the processor at hand.

#include <string_view>

#include "backends/local/kernels/cpu/table.hpp"

namespace ganglion::local {

bool isa_supported(Isa isa);  // processor and operating system can run it, and it was compiled in
Isa best_isa();
const Kernels& kernels_for(Isa isa);  // isa must be supported
std::string_view isa_name(Isa isa);

}  // namespace ganglion::local
