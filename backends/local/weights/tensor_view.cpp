// Names and sizes of the element types, as the safetensors format spells them.

#include "backends/local/weights/tensor_view.hpp"

#include <array>
#include <utility>

namespace ganglion::local {
namespace {

struct DtypeFacts {
  Dtype dtype;
  std::string_view name;
  int bits;
};

constexpr std::array kDtypes = {
    DtypeFacts{Dtype::f64, "F64", 64},        DtypeFacts{Dtype::f32, "F32", 32},
    DtypeFacts{Dtype::f16, "F16", 16},        DtypeFacts{Dtype::bf16, "BF16", 16},
    DtypeFacts{Dtype::f8_e4m3, "F8_E4M3", 8}, DtypeFacts{Dtype::f8_e5m2, "F8_E5M2", 8},
    DtypeFacts{Dtype::f8_e8m0, "F8_E8M0", 8}, DtypeFacts{Dtype::f6_e2m3, "F6_E2M3", 6},
    DtypeFacts{Dtype::f6_e3m2, "F6_E3M2", 6}, DtypeFacts{Dtype::f4, "F4", 4},
    DtypeFacts{Dtype::i64, "I64", 64},        DtypeFacts{Dtype::i32, "I32", 32},
    DtypeFacts{Dtype::i16, "I16", 16},        DtypeFacts{Dtype::i8, "I8", 8},
    DtypeFacts{Dtype::u64, "U64", 64},        DtypeFacts{Dtype::u32, "U32", 32},
    DtypeFacts{Dtype::u16, "U16", 16},        DtypeFacts{Dtype::u8, "U8", 8},
    DtypeFacts{Dtype::boolean, "BOOL", 8},    DtypeFacts{Dtype::c64, "C64", 64},
};

consteval bool in_enum_order() {
  for (std::size_t i = 0; i < kDtypes.size(); ++i) {
    if (static_cast<std::size_t>(kDtypes[i].dtype) != i) return false;
  }
  return true;
}
static_assert(in_enum_order());

}  // namespace

int dtype_bits(Dtype dtype) {
  return kDtypes[std::to_underlying(dtype)].bits;
}

std::string_view dtype_name(Dtype dtype) {
  return kDtypes[std::to_underlying(dtype)].name;
}

std::optional<Dtype> dtype_from_name(std::string_view name) {
  for (const DtypeFacts& facts : kDtypes) {
    if (facts.name == name) return facts.dtype;
  }
  return std::nullopt;
}

std::string shape_text(std::span<const std::int64_t> shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) {
    if (i > 0) text += ", ";
    text += std::to_string(shape[i]);
  }
  return text + "]";
}

}  // namespace ganglion::local
