#pragma once
// The table over the functions above. Same inclusion rules as kernels_gemm.hpp.

constexpr Kernels make_table(Isa isa) {
  return {isa,
          &float_panel_any<LoadF32>,
          &float_panel_any<LoadBf16>,
          &float_panel_any<LoadF16>,
          &int8_panel_any,
          &attend,
          &quantize_group,
          &rms_norm,
          &layer_norm,
          &rope,
          &silu_mul,
          &gelu_tanh_mul,
          &gelu,
          &relu,
          &soft_cap,
          &add,
          &softmax,
          &max_row,
          &sum_exp,
          &widen_bf16,
          &widen_f16,
          &narrow_f16};
}
